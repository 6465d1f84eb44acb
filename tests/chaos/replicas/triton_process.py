"""One Triton on an address of its own until SIGTERM, as a pod runs it: nobody starts it again.

Usage: python -m chaos.replicas.triton_process REPOSITORY ADDRESS LOG
"""

from __future__ import annotations

import signal
import sys
import threading

from lychee_server import TritonServer


def main() -> None:
    """Start, say so, and wait."""
    repository, address, log_path = sys.argv[1:]
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with TritonServer(repository, host=address, config_name="cpu", log_path=log_path):
        print("ready", flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
