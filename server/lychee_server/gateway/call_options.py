"""The options of a request: from its JSON to what the client takes."""

from __future__ import annotations

import asyncio
from typing import Final

from lychee_client import Calibration, Chunking, ConfigurationError, Policy, RelevantSpans, RerankOptions
from lychee_client.instructions import all_instructions
from lychee_client.instructions.templates import text_problem

from lychee_server.gateway.errors import RequestValueError
from lychee_server.gateway.metrics import CUSTOM_POLICY
from lychee_server.gateway.request_schemas import CallOptions, ChunkingFields, NamedInstruction, RerankRequest
from lychee_server.gateway.service import Service

# Of one document, whatever a caller asks for: vendors' examples have up to so many.
MAX_CHUNKS: Final = 1024


async def make_options(service: Service, body: CallOptions) -> RerankOptions:
    """Return the client's options, `timeout_s` left out."""
    most_ms = 1e3 * service.settings.timeout_s
    if body.timeout_ms is not None and body.timeout_ms > most_ms:
        raise RequestValueError(f"timeout_ms is {body.timeout_ms:g}; expected at most {most_ms:g}", "timeout_ms")
    bulk = body.priority == "bulk" or (isinstance(body.priority, int) and body.priority > 0)
    options: RerankOptions = {
        "instruction": await _find_instruction(body.instruction),
        "policy": find_policy(service, body),
        "priority": "bulk" if bulk else "interactive",
        "server_timings": body.server_timings,
    }
    if isinstance(body, RerankRequest):
        most = service.settings.max_documents  # a number of any length may have been sent
        options["top_n"] = min(body.top_n or 0, most) or None
        options["score_threshold"] = body.score_threshold
        options["min_results"] = min(body.min_results, most)
        options["max_tokens_per_doc"] = _find_limit(body.max_tokens_per_doc, body.truncate_prompt_tokens)
        options["max_tokens_per_query"] = _find_limit(body.max_tokens_per_query, body.truncate_prompt_tokens)
        options["truncation"] = body.truncation
        options["chunking"] = _find_chunking(body)
        if (spans := body.relevant_spans) is not None:
            options["relevant_spans"] = RelevantSpans(spans.mode, spans.threshold, spans.max_spans)
    return options


def _find_limit(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None and limit > 0), default=None)


def _find_chunking(body: RerankRequest) -> Chunking | None:
    """Return how documents are cut; what stands within `chunking` goes before what stands beside it."""
    asked = {"overlap_tokens": body.overlap_tokens, "max_chunks_per_doc": body.max_chunks_per_doc}
    if isinstance(body.chunking, ChunkingFields):
        asked |= body.chunking.model_dump(exclude_none=True)
    given = {name: value for name, value in asked.items() if value is not None}
    if body.chunking is False or (body.chunking is None and not given):
        return None
    if "max_chunks_per_doc" in given:
        given["max_chunks_per_doc"] = min(given["max_chunks_per_doc"], MAX_CHUNKS)
    return Chunking(**given)


def find_policy(service: Service, body: CallOptions) -> str | Policy | Calibration:
    """Return what decides: what the request names, or else what the gateway does."""
    policy = body.policy
    if policy is None:
        return service.own.policy
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
