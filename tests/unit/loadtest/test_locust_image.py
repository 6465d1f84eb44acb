"""The image of Locust has every module that its locustfile needs."""

from __future__ import annotations

import ast
from pathlib import Path

from deployment import ROOT, read_dockerfile, read_services

FOLDER = ROOT / "loadtest"


def needed_modules(path: Path) -> set[Path]:
    """Return a script of loadtest/ and those that it imports, and those that they import."""
    found, left = set(), [path]
    while left:
        current = left.pop()
        found.add(current)
        for node in ast.walk(ast.parse(current.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            own = {FOLDER / f"{name}.py" for name in names}
            left += [module for module in own - found if module.exists()]
    return found


def test_every_module_of_the_locustfile_is_copied_and_nothing_else() -> None:
    copied = {
        ROOT / source
        for name, arguments in read_dockerfile(ROOT / "deploy" / "locust" / "Dockerfile")
        if name == "COPY"
        for source in arguments.split()[:-1]
        if source.endswith(".py")
    }
    assert copied == needed_modules(FOLDER / "locustfile.py")


def test_compose_calls_the_gateway_alone_and_sends_no_bulk_until_asked() -> None:
    locust = read_services()["locust"]
    assert locust["environment"].get("LYCHEE_LOADTEST_GRPC_URL") is None
    assert "--bulk-users=0" in locust["command"]
    asked = read_services(LYCHEE_LOADTEST_GRPC_URL="triton:8001", LOCUST_BULK_USERS="1")["locust"]
    assert asked["environment"]["LYCHEE_LOADTEST_GRPC_URL"] == "triton:8001"
    assert "--bulk-users=1" in asked["command"]
