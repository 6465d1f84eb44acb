"""The page as users have it: real Triton, real gateway, and Debian's Chromium without a window."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn
from lychee_server import TritonServer
from lychee_server.gateway.app import create_app
from lychee_server.gateway.settings import GatewaySettings
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 375, "height": 800}
TIMEOUT_MS = 20_000

expect.set_options(timeout=TIMEOUT_MS)


@dataclass
class Gateway:
    """A gateway in a thread of this process.

    Attributes:
        url: Of its page, without a slash at the end.
    """

    settings: GatewaySettings
    url: str = ""
    _server: uvicorn.Server | None = None
    _thread: threading.Thread = field(init=False)
    _started: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Gateway:
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(listener)), daemon=True)
        self._thread.start()
        assert self._started.wait(60), "the gateway did not start"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join(30)

    async def _serve(self, listener: socket.socket) -> None:
        app = create_app(self.settings)
        config = uvicorn.Config(app, log_config=None, ws="none", lifespan="on", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        startup = self._server.startup

        async def start_and_tell(sockets: list[socket.socket] | None = None) -> None:
            await startup(sockets)
            self._started.set()

        self._server.startup = start_and_tell
        await self._server.serve([listener])


@pytest.fixture(scope="session")
def page_url(server: TritonServer) -> Iterator[str]:
    """Return the URL of a page whose gateway uses a real Triton."""
    with Gateway(GatewaySettings(triton_url=server.grpc_url)) as gateway:
        yield gateway.url


@pytest.fixture(scope="session")
def lost_page_url() -> Iterator[str]:
    """Return the URL of a page whose Triton is away."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refuses every connection
        port = unused.getsockname()[1]
        with Gateway(GatewaySettings(triton_url=f"127.0.0.1:{port}", timeout_s=3)) as gateway:
            yield gateway.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run Chromium. Not for longer: Playwright keeps an event loop, beside which no other test could run one."""
    if not Path(CHROMIUM).exists():
        pytest.fail(f"{CHROMIUM} does not exist; run deploy/test-tools.sh, or `apt-get install chromium`")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox does not work for root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@dataclass
class Watched:
    """What a browser context did.

    Attributes:
        urls: Of every request and websocket.
        console_errors: What the page wrote there as an error, and uncaught exceptions.
    """

    urls: list[str] = field(default_factory=list)
    console_errors: list[str] = field(default_factory=list)

    def elsewhere(self, page_url: str) -> list[str]:
        """Return the URLs that do not belong to the page's origin."""
        origin = urlsplit(page_url).netloc
        return [
            url for url in self.urls if urlsplit(url).scheme not in {"data", "blob"} and urlsplit(url).netloc != origin
        ]


MakePage = Callable[..., Page]


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture(scope="module")
def contexts(browser: Browser) -> dict[str, BrowserContext]:
    """Return the browser contexts by their options; tests share them, so that scripts are loaded once."""
    return {}


@pytest.fixture
def make_page(browser: Browser, contexts: dict[str, BrowserContext], watched: Watched) -> Iterator[MakePage]:
    """Return a function that opens an empty page; its arguments are those of a browser context."""
    pages: list[Page] = []

    def make(**options: object) -> Page:
        options = {"viewport": WIDE, "locale": "en-US", "accept_downloads": True, **options}
        context = contexts.get(str(options)) or browser.new_context(**options)
        contexts[str(options)] = context
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        pages.append(page)
        page.on("request", lambda request: watched.urls.append(request.url))
        page.on("websocket", lambda socket: watched.urls.append(socket.url))
        page.on("pageerror", lambda error: watched.console_errors.append(str(error)))
        page.on("console", lambda line: line.type == "error" and watched.console_errors.append(line.text))
        return page

    yield make
    for page in pages:
        page.close()


@pytest.fixture
def browser_page(make_page: MakePage, page_url: str, watched: Watched) -> Iterator[Page]:
    """Open the page in English, 1280 pixels wide; no error may be in the console at the end."""
    page = make_page()
    open_page(page, page_url)
    yield page
    assert watched.console_errors == []


def open_page(page: Page, url: str, tab: str = "try") -> None:
    """Load the page and choose a tab: "try", "rank", "compare", "batch", "calibrate" or "status"."""
    page.goto(url)
    expect(page.get_by_role("tab").first).to_be_visible()
    choose_tab(page, tab)


def choose_tab(page: Page, tab: str) -> None:
    """Choose a tab by its name, and wait until it is there."""
    page.locator(f"#choose-{tab}").click()
    expect(page.locator(f"#choose-{tab}")).to_have_attribute("aria-selected", "true")
    expect(page.locator(f"#tab-{tab}:not([aria-busy]) > *").first).to_be_visible()


@pytest.fixture(scope="session")
def artifacts(root: Path) -> Path:
    """Return the folder that keeps the screenshots."""
    folder = Path(os.environ.get("LYCHEE_TEST_ARTIFACTS") or root / "tests" / "artifacts")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def take_screenshot(artifacts: Path, request: pytest.FixtureRequest) -> Callable[..., Path]:
    """Return a function that keeps a picture of the whole page, named after the test."""

    def take(page: Page, name: str = "") -> Path:
        stem = re.sub(r"[^a-z0-9]+", "-", f"{request.node.name} {name}".lower().removeprefix("test_")).strip("-")
        path = artifacts / f"{stem}.png"
        page.screenshot(path=path, full_page=True)
        return path

    return take
