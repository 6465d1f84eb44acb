"""`lychee rerank`: rank text files and images against a query."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from rich.console import Console
from rich.text import Text as RichText

from lychee_client._client import LycheeClient
from lychee_client._errors import InvalidInputError
from lychee_client._image import MAX_SIZE_BYTES, Image
from lychee_client._types import DocumentError, ImageText, Input, RerankResponse, Text
from lychee_client.cli.options import Url, reported_errors
from lychee_client.cli.table import latency_line, ranking_table

IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
# BMP is told by its suffix only: its two bytes "BM" may well begin a text.
_IMAGE_SIGNATURES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="rerank")(_rerank)


def _rerank(
    files: Annotated[list[str], typer.Argument(metavar="FILES...", help="Images, and text files in UTF-8.")],
    query: Annotated[str | None, typer.Option("--query", metavar="TEXT", help="Text to compare with.")] = None,
    query_image: Annotated[
        Path | None, typer.Option("--query-image", metavar="PATH", help="Image to compare with, alone or with --query.")
    ] = None,
    url: Url = None,
    top_n: Annotated[int | None, typer.Option("--top-n", min=1, help="Show at most so many results.")] = None,
    policy: Annotated[
        Literal["strict", "balanced", "exploratory"], typer.Option("--policy", help="Thresholds for the decisions.")
    ] = "balanced",
    threshold: Annotated[
        float | None, typer.Option("--threshold", min=0.0, max=1.0, help="Leave out results with a lower score.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Rank FILES by how well they match a query; each file is one document.

    Example: lychee rerank --query "a cat" photos/*.jpg notes.txt
    """
    with reported_errors(), LycheeClient(url, policy=policy) as client:
        response = _rank_files(client, _make_query(query, query_image), files, top_n, threshold)
    if as_json:
        typer.echo(json.dumps(to_json(response, files), ensure_ascii=False, indent=2))
    else:
        _print(response, files)
    if len(response.errors) == len(files):
        typer.echo("lychee: no document could be ranked", err=True)
        raise typer.Exit(1)


def _make_query(text: str | None, image_path: Path | None) -> Input:
    if image_path is None:
        if text is None:
            raise typer.BadParameter("give --query, --query-image, or both")
        return Text(text)
    image = Image.from_path(image_path)
    return image if text is None else ImageText(image, text)


def _rank_files(
    client: LycheeClient, query: Input, files: Sequence[str], top_n: int | None, threshold: float | None
) -> RerankResponse:
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
    response = client.rerank(query, documents, top_n=top_n, score_threshold=threshold)
    errors = [dataclasses.replace(failed, index=positions[failed.index]) for failed in response.errors]
    return RerankResponse(
        tuple(dataclasses.replace(result, index=positions[result.index]) for result in response.results),
        tuple(sorted(errors + unreadable, key=lambda failed: failed.index)),
        response.timings,
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
    if data.startswith(_IMAGE_SIGNATURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        return Image.from_path(path)
    if len(data) > MAX_SIZE_BYTES:
        raise InvalidInputError(f"{path} is larger than the limit of {MAX_SIZE_BYTES} bytes; split the text")
    try:
        return Text(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{path} is neither an image nor UTF-8 text: {error.reason} at byte {error.start}; convert it"
        ) from error


def to_json(response: RerankResponse, sources: Sequence[str]) -> dict[str, Any]:
    """Return a response as JSON types.

    Args:
        response: Of one call.
        sources: What to call each document, by index.
    """
    return {
        "results": [
            {
                "index": result.index,
                "source": sources[result.index],
                "modality": result.modality,
                "relevance_score": result.relevance_score,
                "decision": result.decision,
                "truncated": result.truncated,
            }
            for result in response.results
        ],
        "errors": [
            {"index": failed.index, "source": sources[failed.index], "message": failed.message}
            for failed in response.errors
        ],
        "timings": {name: round(value, 3) for name, value in dataclasses.asdict(response.timings).items()},
    }


def _print(response: RerankResponse, sources: Sequence[str]) -> None:
    console = Console()
    console.print(ranking_table(response, sources))
    for failed in response.errors:
        console.print(RichText(f"error {sources[failed.index]}: {failed.message}", style="red"))
    console.print(latency_line(response.timings))
