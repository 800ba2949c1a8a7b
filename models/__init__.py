"""What the business knows: tables and their rules. Pure: no web, no socket, no file, no environment."""
