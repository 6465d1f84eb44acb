"""What surrounds the Triton process: its URLs, its log, its reasons."""

from __future__ import annotations

from pathlib import Path

import pytest
from lychee_server import ServerStartError, TritonServer
from lychee_server.local_http import reachable_host
from lychee_server.triton_messages import calm_log, clean_reason, read_error_lines


def test_urls_lead_to_this_machine() -> None:
    server = TritonServer("models", host="0.0.0.0", http_port=1, grpc_port=2, metrics_port=3)
    assert (server.http_url, server.grpc_url) == ("127.0.0.1:1", "127.0.0.1:2")
    assert server.metrics_url == "http://127.0.0.1:3/metrics"
    assert server.pid is None
    assert reachable_host("192.0.2.1") == "192.0.2.1"


def test_default_ports_are_tritons() -> None:
    assert TritonServer("models").grpc_url == "127.0.0.1:8001"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("Internal: TritonModelException: x is missing.\n\nAt:\n  model.py(1): f\n", "x is missing."),
        ("Internal: ImportError: no\n\nAt:\n  model.py", "ImportError: no"),
        ("unloaded", "unloaded"),
        (
            "E1127 11:03:16.24 95 model_repository_manager.cc:1460] \"Poll failed for model directory 'a': "
            "'max_batch_size' must be non-negative value for a\"",
            "'max_batch_size' must be non-negative value for a",
        ),
        ("", ""),
        (
            "E1122 manager.cc:703] \"Invalid argument: ensemble 'b' depends on 'a' which has no loaded version. "
            "Model 'a' loading failed with error: version 1 is at UNAVAILABLE state: Internal: x is missing.",
            "depends on a, which is not loaded",
        ),
    ],
)
def test_a_reason_is_cut_to_its_cause(reason: str, expected: str) -> None:
    assert clean_reason(reason) == expected


def test_a_runtime_too_old_for_8_bits_is_explained() -> None:
    reason = (
        "Internal: onnx runtime error 6: nbits_ == 4 was false. Only 4b quantization is supported for MatMulNBits op"
    )
    assert "need ONNX Runtime 1.22 or later in Triton's backend: take a newer Triton" in clean_reason(reason)


def test_errors_for_want_of_a_gpu_become_notes_in_place(tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    without_gpu = (
        'E1127 21:11:24.499208 29560 server.cc:241] "CudaDriverHelper has not been initialized."\n'
        'E1127 21:11:27.549429 29560 ensemble_scheduler.cc:1468] "unable to create stream for rerank_image: CUDA '
        'driver version is insufficient for CUDA runtime version"\n'
        'W1127 21:11:27.6 29560 pinned_memory_manager.cc:170] "failed to allocate pinned system memory: no pinned '
        'memory pool, falling back to non-pinned system memory"\n'
    )
    real = 'E1127 21:11:28.1 29560 model.cc:1] "the file is damaged"\n'
    log.write_text(without_gpu + real, encoding="utf-8")
    assert read_error_lines(log) == [real.strip()]
    with log.open("a", encoding="utf-8") as written_meanwhile:
        calm_log(log)
        written_meanwhile.write("more\n")
    text = log.read_text(encoding="utf-8")
    assert text.endswith(real + "more\n")
    assert "CUDA" not in text
    assert len(text) == len(without_gpu + real) + len("more\n")
    notes = [line.rstrip() for line in text.splitlines()[:3]]
    assert notes[0] == 'I1127 21:11:24.499208 29560 server.cc:241] "no GPU here, and none is needed"'


def test_error_lines_are_the_last_ones(tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    lines = [f"E1122 18:43:49.{number} 1 server.cc:1] failed {number}" for number in range(12)]
    log.write_bytes("\n".join(["I1122 fine", *lines, "I1122 bye", "\xff"]).encode("latin-1"))
    assert read_error_lines(log) == lines[-10:]
    assert read_error_lines(log, count=None) == lines


def test_without_errors_the_last_lines_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    log.write_text("one\n\ntwo\n", encoding="utf-8")
    assert read_error_lines(log) == ["one", "two"]


def test_a_start_error_tells_reasons_and_log() -> None:
    error = ServerStartError("No.", log_path=Path("a.log"), model_reasons={"m": "gone"}, log_lines=["E1"])
    assert str(error) == "No.\n  m: gone\n  E1\nLog: a.log"
