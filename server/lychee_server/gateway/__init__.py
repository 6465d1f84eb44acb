"""The gateway: REST, health, metrics and the web page in front of a Triton server."""
