"""Candidates: copies of a model with other settings, served side by side so that they can be measured in turn."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final, Self

from google.protobuf import text_format
from lychee_client.repository import process_bytes
from lychee_server import defaults
from lychee_server.errors import ServerStartError
from lychee_server.memory import available_memory_bytes
from lychee_server.status import read_memory
from lychee_server.triton import TritonServer
from tritonclient.grpc import InferenceServerClient

from lychee_loadtest.tune.load import LoadSample, Request, Stream, make_requests, run_load
from lychee_loadtest.tune.progress import START_S, Progress
from lychee_loadtest.tune.settings import current_settings
from lychee_loadtest.tune.workloads import Subject

__all__ = ["Fleet", "NotLoadedError"]

MEMORY_SHARE: Final = 0.5  # of what is available, for all candidates that are loaded at the same time


class NotLoadedError(Exception):
    """Triton could not load a candidate; the message says why."""


@dataclass(frozen=True, slots=True)
class _Running:
    server: TritonServer
    client: InferenceServerClient
    failed: Mapping[str, str]


class Fleet:
    """Candidates of one model, by name, in as few servers as memory allows, one server at a time.

    As a context manager it leaves no process and no file behind, however it ends.
    """

    def __init__(self, subject: Subject, candidates: Mapping[str, Any], progress: Progress) -> None:
        """Choose what to serve; nothing starts yet.

        Args:
            subject: The model.
            candidates: The ModelConfig message of each candidate, by its name.
            progress: Is told of every start.
        """
        self._subject = subject
        self._candidates = candidates
        self._progress = progress
        self._groups = _split(subject, candidates)
        self._folder: TemporaryDirectory[str] | None = None
        self._server: TritonServer | None = None
        self._running: _Running | None = None
        self._group: tuple[str, ...] = ()
        self._requests: dict[Stream, tuple[Request, ...]] = {}

    def is_served(self, candidate: str) -> bool:
        """Tell whether the running server has the candidate, so that using it starts nothing."""
        return candidate in self._group

    def measure(self, candidate: str, streams: tuple[Stream, ...], window_s: float) -> LoadSample:
        """Put load on a candidate.

        Raises:
            NotLoadedError: Triton could not load it.
            ServerStartError: Triton did not start.
            InferenceServerException: A request failed.
        """
        running = self._serve(candidate)
        loads = [(stream, self._requests_of(stream)) for stream in streams]
        return run_load(running.client, candidate, loads, window_s)

    def read_memory_bytes(self, candidate: str) -> int:
        """Return the memory of the candidate's processes, shared pages divided; 0 if nothing serves it."""
        if self._running is None:
            return 0
        prefix = f"{candidate}_0"  # Triton's name of an instance is model_0_number
        processes = read_memory(self._running.server.marker)
        return sum(process.pss_bytes for process in processes if process.name.startswith(prefix))

    def _requests_of(self, stream: Stream) -> tuple[Request, ...]:
        if stream not in self._requests:
            self._requests[stream] = make_requests(self._subject.config, stream, seed=len(self._requests))
        return self._requests[stream]

    def _serve(self, candidate: str) -> _Running:
        if not self.is_served(candidate) or self._running is None:
            self._stop()
            self._group = next(group for group in self._groups if candidate in group)
            self._running = self._start()
        if candidate in self._running.failed:
            raise NotLoadedError(self._running.failed[candidate])
        return self._running

    def _start(self) -> _Running:
        self._progress.step(f"{self._subject.name}: starting Triton with {len(self._group)} candidates", START_S)
        begun = time.monotonic()
        self._folder = TemporaryDirectory(prefix="lychee-tune-")
        repository = Path(self._folder.name)
        for name in self._group:
            _write_model(repository / name, self._subject.folder, self._candidates[name])
        log_path = defaults.state_dir() / "tuning" / "triton.log"
        self._server = server = TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0, log_path=log_path)
        failed: Mapping[str, str] = {}
        server.start()
        try:
            server.wait_until_ready()
        except ServerStartError as error:
            if not error.model_reasons or len(error.model_reasons) == len(self._group):
                raise
            failed = error.model_reasons
        self._progress.started(time.monotonic() - begun)
        return _Running(server, InferenceServerClient(server.grpc_url), failed)

    def _stop(self) -> None:
        if self._running is not None:
            self._running.client.close()
        self._running, self._group = None, ()
        if self._server is not None:
            self._server.stop()
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> Self:
        """Return the fleet; the first use of a candidate starts its server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the server and remove the temporary folder."""
        self._stop()


def _write_model(folder: Path, original: Path, config: Any) -> None:
    folder.mkdir()
    message = type(config)()
    message.CopyFrom(config)
    message.name = folder.name
    (folder / "config.pbtxt").write_text(text_format.MessageToString(message), encoding="utf-8")
    for version in original.glob("[0-9]*"):
        (folder / version.name).symlink_to(version.absolute())


def _split(subject: Subject, candidates: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Put candidates together that fit into memory at the same time, in order."""
    files = subject.folder.glob("[0-9]*/*")
    instance_bytes = process_bytes(sum(path.stat().st_size for path in files))
    budget = int(MEMORY_SHARE * available_memory_bytes())
    groups: list[tuple[str, ...]] = []
    used = budget
    for name, config in candidates.items():
        needed = current_settings(config).instances * instance_bytes
        if used + needed > budget:
            groups.append(())
            used = 0
        groups[-1] = (*groups[-1], name)
        used += needed
    return groups
