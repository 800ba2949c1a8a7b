"""What the server is held against: the same SQL and JSON, and nothing of what a product adds."""
