"""What arrives: a short function for each operation id, and for each kind of job."""
