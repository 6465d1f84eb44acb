"""Measure a gateway with NVIDIA's AIPerf, in each shape of request that it speaks; print a table, write JSON.

    python -m lychee_loadtest.speed.aiperf_bench --prepare    # once: AIPerf's environment, which needs a package index
    python -m lychee_loadtest.speed.aiperf_bench              # measure

Starts Triton and a gateway of its own on free ports. The passages are AIPerf's: cuts of Shakespeare in tokens of the
served model, none of them sent twice. A number says nothing without its machine, so both are written together.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from lychee_client.repository import ASSETS_MODEL, read_manifest
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput

from lychee_loadtest.compare.environments import Environment, PreparationError
from lychee_loadtest.folders import REPOSITORY, RESULTS, write_record
from lychee_loadtest.machine import describe_machine
from lychee_loadtest.speed.aiperf import (
    ENDPOINT_TYPES,
    ExportError,
    Load,
    Outcome,
    format_table,
    make_command,
    make_variables,
    read_export,
    write_tokenizer,
)
from lychee_loadtest.speed.gateway_bench import Gateway, run_gateway

_REQUIREMENTS: Final = Path(__file__).with_name("aiperf_requirements.txt")
_LAST_LINES: Final = 30


def measure(environment: Environment, gateway: Gateway, endpoint_types: Sequence[str], load: Load) -> Iterator[Outcome]:
    """Run AIPerf once for each shape; a shape that nothing could be measured with is named and left out.

    Raises:
        PreparationError: No model was exported.
    """
    manifest = read_manifest(REPOSITORY)
    if manifest is None:
        raise PreparationError(f"{REPOSITORY} has no manifest; export the model again")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tokenizer(folder / "tokenizer", fetch_tokenizer(gateway.triton_url))
        for seed, endpoint_type in enumerate(endpoint_types):
            print(f"{endpoint_type} ...", flush=True)
            command = make_command(
                environment.path / "bin" / "aiperf",
                gateway.url,
                manifest.model_id,
                endpoint_type,
                load,
                tokenizer=folder / "tokenizer",
                folder=folder / endpoint_type,
                seed=seed,
            )
            variables = make_variables(folder / "home")
            done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            try:
                yield read_export(folder / endpoint_type, endpoint_type)
            except ExportError as error:
                print(*done.stdout.splitlines()[-_LAST_LINES:], error, sep="\n", file=sys.stderr)


def fetch_tokenizer(triton_url: str) -> str:
    """Return the served model's tokenizer."""
    with InferenceServerClient(triton_url) as client:
        answer = client.infer(ASSETS_MODEL, [], outputs=[InferRequestedOutput("tokenizer")])
    content: bytes = answer.as_numpy("tokenizer").item()
    return content.decode("utf-8")


def main() -> int:
    """Print the table, write the JSON file, and return 1 if a request failed or a shape could not be measured."""
    standard = Load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="make the environment, and measure nothing")
    parser.add_argument("--endpoint-types", nargs="+", default=ENDPOINT_TYPES, choices=ENDPOINT_TYPES, metavar="TYPE")
    parser.add_argument("--concurrency", type=int, default=standard.concurrency, help="callers at the same time")
    parser.add_argument("--requests", type=int, default=standard.requests, help="after the warm-up")
    parser.add_argument("--warm-up", type=int, default=standard.warm_up, help="requests that do not count")
    parser.add_argument("--passages", type=int, default=standard.passages, help="of a request")
    parser.add_argument("--passage-tokens", type=int, default=standard.passage_tokens)
    parser.add_argument("--folder", type=Path, default=Path(".compare"), help="holds AIPerf's environment")
    parser.add_argument("--output", type=Path, default=RESULTS / "aiperf.json")
    arguments = parser.parse_args()
    environment = Environment("aiperf", arguments.folder.absolute(), _REQUIREMENTS)
    load = Load(
        arguments.concurrency, arguments.requests, arguments.warm_up, arguments.passages, arguments.passage_tokens
    )
    try:
        if arguments.prepare:
            environment.prepare()
            return 0
        if not environment.is_ready():
            raise PreparationError(f"{environment.path} is not AIPerf's environment; run this with --prepare once")
        machine = describe_machine()
        print(f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}; AIPerf, gateway and Triton share them")
        with run_gateway() as gateway:
            outcomes = list(measure(environment, gateway, arguments.endpoint_types, load))
    except PreparationError as error:
        print(error, file=sys.stderr)
        return 1
    print(format_table(outcomes, load.passages))
    for outcome in outcomes:
        for reason in outcome.reasons:
            print(f"{outcome.endpoint_type}: {reason}")
    record = {"machine": machine, "load": asdict(load), "outcomes": [asdict(outcome) for outcome in outcomes]}
    write_record(arguments.output, record)
    complete = len(outcomes) == len(arguments.endpoint_types) and not any(outcome.errors for outcome in outcomes)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
