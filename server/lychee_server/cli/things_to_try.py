"""Three things to try with a gateway that runs, as `lychee quickstart` prints them: they work as they stand."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from typing import Final

from lychee_server.examples import find_example

__all__ = ["describe_things_to_try"]

QUERY: Final = "一只猫"
DOCUMENTS: Final = ("a cup of coffee", "窗台上的小猫")


def describe_things_to_try(url: str, *, needs_key: bool) -> Iterator[str]:
    """Yield three things that work as they stand; where the gateway wants a key, it is read from LYCHEE_API_KEY."""
    photo = find_example("catalogue", "photos", "cat.jpg")
    documents = ", ".join(f'"{document}"' for document in DOCUMENTS)
    key = ' \\\n     -H "Authorization: Bearer $LYCHEE_API_KEY"' if needs_key else ""
    yield ""
    if needs_key:
        yield "The gateway has keys. Put one of them where the commands read it: export LYCHEE_API_KEY=..."
        yield ""
    yield f"1. The page:  {url}"
    yield ""
    yield "2. REST:"
    yield ""
    yield f"curl -s {url}/v1/rerank -H 'content-type: application/json'{key} \\"
    yield f"""     -d '{{"query": "{QUERY}", "documents": [{documents}]}}'"""
    yield ""
    yield "3. Python:"
    yield ""
    yield f"{shlex.quote(sys.executable)} - <<'END'"
    yield "from lychee_client import Image, LycheeClient"
    yield f'with LycheeClient("{url}") as client:'
    yield f"    documents = [{documents}" + (f", Image.from_path({str(photo)!r})]" if photo else "]")
    yield f'    for result in client.rerank("{QUERY}", documents):'
    yield '        print(result.index, result.modality, f"{result.relevance_score:.3f}", result.decision)'
    yield "END"
    yield ""
    yield "`lychee status` says how the server is, and `lychee stop` ends it."
