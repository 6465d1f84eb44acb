"""Who listens on which port of this machine."""

import psutil


def find_listeners() -> dict[int, tuple[int | None, str]]:
    """Return who listens on which TCP port of this machine: pid and program, as far as this user may know."""
    listeners: dict[int, tuple[int | None, str]] = {}
    for connection in psutil.net_connections(kind="tcp"):
        if connection.status != psutil.CONN_LISTEN or not connection.laddr:
            continue
        try:
            program = psutil.Process(connection.pid).name() if connection.pid else "another user's program"
        except psutil.NoSuchProcess:
            continue
        listeners[connection.laddr.port] = (connection.pid, program)
    return listeners
