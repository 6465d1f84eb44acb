"""The tab that scores one pair and says why."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import gradio as gr
from lychee_client import ImageText, RerankOptions, Text
from lychee_client.types import Input

from lychee_server.gateway.service import Service
from lychee_server.web.decisions import choose_policy, page_policies, policy_radio, thresholds_script
from lychee_server.web.inputs import (
    Loaded,
    Upload,
    check_readable,
    load_items,
    make_image_field,
    make_item,
)
from lychee_server.web.instruction import instruction_field
from lychee_server.web.language import Words
from lychee_server.web.problems import render_alert
from lychee_server.web.score_result import render_empty, render_result


@dataclass(frozen=True, slots=True)
class _Side:
    text: gr.Textbox
    image: gr.Image


def build(service: Service, words: Words) -> None:
    """Fill the tab."""
    policies = page_policies(service)
    with gr.Row(equal_height=True, elem_classes="pair"):
        query = _make_side("query", words)
        document = _make_side("document", words)
    with gr.Row(elem_classes="options"):
        with gr.Column(min_width=280):
            policy = policy_radio(service, words, elem_id="score-policy")
        with gr.Column(min_width=280):
            instruction = instruction_field(service, words, elem_id="score-instruction")
    submit = gr.Button(words("score.submit"), variant="primary", elem_id="score-submit", elem_classes="submit")
    words.bind(submit, "score.submit", "value")
    alert = gr.HTML("", elem_id="score-alert", elem_classes="alerts")
    result = gr.HTML(render_empty(words), elem_id="score-result", elem_classes="results")

    async def score(
        query_text: str, query_image: Upload | None, text: str, image: Upload | None, told: str, policy_name: str
    ) -> tuple[str, str]:
        try:
            items = [
                make_item(query_text, query_image, "score.error_no_query"),
                make_item(text, image, "score.error_no_document"),
            ]
            loaded = await asyncio.to_thread(load_items, items, service.settings.max_request_mb)
            check_readable(loaded[0], "page.error_query_image")
            check_readable(loaded[1], "page.error_document_image")
            options = RerankOptions(policy=choose_policy(service, policy_name, policies))
            if (told or "").strip():
                options["instruction"] = told.strip()
            answer = await service.rerank(loaded[0].value, _variants(loaded[1]), options)
            for failed in answer.response.errors:
                if failed.index == 0:
                    raise failed.error
            return render_result(words, answer, policies[policy_name]), ""
        except Exception as error:
            return render_empty(words), render_alert(words, error)

    gr.on(
        [submit.click, query.text.submit, document.text.submit],
        score,
        inputs=[query.text, query.image, document.text, document.image, instruction, policy],
        outputs=[result, alert],
        show_progress="minimal",
        show_progress_on=[result],
        api_visibility="private",
    )
    policy.input(
        fn=None,
        inputs=[policy],
        js=f"(name) => lychee.choose('#score-result', ({thresholds_script(policies)})[name])",
        show_progress="hidden",
        api_visibility="private",
    )


def _make_side(name: str, words: Words) -> _Side:
    """Make the fields of the query or of the document."""
    with gr.Column(min_width=280, elem_classes="card"):
        gr.HTML(f"<h2>{words.both(f'score.{name}')}</h2>")
        text = gr.Textbox(
            label=words(f"score.{name}_text"),
            placeholder=words(f"score.{name}_placeholder"),
            lines=3,
            max_lines=8,
            elem_id=f"score-{name}-text",
        )
        image = make_image_field(words(f"score.{name}_image"), f"score-{name}-image")
    words.bind(text, f"score.{name}_text")
    words.bind(text, f"score.{name}_placeholder", "placeholder")
    words.bind(image, f"score.{name}_image")
    return _Side(text, image)


def _variants(document: Loaded) -> list[Input]:
    """Return the document, and where it has two parts, its text alone and its image alone."""
    value = document.value
    return [value, Text(value.text), value.image] if isinstance(value, ImageText) else [value]
