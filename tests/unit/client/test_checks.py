"""The checks of `lychee doctor` that need no server distribution, and the command around them."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.dual_encoder import MANIFEST
from lychee_client import ConnectionFailedError, ContractError, GoldenPairResult, GoldenReport, Manifest
from lychee_client.checks import cache as cache_checks
from lychee_client.checks import check
from lychee_client.checks import server as server_checks
from lychee_client.checks.check import CheckContext, CheckResult, CheckSkipped, run_checks
from lychee_client.cli import app, doctor
from lychee_client.manifest import parse_manifest
from lychee_client.transports.replica import ReplicaStatus
from lychee_client.types import ModelStatus, ServerStatus
from typer.testing import CliRunner

PAIR = {"query": {"text": "q"}, "document": {"text": "d"}, "relevance_score": 0.5}
MANIFEST_TEXT = json.dumps(
    {**MANIFEST, "artifacts": {"tokenizer": "0" * 64}, "golden_pairs": {"tolerance": 0.02, "pairs": [PAIR, PAIR]}}
)
NEEDED = ("client_assets", *MANIFEST["max_batch_size"])
READY = tuple(ModelStatus(name, "1", True, "") for name in NEEDED)


class FakeServer:
    """Answers as a client of some server would. Each attribute may be an exception to raise."""

    def __init__(self) -> None:
        self.status: ServerStatus | Exception = ServerStatus(True, True, "2.51.0", READY)
        self.served: Manifest | Exception = parse_manifest(MANIFEST_TEXT)
        self.measured: list[float] | Exception = [0.5, 0.51]
        self.manifests_read = 0

    def manifest(self) -> Manifest:
        self.manifests_read += 1
        return self._answer(self.served)

    def server_status(self) -> ServerStatus:
        return self._answer(self.status)

    def check_golden_pairs(self) -> GoldenReport:
        measured = self._answer(self.measured)
        return GoldenReport(tuple(GoldenPairResult(0.5, score) for score in measured), 0.02)

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @staticmethod
    def _answer(value: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def context(server: FakeServer) -> CheckContext:
    return CheckContext(server, "localhost:8001")


def found(results: Iterable[CheckResult]) -> list[tuple[str, str]]:
    return [(result.name, result.verdict) for result in results]


def test_a_check_that_raises_hides_no_other(context: CheckContext) -> None:
    def stumble(_: CheckContext) -> Iterator[CheckResult]:
        yield CheckResult("first half", "ok", "fine")
        raise OSError("disk is gone")

    def skip(_: CheckContext) -> Iterator[CheckResult]:
        raise CheckSkipped("not today")

    def pass_on(_: CheckContext) -> list[CheckResult]:
        return [CheckResult("last", "ok", "fine")]

    results = list(run_checks({"stumbles": stumble, "skips": skip, "last": pass_on}, context))
    assert found(results) == [("first half", "ok"), ("stumbles", "failed"), ("skips", "skipped"), ("last", "ok")]
    assert "OSError: disk is gone" in results[1].seen
    assert results[2].seen == "not today"


class EntryPoint:
    """Plays an installed distribution's entry in the group."""

    def __init__(self, name: str, check: Callable[[CheckContext], Iterable[CheckResult]] | Exception) -> None:
        self.name = name
        self._check = check

    def load(self) -> Callable[[CheckContext], Iterable[CheckResult]]:
        if isinstance(self._check, Exception):
            raise self._check
        return self._check


