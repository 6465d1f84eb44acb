"""Start Triton, rank the example catalogue for six queries, stop Triton."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from lychee_client import Image, ImageText, LycheeClient, Text
from lychee_client.cli.table import latency_line, ranking_table
from lychee_server import LycheeServerError, TritonServer
from lychee_server.examples import CatalogueDocument, read_catalogue
from rich.console import Console

REPOSITORY = Path(__file__).parent.parent / "model_repository"
LOG = Path(tempfile.gettempdir()) / "lychee-demo.log"
TOP_N = 5


def main() -> int:
    """Print a ranked table for each query; return the exit status."""
    console = Console(width=max(Console().width, 100))
    console.print("Starting Triton ...")
    started = time.monotonic()
    try:
        with TritonServer(REPOSITORY, http_port=0, grpc_port=0, metrics_port=0, log_path=LOG) as server:
            console.print(
                f"ready after {time.monotonic() - started:.1f} s on {server.grpc_url} (log: {server.log_path})"
            )
            if server.export.choice_note:
                console.print(f"  what executes the encoders: {server.export.choice_note}")
            for name, choice in server.export.choices.items():
                console.print(f"  {name}: {choice.execution} ({choice.reason})")
            return rank_catalogue(console, server.grpc_url)
    except LycheeServerError as error:
        console.print(f"[red]{error}[/red]")
        return 1


def rank_catalogue(console: Console, url: str) -> int:
    """Rank all documents for each query and say whether the fitting photo leads the photos."""
    catalogue = read_catalogue()
    documents = [to_document(document) for document in catalogue.documents]
    sources = [document.source for document in catalogue.documents]
    status = 0
    with LycheeClient(url) as client:
        for query, photo in catalogue.queries.items():
            response = client.rerank(query, documents)
            console.print(f"\n[bold]{query}[/bold]  (best {TOP_N} of {len(documents)})")
            console.print(ranking_table(replace(response, results=response.results[:TOP_N]), sources))
            best = next(result for result in response.results if result.modality == "image")
            console.print(f"best photo: {sources[best.index]}; {latency_line(response.timings)}")
            if sources[best.index] != photo.name:
                console.print(f"[red]expected {photo.name} to lead the photos[/red]")
                status = 1
    return status


def to_document(document: CatalogueDocument) -> Text | Image | ImageText:
    """Return a document of the catalogue as the client takes it."""
    if document.photo is None:
        assert document.text is not None
        return Text(document.text)
    image = Image.from_path(document.photo)
    return image if document.text is None else ImageText(image, document.text)


if __name__ == "__main__":
    sys.exit(main())
