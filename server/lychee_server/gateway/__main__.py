"""`python -m lychee_server.gateway` is `lychee gateway`."""

import typer

from lychee_server.gateway.cli import gateway

typer.run(gateway)
