"""The tab that shows how the gateway and the server behind it are."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from importlib import resources
from typing import Any, Final

import gradio as gr
from gradio.context import Context

from lychee_server.gateway.service import Service
from lychee_server.web.language import Words
from lychee_server.web.markup import render
from lychee_server.web.problems import render_alert
from lychee_server.web.status_report import collect_status
from lychee_server.web.status_result import render_status

REFRESH_S: Final = 5
RECHECK_TIMEOUT_S: Final = 60.0
STYLE: Final = resources.files("lychee_server.web").joinpath("assets", "status.css").read_text(encoding="utf-8")


def build(service: Service, words: Words) -> None:
    """Fill the tab, which must be the last one. It asks nobody anything while another tab is open."""
    tab = Context.block
    assert isinstance(tab, gr.Tab), "to be called inside of the tab"
    tabs = tab.parent
    assert isinstance(tabs, gr.Tabs)
    result = gr.HTML(
        render("empty", words, key="status.waiting", is_announced=False),
        css_template=STYLE,
        js_on_load=None,
        elem_id="status-result",
        elem_classes="results",
    )
    with gr.Row(elem_classes="actions"):
        check_again = gr.Button(words("status.check_again"), elem_id="status-check-again")
    words.bind(check_again, "status.check_again", "value")
    timer = gr.Timer(REFRESH_S, active=False)

    async def refresh() -> str:
        try:
            return render_status(words, await collect_status(service), REFRESH_S)
        except Exception as error:
            return render_alert(words, error)

    async def replay() -> str:
        with suppress(TimeoutError):  # a lost server is told by what follows
            async with asyncio.timeout(RECHECK_TIMEOUT_S):
                await service.health.recheck()
        return await refresh()

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    tab.select(refresh, None, [result], **quiet)
    others = [other.select for other in tabs.children if isinstance(other, gr.Tab) and other is not tab]
    for triggers, active in (([tab.select], "true"), (others, "false")):  # in the browser alone
        gr.on(triggers, None, None, [timer], js=f"() => ({{__type__: 'update', active: {active}}})", **quiet)
    timer.tick(refresh, None, [result], **quiet)
    check_again.click(replay, None, [result], concurrency_limit=1, **quiet)
