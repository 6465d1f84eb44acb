"""Checks of files on this machine: the model repository, its configurations, and who may read and write what."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lychee_client import ContractError
from lychee_client.checks import CheckContext, CheckResult, CheckSkipped, Verdict, existing_folder
from lychee_client.manifest import parse_manifest
from lychee_client.repository import ASSETS_MODEL, MANIFEST_FILENAME, newest_version

from lychee_server import defaults, state
from lychee_server.doctor.config_lint import lint_repository

DEFAULT_REPOSITORY: Final = Path("model_repository")
NAMED_PATHS: Final = 3


def find_repository(context: CheckContext) -> Path:
    """Return the repository: the one that was asked for, that of the running server, or the one in this folder.

    Raises:
        CheckSkipped: There is none.
    """
    if context.repository is not None:
        return context.repository
    known = state.read_state()
    if known is not None and known.is_running():
        return Path((known.find_triton(context.address[1]) or known.first).repository)
    if DEFAULT_REPOSITORY.is_dir():
        return DEFAULT_REPOSITORY
    raise CheckSkipped("no model repository here; name one with --repository")


def walk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the folder and all below it with what the file system says; nothing if it does not exist."""
    for path in (folder, *sorted(folder.rglob("*"))):
        try:
            yield path, path.lstat()
        except FileNotFoundError:  # it went meanwhile
            continue


def check_repository(context: CheckContext) -> Iterator[CheckResult]:
    """The server runs what the repository holds."""
    repository = find_repository(context)
    assets = repository / ASSETS_MODEL
    path = newest_version(assets) / MANIFEST_FILENAME
    export = "run `lychee export` to write it"
    try:
        exported = parse_manifest(path.read_text(encoding="utf-8")).identity
    except FileNotFoundError:
        yield CheckResult("repository", "failed", f"{path} is missing", export)
        return
    except (OSError, ValueError, ContractError) as error:
        seen = f"{path} is no manifest: {error}"
        yield CheckResult("repository", "failed", seen, export)
        return
    served = context.manifest.identity
    differences = [
        f"{name} is {getattr(served, name)} there and {getattr(exported, name)} here"
        for name in ("model_id", "revision", "precision")
        if getattr(served, name) != getattr(exported, name)
    ]
    names = {*exported.artifacts, *served.artifacts}
    changed = sorted(name for name in names if served.artifacts.get(name) != exported.artifacts.get(name))
    if changed:
        differences.append(f"other content: {', '.join(changed)}")
    if not differences:
        yield CheckResult("repository", "ok", f"the server runs what {repository} holds: {served.model_id}")
    elif _is_served_here(context, repository):
        seen = f"the server still runs an older export than {repository} holds: {'; '.join(differences)}"
        yield CheckResult("repository", "failed", seen, "restart it: `lychee stop`, then `lychee load`")
    else:
        seen = f"{context.url} runs something else than {repository} holds: {'; '.join(differences)}"
        yield CheckResult("repository", "warning", seen, "name the server's own repository with --repository")


def _is_served_here(context: CheckContext, repository: Path) -> bool:
    known = state.read_state()
    triton = None if known is None or not known.is_running() else known.find_triton(context.address[1])
    return triton is not None and Path(triton.repository).resolve() == repository.resolve()


def check_permissions(context: CheckContext) -> Iterator[CheckResult]:
    """Triton can read its models, `lychee load` can write its files, and nobody else can."""
    sound = True
    private = {"state": defaults.state_dir(), "cache": defaults.cache_dir()}
    for kind, folder in private.items():
        nearest = existing_folder(folder)
        if not os.access(nearest, os.W_OK | os.X_OK):
            sound = False
            advice = f"make it writable, or set LYCHEE_{kind.upper()}_DIR"
            yield CheckResult("permissions", "failed", f"{nearest}, for the {kind}, is not writable", advice)
    exposed = [path for folder in private.values() for path, about in walk(folder) if _is_world_writable(about)]
    if exposed:
        sound = False
        seen = f"{_name_some(exposed)} can be written by everyone, who then decides what `lychee` runs and stops"
        yield CheckResult("permissions", "failed", seen, f"chmod -R o-w {' '.join(map(str, private.values()))}")
    try:
        repository = find_repository(context)
    except CheckSkipped:
        read = "state and cache"
    else:
        read = f"{repository}, state and cache"
        unreadable = [path for path, _ in walk(repository) if not _is_readable(path)]
        if unreadable:
            sound = False
            seen = f"{_name_some(unreadable)} cannot be read"
            yield CheckResult("permissions", "failed", seen, f"chmod -R u+rX {repository}")
    if sound:
        yield CheckResult("permissions", "ok", f"{read} can be used; only their owner's group may write")


def _is_world_writable(about: os.stat_result) -> bool:
    return not stat.S_ISLNK(about.st_mode) and bool(about.st_mode & stat.S_IWOTH)


def _is_readable(path: Path) -> bool:
    return os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0))


def _name_some(paths: list[Path]) -> str:
    named = ", ".join(map(str, paths[:NAMED_PATHS]))
    return named if len(paths) <= NAMED_PATHS else f"{named} and {len(paths) - NAMED_PATHS} more"


def check_config(context: CheckContext) -> Iterator[CheckResult]:
    """Every configuration in the repository can be read and does what it says, and the models' files are there."""
    repository = find_repository(context)
    count, problems = lint_repository(repository)
    for problem in problems:
        verdict: Verdict = "failed" if problem.severity == "error" else "warning"
        yield CheckResult("config", verdict, problem.seen, problem.advice)
    if not problems:
        yield CheckResult("config", "ok", f"{count} files in {repository} are sound")
