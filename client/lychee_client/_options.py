"""The options of a call, for both clients and for those who pass them on: `client.rerank(..., **options)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from lychee_client._config import Unset
from lychee_client.calibration import Calibration
from lychee_client.chunking import Chunking
from lychee_client.spans import RelevantSpans
from lychee_client.thresholds import Policy
from lychee_client.types import Priority


class ScoreOptions(TypedDict, total=False):
    """The keyword arguments of `LycheeClient.score`; each may be left out.

    Attributes:
        instruction: What makes a document relevant, for a model that reads an instruction. None takes the model's
            default.
        priority: "bulk" sends little at a time, so that interactive calls overtake it. The default is "interactive".
        timeout_s: Seconds for the whole call, retries included. None waits forever. The default is the client's.
        request_id: The id under which Triton's log and every error know the call's requests, as
            "<request_id>/<number>": 1 to 128 printable ASCII characters without spaces. With None the client makes
            ids up.
    """

    instruction: str | None
    priority: Priority
    timeout_s: float | Unset | None
    request_id: str | None


class RerankOptions(ScoreOptions, total=False):
    """The keyword arguments of `LycheeClient.rerank`; each may be left out. See also ScoreOptions.

    Attributes:
        top_n: How many results to return at most. None returns all.
        score_threshold: The lowest relevance score, from 0 to 1, that a result may have; lower ones are left out. None
            sets no threshold.
        min_results: How many of the best results stay although they are below `score_threshold`, marked
            `below_threshold`. The default is 0.
        policy: The policy that labels each result with a decision: a name, a Policy or a Calibration. None takes the
            client's.
        return_documents: Whether each result holds its document. The default is False.
        server_timings: Whether to ask the server, before and after, what it counted per model: two more requests. The
            default is False.
        max_tokens_per_doc: How many tokens of each document's text are read at most; a document that has more is
            `truncated`. They are the tokens of the model that is served; special tokens, the model's prefix or template
            and those of images do not count. None sets no limit beside the model's own.
        max_tokens_per_query: The same of the query, with a warning where it has more.
        truncation: Whether texts that are too long for the model, or for the two limits, are cut. With False such a
            document is an InvalidInputError of its own, and such a query one of the call. The default is True.
        chunking: Has documents that are longer than the model reads scored in chunks, the best of which counts; the
            result's `chunk` says which. `max_tokens_per_doc` then limits all chunks of a document together. With
            `truncation=False`, a document that has too many chunks is an error. None, the default, reads beginnings.
        relevant_spans: Asks for the sentences of each result's text that match the query: `RelevantSpans()`. They are
            scored after the documents, in the same call. None asks for none.
        keep_unselected: Whether the response also holds, as `unselected`, the ranked documents that `top_n` and
            `score_threshold` leave out. The default is False.
        user: Who asks, for an experiment that a gateway runs: a key that stays the same for one user. The gateway keeps
            a pseudonym of it. Where the user takes part, the settings of the user's arm replace those of the call, and
            the response has `ranking_id` and `experiment`. Triton itself runs no experiment and warns.
    """

    top_n: int | None
    score_threshold: float | None
    min_results: int
    policy: str | Policy | Calibration | None
    return_documents: bool
    server_timings: bool
    max_tokens_per_doc: int | None
    max_tokens_per_query: int | None
    truncation: bool
    chunking: Chunking | None
    relevant_spans: RelevantSpans | None
    keep_unselected: bool
    user: str | None


def check_options(method: str, options: Mapping[str, Any], known: type[ScoreOptions] = RerankOptions) -> None:
    """Refuse keyword arguments that a method does not have, as Python does for those in its signature.

    Raises:
        TypeError: There is one.
    """
    unknown = sorted(options.keys() - known.__annotations__)
    if unknown:
        expected = ", ".join(sorted(known.__annotations__))
        raise TypeError(f"{method}() got an unexpected keyword argument {unknown[0]!r}; expected some of {expected}")
