"""What systemd wants to hear of a service of Type=notify; nothing happens where no systemd listens."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Final

__all__ = ["Notifier"]

BEAT_INTERVAL_S: Final = 5.0


class Notifier:
    """Speaks to the socket of NOTIFY_SOCKET.

    It is read once and taken out of the environment: the processes below are not the service.
    """

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        self._beaten_s = 0.0

    def send(self, message: str) -> None:
        """Send a line such as READY=1."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(message.encode(), self._address)

    def beat(self) -> None:
        """Tell the watchdog that this process lives; not more often than it needs to hear."""
        now_s = time.monotonic()
        if now_s - self._beaten_s >= BEAT_INTERVAL_S:
            self._beaten_s = now_s
            self.send("WATCHDOG=1")
