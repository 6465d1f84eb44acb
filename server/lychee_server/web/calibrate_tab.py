"""The tab that finds a threshold on labelled pairs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from importlib import resources
from typing import Any, Final

import gradio as gr
from lychee_evaluate.calibration.threshold_search import DEFAULT_TARGET

from lychee_server.gateway.service import Service
from lychee_server.web.calibration_job import CalibrationOutcome, Job, Progress, run_job
from lychee_server.web.calibration_result import (
    render_empty,
    render_failure,
    render_note,
    render_outcome,
    render_progress,
)
from lychee_server.web.inputs import Upload, make_files_field
from lychee_server.web.language import Words
from lychee_server.web.pair_upload import TABLE_SUFFIXES, ZIP_SUFFIX
from lychee_server.web.problems import PageError, render_alert

TARGETS: Final = (
    ("calibrate.target_f1", DEFAULT_TARGET),
    ("calibrate.target_precision90", "precision>=0.9"),
    ("calibrate.target_precision95", "precision>=0.95"),
    ("calibrate.target_recall90", "recall>=0.9"),
)
MAX_JOBS: Final = 2  # of all users together: each holds an upload and its images
STYLE: Final = resources.files("lychee_server.web").joinpath("assets", "calibrate.css").read_text(encoding="utf-8")

Updates = tuple[Any, Any, Any]


def build(service: Service, words: Words) -> None:
    """Fill the tab."""
    gr.HTML(
        f'<p>{words.both("calibrate.intro")}</p><p class="note">{words.both("calibrate.format")}</p>',
        elem_id="calibrate-intro",
    )
    with gr.Row(elem_classes="options"):
        with gr.Column(min_width=280):
            file = make_files_field(
                label=words("calibrate.file"),
                file_count="single",
                file_types=[*TABLE_SUFFIXES, ZIP_SUFFIX],
                height=150,
                elem_id="calibrate-file",
                elem_classes="upload",
            )
        with gr.Column(min_width=280):
            target = gr.Dropdown(
                words.choices(TARGETS),
                value=DEFAULT_TARGET,
                allow_custom_value=True,
                label=words("calibrate.target"),
                info=words("calibrate.target_info"),
                elem_id="calibrate-target",
            )
            with gr.Accordion(words("calibrate.options"), open=False, elem_id="calibrate-options") as options:
                instruction = gr.Textbox(
                    label=words("calibrate.instruction"),
                    info=words("calibrate.instruction_info"),
                    max_lines=4,
                    max_length=1000,
                    elem_id="calibrate-instruction",
                )
                use_scores = gr.Checkbox(
                    label=words("calibrate.use_scores"),
                    info=words("calibrate.use_scores_info"),
                    elem_id="calibrate-use-scores",
                )
    with gr.Row(elem_classes="actions"):
        run = gr.Button(words("calibrate.run"), variant="primary", elem_id="calibrate-run", elem_classes="submit")
        example = gr.Button(words("calibrate.example"), elem_id="calibrate-example")
        cancel = gr.Button(words("calibrate.cancel"), visible=False, elem_id="calibrate-cancel")
    alert = gr.HTML("", css_template=STYLE, js_on_load=None, elem_id="calibrate-alert", elem_classes="alerts")
    result = gr.HTML(
        render_empty(words),
        css_template=STYLE,
        js_on_load=None,
        elem_id="calibrate-result",
        elem_classes="results",
    )

    for component, key in (
        (file, "file"),
        (target, "target"),
        (instruction, "instruction"),
        (use_scores, "use_scores"),
    ):
        words.bind(component, f"calibrate.{key}")
    for component, key in ((target, "target"), (instruction, "instruction"), (use_scores, "use_scores")):
        words.bind(component, f"calibrate.{key}_info", "info")
    words.bind_choices(target, TARGETS)
    words.bind(options, "calibrate.options")
    for button, key in ((run, "run"), (example, "example"), (cancel, "cancel")):
        words.bind(button, f"calibrate.{key}", "value")

    async def calibrate_upload(
        uploads: list[Upload], wanted: str, told: str, has_scores: bool
    ) -> AsyncGenerator[Updates, None]:
        if not uploads:
            yield render_empty(words), render_alert(words, PageError("calibrate.error_no_file")), gr.skip()
            return
        async with aclosing(_carry_out(service, words, Job(uploads[0], wanted, told, has_scores))) as updates:
            async for update in updates:
                yield update

    async def calibrate_example(wanted: str) -> AsyncGenerator[Updates, None]:
        async with aclosing(_carry_out(service, words, Job(None, wanted))) as updates:
            async for update in updates:
                yield update

    # One line for both buttons: whoever holds it keeps others from filling the memory with uploads.
    line: dict[str, Any] = {"concurrency_id": "calibration", "concurrency_limit": MAX_JOBS}
    outputs = [result, alert, cancel]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    uploaded = run.click(calibrate_upload, [file, target, instruction, use_scores], outputs, **line, **quiet)
    tried = example.click(calibrate_example, [target], outputs, **line, **quiet)
    cancel.click(
        lambda: (render_note(words, "calibrate.cancelled"), "", gr.Button(visible=False)),
        outputs=outputs,
        cancels=[uploaded, tried],
        **quiet,
    )


async def _carry_out(service: Service, words: Words, job: Job) -> AsyncGenerator[Updates, None]:
    """Yield what result, alert and the cancel button become while a job runs."""
    shown = render_progress(words, None)
    yield shown, "", gr.Button(visible=True)
    try:
        async with aclosing(run_job(service, job)) as steps:
            async for step in steps:
                if isinstance(step, Progress):
                    yield render_progress(words, step), gr.skip(), gr.skip()
                elif isinstance(step, CalibrationOutcome):
                    yield render_outcome(words, step), "", gr.Button(visible=False)
    except Exception as error:
        yield render_empty(words), render_failure(words, error), gr.Button(visible=False)
