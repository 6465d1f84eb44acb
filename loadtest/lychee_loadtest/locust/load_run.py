"""One load test from Locust's start to its results: hands out calls, records answers, watches the generator.

With worker processes (`--processes`), each worker makes and records its own calls; the master tells them their share of
the work, and puts their records together.
"""

from __future__ import annotations

import logging
import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import gevent  # type: ignore[import-untyped]  # ships no types
from gevent.threadpool import ThreadPoolExecutor  # type: ignore[import-untyped]  # ships no types
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from lychee_client import LycheeClient

from lychee_loadtest.locust.arrivals import ArrivalCounts, Arrivals, draw_arrival_times
from lychee_loadtest.locust.generator import HubMonitor, HubUse
from lychee_loadtest.locust.options import LoadOptions
from lychee_loadtest.locust.recorder import CallKind, Recorder
from lychee_loadtest.locust.run_record import RunRecord
from lychee_loadtest.locust.shapes import Stage, plan_shape
from lychee_loadtest.locust.users import to_input
from lychee_loadtest.locust.workload import GRPC, HTTP, Call, Lane, Workload

__all__ = ["LoadRun"]

_SHARE_MESSAGE: Final = "lychee_share"
_REPORT_KEY: Final = "lychee"


class LoadRun:
    """What one process does for the run. It is the callers' `CallSource`.

    Args:
        environment: Locust's environment.
        options: The options of the run.
        seconds: How long the run lasts; None: until somebody ends it.

    Attributes:
        think_time_s: See CallSource.
        record: What is known of the run, in the process that writes the results.
    """

    def __init__(self, environment: Environment, options: LoadOptions, seconds: float | None) -> None:
        self.think_time_s = options.think_time_s
        self._environment = environment
        self._options = options
        self._stages: Sequence[Stage] = (
            (Stage(math.inf, 1.0),) if seconds is None else plan_shape(options.shape, seconds, options.steps)
        )
        self._worker, self._workers = 0, 1
        self._clients: dict[str, LycheeClient] = {}
        # Locust makes the SDK's threads greenlets, so that decoding images would stop the event loop: with six callers
        # of 20 photos it was 154 ms late at p99, and 23 ms with these native threads (2 cores, 2026-11-23).
        self._decoders = ThreadPoolExecutor(os.cpu_count() or 1)
        self._begin_afresh()
        runner = environment.runner
        if isinstance(runner, WorkerRunner):
            runner.register_message(_SHARE_MESSAGE, self._take_share)
        events: Any = environment.events
        events.test_start.add_listener(self._on_start)
        events.spawning_complete.add_listener(self._on_spawned)
        events.test_stopping.add_listener(self._on_stopping)
        events.request.add_listener(self._on_request)
        events.report_to_master.add_listener(self._on_report_to_master)
        events.worker_report.add_listener(self._on_worker_report)

    def next_call(self, lane: Lane) -> tuple[Call, float] | None:
        """See CallSource."""
        if lane == "bulk" or self._arrivals is None:
            return self._workload.make_call(lane), time.perf_counter()
        arrival = self._arrivals.take()
        return None if arrival is None else (arrival.call, arrival.intended_s)

    def client(self, transport: str) -> LycheeClient:
        """See CallSource. The client does not send again what was refused: that would hide it."""
        if transport not in self._clients:
            url = self._options.grpc_url if transport == GRPC else self._options.http_url
            self._clients[transport] = LycheeClient(url, max_retries=0, executor=self._decoders, embedding_cache=None)
        return self._clients[transport]

    def timeout_s(self, lane: Lane) -> float:
        """See CallSource."""
        return self._options.bulk_timeout_s if lane == "bulk" else self._options.timeout_s

    @property
    def stages(self) -> Sequence[Stage]:
        """How the load changes."""
        return self._stages

    def warm_up(self) -> None:
        """Let each client fetch manifest and tokenizer, and the server see each modality, before anything counts.

        Raises:
            LycheeError: The server cannot be reached, or does not rank.
        """
        for transport, url in ((GRPC, self._options.grpc_url), (HTTP, self._options.http_url)):
            if url is None:
                continue
            for call in self._workload.make_warm_up():
                documents = [to_input(document) for document in call.documents]
                self.client(transport).rerank(call.query, documents, timeout_s=self._options.bulk_timeout_s)

    def close(self) -> None:
        """Release the connections."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        self._decoders.shutdown()

    def _begin_afresh(self) -> None:
        options = self._options
        self._recorder = Recorder(options.window_s)
        self._monitor = HubMonitor(options.window_s)
        self._workload = Workload(options.mix, seed=options.seed, worker=self._worker)
        self._arrivals: Arrivals | None = None
        self._watcher: gevent.Greenlet[..., None] | None = None
        self.record = RunRecord(self._recorder)

    def _on_start(self, environment: Environment, **_: Any) -> None:
        self._begin_afresh()
        runner = environment.runner
        if isinstance(runner, MasterRunner):
            self._share_work(runner)
        else:
            if self._options.arrival_rate > 0:
                self._arrivals = Arrivals(self._draw_times(), lambda: self._workload.make_call("interactive"))
            self._monitor.start()
        self.record.begin(self._stages, self._options.arrival_rate or None)
        self._watcher = gevent.spawn(self._watch_users)

    def _on_spawned(self, user_count: int, **_: Any) -> None:
        if self._arrivals is not None and not self._arrivals.started:
            self._arrivals.start()

    def _draw_times(self) -> Iterator[float]:
        draw = random.Random(f"{self._options.seed}/{self._worker}/arrivals")
        return draw_arrival_times(self._options.arrival_rate / self._workers, self._stages, draw)

    def _on_stopping(self, environment: Environment, **_: Any) -> None:
        self.record.end()
        self._monitor.stop()
        if self._arrivals is not None:
            self._arrivals.stop()
        if self._watcher is not None:
            self._watcher.kill()

    def _watch_users(self) -> None:
        runner = self._environment.runner
        while runner is not None:
            self.record.users[math.floor(time.time() / self._options.window_s)] = runner.user_count
            gevent.sleep(min(1.0, self._options.window_s / 2))

    def _on_request(self, response_time: float, exception: Exception | None, context: dict[str, Any], **_: Any) -> None:
        if "outcome" not in context:
            return
        kind: CallKind = context["kind"]
        self._recorder.record(time.time(), kind, context["outcome"], response_time, context["documents"])
        if exception is not None:
            self._recorder.messages[f"{kind.name}: {type(exception).__name__}: {exception}"] += 1

    def _on_report_to_master(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        data[_REPORT_KEY] = {
            "calls": self._recorder.take(),
            "hub": self._monitor.use.pack(),
            "arrivals": None if self._arrivals is None else self._arrivals.counts.pack(),
        }

    def _on_worker_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        report = data.get(_REPORT_KEY)
        if report is None:
            return
        self._recorder.add(report["calls"])
        self.record.hubs[client_id] = HubUse.unpack(*report["hub"])
        if report["arrivals"] is not None:
            self.record.arrivals[client_id] = ArrivalCounts.unpack(*report["arrivals"])

    def collect(self) -> RunRecord:
        """Return the record, with what this process itself saw."""
        if not isinstance(self._environment.runner, MasterRunner):
            self.record.hubs[""] = self._monitor.use
            if self._arrivals is not None:
                self.record.arrivals[""] = self._arrivals.counts
        return self.record

    def _share_work(self, master: MasterRunner) -> None:
        workers = master.clients.ready
        for number, worker in enumerate(workers):
            share = {"worker": number, "workers": len(workers), "stages": [(s.end_s, s.level) for s in self._stages]}
            master.send_message(_SHARE_MESSAGE, share, worker.id)

    def _take_share(self, environment: Environment, msg: Any, **_: Any) -> None:
        self._worker, self._workers = msg.data["worker"], msg.data["workers"]
        self._stages = [Stage(end_s, level) for end_s, level in msg.data["stages"]]
        logging.getLogger(__name__).debug("worker %d of %d", self._worker + 1, self._workers)
