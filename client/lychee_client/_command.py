"""The program `lychee`, which says what is missing where the libraries of the command line are not installed."""

from __future__ import annotations

import sys
from typing import Final

CLI_LIBRARIES: Final = ("rich", "typer")
EXIT_INTERRUPTED: Final = 130


def main() -> None:
    """Run the command line; exit with 2 and a line that says what to install where the extra `cli` is not there."""
    try:
        from lychee_client import cli
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        if library not in CLI_LIBRARIES:
            raise
        print(f"lychee: {library} is not installed; run: pip install 'lychee-rerank-client[cli]'", file=sys.stderr)
        sys.exit(2)
    try:
        cli.main()
    except KeyboardInterrupt:  # while the distributions' commands are imported
        sys.exit(EXIT_INTERRUPTED)
