"""The page's texts in English and Chinese, and what changes them while the page is open.

A text is shown in one of two ways. A property of a component (its label, say) is registered with `Words.bind` and
changed when the user switches. HTML that a handler makes carries both languages (`Words.both`); the style sheet shows
the one that the document's `lang` names. Neither needs a request, and neither touches what the user typed or received.
"""

from __future__ import annotations

import functools
import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, get_args

import gradio as gr
from gradio.blocks import Block
from markupsafe import Markup, escape

Language: TypeAlias = Literal["en", "zh"]

LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)
START_LANGUAGE: Final[Language] = "en"
NAMES: Final[Mapping[Language, str]] = MappingProxyType({"en": "English", "zh": "中文"})


@dataclass(frozen=True, slots=True)
class Binding:
    """One property of one component that changes with the language.

    Attributes:
        component: The component, or a layout block such as a tab.
        prop: The name of the property.
        values: What it becomes, by language.
    """

    component: Block
    prop: str
    values: Mapping[Language, Any]


class Words:
    """The texts of one page.

    Args:
        language: The component with which the user chooses; its value is a Language.

    Attributes:
        language: The same, for handlers that take it as an input.
        bindings: Everything registered, in order.
    """

    def __init__(self, language: gr.Radio) -> None:
        self.language = language
        self.bindings: list[Binding] = []

    def __call__(self, key: str, **values: object) -> str:
        """Return the text in the start language, for a component that is being made; see `say`."""
        return self.say(key, START_LANGUAGE, **values)

    def say(self, key: str, language: str, **values: object) -> str:
        """Return a text as plain text.

        Args:
            key: The name of the text, for example "score.submit".
            language: "zh" or "en"; anything else reads English.
            values: What its {placeholders} stand for.

        Raises:
            KeyError: No text has that key, or a placeholder has no value.
        """
        return load_texts()["zh" if language == "zh" else "en"][key].format(**values)

    def both(self, key: str, **values: object) -> Markup:
        """Return a text as HTML in both languages, of which the page shows one. Everything is escaped.

        Raises:
            KeyError: See `say`.
        """
        return both({language: self.say(key, language, **values) for language in LANGUAGES})

    def joined(self, key: str, **values: object) -> str:
        """Return a text in both languages as plain text, for an attribute, where one language cannot be hidden.

        Raises:
            KeyError: See `say`.
        """
        return " · ".join(self.say(key, language, **values) for language in LANGUAGES)

    def bind(self, component: Block, key: str, prop: str = "label", **values: object) -> None:
        """Change a component's property when the language changes.

        Args:
            component: A component, or a layout block such as a tab.
            key: The name of the text that the property shows.
            prop: The name of the property: "label", "info", "placeholder", "value" (of a button), ...
            values: See `say`.
        """
        self._bind(component, prop, {language: self.say(key, language, **values) for language in LANGUAGES})

    def bind_choices(self, component: Block, choices: Sequence[tuple[str, str]]) -> None:
        """Change the labels of a radio group, a checkbox group or a dropdown when the language changes.

        Args:
            component: The component, made with `choices=words.choices(choices)`.
            choices: Key of the label and value of each choice.
        """
        self._bind(component, "choices", {language: self.choices(choices, language) for language in LANGUAGES})

    def choices(self, choices: Sequence[tuple[str, str]], language: str = START_LANGUAGE) -> list[tuple[str, str]]:
        """Return (label, value) of each choice, as Gradio takes them."""
        return [(self.say(key, language), value) for key, value in choices]

    def _bind(self, component: Block, prop: str, values: Mapping[Language, Any]) -> None:
        self.bindings.append(Binding(component, prop, values))

    def install(self) -> None:
        """Connect the language component with everything that is bound. To be called once, at the end, in the Blocks.

        The switch happens in the browser alone.
        """
        grouped: dict[int, list[Binding]] = {}
        for binding in self.bindings:
            grouped.setdefault(binding.component._id, []).append(binding)
        updates = {
            language: [
                {"__type__": "update", **{binding.prop: binding.values[language] for binding in bindings}}
                for bindings in grouped.values()
            ]
            for language in LANGUAGES
        }
        self.language.change(
            fn=None,
            inputs=[self.language],
            outputs=[bindings[0].component for bindings in grouped.values()],
            js=f"(language) => {{ lychee.setLanguage(language); return ({json.dumps(updates)})[language]; }}",
            show_progress="hidden",
            api_visibility="private",
        )

    def translate(self, components: Sequence[dict[str, Any]], language: Language) -> None:
        """Write a language's texts into a page's configuration, so that the page starts with them.

        Args:
            components: Gradio's entries of all components, changed in place.
            language: The page's start language.
        """
        by_id = {component["id"]: component for component in components}
        for binding in self.bindings:
            if binding.component._id in by_id:
                by_id[binding.component._id]["props"][binding.prop] = binding.values[language]
        if self.language._id in by_id:
            by_id[self.language._id]["props"]["value"] = language


def both(texts: Mapping[Language, str]) -> Markup:
    """Return HTML with a text in each language, of which the style sheet shows one. The texts are escaped."""
    spans = (f'<span class="in-{language}" lang="{language}">{escape(text)}</span>' for language, text in texts.items())
    return Markup("".join(spans))


def choose_language(query_language: str | None, accept_language: str) -> Language:
    """Return the language that a page starts with.

    Args:
        query_language: The query's `lang`, or None.
        accept_language: The header of that name, or "".

    Returns:
        The first one that the page has; English if there is none.
    """
    if query_language is not None:
        wanted = [query_language]
    else:
        wanted = [tag for _, tag in sorted(map(_weigh, accept_language[:1000].split(",")), key=lambda entry: -entry[0])]
    for tag in wanted:
        for language in LANGUAGES:
            if tag.strip().lower().split("-")[0] == language:
                return language
    return START_LANGUAGE


def _weigh(entry: str) -> tuple[float, str]:
    tag, _, weight = entry.partition(";q=")
    try:
        return (float(weight) if weight else 1.0), tag
    except ValueError:
        return 0.0, tag


def placeholders(text: str) -> set[str]:
    """Return the names of a text's {placeholders}."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@functools.cache
def load_texts() -> Mapping[Language, Mapping[str, str]]:
    """Return all texts by language and key, read from texts/en.json, texts/zh.json and texts/*.<language>.json.

    Raises:
        ValueError: A key is in two files.
    """
    texts: dict[Language, dict[str, str]] = {language: {} for language in LANGUAGES}
    for source in sorted(resources.files("lychee_server.web").joinpath("texts").iterdir(), key=lambda path: path.name):
        language = source.name.removesuffix(".json").split(".")[-1]
        if not source.name.endswith(".json") or language not in texts:
            continue
        entries: dict[str, str] = json.loads(source.read_text(encoding="utf-8"))
        known = texts["zh" if language == "zh" else "en"]
        for key in entries:
            if key in known:
                raise ValueError(f"{source.name} has the key {key!r}, which another file has too; rename one of them")
        known.update(entries)
    return MappingProxyType({language: MappingProxyType(entries) for language, entries in texts.items()})
