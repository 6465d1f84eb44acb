"""A call to a gateway, as requests to its REST API."""
