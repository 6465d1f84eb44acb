"""The choice between the policies, which make scores decisions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import gradio as gr
from lychee_client import POLICIES, Calibration, Policy

from lychee_server.gateway.service import Service
from lychee_server.web.language import Words
from lychee_server.web.problems import PageError

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
