"""Start a server, load it for two minutes over all three transports, check the limits, stop the server.

Writes JSON, HTML and a chart into loadtest/results/, prints the table, and ends with Locust's exit code: 0 if all
limits held. Locust, gateway and Triton share the machine: these limits say that everything works under load, not how
fast the server could be.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from lychee_loadtest.folders import REPOSITORY, RESULTS

FOLDER: Final = Path(__file__).parent
PROGRAMS: Final = Path(sys.executable).parent
USERS: Final = ("GrpcUser", "TritonHttpUser", "RestUser", "GrpcBulkUser")
STOP_TIMEOUT_S: Final = 120
"""For the bulk call that is under way when the time is over."""


@contextmanager
def run_server() -> Iterator[dict[str, Any]]:
    """Start Triton and the gateway on free ports, with a state folder of their own; yield `lychee status --json`."""
    ports = [f"--{name}=0" for name in ("http-port", "grpc-port", "metrics-port", "port")]
    lychee = str(PROGRAMS / "lychee")
    with tempfile.TemporaryDirectory() as state_dir:
        environment = os.environ | {"LYCHEE_STATE_DIR": state_dir}
        load = [lychee, "load", "--no-web", "--repository", str(REPOSITORY), "--log-level", "ERROR"]
        try:
            subprocess.run([*load, *ports], env=environment, check=True, stdout=subprocess.DEVNULL)
            known = subprocess.run([lychee, "status", "--json"], env=environment, check=True, stdout=subprocess.PIPE)
            yield json.loads(known.stdout)
        finally:
            subprocess.run([lychee, "stop"], env=environment, check=True, stdout=subprocess.DEVNULL)


def locust_command(status: dict[str, Any], arguments: argparse.Namespace) -> list[str]:
    """Return Locust's command line for a running server."""
    output: Path = arguments.output
    return [
        str(PROGRAMS / "locust"),
        f"--locustfile={FOLDER / 'locustfile.py'}",
        "--headless",
        "--only-summary",
        f"--host={status['gateway']['url']}",
        f"--grpc-url={status['grpc_url']}",
        f"--http-url=http://{status['http_url']}",
        f"--users={len(USERS)}",
        f"--spawn-rate={len(USERS)}",
        f"--run-time={arguments.seconds}s",
        f"--stop-timeout={STOP_TIMEOUT_S}",
        f"--window-s={max(1, min(5, arguments.seconds // 5))}",
        f"--bulk-documents={arguments.bulk_documents}",
        f"--limits={arguments.limits}",
        f"--results={output}",
        f"--html={output.with_suffix('.html')}",
        *USERS,
    ]


def main() -> int:
    """Run it; return Locust's exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=120, help="length of the load")
    parser.add_argument("--bulk-documents", type=int, default=1000, help="of each bulk call")
    parser.add_argument("--limits", type=Path, default=FOLDER / "smoke.toml", help="TOML file")
    parser.add_argument("--output", type=Path, default=RESULTS / "smoke.json", help="JSON; HTML and PNG beside it")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)  # so that the server is stopped then, too
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.unlink(missing_ok=True)
    with run_server() as status:
        code = subprocess.run(locust_command(status, arguments)).returncode
    if not arguments.output.exists():
        return code or 1
    reported = subprocess.run([str(PROGRAMS / "lychee"), "report", str(arguments.output)]).returncode
    return code or reported


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
