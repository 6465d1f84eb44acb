"""The API's documentation as one page of HTML, without scripts and without any other host."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8886; --accent: #c2334d; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1, h2 code { color: var(--accent); }
section { border-top: 1px solid var(--line); padding: 1rem 0; }
pre { background: #8882; padding: .75rem; overflow-x: auto; border-radius: 6px;
      white-space: pre-wrap; word-break: break-all; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .25rem .5rem; border-top: 1px solid var(--line); }
summary { cursor: pointer; font-weight: 600; margin: .5rem 0; }
"""


def render_api_page(schema: Mapping[str, Any], root_path: str = "") -> str:
    """Return the page.

    Args:
        schema: The OpenAPI description.
        root_path: Under which a proxy serves the gateway.
    """
    info = schema["info"]
    sections = "".join(
        _render_operation(schema, path, method, operation, root_path)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])} API</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>"
        f'<p>For programs: <a href="{escape(root_path)}/openapi.json">openapi.json</a>. With API keys, every request '
        f"sends <code>Authorization: Bearer KEY</code> or <code>x-api-key: KEY</code>.</p>{sections}</body></html>"
    )


def _render_operation(
    schema: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any], root_path: str
) -> str:
    parts = [f"<section><h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}. "]
    parts.append(f"{escape(operation.get('description', ''))}</p>")
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        parts.append(_render_fields("Request", schema, body["schema"]))
        for example in body.get("examples", {}).values():
            parts.append(_render_example(f"{root_path}{path}", example))
    for status, answer in operation["responses"].items():
        content = answer.get("content", {}).get("application/json", {}).get("schema", {})
        title = f"{status}: {answer['description']}"
        parts.append(_render_fields(title, schema, content) if "$ref" in content else f"<p>{escape(title)}</p>")
    return f"{''.join(parts)}</section>"


def _render_fields(title: str, schema: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    resolved = _resolve(schema, reference)
    required = resolved.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{' (required)' if name in required else ''}</td>"
        f"<td>{escape(', '.join(dict.fromkeys(_types(schema, field))))}</td>"
        f"<td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in resolved.get("properties", {}).items()
    )
    return f"<details><summary>{escape(title)}</summary><table>{rows}</table></details>"


def _types(schema: Mapping[str, Any], field: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words what a field may be."""
    if "$ref" in field:
        yield from _types(schema, _resolve(schema, field))
    elif "anyOf" in field:
        for choice in field["anyOf"]:
            yield from _types(schema, choice)
    elif "enum" in field or "const" in field:
        yield " | ".join(json.dumps(value) for value in field.get("enum", [field.get("const")]))
    elif field.get("type") == "object" and "properties" in field:
        yield f"{{{', '.join(field['properties'])}}}"
    elif field.get("type") == "array" and "items" in field:
        yield f"list of {' or '.join(dict.fromkeys(_types(schema, field['items'])))}"
    else:
        yield field.get("type", "anything")


def _resolve(schema: Mapping[str, Any], field: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in field:
        return field
    found: Mapping[str, Any] = schema["components"]["schemas"][field["$ref"].rsplit("/", 1)[-1]]
    return found


def _render_example(path: str, example: Mapping[str, Any]) -> str:
    body = json.dumps(example["value"], ensure_ascii=False, indent=2)
    command = f"curl -H 'content-type: application/json' http://HOST:PORT{path} -d '{body}'"
    return f"<details><summary>Example: {escape(example['summary'])}</summary><pre>{escape(command)}</pre></details>"