def test_other_distributions_add_checks_and_a_broken_one_is_a_failure(
    context: CheckContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [
        EntryPoint("good", lambda _: [CheckResult("extra", "ok", "fine")]),
        EntryPoint("bad", ImportError("no module named triton")),
    ]
    groups = {"lychee.checks": entries}
    monkeypatch.setattr(check, "entry_points", lambda group: groups[group])
    results = list(run_checks(check.contributed_checks(), context))
    assert found(results) == [("bad", "failed"), ("extra", "ok")]
    assert "no module named triton" in results[0].seen


def test_without_the_server_distribution_its_checks_are_named_as_skipped(
    context: CheckContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "entry_points", lambda group: [])
    results = list(run_checks(check.contributed_checks(), context))
    assert found(results) == [(name, "skipped") for name in check.MACHINE_CHECKS]
    assert all("pip install lychee-rerank-server" in result.advice for result in results)


@pytest.mark.parametrize(
    ("url", "scheme", "address"),
    [
        ("localhost:8001", "grpc", ("localhost", 8001)),
        ("https://triton.example:443/", "https", ("triton.example", 443)),
        ("grpc://[::1]:8001", "grpc", ("::1", 8001)),
        ("dns:///triton.example:8001", "grpc", ("triton.example", 8001)),
        ("http://a.example:8000,b.example:8000", "http", ("a.example", 8000)),
    ],
)
def test_context_reads_the_url(server: FakeServer, url: str, scheme: str, address: tuple[str, int]) -> None:
    context = CheckContext(server, url)
    assert (context.scheme, context.address) == (scheme, address)


def test_a_healthy_server_passes_all(server: FakeServer, context: CheckContext) -> None:
    results = list(run_checks(server_checks.SERVER_CHECKS, context))
    assert found(results) == [("server", "ok"), ("manifest", "ok"), ("models", "ok"), ("golden pairs", "ok")]
    assert "localhost:8001: Triton 2.51.0 answers in" in results[0].seen
    assert "fake revision 000000000000, fp32, format version 2" in results[1].seen
    assert f"{len(NEEDED)} models are ready: client_assets 1" in results[2].seen
    assert "2 pairs, largest drift 0.01 (pair 2: expected 0.5000, measured 0.5100), allowed 0.02" in results[3].seen
    assert server.manifests_read == 1


def test_a_server_that_is_not_ready_fails(server: FakeServer, context: CheckContext) -> None:
    server.status = ServerStatus(True, False, "2.51.0", READY)
    (result,) = server_checks.check_server(context)
    assert (result.verdict, "not ready" in result.seen, "log" in result.advice) == ("failed", True, True)


def test_replicas_are_named_and_one_that_is_left_out_is_a_warning(server: FakeServer, context: CheckContext) -> None:
    live = ReplicaStatus("10.0.0.1:8001", "live")
    server.status = ServerStatus(True, True, "2.51.0", READY, replicas=(live,))
    _, result = server_checks.check_server(context)
    assert (result.name, result.verdict, result.seen) == ("replicas", "ok", "1 of 1 take requests: 10.0.0.1:8001")
    lost = ReplicaStatus("10.0.0.2:8001", "lost", "refused")
    server.status = ServerStatus(True, True, "2.51.0", READY, replicas=(live, lost))
    _, result = server_checks.check_server(context)
    assert result.verdict == "warning"
    assert result.seen == "1 of 2 take requests: 10.0.0.1:8001; 10.0.0.2:8001 is lost (refused)"


def test_a_slow_server_is_a_warning(context: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_checks, "SLOW_ANSWER_S", 0.0)
    (result,) = server_checks.check_server(context)
    assert (result.verdict, "expected at most 0 ms" in result.seen) == ("warning", True)


def test_without_a_server_the_rest_is_skipped_and_the_advice_starts_one(server: FakeServer, free_port: int) -> None:
    server.status = ServerStatus(False)
    context = CheckContext(server, f"127.0.0.1:{free_port}")
    results = list(run_checks(server_checks.SERVER_CHECKS, context))
    assert [result.verdict for result in results] == ["failed", "skipped", "skipped", "skipped"]
    assert f"127.0.0.1:{free_port}: nobody listens there" in results[0].seen
    assert "lychee load" in results[0].advice
    assert server.manifests_read == 0


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def serve_http() -> Iterator[Callable[[int, bytes], int]]:
    """Return a function that starts an HTTP server with one answer to everything, and returns its port."""
    servers = []

    def serve(status: int, body: bytes) -> int:
        class Handler(http.server.BaseHTTPRequestHandler):
            server_version = "Bakery/1.0"

            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        servers.append((running, thread))
        port: int = running.server_address[1]
        return port

    yield serve
    for running, thread in servers:
        running.shutdown()
        running.server_close()
        thread.join()


def test_another_http_server_is_named(server: FakeServer, serve_http: Callable[[int, bytes], int]) -> None:
    server.status = ServerStatus(False)
    port = serve_http(404, b"no such bread")
    (result,) = server_checks.check_server(CheckContext(server, f"127.0.0.1:{port}"))
    assert result.verdict == "failed"
    assert "another HTTP server (Bakery/1.0" in result.seen
    assert "it answers 404" in result.seen


def test_the_http_port_of_triton_is_recognized(server: FakeServer, serve_http: Callable[[int, bytes], int]) -> None:
    server.status = ServerStatus(False)
    port = serve_http(200, b'{"name":"triton","version":"2.51.0","extensions":["classification"]}')
    (result,) = server_checks.check_server(CheckContext(server, f"127.0.0.1:{port}"))
    assert "Triton's HTTP port, but nothing there is live as grpc" in result.seen
    assert "http://HOST:8000" in result.advice


def test_a_gateway_behind_a_url_of_grpc_is_told(server: FakeServer, serve_http: Callable[[int, bytes], int]) -> None:
    server.status = ServerStatus(False)
    port = serve_http(404, b'{"message": "nothing is served at this path", "request_id": "an-id"}')
    (result,) = server_checks.check_server(CheckContext(server, f"127.0.0.1:{port}"))
    assert f"a gateway listens there, which speaks HTTP: write http://127.0.0.1:{port}" in result.seen


def test_a_gateway_is_named_and_the_checks_of_triton_are_skipped(server: FakeServer) -> None:
    served = ModelStatus("lychee-mini", "r1", False, "waiting: the golden pairs")
    server.status = ServerStatus(True, False, models=(served,), gateway=True)
    context = CheckContext(server, "https://example.org/rerank")
    first, *others = run_checks(server_checks.SERVER_CHECKS, context)
    assert (first.verdict, context.address) == ("failed", ("example.org", 443))
    assert "a gateway (REST) that serves lychee-mini revision r1 answers" in first.seen
    assert first.advice.startswith("waiting: the golden pairs; ")
    assert {(result.verdict, result.seen.partition(";")[0]) for result in others} == {
        ("skipped", "a gateway answers in Triton's place")
    }


def test_a_listener_that_speaks_something_else_is_told(server: FakeServer) -> None:
    server.status = ServerStatus(False)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(2):  # the probe connects twice
                connection, _address = listener.accept()
                with connection:
                    connection.sendall(b"SSH-2.0-x\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        (result,) = server_checks.check_server(CheckContext(server, f"127.0.0.1:{port}"))
        thread.join()
    assert "does not answer as Triton's grpc endpoint" in result.seen


def test_an_unreachable_host_is_told(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", fail)
    server.status = ServerStatus(False)
    (result,) = server_checks.check_server(CheckContext(server, "192.0.2.1:8001"))
    assert "it cannot be reached: timed out" in result.seen


def test_an_unreadable_manifest_fails_once(server: FakeServer, context: CheckContext) -> None:
    server.served = ContractError("the server's manifest has format_version 9, this client reads 2")
    results = list(run_checks(server_checks.SERVER_CHECKS, context))
    assert found(results) == [("server", "ok"), ("manifest", "failed"), ("models", "ok"), ("golden pairs", "skipped")]
    assert "format_version 9" in results[1].seen
    assert server.manifests_read == 1


def test_models_that_are_missing_or_not_ready_fail(server: FakeServer, context: CheckContext) -> None:
    kept = tuple(model for model in READY if model.name not in ("rerank_text", "text_encoder"))
    broken = (ModelStatus("text_encoder", "1", False, "out of memory"), ModelStatus("other", "", False, ""))
    server.status = ServerStatus(True, False, "2.51.0", kept + broken)
    results = list(server_checks.check_models(context))
    assert found(results) == [("models", "failed")] * 3
    for result, expected in zip(
        results,
        ("does not know rerank_text", "text_encoder is not ready: out of memory", "other is not ready: the server"),
        strict=True,
    ):
        assert expected in result.seen


def test_an_old_version_that_is_not_ready_is_a_warning(server: FakeServer, context: CheckContext) -> None:
    old = ModelStatus("rerank_text", "0", False, "unloaded")
    server.status = ServerStatus(True, True, "2.51.0", (*READY, old))
    warning, ok = server_checks.check_models(context)
    assert (warning.verdict, ok.verdict) == ("warning", "ok")
    assert "rerank_text version 0 is not ready, another version is: unloaded" in warning.seen


def test_scores_that_drifted_fail_and_name_the_worst_pair(server: FakeServer, context: CheckContext) -> None:
    server.measured = [0.45, 0.51]
    (result,) = server_checks.check_golden_pairs(context)
    assert result.verdict == "failed"
    assert "largest drift 0.05 (pair 1: expected 0.5000, measured 0.4500)" in result.seen
    assert "export the model again" in result.advice


def test_pairs_that_cannot_be_scored_fail(server: FakeServer, context: CheckContext) -> None:
    server.measured = ConnectionFailedError("reset")
    (result,) = server_checks.check_golden_pairs(context)
    assert (result.verdict, result.seen) == ("failed", "they could not be scored: reset")


def test_a_manifest_without_pairs_is_a_warning(server: FakeServer, context: CheckContext) -> None:
    server.served = parse_manifest(json.dumps({**json.loads(MANIFEST_TEXT), "golden_pairs": MANIFEST["golden_pairs"]}))
    (result,) = server_checks.check_golden_pairs(context)
    assert (result.verdict, result.seen) == ("warning", "the manifest holds none")


def write_tokenizer(folder: Path, content: bytes = b"{}", suffix: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"tokenizer-{hashlib.sha256(b'{}').hexdigest()}.json{suffix}"
    path.write_bytes(content)
    return path


def test_an_empty_cache_is_fine(context: CheckContext, cache_dir: Path) -> None:
    (result,) = cache_checks.check_cache(context)
    assert (result.verdict, str(cache_dir) in result.seen, cache_dir.exists()) == ("ok", True, False)


def test_the_size_of_the_cache_is_told(context: CheckContext, cache_dir: Path) -> None:
    write_tokenizer(cache_dir)
    (cache_dir / "tokenizer-notes.txt").write_text("笔记", encoding="utf-8")
    (cache_dir / "backends").mkdir()
    (result,) = cache_checks.check_cache(context)
    assert (result.verdict, result.seen) == ("ok", f"1 tokenizers, 0.0 MB in {cache_dir}")


def test_a_damaged_tokenizer_is_named(context: CheckContext, cache_dir: Path) -> None:
    path = write_tokenizer(cache_dir, b"{damaged")
    (result,) = cache_checks.check_cache(context)
    assert (result.verdict, str(path) in result.seen, result.advice.startswith(f"rm {path};")) == (
        "warning",
        True,
        True,
    )


def test_only_an_old_unfinished_download_is_named(context: CheckContext, cache_dir: Path) -> None:
    path = write_tokenizer(cache_dir, b"{", suffix="ab12")
    assert [result.verdict for result in cache_checks.check_cache(context)] == ["ok"]
    os.utime(path, (0, time.time() - 7200))
    (result,) = cache_checks.check_cache(context)
    assert (result.verdict, result.seen) == ("warning", f"{path} is an unfinished download")


def test_a_cache_that_cannot_be_written_is_a_warning(
    context: CheckContext, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_dir.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != cache_dir)  # root may write everywhere
    results = list(cache_checks.check_cache(context))
    assert found(results) == [("cache", "warning"), ("cache", "ok")]
    assert f"{cache_dir} is not writable" in results[0].seen
    assert "LYCHEE_CACHE_DIR" in results[0].advice


def test_a_file_from_the_future_makes_the_clock_suspect(context: CheckContext, cache_dir: Path) -> None:
    path = write_tokenizer(cache_dir)
    assert [result.verdict for result in cache_checks.check_clock(context)] == ["ok"]
    os.utime(path, (0, time.time() + 86400))
    (result,) = cache_checks.check_clock(context)
    assert result.verdict == "warning"
    assert f"{path} was written at" in result.seen
    assert "set the clock" in result.advice


@pytest.fixture
def run(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the command on the fake server, with one result of another distribution that is hard to print."""
    odd = CheckResult("odd", "warning", "two\nlines [red]and[/red] 荔枝 " + "x" * 200, "leave it")
    monkeypatch.setattr(doctor, "LycheeClient", lambda url, **_: server)
    monkeypatch.setattr(check, "entry_points", lambda group: [EntryPoint("odd", lambda context: [odd])])
    monkeypatch.delenv("LYCHEE_REPOSITORY", raising=False)
    return lambda *arguments: CliRunner().invoke(app, ["doctor", *arguments])


def test_each_result_is_one_line_without_colours(run: Callable[..., Any]) -> None:
    result = run()
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    names = ["server", "manifest", "models", "golden", "cache", "clock", "odd"]
    assert [line.split()[0] for line in lines[:-1]] == names
    assert lines[-2] == f"{'odd':<13}{'warning':<8}two lines [red]and[/red] 荔枝 {'x' * 200} -> leave it"
    assert lines[-1] == "6 ok, 1 warning"
    assert "\x1b" not in result.stdout


def test_a_failed_check_is_exit_code_1(run: Callable[..., Any], server: FakeServer) -> None:
    server.measured = [0.0, 0.0]
    result = run()
    assert result.exit_code == 1
    assert "golden pairs FAILED" in result.stdout
    assert result.stdout.splitlines()[-1] == "5 ok, 1 warning, 1 FAILED"


def test_a_status_that_cannot_be_had_leaves_the_other_checks(run: Callable[..., Any], server: FakeServer) -> None:
    server.status = RuntimeError("client is broken")
    result = run()
    assert result.exit_code == 1
    assert "RuntimeError: client is broken" in result.stdout
    assert "cache        ok" in result.stdout


def test_json_is_one_object(run: Callable[..., Any], server: FakeServer) -> None:
    answer = json.loads(run("--json", "--url", "triton.example:8001").stdout)
    assert (answer["url"], answer["passed"], len(answer["checks"])) == ("triton.example:8001", True, 7)
    assert set(answer["checks"][0]) == {"name", "verdict", "seen", "advice"}
    server.status = ServerStatus(True, False, None, ())
    failed = run("--json")
    assert (failed.exit_code, json.loads(failed.stdout)["passed"]) == (1, False)


def test_the_repository_reaches_the_checks(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def tell(context: CheckContext) -> list[CheckResult]:
        return [CheckResult("repository", "ok", f"{context.repository} of {context.url}")]

    monkeypatch.setattr(check, "entry_points", lambda group: [EntryPoint("teller", tell)])
    assert f"{tmp_path} of localhost:8001" in run("--repository", str(tmp_path)).stdout


@pytest.mark.parametrize("arguments", [["--repository", "no/such/folder"], ["--url", "ftp://x"], ["--unknown"]])
def test_bad_usage_is_exit_code_2(run: Callable[..., Any], arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr


def test_help_shows_an_example(run: Callable[..., Any]) -> None:
    assert "Example: lychee doctor --url localhost:8001" in run("--help").stdout


def write_bundle(**told: Any) -> bytes:
    """Write a bundle that holds what it was told."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("checks.txt", f"{told['repository']} {[check.verdict for check in told['checks']]}")
    return content.getvalue()


def test_the_command_writes_a_bundle_and_prints_what_is_in_it(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.status = ServerStatus(False)
    monkeypatch.setattr(doctor, "LycheeClient", lambda url, **_: server)
    monkeypatch.setattr(doctor, "find_bundle_writer", lambda: write_bundle)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["doctor", "--bundle", "--url", "127.0.0.1:1"])
    assert result.exit_code == 0, result.output  # a check failed, and the bundle is written all the same
    (path,) = tmp_path.glob("lychee-support-*.zip")
    assert path.stat().st_mode & 0o777 == 0o600
    assert f"{path.name} holds, without texts, images or keys:" in result.output
    assert "bytes  checks.txt" in result.output
    with zipfile.ZipFile(path) as archive:
        assert archive.read("checks.txt").startswith(b"None ['failed'")
    told = CliRunner().invoke(app, ["doctor", "--json", "--bundle", "mine.zip", "--url", "127.0.0.1:1"])
    assert json.loads(told.output)["bundle"] == "mine.zip"
    assert (tmp_path / "mine.zip").is_file()


def test_a_bundle_that_cannot_be_written_says_why(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "LycheeClient", lambda url, **_: server)
    monkeypatch.setattr(doctor, "find_bundle_writer", lambda: write_bundle)
    result = CliRunner().invoke(app, ["doctor", "--bundle", str(tmp_path / "nowhere" / "x.zip")])
    assert result.exit_code == 2
    assert "name a file in a folder that exists" in result.output
    result = CliRunner().invoke(app, ["doctor", "x.zip"])
    assert (result.exit_code, "expected --bundle beside it" in result.output) == (2, True)
    monkeypatch.setattr(doctor, "find_bundle_writer", lambda: None)
    result = CliRunner().invoke(app, ["doctor", "--bundle"])
    assert (result.exit_code, "pip install lychee-rerank-server" in result.output) == (2, True)
