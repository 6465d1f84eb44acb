"""Who is stuck, and who is only busy."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any, ClassVar

import pytest
from lychee_server.supervision.questions import ask_gateway, ask_grpc, make_inference
from lychee_server.supervision.watch import MOST_BUSY_S, STUCK_S, Watch


class Asked:
    """Answers, refuses, or hangs until it is told to go on; `cpu_s` is what it claims to have used."""

    def __init__(self) -> None:
        self.behaviour = "answer"
        self.cpu_s = 0.0
        self.go_on = threading.Event()

    def ask(self) -> None:
        if self.behaviour == "hang":
            self.go_on.wait()
        elif self.behaviour == "refuse":
            raise ConnectionRefusedError


@pytest.fixture
def asked() -> Iterator[Asked]:
    """Return one who is asked; the question does not outlive the test."""
    asked = Asked()
    yield asked
    asked.go_on.set()


def begin(asked: Asked, behaviour: str) -> Watch:
    """Watch one who behaves so from the start; return when the question is out."""
    asked.behaviour = behaviour
    watch = Watch("text_encoder", asked.ask, cpu_s=lambda: asked.cpu_s)
    watch.start()
    while not (watch.answered if behaviour == "answer" else watch._waiting_since_s):
        time.sleep(0.001)
    return watch


def test_who_answers_has_no_problem(asked: Asked) -> None:
    watch = begin(asked, "answer")
    assert watch.find_problem(time.monotonic() + 1000) is None
    watch.end()


@pytest.mark.parametrize("behaviour", ["hang", "refuse"])
def test_who_stands_still_without_an_answer_is_stuck(asked: Asked, behaviour: str) -> None:
    watch = begin(asked, behaviour)
    now = time.monotonic()
    assert watch.find_problem(now) is None
    assert watch.find_problem(now + STUCK_S - 1) is None
    problem = watch.find_problem(now + STUCK_S + 1)
    assert problem is not None
    assert problem.startswith("text_encoder did not answer for 11 s")
    watch.end()


def test_who_computes_is_busy_but_not_for_ever(asked: Asked) -> None:
    watch = begin(asked, "hang")
    now = time.monotonic()
    for second in range(int(MOST_BUSY_S)):
        asked.cpu_s += 0.5
        assert watch.find_problem(now + second) is None
    asked.cpu_s += 10
    assert watch.find_problem(now + MOST_BUSY_S + 1) is not None
    watch.end()


def test_who_computed_and_then_stands_still_is_stuck(asked: Asked) -> None:
    watch = begin(asked, "hang")
    now = time.monotonic()
    assert watch.find_problem(now) is None
    asked.cpu_s = 5.0
    assert watch.find_problem(now + STUCK_S + 1) is None
    assert watch.find_problem(now + 2 * STUCK_S) is None
    assert watch.find_problem(now + 2 * STUCK_S + 2) is not None
    watch.end()


class Triton(http.server.BaseHTTPRequestHandler):
    """Keeps what it is asked, and answers with an error."""

    requests: ClassVar[list[tuple[str, dict[str, Any], bytes]]] = []
    answer: ClassVar[bytes] = b'{"error": "onnxruntime: index out of range"}'

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        header = int(self.headers["Inference-Header-Content-Length"])
        self.requests.append((self.path, json.loads(content[:header]), content[header:]))
        self.send_response(500)
        self.end_headers()
        self.wfile.write(self.answer)

    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    """Run a Triton that answers errors, and return its port."""
    Triton.requests.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Triton) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_an_inference_has_the_shape_that_the_configuration_asks_for(port: int) -> None:
    config = {
        "name": "text_encoder",
        "max_batch_size": 8,
        "input": [
            {"name": "input_ids", "data_type": "TYPE_INT64", "dims": ["-1"]},
            {"name": "attention_mask", "data_type": "TYPE_INT64", "dims": [-1]},
            {"name": "pixel_values", "data_type": "TYPE_UINT8", "dims": [3, 2, 2]},
            {"name": "hidden", "data_type": "TYPE_FP16", "dims": [5]},
            {"name": "text", "data_type": "TYPE_STRING", "dims": [1]},
        ],
        "output": [{"name": "y"}, {"name": "z"}],
        "parameters": {"maximum.input_ids": {"string_value": "9"}},
    }
    ask = make_inference("127.0.0.1", port, config)
    ask()
    ask()
    (path, request, content), (_, _, other) = Triton.requests
    assert path == "/v2/models/text_encoder/infer"
    shapes = {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in request["inputs"]}
    assert shapes["input_ids"] == ("INT64", [1, 4])
    assert shapes["pixel_values"] == ("UINT8", [1, 3, 2, 2])
    assert shapes["text"] == ("BYTES", [1, 1])
    sizes = [tensor["parameters"]["binary_data_size"] for tensor in request["inputs"]]
    assert sizes == [32, 32, 12, 10, 5]
    assert len(content) == sum(sizes)
    assert content[32:64] == b"\x01\0\0\0\0\0\0\0" * 4, "where nothing is known of the largest value, it is 1"
    assert content != other, "no cache has seen the values"
    assert [output["name"] for output in request["outputs"]] == ["y"]


def test_a_model_without_inputs_is_asked_too(port: int) -> None:
    make_inference("127.0.0.1", port, {"name": "client_assets", "output": [{"name": "manifest"}]})()
    assert Triton.requests[0][1]["inputs"] == []


def test_what_triton_says_in_the_place_of_a_stub_is_no_answer(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Triton, "answer", b"""{"error":"Stub process 'text_encoder_0_0' is not healthy."}""")
    with pytest.raises(HTTPException, match="is not healthy"):
        make_inference("127.0.0.1", port, {"name": "text_encoder", "output": [{"name": "y"}]})()


def test_any_answer_of_the_gateway_is_a_sign_of_life(port: int) -> None:
    ask_gateway("127.0.0.1", port)


def test_what_is_gone_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for ask in (ask_gateway, ask_grpc):
        with pytest.raises((OSError, HTTPException)):
            ask("127.0.0.1", port)


def test_another_protocol_is_no_grpc(port: int) -> None:
    with pytest.raises(OSError, match=r"does not speak HTTP/2|reset"):
        ask_grpc("127.0.0.1", port)
