"""A client on the fake transport for every test that wants one."""

from fakes.fixtures import cache_dir, client, transport

__all__ = ["cache_dir", "client", "transport"]
