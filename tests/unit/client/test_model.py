"""What clients of one process share."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import pytest
from fakes.dual_encoder import FakeTransport
from lychee_client import LycheeClient, _model
from lychee_client.preprocessing import text


def test_clients_of_one_model_share_its_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    load_tokenizer: Callable[[str], Any] = text.load_tokenizer

    def load(content: str) -> Any:
        read.append(content)
        return load_tokenizer(content)

    monkeypatch.setattr(text, "load_tokenizer", load)
    monkeypatch.setattr(_model, "_processors", WeakValueDictionary())  # other tests may have left some
    for kept_open in (2, 1):  # once both are closed, the tokenizer is gone
        clients = [LycheeClient(transport=FakeTransport()) for _ in range(kept_open)]
        scores = {client.score("aa", "zz") for client in clients}
        assert len(scores) == 1
        for client in clients:
            client.close()
        del clients, client
        gc.collect()
    assert len(read) == 2
