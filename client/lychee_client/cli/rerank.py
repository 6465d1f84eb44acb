"""`lychee rerank`: rank text files and images against a query."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text as RichText

from lychee_client._client import LycheeClient
from lychee_client._errors import InvalidInputError
from lychee_client._options import RerankOptions
from lychee_client.cli.calls_file import count_calls, read_calls
from lychee_client.cli.options import (
    AsJson,
    CalibrationOption,
    Chunks,
    InstructionText,
    Language,
    MaxChunks,
    MaxImgSize,
    MaxTokensPerDoc,
    MaxTokensPerQuery,
    ModelName,
    NoTruncation,
    OverlapTokens,
    PolicyOption,
    QueryImage,
    QueryText,
    TemplateName,
    Url,
    choose_chunking,
    choose_instruction,
    choose_policy,
    make_client,
    make_input,
)
from lychee_client.cli.outcome import EXIT_FAILED, reported_errors, tell
from lychee_client.cli.table import latency_line, ranking_table, server_table
from lychee_client.preprocessing.formats import IMAGE_SUFFIXES, find_signature
from lychee_client.preprocessing.image import MAX_SIZE_BYTES, Image
from lychee_client.spans import RelevantSpans
from lychee_client.types import DocumentError, Input, RerankResponse, RerankResult, Text, Timings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="rerank")(_rerank)


def _rerank(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILES...", help="Images, and text files in UTF-8.")
    ] = None,
    query: QueryText = None,
    query_image: QueryImage = None,
    calls: Annotated[
        Path | None,
        typer.Option(
            "--calls",
            metavar="PATH",
            help='In place of FILES and a query: JSON lines of {"query": ..., "documents": [...]}; prints JSON lines.',
        ),
    ] = None,
    url: Url = None,
    model: ModelName = None,
    top_n: Annotated[int | None, typer.Option("--top-n", min=1, help="Show at most so many results.")] = None,
    policy: PolicyOption = "balanced",
    calibration: CalibrationOption = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", min=0.0, max=1.0, help="Leave out results with a lower score.")
    ] = None,
    min_results: Annotated[
        int, typer.Option("--min-results", min=0, help="Keep so many of the best below the threshold, marked.")
    ] = 0,
    instruction: InstructionText = None,
    template: TemplateName = None,
    language: Language = "en",
    priority: Annotated[
        Literal["interactive", "bulk"] | None,
        typer.Option(
            "--priority",
            case_sensitive=False,
            help="bulk lets other callers go first; it is the default with --calls.",
        ),
    ] = None,
    spans: Annotated[
        bool, typer.Option("--spans", help="Also find the sentences of each text that match; show the best one.")
    ] = False,
    server_timings: Annotated[
        bool, typer.Option("--server-timings", help="Also show queue, compute and cache hits of each model.")
    ] = False,
    max_tokens_per_doc: MaxTokensPerDoc = None,
    max_tokens_per_query: MaxTokensPerQuery = None,
    no_truncation: NoTruncation = False,
    chunk: Chunks = False,
    overlap_tokens: OverlapTokens = None,
    max_chunks: MaxChunks = None,
    max_img_size: MaxImgSize = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", envvar="LYCHEE_TIMEOUT_S", help="For each call; 30, if not given."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rank FILES by how well they match a query; each file is one document.

    Example: lychee rerank --query "a cat" photos/*.jpg notes.txt
    """
    if (calls is None) != bool(files):
        raise typer.BadParameter("give FILES or --calls, one of the two")
    with reported_errors():
        options: RerankOptions = {
            "top_n": top_n,
            "score_threshold": threshold,
            "min_results": min_results,
            "policy": choose_policy(policy, calibration),
            "instruction": choose_instruction(instruction, template, language),
            "priority": priority or ("interactive" if calls is None else "bulk"),
            "server_timings": server_timings,
            "max_tokens_per_doc": max_tokens_per_doc,
            "max_tokens_per_query": max_tokens_per_query,
            "truncation": not no_truncation,
            "chunking": choose_chunking(chunk, overlap_tokens, max_chunks),
            "relevant_spans": RelevantSpans() if spans else None,
            "return_documents": chunk or spans,  # of which the table shows a part
        }
        if timeout is not None:
            options["timeout_s"] = timeout
        with make_client(url, max_img_size, model) as client:
            if calls is not None:
                failed = _rank_calls(client, calls, options)
            else:
                compared = make_input(query, query_image, "--query, --query-image")
                failed = _rank_files_and_print(client, compared, files or [], options, as_json)
    if failed:
        tell(failed)
        raise typer.Exit(EXIT_FAILED)


