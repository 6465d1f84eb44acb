"""What goes out of logs, settings and configurations before they are shown to somebody else.

Keys and passwords are known by their value, where a setting or a variable holds them, and else by where they stand. Of
the gateway's JSON lines only what its own code says is kept; other logs lose what is quoted and is no name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["LEFT_OUT", "SECRET", "Scrubber", "find_secrets"]

SECRET: Final = "[secret]"
LEFT_OUT: Final = "[left out]"
USER: Final = "[user]"
SHORTEST_SECRET: Final = 4  # a shorter one would take words apart that have nothing to do with it
SYSTEM_USERS: Final = frozenset({"root", "lychee", "nobody"})
OWN_LOGGERS: Final = ("lychee_server", "lychee_client", "uvicorn")
# The fields of a line whose texts the gateway's own code chose; numbers stay in every field.
KEPT_FIELDS: Final = frozenset(
    ("time", "level", "logger", "request_id", "route", "method", "modality", "model", "dialect", "error_type", "reason")
)
MOST_CHARACTERS: Final = 4000  # of one line
_SECRET_VARIABLE: Final = re.compile(r"(^|_)(KEYS?|TOKEN|SECRET|PASSW(OR)?D|AUTHORIZATION|COOKIE)(_|$)", re.IGNORECASE)
_SECRET_NAME: Final = (
    r"(?<![\w-])(?:[\w-]*[_-](?:key|token)|apikey|[\w-]*(?:secret|passw(?:or)?d|authorization|cookie))"
)
_PARAMETER: Final = re.compile(
    r'(key:\s*"[^"]*(?:key|token|secret|passw(?:or)?d)[^"]*"\s*value:?\s*\{?\s*string_value:\s*)"(?:\\.|[^"\\])*"',
    re.IGNORECASE,
)
_PATTERNS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"(?<=://)[^\s\"'<>]*@", f"{SECRET}@"),
        (r"\b(bearer|basic)\s+[\w.~+/=-]{4,}", rf"\1 {SECRET}"),
        (
            rf"({_SECRET_NAME}\\?[\"']?\s*[:=]\s*\\?[\"']?)(?!\[|bearer|basic|null|true|false)[^\s\"',;}}\\]+",
            rf"\1{SECRET}",
        ),
        (r"data:[\w/+.-]+;base64,[\w+/=]*", LEFT_OUT),
        (r"[A-Za-z0-9+/=_-]{200,}", LEFT_OUT),
        (r"(/(?:home|Users)/)[^/\s\"':,]+", rf"\1{USER}"),
    )
)
_COMMENT: Final = re.compile(r"^((?:[^\"#\n]|\"(?:\\.|[^\"\\\n])*\")*)#.*$", re.MULTILINE)
_TRITON_HEADER: Final = re.compile(r"[EWIFV]\d{4} [^\]\"']*\] ")
_QUOTED: Final = re.compile(r"(?<![^\s(\[{=:,\\])(\\?[\"'`])(.{1,1000}?)\1(?![^\s)\]}=:;,.\\\"])")
_NAME: Final = re.compile(r"[\w./:@%+=,*<>()\[\]{}-]*", re.ASCII)
_FOREIGN: Final = re.compile(r"[^\x00-\x7f]+")
_FRAME: Final = re.compile(r'\s*File "[^"]+", line \d+, in [\w<>.]+')
_ERROR: Final = re.compile(r"(?:\s*in it: )?([A-Za-z_][\w.]*)(?::.*)?")


class Scrubber:
    """Takes secrets, texts and user names out.

    Args:
        secrets: Values that must not be shown, wherever they stand.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({each for each in secrets if len(each) >= SHORTEST_SECRET}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, known))) if known else None
        home = Path.home()
        self._home = str(home) if len(home.parts) > 1 and home.name not in SYSTEM_USERS else None
        user = os.environ.get("USER") or home.name
        self._user = None if user in SYSTEM_USERS or not user else re.compile(rf"(?<=/){re.escape(user)}(?=[/\s\"']|$)")

    def scrub(self, text: str) -> str:
        """Take out secrets, images and the names of users in paths, line by line: other threads get their turn."""
        return "".join(map(self._scrub_line, text.splitlines(keepends=True)))

    def _scrub_line(self, text: str) -> str:
        if self._secrets is not None:
            text = self._secrets.sub(SECRET, text)
        if self._home is not None:
            text = text.replace(self._home, "~")
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text if self._user is None else self._user.sub(USER, text)

    def scrub_variables(self, variables: Mapping[str, str], shown: frozenset[str]) -> dict[str, str]:
        """Return variables with the values of those alone that may be shown."""
        return {
            name: self.scrub(value) if name in shown and not _SECRET_VARIABLE.search(name) else "[set]"
            for name, value in sorted(variables.items())
        }

    def scrub_config(self, text: str) -> str:
        """Take the comments out of a `config.pbtxt`, and the values of parameters whose name tells of a secret."""
        return _PARAMETER.sub(rf'\1"{SECRET}"', _COMMENT.sub(r"\1", text))

    def scrub_gateway_log(self, text: str) -> str:
        """Keep of JSON lines what our own code says; of other lines only that they were there."""
        return "".join(f"{_scrub_line(line)}\n" for line in text.splitlines() if line.strip())

    def scrub_log(self, text: str) -> str:
        """Keep of other lines what is neither quoted, unless it is a name, nor outside of ASCII."""
        return "".join(f"{_scrub_free_line(line[:MOST_CHARACTERS])}\n" for line in text.splitlines())


