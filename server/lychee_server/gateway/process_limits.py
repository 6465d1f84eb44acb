"""What the gateway asks of the system for its process: open files, memory that is given back, few processors."""

from __future__ import annotations

import ctypes
import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

from lychee_server.gateway.connections import MAX_CONNECTIONS

SPARE_FILES: Final = 128  # for the model server, logs, photos
MMAP_THRESHOLD: Final = -3  # glibc's M_MMAP_THRESHOLD; see mallopt(3)
LARGE_BLOCK_BYTES: Final = 2**20
SESSION_NICENESS: Final = 10


def raise_file_limit() -> int:
    """Allow as many open files as the gateway uses, if the system lets it, and return how many connections fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft - SPARE_FILES))


def yield_to_model_server() -> None:
    """Have Linux give the model server more of the processors than this process.

    Niceness counts only within a session where the kernel groups by sessions, and `lychee load` gives gateway and
    Triton one each. So a decoding thread seems to get half of a core that Triton computes on, while Triton's other
    threads wait for it: beside eight pages at 600 dpi, a text's p99 fell from 487 to 92 ms with this, one run after the
    other on 2 busy cores. A session that is shared with others, such as a shell's, is left as it is.
    """
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # another system, or a kernel that does not group by sessions
            Path("/proc/self/autogroup").write_text(str(SESSION_NICENESS), encoding="ascii")


def give_back_large_blocks() -> None:
    """Have the C library give large blocks back to the system as soon as they are free.

    By itself glibc stops that after the first large block, and each decoding thread keeps what its largest image took:
    two PNGs of 64 megapixels and an alpha channel, decoded one after the other, made it 900 MiB instead of 600.
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
