"""Stand-ins for what lies outside the product, each a real server on loopback that is spoken to over HTTP."""
