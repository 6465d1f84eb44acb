"""The tab that ranks many documents for one query."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import gradio as gr
from lychee_client import Policy, RerankOptions
from lychee_client.preprocessing.formats import IMAGE_SUFFIXES

from lychee_server.errors import InstallationError
from lychee_server.examples import Catalogue, CatalogueDocument, read_catalogue
from lychee_server.gateway.service import Service
from lychee_server.web.decisions import (
    CUSTOM,
    choose_policy,
    default_policy,
    page_policies,
    policy_radio,
    thresholds_script,
)
from lychee_server.web.inputs import (
    Item,
    Upload,
    check_readable,
    load_items,
    make_files_field,
    make_image_field,
    make_item,
    make_items,
    split_texts,
)
from lychee_server.web.instruction import instruction_field
from lychee_server.web.language import Words
from lychee_server.web.problems import PageError, render_alert
from lychee_server.web.rerank_result import render_empty, render_ranking

SEPARATE: Final = "separate"
PAIRS: Final = "pairs"


def build(service: Service, words: Words) -> None:
    """Fill the tab."""
    _RerankTab(service, words).build()


class _RerankTab:
    def __init__(self, service: Service, words: Words) -> None:
        self._service = service
        self._words = words
        self._policies = page_policies(service)
        self._catalogue = _find_catalogue()

    def build(self) -> None:
        """Make the components and connect them."""
        words = self._words
        with gr.Row(equal_height=False, elem_classes="pair"):
            with gr.Column(min_width=280, elem_classes="card"):
                gr.HTML(f"<h2>{words.both('rerank.query')}</h2>")
                self._query_text = gr.Textbox(
                    label=words("rerank.query_text"),
                    placeholder=words("rerank.query_placeholder"),
                    max_lines=6,
                    elem_id="rerank-query-text",
                )
                with gr.Accordion(words("rerank.query_image_group"), open=False) as group:
                    self._query_image = make_image_field(words("rerank.query_image"), "rerank-query-image")
                self._instruction = instruction_field(self._service, words, elem_id="rerank-instruction")
                self._top_n = gr.Number(
                    label=words("rerank.top_n"),
                    info=words("rerank.top_n_info"),
                    value=0,
                    minimum=0,
                    precision=0,
                    elem_id="rerank-top-n",
                )
            with gr.Column(min_width=280, elem_classes="card"):
                self._build_documents()
        words.bind(self._query_text, "rerank.query_text")
        words.bind(self._query_text, "rerank.query_placeholder", "placeholder")
        words.bind(group, "rerank.query_image_group")
        words.bind(self._query_image, "rerank.query_image")
        words.bind(self._top_n, "rerank.top_n")
        words.bind(self._top_n, "rerank.top_n_info", "info")
        with gr.Row(elem_classes="actions"):
            self._submit = gr.Button(
                words("rerank.submit"), variant="primary", elem_id="rerank-submit", elem_classes="submit"
            )
            self._examples = gr.Button(
                words("rerank.examples"), elem_id="rerank-examples", visible=bool(self._catalogue.documents)
            )
        words.bind(self._submit, "rerank.submit", "value")
        words.bind(self._examples, "rerank.examples", "value")
        self._alert = gr.HTML("", elem_id="rerank-alert", elem_classes="alerts")
        self._build_thresholds()
        self._result = gr.HTML(render_empty(words), elem_id="rerank-result", elem_classes="results")
        self._connect()

    def _build_documents(self) -> None:
        words, most = self._words, self._service.settings.max_documents
        gr.HTML(f"<h2>{words.both('rerank.documents')}</h2>")
        self._texts = gr.Textbox(
            label=words("rerank.texts"),
            info=words("rerank.texts_info", most=most),
            placeholder=words("rerank.texts_placeholder"),
            lines=6,
            max_lines=14,
            elem_id="rerank-texts",
        )
        self._images = make_files_field(
            label=words("rerank.images"),
            file_count="multiple",
            file_types=list(IMAGE_SUFFIXES),
            height=150,
            elem_id="rerank-images",
            elem_classes="upload",
        )
        combinations = [("rerank.separate", SEPARATE), ("rerank.pairs", PAIRS)]
        self._combination = gr.Radio(
            words.choices(combinations),
            value=SEPARATE,
            label=words("rerank.combination"),
            elem_id="rerank-combination",
        )
        words.bind(self._texts, "rerank.texts")
        words.bind(self._texts, "rerank.texts_info", "info", most=most)
        words.bind(self._texts, "rerank.texts_placeholder", "placeholder")
        words.bind(self._images, "rerank.images")
        words.bind(self._combination, "rerank.combination")
        words.bind_choices(self._combination, combinations)

    def _build_thresholds(self) -> None:
        words, service = self._words, self._service
        policy = self._policies[default_policy(service)]
        with gr.Row(elem_classes="card thresholds"):
            with gr.Column(min_width=280):
                self._policy = policy_radio(service, words, custom=True, elem_id="rerank-policy")
            with gr.Column(min_width=280):
                self._accept = _make_slider("accept", policy.accept, words)
                self._review = _make_slider("review", policy.review, words)

    def _connect(self) -> None:
        entered = [self._query_text, self._query_image, self._instruction, self._policy, self._accept, self._review]
        shown = [self._result, self._alert]
        gr.on(
            [self._submit.click, self._query_text.submit, self._texts.submit],
            self._rank_own,
            inputs=[*entered, self._top_n, self._texts, self._images, self._combination],
            outputs=shown,
            show_progress="minimal",
            show_progress_on=[self._result],
            api_visibility="private",
        )
        self._examples.click(
            self._rank_examples,
            inputs=[*entered, self._top_n],
            outputs=[*shown, self._query_text],
            show_progress="minimal",
            show_progress_on=[self._result],
            api_visibility="private",
        )
        # Thresholds move in the browser alone.
        self._policy.input(
            fn=None,
            inputs=[self._policy, self._accept, self._review],
            outputs=[self._accept, self._review],
            js=f"(name, accept, review) => (({thresholds_script(self._policies)})[name] ?? [accept, review])",
            show_progress="hidden",
            api_visibility="private",
        )
        for slider in (self._accept, self._review):
            slider.input(
                fn=None,
                outputs=[self._policy],
                js=f"() => {CUSTOM!r}",
                show_progress="hidden",
                api_visibility="private",
            )
            slider.change(
                fn=None,
                inputs=[self._accept, self._review],
                js="(accept, review) => lychee.decide('#rerank-result', accept, review)",
                show_progress="hidden",
                api_visibility="private",
            )

    async def _rank_own(
        self,
        query_text: str,
        query_image: Upload | None,
        instruction: str,
        policy: str,
        accept: float,
        review: float,
        top_n: float | None,
        texts: str,
        images: list[Upload],
        combination: str,
    ) -> tuple[str, str]:
        try:
            query = make_item(query_text, query_image, "rerank.error_no_query")
            items = make_items(split_texts(texts), images, combination == PAIRS, self._service.settings.max_documents)
            return await self._rank(query, items, instruction, self._choose(policy, accept, review), top_n), ""
        except Exception as error:
            return render_empty(self._words), render_alert(self._words, error)

    async def _rank_examples(
        self,
        query_text: str,
        query_image: Upload | None,
        instruction: str,
        policy: str,
        accept: float,
        review: float,
        top_n: float | None,
    ) -> tuple[str, str, str]:
        if query_image is None and not (query_text or "").strip():
            query_text = next(iter(self._catalogue.queries), "")
        try:
            query = make_item(query_text, query_image, "rerank.error_no_query")
            documents = [_to_item(document) for document in self._catalogue.documents]
            ranking = await self._rank(query, documents, instruction, self._choose(policy, accept, review), top_n)
        except Exception as error:
            return render_empty(self._words), render_alert(self._words, error), query_text
        return ranking, "", query_text

    def _choose(self, name: str, accept: float, review: float) -> Policy:
        """Return the thresholds of a call.

        Raises:
            PageError: They are no thresholds.
        """
        if name in self._policies:
            return self._policies[name]
        if not 0 <= accept <= 1 or not 0 <= review <= 1:
            raise PageError("page.error_policy")
        return Policy(CUSTOM, accept, min(review, accept))

    async def _rank(
        self, query: Item, items: Sequence[Item], instruction: str, policy: Policy, top_n: float | None
    ) -> str:
        most_mb = self._service.settings.max_request_mb
        loaded = await asyncio.to_thread(load_items, [query, *items], most_mb)
        check_readable(loaded[0], "page.error_query_image")
        is_named = policy.name in self._policies
        options = RerankOptions(
            policy=choose_policy(self._service, policy.name, self._policies) if is_named else policy,
            top_n=int(top_n) if top_n and top_n >= 1 else None,
        )
        if (instruction or "").strip():
            options["instruction"] = instruction.strip()
        answer = await self._service.rerank(loaded[0].value, [entry.value for entry in loaded[1:]], options)
        return render_ranking(self._words, answer, loaded[0], loaded[1:], policy)


def _make_slider(name: str, value: float, words: Words) -> gr.Slider:
    slider = gr.Slider(
        0,
        1,
        value,
        step=0.01,
        label=words(f"rerank.{name}_from"),
        info=words(f"rerank.{name}_from_info"),
        buttons=[],
        elem_id=f"rerank-{name}-from",
    )
    words.bind(slider, f"rerank.{name}_from")
    words.bind(slider, f"rerank.{name}_from_info", "info")
    return slider


def _find_catalogue() -> Catalogue:
    try:
        return read_catalogue()
    except InstallationError:
        return Catalogue((), {})


def _to_item(document: CatalogueDocument) -> Item:
    photo = document.photo
    return Item(document.text, None if photo is None else Upload(photo.name, photo))
