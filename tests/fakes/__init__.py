"""Transports that answer like a server, without one."""
