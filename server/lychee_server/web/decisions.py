"""Scores and decisions as HTML: bars with the thresholds on them, and the decision as symbol and word.

Every element that has a `data-score` stands below one that has class "decided"; page.js sets the `data-decision` of
each again when a threshold moves, and the style sheet shows the badge that fits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import gradio as gr
from lychee_client import POLICIES, Calibration, Decision, Policy

from lychee_server.gateway.service import Service
from lychee_server.web.language import Words
from lychee_server.web.problems import PageError

SYMBOLS: Final[Mapping[Decision, str]] = MappingProxyType({"accept": "✓", "review": "?", "reject": "✕"})
CALIBRATED: Final = "calibrated"
CUSTOM: Final = "custom"


def page_policies(service: Service) -> dict[str, Policy]:
    """Return the policies to choose from by name, the gateway's own calibration among them."""
    calibration = service.policy
    return {**POLICIES, **({CALIBRATED: calibration.policy} if isinstance(calibration, Calibration) else {})}


def default_policy(service: Service) -> str:
    """Return the name of the policy that the gateway uses where nobody chooses one."""
    return service.policy if isinstance(service.policy, str) else CALIBRATED


def choose_policy(service: Service, name: str, policies: Mapping[str, Policy]) -> Policy | Calibration:
    """Return what a call is given for the user's choice.

    Args:
        service: The gateway's service.
        name: The name that the user chose.
        policies: The policies by name; see `page_policies`.

    Raises:
        PageError: There is no such choice.
    """
    if name not in policies:
        raise PageError("page.error_policy")
    return service.policy if name == CALIBRATED and isinstance(service.policy, Calibration) else policies[name]


def thresholds_script(policies: Mapping[str, Policy]) -> str:
    """Return a JavaScript object: [accept, review] by the policy's name."""
    return json.dumps({name: [policy.accept, policy.review] for name, policy in policies.items()})


def policy_radio(service: Service, words: Words, *, custom: bool = False, elem_id: str) -> gr.Radio:
    """Make the choice between the policies.

    Args:
        service: The gateway's service.
        words: The texts of the page.
        custom: Whether to add the choice that stands for thresholds that were moved by hand.
        elem_id: The id that the component gets in the page.
    """
    names = [*page_policies(service), *([CUSTOM] if custom else [])]
    choices = [(f"page.policy_{name}", name) for name in names]
    radio = gr.Radio(
        words.choices(choices),
        value=default_policy(service),
        label=words("page.policy"),
        info=words("page.policy_info"),
        elem_id=elem_id,
    )
    words.bind(radio, "page.policy")
    words.bind(radio, "page.policy_info", "info")
    words.bind_choices(radio, choices)
    return radio


def render_badge(words: Words) -> str:
    """Return all three badges of a decision; the style sheet shows the one that fits."""
    return "".join(
        f'<span class="badge badge-{decision}"><span aria-hidden="true">{symbol}</span> '
        f"{words.both(f'page.{decision}')}</span>"
        for decision, symbol in SYMBOLS.items()
    )


def render_bar(score: float) -> str:
    """Return a bar for a score in [0, 1], with marks where the thresholds are."""
    return (
        '<span class="bar" aria-hidden="true">'
        f'<span class="fill" style="width:{100 * score:.2f}%"></span>'
        '<span class="mark mark-review"></span><span class="mark mark-accept"></span></span>'
    )


def thresholds_attributes(policy: Policy) -> str:
    """Return the attributes of an element with class "decided" that tell where the thresholds are."""
    return (
        f'style="--accept:{policy.accept};--review:{policy.review}" '
        f'data-accept="{policy.accept}" data-review="{policy.review}"'
    )