def find_secrets(variables: Mapping[str, str]) -> Iterator[str]:
    """Yield what the variables of a process hold of secrets: lists of keys, and passwords in URLs, piece by piece."""
    for name, value in variables.items():
        if _SECRET_VARIABLE.search(name):
            yield from (word for word in re.findall(r"[^\s,]+", value) if word.lower() not in ("true", "false"))
        for credentials in re.findall(r"://([^\s\"']*)@", value):
            yield credentials.partition(":")[2]


def _scrub_line(line: str) -> str:
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        return line.rstrip() if _FRAME.fullmatch(line) else "[a line that is not JSON was left out]"
    return json.dumps({name: _scrub_field(name, value, fields) for name, value in fields.items()}, ensure_ascii=False)


def _scrub_field(name: str, value: Any, fields: Mapping[str, Any]) -> Any:
    if value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and name in KEPT_FIELDS):
        return value
    if name == "message" and isinstance(value, str):
        return value if str(fields.get("logger")).split(".")[0] in OWN_LOGGERS else LEFT_OUT
    if name == "exception" and isinstance(value, str):
        return "\n".join(_scrub_traceback(value.splitlines()))
    return LEFT_OUT


def _scrub_traceback(lines: Iterable[str]) -> Iterator[str]:
    """Yield where and of which type; messages may quote what was sent, and so may lines that are a message's second."""
    for line in lines:
        if _FRAME.fullmatch(line) or line == "caused by:":
            yield line
        elif (named := _ERROR.fullmatch(line)) and "." in named[1]:
            yield named[1]


def _scrub_free_line(line: str) -> str:
    header = _TRITON_HEADER.match(line)
    start, rest = (header[0], line[header.end() :]) if header else ("", line)
    if header and len(rest) > 1 and rest[0] == rest[-1] == '"':  # Triton quotes the whole of what it says
        return f'{start}"{_scrub_quotes(rest[1:-1])}"'
    return start + _scrub_quotes(rest)


def _scrub_quotes(text: str) -> str:
    def judge(found: re.Match[str]) -> str:
        return found[0] if _NAME.fullmatch(found[2]) else f"{found[1]}{LEFT_OUT}{found[1]}"

    return _FOREIGN.sub(LEFT_OUT, _QUOTED.sub(judge, text))
