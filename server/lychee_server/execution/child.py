"""A module of this folder as a process of its own: what a provider breaks, it breaks there, and its memory is freed."""

import subprocess
import sys


def run_module(name: str, text: str, timeout_s: float, *, doing: str) -> tuple[str, str]:
    """Run a module of this folder, with a text for its standard input.

    Args:
        name: The module.
        text: What it reads.
        timeout_s: How long it may take.
        doing: What it does, for messages: "measuring".

    Returns:
        The last line that it printed, and why it failed; empty if it did not.
    """
    command = [sys.executable, "-m", f"{__package__}.{name}"]
    try:
        ended = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return "", f"{doing} took more than {timeout_s:g} s"
    if ended.returncode != 0:
        last = ended.stderr.strip().rpartition("\n")[2]
        ended_by = f"signal {-ended.returncode}" if ended.returncode < 0 else f"exit code {ended.returncode}"
        return "", f"{doing} ended with {ended_by}: {last}"
    return ended.stdout.strip().rpartition("\n")[2], ""
