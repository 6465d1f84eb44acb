"""What a check of `lychee doctor` is, and what it finds.

Other distributions add checks through the entry-point group "lychee.checks": a function that takes the context and
yields results. It may raise CheckSkipped, and whatever else it raises becomes a result too. One distribution, that of
the server, writes the support bundle, through the group "lychee.support".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

from lychee_client._config import SCHEMES
from lychee_client._errors import LycheeError
from lychee_client.golden import GoldenReport
from lychee_client.manifest.manifest import Manifest
from lychee_client.types import ServerStatus

__all__ = [
    "MACHINE_CHECKS",
    "Check",
    "CheckContext",
    "CheckResult",
    "CheckSkipped",
    "CheckedServer",
    "Verdict",
    "contributed_checks",
    "existing_folder",
    "find_bundle_writer",
    "run_checks",
]

CHECKS_GROUP: Final = "lychee.checks"
SUPPORT_GROUP: Final = "lychee.support"
# What lychee-rerank-server adds; named here so that the doctor can say what it could not check.
MACHINE_CHECKS: Final = ("repository", "ports", "gateway", "state", "permissions", "disk", "memory", "gpu", "config")

Verdict: TypeAlias = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: What was checked, in one to three words.
        verdict: "failed" needs a remedy; "warning" works, but not as it should.
        seen: What was found; for "skipped", why the check was not made.
        advice: What to do about it; empty if there is nothing to do.
    """

    name: str
    verdict: Verdict
    seen: str
    advice: str = ""


class CheckSkipped(Exception):  # noqa: N818 - it is no error
    """Raised by a check that cannot be made here. The message says why."""


class WriteBundle(Protocol):
    """Writes a support bundle, a ZIP file."""

    def __call__(self, *, checks: Sequence[CheckResult], repository: Path | None) -> bytes:
        """Return the bundle.

        Args:
            checks: What the doctor found.
            repository: The model repository; None leaves it to the bundle to find it.
        """
        ...


class CheckedServer(Protocol):
    """What the checks need of a client."""

    def manifest(self) -> Manifest:
        """See LycheeClient."""
        ...

    def server_status(self) -> ServerStatus:
        """See LycheeClient."""
        ...

    def check_golden_pairs(self) -> GoldenReport:
        """See LycheeClient."""
        ...


class CheckContext:
    """What the checks are about. The server is asked once, when the first check needs the answer.

    Args:
        client: The client that asks the server.
        url: The URL of that server, with or without a scheme.
        repository: The folder of the model repository on this machine; None leaves it to the checks to find it.
    """

    def __init__(self, client: CheckedServer, url: str, repository: Path | None = None) -> None:
        self.client = client
        self.url = url
        self.repository = repository

    @cached_property
    def status(self) -> ServerStatus:
        """What the server says about itself."""
        return self.client.server_status()

    @cached_property
    def manifest_or_error(self) -> Manifest | LycheeError:
        """The server's manifest, or why there is none.

        Raises:
            CheckSkipped: The server does not answer.
        """
        if not self.status.live:
            raise CheckSkipped("the server does not answer")
        if self.status.gateway:
            raise CheckSkipped("a gateway answers in Triton's place; name Triton's own address with --url to check it")
        try:
            return self.client.manifest()
        except LycheeError as error:
            return error

    @property
    def manifest(self) -> Manifest:
        """The server's manifest.

        Raises:
            CheckSkipped: The manifest could not be fetched or read.
        """
        if isinstance(self.manifest_or_error, LycheeError):
            raise CheckSkipped("the server's manifest could not be read")
        return self.manifest_or_error

    @property
    def scheme(self) -> str:
        """The protocol of the URL."""
        return self._first.partition("://")[0] if "://" in self._first else SCHEMES[0]

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port of the URL, of replicas those of the first."""
        parts = urlsplit(self._first if "://" in self._first else f"//{self._first}")
        return parts.hostname or "", parts.port or (443 if self.scheme == "https" else 80)

    @property
    def _first(self) -> str:
        return self.url.removeprefix("dns:///").partition(",")[0]


Check: TypeAlias = Callable[[CheckContext], Iterable[CheckResult]]


def run_checks(checks: Mapping[str, Check], context: CheckContext) -> Iterator[CheckResult]:
    """Yield the results of all checks, as they come. A check that raises hides no other.

    Args:
        checks: The checks, by the name that the result gets if a check raises.
        context: What the checks are about.
    """
    for name, check in checks.items():
        try:
            yield from check(context)
        except CheckSkipped as reason:
            yield CheckResult(name, "skipped", str(reason))
        except Exception as error:
            seen = f"the check itself failed: {type(error).__name__}: {error}"
            yield CheckResult(name, "failed", seen, "see to the cause, or report the error as a bug")


def contributed_checks() -> dict[str, Check]:
    """Return the checks of other installed distributions, by the names of their entry points."""
    others = sorted(entry_points(group=CHECKS_GROUP), key=lambda entry_point: entry_point.name)
    if not others:
        return {"machine": _skip_machine_checks}
    return {entry_point.name: _load_when_run(entry_point) for entry_point in others}


def find_bundle_writer() -> WriteBundle | None:
    """Return what writes a support bundle; None where no installed distribution does."""
    for entry_point in entry_points(group=SUPPORT_GROUP):
        writer: WriteBundle = entry_point.load()
        return writer
    return None


def _load_when_run(entry_point: EntryPoint) -> Check:
    """Return a check that imports its distribution when it runs, so that a broken one is a result too."""

    def check(context: CheckContext) -> Iterable[CheckResult]:
        results: Iterable[CheckResult] = entry_point.load()(context)
        return results

    return check


def _skip_machine_checks(_: CheckContext) -> Iterator[CheckResult]:
    for name in MACHINE_CHECKS:
        advice = "on the server's machine: pip install lychee-rerank-server"
        yield CheckResult(name, "skipped", "lychee-rerank-server is not installed here", advice)


def existing_folder(path: Path) -> Path:
    """Return the path itself, or the nearest one above it that exists."""
    while not path.exists():
        path = path.parent
    return path