def _rank_files_and_print(
    client: LycheeClient, query: Input, files: Sequence[str], options: RerankOptions, as_json: bool
) -> str:
    """Return what failed as a whole, or an empty string."""
    response = _rank_files(client, query, files, options)
    if as_json:
        typer.echo(json.dumps(to_json(response, files), ensure_ascii=False, indent=2))
    else:
        _print(response, files)
    return "no document could be ranked" if len(response.errors) == len(files) else ""


def _rank_calls(client: LycheeClient, path: Path, options: RerankOptions) -> str:
    """Print one JSON object per call, in order; return what failed as a whole, or an empty string."""
    failures = 0
    progress = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with progress:
        task = progress.add_task("ranking", total=count_calls(path))
        for outcome in client.rerank_many(read_calls(path), **options):
            if outcome.response is None:
                failures += 1
                line: dict[str, Any] = {"index": outcome.index, "error": str(outcome.error)}
            else:
                line = {"index": outcome.index, **to_json(outcome.response)}
            typer.echo(json.dumps(line, ensure_ascii=False))
            progress.advance(task)
    return f"{failures} calls failed" if failures else ""


def _rank_files(client: LycheeClient, query: Input, files: Sequence[str], options: RerankOptions) -> RerankResponse:
    """Rank what can be read. Indexes in the response are positions in `files`."""
    documents: list[Input] = []
    positions: list[int] = []
    unreadable: list[DocumentError] = []
    for position, file in enumerate(files):
        try:
            documents.append(load_document(Path(file)))
        except InvalidInputError as error:
            error.index = position
            unreadable.append(DocumentError(position, str(error), error))
        else:
            positions.append(position)
    response = client.rerank(query, documents, **options)
    errors = [dataclasses.replace(failed, index=positions[failed.index]) for failed in response.errors]
    return dataclasses.replace(
        response,
        results=tuple(dataclasses.replace(result, index=positions[result.index]) for result in response.results),
        errors=tuple(sorted(errors + unreadable, key=lambda failed: failed.index)),
    )


def load_document(path: Path) -> Input:
    """Return an Image for a file that looks like one, by suffix or content, otherwise a Text with the content.

    Raises:
        InvalidInputError: It is no image and cannot be read as UTF-8 text.
    """
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Image.from_path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}; check the path") from error
    if find_signature(data) is not None:
        return Image.from_path(path)
    if len(data) > MAX_SIZE_BYTES:
        raise InvalidInputError(f"{path} is larger than the limit of {MAX_SIZE_BYTES} bytes; split the text")
    try:
        return Text(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{path} is neither an image nor UTF-8 text, from byte {error.start} on; convert it"
        ) from error


def to_json(response: RerankResponse, sources: Sequence[str] | None = None) -> dict[str, Any]:
    """Return a response as JSON types.

    Args:
        response: The response to one call.
        sources: The names of the documents, by index. None leaves them out.
    """

    def name(index: int) -> dict[str, Any]:
        return {"index": index} if sources is None else {"index": index, "source": sources[index]}

    return {
        "results": [name(result.index) | result_to_json(result) for result in response.results],
        "errors": [name(failed.index) | {"message": failed.message} for failed in response.errors],
        "query": None if response.query is None else dataclasses.asdict(response.query),
        "timings": timings_to_json(response.timings),
        "model": None if response.model is None else msgspec.to_builtins(response.model),
        "instruction": response.instruction,
        "warnings": list(response.warnings),
    }


def result_to_json(result: RerankResult) -> dict[str, Any]:
    """Return a result as JSON types, without index and document."""
    fields = dataclasses.asdict(dataclasses.replace(result, document=None))
    return {name: value for name, value in fields.items() if name not in ("index", "document")}


def timings_to_json(timings: Timings) -> dict[str, Any]:
    """Return timings as JSON types, milliseconds to three places."""
    fields = dataclasses.asdict(timings)
    server = fields.pop("server")
    rounded: dict[str, Any] = {name: round(value, 3) for name, value in fields.items()}
    return rounded if server is None else rounded | {"server": server}


def _print(response: RerankResponse, sources: Sequence[str]) -> None:
    console = Console()
    console.print(ranking_table(response, sources))
    for failed in response.errors:
        console.print(RichText(f"error {sources[failed.index]}: {failed.message}", style="red"))
    console.print(latency_line(response.timings))
    if response.timings.server is not None:
        console.print(server_table(response.timings.server))
