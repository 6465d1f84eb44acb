"""The page: files that a browser loads once and that speak to the REST API from then on, as any client does."""

from __future__ import annotations

from html import escape
from importlib import resources
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lychee_server.errors import InstallationError
from lychee_server.examples import read_catalogue

FILES: Final = "/page"
# Nothing is taken from anywhere but this origin, nothing is sent elsewhere, and no text becomes a script. Pictures that
# a user chose are blobs; the style property of an element is set by scripts, which no policy forbids.
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data: blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
SECURITY_HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # Asked for again each time, and answered with 304 while nothing changed: an upgrade is seen at once.
    "cache-control": "no-cache",
}


def install(app: FastAPI, root_path: str = "") -> None:
    """Serve the page at "/" and its files below FILES.

    They hold no data, so they are open to everyone, also where the API wants a key: the page asks for it.

    Args:
        app: The gateway's application.
        root_path: The path under which a proxy serves the gateway.
    """
    site = Path(str(resources.files("lychee_server.web").joinpath("site")))
    index = (site / "index.html").read_text(encoding="utf-8")
    index = index.replace('<base href="/">', f'<base href="{escape(root_path)}/">')

    async def page(_: Request) -> HTMLResponse:
        return HTMLResponse(index, headers=SECURITY_HEADERS)

    app.add_route("/", page, methods=["GET", "HEAD"], include_in_schema=False)
    try:
        catalogue = read_catalogue()
    except InstallationError:  # the page offers no example then
        documents, queries, photos = [], [], None
    else:
        documents = [
            {"text": each.text, "photo": each.photo.name if each.photo else None} for each in catalogue.documents
        ]
        queries = [{"text": text, "photo": photo.name} for text, photo in catalogue.queries.items()]
        photos = next(each.photo.parent for each in catalogue.documents if each.photo)

    async def examples(_: Request) -> JSONResponse:
        return JSONResponse({"documents": documents, "queries": queries}, headers=SECURITY_HEADERS)

    app.add_route(f"{FILES}/catalogue.json", examples, methods=["GET"], include_in_schema=False)
    if photos is not None:
        app.mount(f"{FILES}/photos", _WithHeaders(StaticFiles(directory=photos)))
    app.mount(FILES, _WithHeaders(StaticFiles(directory=site)))


class _WithHeaders:
    """Adds the page's headers to what an application answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)
