"""Triton's statistics of several replicas as those of one."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Final

MAX_WAIT_S: Final = 1.0


class StatisticsSum(Future[Any]):
    """What all replicas counted, together. One that fails or takes too long is left out.

    Args:
        answers: What comes of asking each.
        began_at_s: When they were asked.
    """

    def __init__(self, answers: Sequence[Future[Any]], began_at_s: float) -> None:
        super().__init__()
        self.began_at_s = began_at_s
        self._answers = answers
        self._left = len(answers)
        self._count_lock = threading.Lock()
        for answer in answers:
            answer.add_done_callback(self._take)

    def finish(self) -> None:
        """Wait for no other answer."""
        told = [answer for answer in self._answers if answer.done() and not answer.cancelled()]
        counted = [answer.result() for answer in told if answer.exception() is None]
        error = next((answer.exception() for answer in told), None) or TimeoutError("no replica told its statistics")
        with suppress(InvalidStateError):
            if counted:
                self.set_result({"model_stats": _add_models(counted)})
            else:
                self.set_exception(error)

    def _take(self, _: Future[Any]) -> None:
        with self._count_lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self.finish()


def _add_models(answers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    models: dict[str, dict[str, Any]] = {}
    for answer in answers:
        for model in answer.get("model_stats", []):
            known = models.get(model["name"])
            if known is None:
                models[model["name"]] = dict(model)
            else:
                known["inference_stats"] = _add(known.get("inference_stats", {}), model.get("inference_stats", {}))
    return list(models.values())


def _add(first: Any, second: Any) -> Any:
    """Add numbers, which may be strings, and whatever holds them."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return {key: _add(first.get(key, 0), second.get(key, 0)) for key in {**first, **second}}
    if isinstance(first, Mapping) or isinstance(second, Mapping):
        return first or second
    return int(first) + int(second)
