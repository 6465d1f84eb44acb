"""How the gateway and the server behind it are, and were in the last quarter of an hour."""
