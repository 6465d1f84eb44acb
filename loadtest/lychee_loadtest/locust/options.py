"""The options of a load test, beside Locust's own."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from lychee_loadtest.locust.shapes import SHAPES, ShapeName
from lychee_loadtest.locust.workload import WorkloadMix

__all__ = ["LoadOptions", "add_options", "read_options"]

_ENVIRONMENT_PREFIX: Final = "LYCHEE_LOADTEST_"
_MIX: Final = WorkloadMix()


@dataclass(frozen=True)
class LoadOptions:
    """See the help texts of `add_options`.

    Raises:
        ValueError: A value cannot be used.
    """

    mix: WorkloadMix
    grpc_url: str | None
    http_url: str | None
    bulk_users: int
    arrival_rate: float
    shape: ShapeName
    steps: int
    think_time_s: float
    timeout_s: float
    bulk_timeout_s: float
    seed: int
    window_s: float
    limits: Path | None
    results: Path | None

    def __post_init__(self) -> None:
        for name in ("bulk_users", "arrival_rate", "think_time_s"):
            _check(self, name, lambda value: value >= 0, "a number that is not negative")
        for name in ("timeout_s", "bulk_timeout_s", "window_s", "steps"):
            _check(self, name, lambda value: value > 0, "a number above 0")


def add_options(parser: Any) -> None:
    """Add the options to Locust's parser; each may come from the environment, as LYCHEE_LOADTEST_ and its name."""
    group = parser.add_argument_group("lychee-rerank", "Who is called, with what, and how often.")

    def add(name: str, help_text: str, default: Any = None, **more: Any) -> None:
        kind = {} if default is None or "choices" in more else {"type": type(default)}
        variable = _ENVIRONMENT_PREFIX + name.upper().replace("-", "_")
        group.add_argument(f"--{name}", help=help_text, default=default, env_var=variable, **kind, **more)

    add("grpc-url", "HOST:PORT of Triton's gRPC; without it there are no gRPC users. --host is the gateway's URL.")
    add("http-url", "http://HOST:PORT of Triton's HTTP; without it there are no HTTP users.")
    add("text-share", "Interactive calls with texts alone, from 0 to 1.", _MIX.text_share)
    add("image-share", "Interactive calls with images alone; what both shares leave is mixed.", _MIX.image_share)
    add("fresh-share", "Documents that no cache has seen; the others are the catalogue's.", _MIX.fresh_share)
    add("max-documents", "An interactive call has from 1 to so many.", _MIX.max_documents)
    add("bulk-users", "Users of each transport that send bulk calls without pause; they count in --users.", 1)
    add("bulk-documents", "Of each bulk call.", _MIX.bulk_documents)
    add("bulk-text-share", "Bulk calls with texts alone; the others are mixed.", _MIX.bulk_text_share)
    add("arrival-rate", "Interactive calls that arrive in a second, at random; 0: users call again and again.", 0.0)
    add("shape", "How the load changes over --run-time.", "constant", choices=SHAPES)
    add("steps", "Of --shape step.", 5)
    add("think-time-s", "Pause of an interactive user before its next call.", 0.0)
    add("timeout-s", "For an interactive call.", 30.0)
    add("bulk-timeout-s", "For a bulk call.", 600.0)
    add("seed", "Of everything that is drawn at random.", 0)
    add("window-s", "Length of the windows of the time course.", 5.0)
    add("limits", "TOML file with limits; a broken one ends the run with exit code 1.")
    add("results", "JSON file to write, for `lychee report`.")


def read_options(parsed: Namespace) -> LoadOptions:
    """Return the options of a command line.

    Raises:
        ValueError: A value cannot be used.
    """
    values = vars(parsed)
    mix = WorkloadMix(**{field.name: values[field.name] for field in fields(WorkloadMix)})
    own = {field.name: values[field.name] for field in fields(LoadOptions) if field.name != "mix"}
    for name in ("limits", "results"):
        own[name] = None if own[name] is None else Path(own[name])
    return LoadOptions(mix=mix, **own)


def _check(options: LoadOptions, name: str, is_good: Callable[[float], bool], expected: str) -> None:
    value = getattr(options, name)
    if not (math.isfinite(value) and is_good(value)):
        raise ValueError(f"--{name.replace('_', '-')} is {value}; expected {expected}")
