"""What executes each model: chosen where it is served, as the fastest way that keeps the scores.

An export is the same for every machine. Its encoders have `execution: "auto"` in `config.pbtxt`, and the reference rows
beside the manifest hold natural inputs with the reference's scores. Before Triton starts, `serve` measures on them what
this machine has, in a process of its own; it remembers the outcome, and gives Triton a repository of links in which
each configuration says what was chosen, and why.
"""

from lychee_server.execution.budget import format_budget, parse_budget
from lychee_server.execution.choice import Choice
from lychee_server.execution.device import Device, has_gpu
from lychee_server.execution.serving import Served, serve, with_choice, without_choice

__all__ = [
    "Choice",
    "Device",
    "Served",
    "format_budget",
    "has_gpu",
    "parse_budget",
    "serve",
    "with_choice",
    "without_choice",
]
