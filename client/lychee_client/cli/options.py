"""What the commands that call a server have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import typer

from lychee_client._client import LycheeClient
from lychee_client._config import UNSET
from lychee_client.calibration import Calibration
from lychee_client.chunking import DEFAULT_MAX_CHUNKS, Chunking
from lychee_client.instructions.templates import get_instruction
from lychee_client.preprocessing.image import Image
from lychee_client.types import Input, combine

PolicyName: TypeAlias = Literal["strict", "balanced", "exploratory"]
LanguageName: TypeAlias = Literal["en", "zh"]

Url: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        envvar="LYCHEE_URL",
        help="HOST:PORT of Triton's gRPC, or http://HOST:PORT of its HTTP or of a gateway; grpcs:// and https:// with "
        "TLS (localhost:8001, if not given). Replicas: their name, or A:8001,B:8001. LYCHEE_API_KEY opens a gateway.",
    ),
]
ModelName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        envvar="LYCHEE_MODEL",
        help="Which of a gateway's models is meant (its default, if not given); of another server, what it must serve.",
    ),
]
QueryText: TypeAlias = Annotated[str | None, typer.Option("--query", metavar="TEXT", help="Text to compare with.")]
QueryImage: TypeAlias = Annotated[
    Path | None, typer.Option("--query-image", metavar="PATH", help="Image to compare with, alone or with --query.")
]
PolicyOption: TypeAlias = Annotated[
    PolicyName, typer.Option("--policy", case_sensitive=False, help="Thresholds for the decisions.")
]
CalibrationOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--calibration", metavar="PATH", help="File of `lychee calibrate`; decides in place of --policy."),
]
InstructionText: TypeAlias = Annotated[
    str | None,
    typer.Option("--instruction", metavar="TEXT", help="What makes a document relevant, if the model reads it."),
]
TemplateName: TypeAlias = Annotated[
    str | None,
    typer.Option("--template", metavar="NAME", help="The same by name: see `lychee instructions list`."),
]
Language: TypeAlias = Annotated[LanguageName, typer.Option("--language", case_sensitive=False, help="Of the template.")]
MaxImgSize: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--max-img-size",
        metavar="PIXELS",
        envvar="LYCHEE_MAX_IMG_SIZE",
        min=1,
        help="Shrink larger images, to a square of this side or as many pixels (the model's own limit, if not given).",
    ),
]
LONG_TEXTS: Final = "Long texts"
MaxTokensPerDoc: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--max-tokens-per-doc",
        metavar="N",
        min=1,
        help="Read at most so many of the model's tokens of each text.",
        rich_help_panel=LONG_TEXTS,
    ),
]
MaxTokensPerQuery: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--max-tokens-per-query", metavar="N", min=1, help="The same of the query.", rich_help_panel=LONG_TEXTS
    ),
]
NoTruncation: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--no-truncation", help="What is too long is an error instead of being cut.", rich_help_panel=LONG_TEXTS
    ),
]
Chunks: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--chunk",
        help="Score texts that are too long by their best chunk, and show which it is.",
        rich_help_panel=LONG_TEXTS,
    ),
]
OverlapTokens: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--overlap-tokens",
        metavar="N",
        min=0,
        help="With --chunk: tokens that two chunks have in common; an eighth of a chunk, at most 80, if not given.",
        rich_help_panel=LONG_TEXTS,
    ),
]
MaxChunks: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--max-chunks",
        metavar="N",
        min=1,
        help=f"With --chunk: read so many chunks of a text; {DEFAULT_MAX_CHUNKS}, if not given.",
        rich_help_panel=LONG_TEXTS,
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def make_client(url: str | None, max_img_size: int | None, model: str | None) -> LycheeClient:
    """Return the client that --url, --max-img-size and --model ask for.

    Raises:
        ConfigurationError: One of them cannot be used.
    """
    return LycheeClient(url, max_img_size=UNSET if max_img_size is None else max_img_size, model=model or UNSET)


def make_input(text: str | None, image_path: Path | None, options: str) -> Input:
    """Return the query or document that two options describe.

    Args:
        text: The text of the query or document, or None.
        image_path: The path of its image, or None.
        options: The names of the two options, for the message.

    Raises:
        BadParameter: Neither is given.
    """
    if text is None and image_path is None:
        raise typer.BadParameter(f"give {options}, or both")
    return combine(text, *([] if image_path is None else [Image.from_path(image_path)]))


def choose_policy(name: PolicyName, calibration: Path | None) -> str | Calibration:
    """Return what --policy and --calibration ask for.

    Raises:
        ConfigurationError: The file is no calibration.
    """
    return name if calibration is None else Calibration.load(calibration)


def choose_chunking(chunk: bool, overlap_tokens: int | None, max_chunks: int | None) -> Chunking | None:
    """Return what --chunk, --overlap-tokens and --max-chunks ask for.

    Raises:
        BadParameter: One of the last two is given without the first.
    """
    if not chunk:
        if overlap_tokens is not None or max_chunks is not None:
            raise typer.BadParameter("give --overlap-tokens and --max-chunks together with --chunk")
        return None
    return Chunking(overlap_tokens, max_chunks or DEFAULT_MAX_CHUNKS)


def choose_instruction(text: str | None, template: str | None, language: LanguageName) -> str | None:
    """Return what --instruction or --template asks for; None is the model's default.

    Raises:
        BadParameter: Both are given.
        ConfigurationError: No template has that name.
    """
    if template is None:
        return text
    if text is not None:
        raise typer.BadParameter("give --instruction or --template, not both")
    return get_instruction(template, language)
