"""The command `lychee` as a group: every command ends as `outcome` says, and one that is not installed has its name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import typer
from typer.core import TyperGroup

from lychee_client.cli.outcome import finish, report, reported_errors

COMES_WITH: Final = {
    "ab-report": "lychee-rerank[evaluate]",
    "autoscale-sim": "lychee-rerank[loadtest]",
    "bulk": "lychee-rerank[bulk]",
    "calibrate": "lychee-rerank[evaluate]",
    "export": "lychee-rerank[export]",
    "gateway": "lychee-rerank[server]",
    "instructions": "lychee-rerank[evaluate]",
    "load": "lychee-rerank[server]",
    "memory": "lychee-rerank[loadtest]",
    "models": "lychee-rerank[server]",
    "quickstart": "lychee-rerank[all]",
    "report": "lychee-rerank[loadtest]",
    "rollback": "lychee-rerank[server]",
    "sample": "lychee-rerank[evaluate]",
    "status": "lychee-rerank[server]",
    "stop": "lychee-rerank[server]",
    "tune": "lychee-rerank[loadtest]",
    "upgrade": "lychee-rerank[server]",
    "verify": "lychee-rerank[export]",
}
"""What to install for the commands of the other distributions."""


class CommandGroup(TyperGroup):
    """Reports every error in one way, and says what to install for a command that is not there."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """See click. With `standalone_mode` it ends the process, as `outcome` says."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        code: object
        try:
            with reported_errors():
                code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.Exit as error:
            code = error.exit_code
        except Exception as error:
            code = report(error)
        sys.exit(finish(code))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See click."""
        requirement = COMES_WITH.get(args[0])
        if requirement is not None and args[0] not in self.commands and not ctx.resilient_parsing:
            ctx.fail(f'`lychee {args[0]}` is not installed; run: pip install "{requirement}"')
        return super().resolve_command(ctx, args)
