"""What stands between the browser and Gradio: fewer paths, stricter headers, the page's start language.

Gradio serves more than this page uses: an API over every handler, a fetcher for URLs, login, monitoring. Only the paths
in `PATHS` pass. Uploaded files are the only files, and no URL, that a browser may name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import HTMLResponse, JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lychee_server.defaults import MIB
from lychee_server.gateway.errors import NOTHING_HERE, OTHER_METHOD
from lychee_server.gateway.refusals import refuse
from lychee_server.web.language import Language, Words, choose_language

METHODS: Final = ("GET", "HEAD", "OPTIONS", "POST")
MAX_PATH_CHARACTERS: Final = 2048
INDEX: Final = "/"
QUEUE_JOIN: Final = "/gradio_api/queue/join"
PATHS: Final = re.compile(
    r"/|/theme\.css|/robots\.txt|/(?:static|assets|svelte)/[^\\]+"
    r"|/gradio_api/(?:queue/(?:join|data)|upload|upload_progress|cancel|reset|startup-events|app_id)/?"
    r"|/gradio_api/heartbeat/[a-z0-9]+"
    r"|/gradio_api/file=/[^\\]+"
)
# Gradio compiles its event code and its HTML templates in the browser, hence 'unsafe-eval'; nothing else is taken from
# anywhere but this origin, and nothing is sent elsewhere.
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
MAX_EVENT_SIZE_BYTES: Final = 16 * MIB
_CONFIG_MARK: Final = "window.gradio_config = "
_OTHER_SITES: Final = re.compile(r'\s*<meta\s+(?:property="og:|name="twitter:)[^>]*>|\s*<link rel="manifest"[^>]*>')
_EXAMPLES: Final = re.compile(r"https://(?:github|raw\.githubusercontent)\.com/gradio-app/[^\"'\\\s<]*")


class PageGuard:
    """Wraps Gradio's application.

    Args:
        app: Gradio's application.
        words: The texts of the page.
        script: The JavaScript that the page needs before anything else.
        icon: The SVG for the browser's tab.
        handlers: The numbers of the handlers that an event may name.
    """

    def __init__(self, app: ASGIApp, words: Words, script: str, icon: str, handlers: Collection[int]) -> None:
        self._app = app
        self._handlers = frozenset(handlers)
        self._words = words
        self._head = f'<link rel="icon" href="data:image/svg+xml,{quote(icon)}"><script>{script}</script>'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or have Gradio answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = _path_in_app(scope)
        send = _with_headers(send)
        if scope["method"] not in METHODS:
            await refuse(send, 405, "method_not_allowed", OTHER_METHOD, headers={"allow": ", ".join(METHODS)})
        elif len(path) > MAX_PATH_CHARACTERS or not PATHS.fullmatch(path) or "/../" in path:
            await refuse(send, 404, "not_found", NOTHING_HERE)
        elif path == INDEX:
            await self._serve_index(scope, receive, send)
        elif path.rstrip("/") == QUEUE_JOIN:
            await self._check_event(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve_index(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        # Uncompressed, so that it can be rewritten; without query, which would name a saved state of Gradio's.
        plain = {
            **scope,
            "headers": [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"],
            "query_string": b"",
        }
        start: Message = {}
        body = bytearray()

        async def collect(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                body.extend(message.get("body", b""))

        await self._app(plain, receive, collect)
        if start.get("status") != 200:
            await send(start)
            await send({"type": "http.response.body", "body": bytes(body)})
            return
        language = choose_language(QueryParams(scope["query_string"]).get("lang"), headers.get("accept-language", ""))
        page = self._rewrite(body.decode("utf-8"), language)
        await HTMLResponse(page, headers={"cache-control": "no-store"})(scope, receive, send)

    def _rewrite(self, page: str, language: Language) -> str:
        """Return the page in a language, with its script, without tags that name other sites."""
        page = _EXAMPLES.sub("", _OTHER_SITES.sub("", page))
        start = page.index(_CONFIG_MARK) + len(_CONFIG_MARK)
        config, end = json.JSONDecoder().raw_decode(page, start)
        self._words.translate(config["components"], language)
        page = page[:start] + _to_script(config) + page[end:]
        page = page.replace('lang="en"', f'lang="{language}"', 1)
        return page.replace("<head>", f"<head>{self._head}", 1)

    async def _check_event(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse events whose files are anything but uploads: Gradio would fetch a URL."""
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body.extend(message.get("body", b""))
            more = message.get("more_body", False)
            if len(body) > MAX_EVENT_SIZE_BYTES:
                problem = f"the texts have more than {MAX_EVENT_SIZE_BYTES} bytes; send fewer at a time"
                await JSONResponse({"detail": problem}, 413)(scope, receive, send)
                return
        mistake = self._find_mistake(bytes(body))
        if mistake is not None:
            await JSONResponse({"detail": mistake}, 400)(scope, receive, send)
            return
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, replay, send)

    def _find_mistake(self, body: bytes) -> str | None:
        """Say what is wrong with an event that Gradio would fail at or follow; None where nothing is."""
        try:
            event = json.loads(body)
            if not _has_local_paths(event):
                return "a file of the event is no upload; expected the path that the upload returned"
        except (ValueError, RecursionError):
            return "the event is no JSON; load the page again"
        handler = event.get("fn_index") if isinstance(event, dict) else None
        if not isinstance(handler, int) or handler not in self._handlers:
            return "the event names no handler of this page; load the page again"
        return None


def _path_in_app(scope: Scope) -> str:
    """Return the request's path below the application's root path."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return (path[len(root) :] or "/") if root and path.startswith(root) else path


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
        await send(message)

    return send_with_headers


def _has_local_paths(value: Any) -> bool:
    if isinstance(value, dict):
        path = value.get("path")
        if isinstance(path, str) and not path.startswith("/"):
            return False
        return all(_has_local_paths(item) for item in value.values())
    if isinstance(value, list):
        return all(_has_local_paths(item) for item in value)
    return True


def _to_script(value: object) -> str:
    """Return JSON that may stand in a <script>."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
