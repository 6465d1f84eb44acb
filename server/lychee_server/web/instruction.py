"""The field for the instruction: presets, and a word where the served model reads none."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

import gradio as gr
from gradio.context import Context
from lychee_client import ConfigurationError, LycheeError
from lychee_client.instructions import InstructionTemplate, all_instructions, bundled_instructions

from lychee_server.gateway.service import Service
from lychee_server.web.language import LANGUAGES, Words, load_texts

_log = logging.getLogger(__name__)


def instruction_field(service: Service, words: Words, *, elem_id: str) -> gr.Textbox:
    """Make the field with its presets.

    Args:
        service: Tells whether the model reads an instruction.
        words: The texts of the page.
        elem_id: The id of the field in the page; "-group", "-preset" and "-note" are appended for what belongs to it.

    Returns:
        The text box; empty stands for the model's own default.
    """
    blocks = Context.root_block
    assert isinstance(blocks, gr.Blocks), "to be called while a page is built"
    templates = _templates()
    labels = [(f"page.preset_{name}", name) for name in templates]
    known = load_texts()["en"]
    with gr.Accordion(words("page.instruction"), open=False, elem_id=f"{elem_id}-group") as group:
        note = gr.HTML("", elem_id=f"{elem_id}-note")
        preset = gr.Dropdown(
            [(words(key) if key in known else name, name) for key, name in labels],
            value="default",
            label=words("page.instruction_preset"),
            filterable=False,
            elem_id=f"{elem_id}-preset",
        )
        text = gr.Textbox(
            label=words("page.instruction_text"),
            placeholder=words("page.instruction_placeholder"),
            max_lines=4,
            max_length=1000,
            elem_id=elem_id,
        )
    words.bind(group, "page.instruction")
    words.bind(preset, "page.instruction_preset")
    words.bind(text, "page.instruction_text")
    words.bind(text, "page.instruction_placeholder", "placeholder")
    if all(key in known for key, _ in labels):
        words.bind_choices(preset, labels)
    preset.input(
        fn=None,
        inputs=[preset, words.language],
        outputs=[text],
        js=f"(name, language) => (({json.dumps(_texts(templates))})[name] ?? {{}})[language] ?? ''",
        show_progress="hidden",
        api_visibility="private",
    )

    async def tell() -> str:
        try:
            manifest = await service.manifest()
        except LycheeError:
            return ""
        if manifest.instruction is not None:
            return f'<p class="note">{words.both("page.instruction_default", default=manifest.instruction.default)}</p>'
        return f'<p class="note">{words.both("page.instruction_none", model=manifest.model_id)}</p>'

    blocks.load(tell, outputs=[note], show_progress="hidden", api_visibility="private")
    return text


def _templates() -> Mapping[str, InstructionTemplate]:
    """Return the presets: without the user's own where their file cannot be used."""
    try:
        return all_instructions()
    except ConfigurationError as error:
        _log.warning("the page leaves out the user's instructions: %s", error)
        return bundled_instructions()


def _texts(templates: Mapping[str, InstructionTemplate]) -> dict[str, dict[str, str]]:
    """Return what each preset writes into the field, by name and language."""
    return {
        name: {
            language: template.texts.get(language, next(iter(template.texts.values()), "")) for language in LANGUAGES
        }
        for name, template in templates.items()
    }
