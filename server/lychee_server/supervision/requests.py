"""What a command asks of the supervisor that runs, and how the answer travels: JSON, a line each."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

from lychee_server import presence
from lychee_server.errors import LycheeServerError

__all__ = ["Job", "UpgradeRequest", "ask_for_upgrade", "refuse"]

SAY: Final = "say"
FAILURE: Final = "failure"
DONE: Final = "done"


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """Serve another export, or the same one again, in the place of the one that is served.

    Attributes:
        model: The name of the one to be replaced; None: the first.
        repository: The folder of the other one, absolute; None: the same as before.
        config_name: The variant of the models' configurations; None: the same as before, and "": each `config.pbtxt`.
        force: Also where there seems to be too little memory for both.
    """

    model: str | None = None
    repository: str | None = None
    config_name: str | None = None
    force: bool = False

    @classmethod
    def parse(cls, line: str) -> UpgradeRequest:
        """Read what `format` wrote.

        Raises:
            LycheeServerError: It is anything else.
        """
        try:
            return cls(**json.loads(line)["upgrade"])
        except (KeyError, TypeError, ValueError) as error:
            raise LycheeServerError(
                f"the server that runs does not understand {line[:80]!r}; is it of another version? Restart it with "
                "`lychee stop` and `lychee load`"
            ) from error

    def format(self) -> str:
        """Return it as a line."""
        return json.dumps({"upgrade": asdict(self)})


class Job:
    """A request that the supervisor's loop carries out, and what it has to say meanwhile.

    Args:
        request: The request.
    """

    def __init__(self, request: UpgradeRequest) -> None:
        self.request = request
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def say(self, line: str) -> None:
        """Tell whoever has asked how far it is."""
        self._lines.put(json.dumps({SAY: line}))

    def end(self, failure: str | None = None) -> None:
        """Tell whoever has asked what came of it."""
        self._lines.put(json.dumps({DONE: True} if failure is None else {FAILURE: failure}))
        self._lines.put(None)

    def lines(self) -> Iterator[str]:
        """Yield what is said, until the end."""
        while (line := self._lines.get()) is not None:
            yield line


def refuse(reason: str) -> Iterator[str]:
    """Yield the answer to a request that is not carried out."""
    yield json.dumps({FAILURE: reason})


def ask_for_upgrade(marker: str, request: UpgradeRequest) -> Iterator[str]:
    """Have the supervisor of a marker carry out a request; yield what it says meanwhile.

    Raises:
        LycheeServerError: It failed, or nobody answers any more.
    """
    try:
        for line in presence.request(marker, request.format()):
            said = json.loads(line)
            if SAY in said:
                yield said[SAY]
            elif FAILURE in said:
                raise LycheeServerError(said[FAILURE])
            else:
                return
    except (OSError, ValueError, TypeError) as error:
        raise LycheeServerError(f"the supervisor does not answer ({error}); see `lychee status`") from error
    raise LycheeServerError("the supervisor ended before it was done; see `lychee status` and its log")
