"""sentence-transformers' `CrossEncoder`, with a server in the place of the model."""

from __future__ import annotations

import re
import weakref
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Final, cast

import numpy as np

from lychee_client._client import LycheeClient
from lychee_client._cross_encoder.activation import Activation, Scores, activate, import_torch
from lychee_client._cross_encoder.arguments import MODEL_ARGUMENTS, take_old_names, warn, warn_ignored
from lychee_client._cross_encoder.pairs import group, is_one_pair, refuse
from lychee_client._errors import ConfigurationError, InvalidInputError
from lychee_client.types import ManyResult, RerankResult

_URL: Final = re.compile(r"[a-z]+://.*|[^/\s]+:[0-9]{1,5}/?")


class CrossEncoder:
    """Scores pairs with a lychee-rerank server, called like `sentence_transformers.CrossEncoder` (6.2).

    Safe to use from several threads. There is no torch in it: only who asks for tensors needs torch.

    Args:
        model_name_or_path: The URL of the server, as LycheeClient takes it. The name of a model is compared with what
            the server serves: another one is warned about. The default is LYCHEE_URL, then "localhost:8001".
        activation_fn: What makes scores of logits, a function of a tensor (of an array, where the program has not
            imported torch), or "sigmoid" or "identity". None is the sigmoid.
        num_labels: 1 or None: a reranker has one score.
        prompts: Instructions by name.
        default_prompt_name: The name of the instruction of every call that has no other.
        url: The URL of the server, where `model_name_or_path` is a model's name.
        client: A client to use, which `close` leaves open, in the place of a URL and of client options.
        options: The other arguments of LycheeClient, such as `timeout_s`. Those of sentence-transformers that load
            and place a model (`device`, `max_length`, `model_kwargs` and so on) are ignored with a LycheeWarning.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    num_labels: Final = 1

    def __init__(
        self,
        model_name_or_path: str | None = None,
        *,
        activation_fn: Activation | None = None,
        num_labels: int | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        url: str | None = None,
        client: LycheeClient | None = None,
        **options: Any,
    ) -> None:
        name = options.pop("model_name", None) if model_name_or_path is None else model_name_or_path
        if name is not None and _URL.fullmatch(name):
            if url is not None:
                raise ConfigurationError(f"the server is both {name!r} and {url!r}; expected one URL")
            name, url = None, name
        if num_labels not in (None, 1):
            raise ConfigurationError(f"num_labels is {num_labels}; expected 1: a reranker gives a pair one score")
        old_activation_fn = options.pop("default_activation_function", None)
        self.activation_fn = old_activation_fn if activation_fn is None else activation_fn
        self.prompts = dict(prompts or {})
        self.default_prompt_name = default_prompt_name
        self._find_instruction(None, default_prompt_name)
        self._expected_model: str | None = name
        ignored = {name: options.pop(name) for name in sorted(options.keys() & MODEL_ARGUMENTS)}
        warn_ignored("CrossEncoder", ignored)
        given = [*([] if url is None else ["url"]), *options]
        if client is not None and given:
            raise ConfigurationError(f"client is given together with {', '.join(given)}; expected one or the other")
        self._client = LycheeClient(url, **options) if client is None else client
        # Programs written for a model do not close it: the connection ends with the object, or with the program.
        self._end = None if client is not None else weakref.finalize(self, self._client.close)

    def __enter__(self) -> CrossEncoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release connection and threads; a client that was passed in stays open."""
        if self._end is not None:
            self._end()

    @take_old_names
    def predict(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Score pairs of query and document. Pairs with the same query travel in one call, up to 1,000 at a time.

        Args:
            inputs: One pair, or many. Query and document are a text (a string is always one), an image (Image, Pillow
                or numpy), an ImageText, or a dict with "text", "image" or both.
            prompt_name: The name of one of `prompts`.
            prompt: What makes a document relevant, for a model that reads an instruction: `instruction` elsewhere.
            batch_size: At least 1; the server batches by itself.
            show_progress_bar: Has no effect.
            activation_fn: What makes scores of logits, in the place of the constructor's.
            apply_softmax: Has no effect on one score.
            convert_to_numpy: Whether to return an array and not a list of tensors.
            convert_to_tensor: Whether to return a tensor, whatever `convert_to_numpy` says.
            device: Ignored, with a LycheeWarning.
            pool: Ignored, with a LycheeWarning.
            chunk_size: Ignored, with a LycheeWarning.
            kwargs: Ignored, with a LycheeWarning.

        Returns:
            float32, (pairs,), in the order of the pairs; a single number for one pair. In [0, 1], unless
            `activation_fn` says otherwise.

        Raises:
            InvalidInputError: A pair cannot be scored (an empty text, a broken image); the message names it, and
                `index` has its position.
            ConfigurationError: An argument cannot be used, or torch is not installed and a tensor is asked for.
            LycheeError: The server cannot serve the call, see `LycheeClient.rerank`.
        """
        warn_ignored("predict", {"device": device, "pool": pool, "chunk_size": chunk_size, **kwargs})
        if batch_size < 1:
            raise ConfigurationError(f"batch_size is {batch_size}; expected at least 1")
        torch = import_torch() if convert_to_tensor or not convert_to_numpy else None
        single = is_one_pair(inputs)
        listed = inputs.tolist() if isinstance(inputs, np.ndarray) else inputs
        scores = self._score([listed] if single else list(listed), prompt, prompt_name, activation_fn)
        values: Any = scores if torch is None else torch.from_numpy(scores)
        if not convert_to_tensor and not convert_to_numpy:
            values = list(values)
        return values[0] if single else values

    @take_old_names
    def rank(
        self,
        query: Any,
        documents: Sequence[Any],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
    ) -> list[dict[str, Any]]:
        """Rank documents for a query. See `predict` for the arguments that both have, and for the errors.

        Args:
            query: A text, an image or both.
            documents: Any mix of texts and images.
            top_k: How many to return at most. None returns all.
            return_documents: Whether each has its document, as "text".
            prompt_name: See `predict`.
            prompt: See `predict`.
            batch_size: See `predict`.
            show_progress_bar: See `predict`.
            activation_fn: See `predict`.
            device: See `predict`.
            pool: See `predict`.
            chunk_size: See `predict`.

        Returns:
            A dict for each, best first: "corpus_id", the position in `documents`; "score"; and "text" where asked for.
        """
        scores = self.predict(
            [(query, document) for document in documents],
            prompt_name,
            prompt,
            batch_size,
            activation_fn=activation_fn,
            device=device,
            pool=pool,
            chunk_size=chunk_size,
        )
        ranked = [{"corpus_id": index, "score": score} for index, score in enumerate(scores.tolist())]
        if return_documents:
            for result in ranked:
                result["text"] = documents[result["corpus_id"]]
        return sorted(ranked, key=lambda result: result["score"], reverse=True)[:top_k]

    def _score(
        self, pairs: Sequence[Any], prompt: str | None, prompt_name: str | None, activation_fn: Activation | None
    ) -> Scores:
        calls = group(pairs)
        logits, scores = np.zeros(len(pairs), np.float32), np.zeros(len(pairs), np.float32)
        asked = ((query, list(documents.values())) for query, documents in calls)
        outcomes = self._client.rerank_many(asked, instruction=self._find_instruction(prompt, prompt_name))
        with closing(cast(Generator[ManyResult, None, None], outcomes)):  # after an error, the rest is cancelled
            for outcome, (_, documents) in zip(outcomes, calls, strict=True):
                positions = list(documents)
                for result in self._find_results(outcome, positions):
                    logits[positions[result.index]] = result.logit
                    scores[positions[result.index]] = result.relevance_score
        return activate(self.activation_fn if activation_fn is None else activation_fn, logits, scores)

    def _find_results(self, outcome: ManyResult, positions: Sequence[int]) -> Sequence[RerankResult]:
        if outcome.error is not None:
            if isinstance(outcome.error, InvalidInputError):  # the query's
                raise refuse(positions[0], outcome.error) from outcome.error
            raise outcome.error
        assert outcome.response is not None
        for failed in outcome.response.errors:
            raise refuse(positions[failed.index], failed.error) from failed.error
        if self._expected_model is not None and outcome.response.model is not None:
            expected, served = self._expected_model, outcome.response.model.model_id
            self._expected_model = None
            if _last_part(expected) != _last_part(served):
                warn(f"the server serves {served}, not {expected}; the scores are those of {served}")
        return outcome.response.results

    def _find_instruction(self, prompt: str | None, prompt_name: str | None) -> str | None:
        """Return the instruction; None leaves the model its default, and so does an empty one."""
        if prompt is None:
            prompt_name = self.default_prompt_name if prompt_name is None else prompt_name
            if prompt_name is not None and prompt_name not in self.prompts:
                raise ConfigurationError(f"prompt_name is {prompt_name!r}; expected one of {sorted(self.prompts)}")
            prompt = None if prompt_name is None else self.prompts[prompt_name]
        return prompt or None


def _last_part(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2].lower()
