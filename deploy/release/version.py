"""The version of all distributions, from git's tags; each pyproject.toml asks for it, and an sdist keeps the answer."""

import subprocess
from pathlib import Path

RELEASE = "0.2.0"
"""Where git knows no tag: archives, contexts of images, shallow clones. The tag of a release must say the same."""

ROOT = Path(__file__).resolve().parents[2]


def describe() -> str | None:
    """Return what `git describe` says of this commit ("v0.2.0-3-g1aa5155"), or None without git, tags or a clone."""
    git = ["git", "-C", str(ROOT)]
    try:
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True)
        if Path(top.stdout.rstrip("\n")).resolve() != ROOT:  # a copy within another project, whose tags are not ours
            return None
        command = [*git, "describe", "--tags", "--long", "--match", "v[0-9]*"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def version(described: str | None) -> str:
    """Return a tag's version; of a commit after it, that version with the count of commits and the commit's id."""
    if described is None:
        return RELEASE
    tag, distance, commit = described.rsplit("-", 2)
    return tag.removeprefix("v") if distance == "0" else f"{tag.removeprefix('v')}.post{distance}+{commit}"
