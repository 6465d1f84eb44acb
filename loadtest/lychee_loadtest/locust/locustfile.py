r"""Callers of Triton and of the gateway, for Locust.

    cd loadtest/lychee_loadtest/locust
    locust --locustfile locustfile.py --host http://localhost:7860
    locust --locustfile locustfile.py --headless --users 10 --run-time 60s --host http://localhost:7860 \
        --grpc-url localhost:8001 --http-url http://localhost:8000 --results run.json --limits smoke.toml

Those transports are used whose address is given: `--host` is the gateway's. A key, where the gateway wants one, comes
from LYCHEE_API_KEY. docs/how-to/load-test.md explains options, results and limits.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, NoReturn

import gevent  # type: ignore[import-untyped]  # ships no types
from grpc.experimental import gevent as grpc_gevent  # type: ignore[import-untyped]  # ships no types
from locust import FastHttpUser, events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from lychee_client import LycheeError

from lychee_loadtest.locust import planned_shape
from lychee_loadtest.locust.limits import LimitsError, read_limits
from lychee_loadtest.locust.load_run import LoadRun
from lychee_loadtest.locust.options import LoadOptions, add_options, read_options
from lychee_loadtest.locust.report import finish_run
from lychee_loadtest.locust.run_record import known_names
from lychee_loadtest.locust.users import (
    Caller,
    GrpcBulkUser,
    GrpcUser,
    RestBulkUser,
    RestUser,
    TritonHttpBulkUser,
    TritonHttpUser,
)
from lychee_loadtest.locust.workload import GRPC, HTTP, REST

__all__ = ["GrpcBulkUser", "GrpcUser", "RestBulkUser", "RestUser", "TritonHttpBulkUser", "TritonHttpUser"]

EXIT_BAD_OPTION = 2


def prepare(environment: Environment, **_: Any) -> None:
    """Check the options, and choose users and shape, before anything is sent."""
    parsed = environment.parsed_options
    assert parsed is not None
    try:
        options = read_options(parsed)
        limits = () if options.limits is None else read_limits(options.limits, known_names())
        choose_users(environment, options, explicit=bool(parsed.user_classes))
        # Workers learn the length of the run from the master.
        seconds = None if isinstance(environment.runner, WorkerRunner) else parsed.run_time
        run = LoadRun(environment, options, seconds)
        if not isinstance(environment.runner, WorkerRunner):
            shape_load(environment, options, run)
    except (ValueError, LimitsError) as error:
        refuse(str(error))
    # After the fork of a worker process, and before the first channel: without it, waiting for an answer stops the
    # event loop, and all callers with it (measured: docs/how-to/load-test.md).
    grpc_gevent.init_gevent()
    Caller.source = run
    if not isinstance(environment.runner, MasterRunner):
        try:
            run.warm_up()
        except LycheeError as error:
            refuse(f"the server cannot be loaded: {error}")
    # Otherwise Locust's timers count from the time before all this, and a short run would end at its start.
    gevent.get_hub().loop.update_now()

    def finish(environment: Environment, **_: Any) -> None:
        run.close()
        if not isinstance(environment.runner, WorkerRunner):
            finish_run(environment, run.collect(), options, limits)

    run_events: Any = environment.events
    run_events.quitting.add_listener(finish)


def choose_users(environment: Environment, options: LoadOptions, *, explicit: bool) -> None:
    """Keep the users whose server is known, and those of bulk calls as often as wanted.

    Raises:
        ValueError: None is left, or one that was asked for by name cannot be used.
    """
    addresses = {
        GRPC: ("--grpc-url", options.grpc_url),
        HTTP: ("--http-url", options.http_url),
        REST: ("--host", environment.host),
    }
    kept = []
    for user_class in environment.user_classes:
        assert issubclass(user_class, Caller)
        option, address = addresses[user_class.transport]
        if address is None and explicit:
            raise ValueError(f"{user_class.__name__} needs {option}, which is not given")
        if user_class.lane == "bulk":
            user_class.fixed_count = options.bulk_users
        if issubclass(user_class, FastHttpUser):
            user_class.network_timeout = options.bulk_timeout_s if user_class.lane == "bulk" else options.timeout_s
        if address is not None and (user_class.lane != "bulk" or options.bulk_users):
            kept.append(user_class)
    if not kept:
        raise ValueError("nobody to call: expected --host for the gateway, --grpc-url or --http-url for Triton, or all")
    environment.user_classes[:] = kept


def shape_load(environment: Environment, options: LoadOptions, run: LoadRun) -> None:
    """Let the shape, if there is one, choose the number of users.

    Raises:
        ValueError: The length of the run is not known.
    """
    parsed = environment.parsed_options
    assert parsed is not None
    if options.shape == "constant":
        return
    if not parsed.run_time:
        raise ValueError(f"--shape {options.shape} needs --run-time, which is not given")
    bulk = sum(user_class.fixed_count for user_class in environment.user_classes)
    users = parsed.num_users or 1

    def count_users(level: float) -> int:
        # In an open model the rate of arrivals has the shape; users only have to be enough.
        return users if options.arrival_rate > 0 else bulk + max(1, round(level * (users - bulk)))

    shape = planned_shape.PlannedShape(run.stages, count_users, parsed.spawn_rate or users)
    shape.runner = environment.runner
    environment.shape_class = shape
    parsed.run_time = None  # the shape ends the run


def refuse(message: str) -> NoReturn:
    """End with a message and no traceback."""
    logging.getLogger(__name__).error(message)
    sys.exit(EXIT_BAD_OPTION)


all_events: Any = events
all_events.init_command_line_parser.add_listener(add_options)
all_events.init.add_listener(prepare)
