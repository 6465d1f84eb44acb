"""The options of a request: from its JSON to what the client takes."""

from __future__ import annotations

import asyncio

from lychee_client import Calibration, ConfigurationError, Policy, RelevantSpans, RerankOptions
from lychee_client.instructions import all_instructions
from lychee_client.instructions.templates import text_problem

from lychee_server.gateway.errors import RequestValueError
from lychee_server.gateway.metrics import CUSTOM_POLICY
from lychee_server.gateway.request_schemas import CallOptions, NamedInstruction, RerankRequest
from lychee_server.gateway.service import Service


async def check_model(service: Service, model: str | None) -> None:
    """Refuse a model that is not the served one; its id, or the last segment of its id, names it."""
    if model is None:
        return
    served = (await service.manifest()).model_id
    if model not in (served, served.rsplit("/", 1)[-1]):
        message = f"another model was asked for than is served; expected {served!r}, or leave model out"
        raise RequestValueError(message, "model", status=404, kind="model_not_found")


async def make_options(service: Service, body: CallOptions) -> RerankOptions:
    """Return the client's options, `timeout_s` left out."""
    most_ms = 1e3 * service.settings.timeout_s
    if body.timeout_ms is not None and body.timeout_ms > most_ms:
        raise RequestValueError(f"timeout_ms is {body.timeout_ms:g}; expected at most {most_ms:g}", "timeout_ms")
    bulk = body.priority == "bulk" or (isinstance(body.priority, int) and body.priority > 0)
    options: RerankOptions = {
        "instruction": await _find_instruction(body.instruction),
        "policy": _find_policy(service, body),
        "priority": "bulk" if bulk else "interactive",
        "server_timings": body.server_timings,
    }
    if isinstance(body, RerankRequest):
        options["top_n"] = body.top_n or None
        options["score_threshold"] = body.score_threshold
        options["min_results"] = body.min_results
        if (spans := body.relevant_spans) is not None:
            options["relevant_spans"] = RelevantSpans(spans.mode, spans.threshold, spans.max_spans)
    return options


def _find_policy(service: Service, body: CallOptions) -> str | Policy | Calibration:
    policy = body.policy
    if policy is None:
        return service.policy
    if isinstance(policy, str):
        return policy
    review = policy.accept if policy.review is None else policy.review
    if review > policy.accept:
        raise RequestValueError("policy.review is above policy.accept; expected review <= accept", "policy")
    return Policy(CUSTOM_POLICY, accept=policy.accept, review=review)


async def _find_instruction(instruction: str | NamedInstruction | None) -> str | None:
    if isinstance(instruction, NamedInstruction):
        templates = await asyncio.to_thread(all_instructions)
        if instruction.name not in templates:
            raise RequestValueError(
                f"no instruction has this name; expected one of {', '.join(templates)}", "instruction"
            )
        try:
            return templates[instruction.name].text(instruction.language)
        except ConfigurationError as error:
            raise RequestValueError(str(error), "instruction") from error
    problem = None if instruction is None else text_problem(instruction)
    if problem is not None:
        raise RequestValueError(f"the instruction {problem}", "instruction")
    return instruction
