"""The page: four tabs in Gradio, mounted beside the REST routes."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Final

import gradio as gr
from fastapi import FastAPI
from starlette.routing import Mount

from lychee_server.gateway.service import Service
from lychee_server.web import calibrate_tab, rerank_tab, score_tab, status_tab
from lychee_server.web.guard import PageGuard
from lychee_server.web.language import LANGUAGES, NAMES, START_LANGUAGE, Words
from lychee_server.web.theme import make_theme

# Uploads are deleted an hour after they came; the page asks for them again if it still needs them.
DELETE_EVERY_S: Final = 600
DELETE_AFTER_S: Final = 3600
# Gradio keeps what each open page shows; the oldest pages are forgotten first.
MAX_SESSIONS: Final = 200
MAX_QUEUED_EVENTS: Final = 1000


def mount_page(app: FastAPI, service: Service) -> FastAPI:
    """Serve the page at "/", for everything that no earlier route answers.

    Args:
        app: The gateway's application, whose routes must be there already.
        service: The service that the page calls.

    Returns:
        The same app.
    """
    _configure_gradio()
    settings = service.settings
    blocks, words = build_page(service)
    blocks.state_session_capacity = MAX_SESSIONS
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        root_path=settings.root_path or None,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=f"{settings.max_request_mb}mb",
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=make_theme(),
        css=read_asset("style.css"),
    )
    mount = app.routes[-1]
    assert isinstance(mount, Mount)
    mount.app = PageGuard(
        mount.app, words, script=read_asset("page.js"), icon=read_asset("lychee.svg"), handlers=blocks.fns.keys()
    )
    return app


def build_page(service: Service) -> tuple[gr.Blocks, Words]:
    """Return the page and its texts."""
    with gr.Blocks(
        title="lychee-rerank", analytics_enabled=False, fill_width=True, delete_cache=(DELETE_EVERY_S, DELETE_AFTER_S)
    ) as blocks:
        language = gr.Radio(
            [(NAMES[name], name) for name in LANGUAGES],
            value=START_LANGUAGE,
            label="Language · 语言",
            elem_id="language",
            container=False,
            render=False,
        )
        words = Words(language)
        with gr.Row(elem_id="page-header"):
            gr.HTML(
                f"{read_asset('lychee.svg')}<div><h1>lychee-rerank</h1><p>{words.both('page.subtitle')}</p></div>",
                elem_id="page-title",
            )
            language.render()  # type: ignore[no-untyped-call]
        with gr.Tabs(elem_id="tabs"):
            for name, build in (
                ("score", score_tab.build),
                ("rerank", rerank_tab.build),
                ("calibrate", calibrate_tab.build),
                ("status", status_tab.build),
            ):
                with gr.Tab(words(f"page.tab_{name}"), id=name, elem_id=f"tab-{name}") as tab:
                    build(service, words)
                words.bind(tab, f"page.tab_{name}")
        words.install()
    blocks.queue(max_size=MAX_QUEUED_EVENTS, default_concurrency_limit=None, api_open=False)
    return blocks, words


def read_asset(name: str) -> str:
    """Return the text of a file of the assets folder."""
    return resources.files("lychee_server.web").joinpath("assets", name).read_text(encoding="utf-8")


def _configure_gradio() -> None:
    """Set what Gradio reads from the environment alone: no telemetry, and a folder that only this user can read."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # After every event Gradio sums up all events with pandas, for its monitoring page, which is not served.
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(sys.maxsize)
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
    if "GRADIO_TEMP_DIR" not in os.environ:
        folder = Path(tempfile.mkdtemp(prefix="lychee-page-"))
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
