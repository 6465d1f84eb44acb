"""The dialects in the API's documentation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from lychee_server.gateway.dialects.choice import BY_PATH, RERANK_PATHS, SCORE_PATHS, spoken_at


def describe_dialects(app: FastAPI) -> None:
    """Have an app's OpenAPI schema show each path with every shape that it takes and answers."""
    make = app.openapi
    described: dict[str, Any] | None = None

    def openapi() -> dict[str, Any]:
        nonlocal described
        schema = make()
        if schema is not described:  # it is kept, and made anew when a route is added
            for path in (*RERANK_PATHS, *SCORE_PATHS):
                _describe(path, schema["paths"][path]["post"], schema["components"]["schemas"])
            described = schema
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _describe(path: str, operation: dict[str, Any], components: dict[str, Any]) -> None:
    shapes = [(dialect.request, dialect.response) for dialect in spoken_at(path)]
    requests, answers = (tuple(each) for each in zip(*shapes, strict=True))
    asked = operation["requestBody"]["content"]["application/json"]
    answered = operation["responses"]["200"]["content"]["application/json"]
    for content, dialects in ((asked, requests), (answered, answers)):
        # Of a union the first is what is sent; the other is what a dialect's request is translated to.
        own = [] if path in BY_PATH else content["schema"].get("oneOf", [content["schema"]])[:1]
        content["schema"] = {"anyOf": [*own, *(_refer(each, components) for each in dialects)]}
    if path in BY_PATH:
        asked.pop("examples", None)
    if names := re.findall(r"{(\w+)}", path):
        schema = {"type": "string"}
        operation["parameters"] = [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]


def _refer(shape: Mapping[str, Any], components: dict[str, Any]) -> dict[str, str]:
    """Put a shape under its title into the schema's components, and return a reference to it."""
    components[shape["title"]] = dict(shape)
    return {"$ref": f"#/components/schemas/{shape['title']}"}
