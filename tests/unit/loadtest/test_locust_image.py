"""The image of Locust: it starts the installed locustfile, and compose asks for little."""

from __future__ import annotations

from pathlib import Path

import lychee_loadtest
from deployment import dockerfile_command, read_services


def test_the_image_starts_the_installed_locustfile() -> None:
    entrypoint = dockerfile_command("locust")
    path = Path(entrypoint[entrypoint.index("--locustfile") + 1])
    inside = path.relative_to("/opt/lychee/lib/python3.11/site-packages/lychee_loadtest")
    assert (Path(lychee_loadtest.__file__).parent / inside).is_file()


def test_compose_calls_the_gateway_alone_and_sends_no_bulk_until_asked() -> None:
    locust = read_services()["locust"]
    assert locust["environment"].get("LYCHEE_LOADTEST_GRPC_URL") is None
    assert "--bulk-users=0" in locust["command"]
    asked = read_services(LYCHEE_LOADTEST_GRPC_URL="triton:8001", LOCUST_BULK_USERS="1")["locust"]
    assert asked["environment"]["LYCHEE_LOADTEST_GRPC_URL"] == "triton:8001"
    assert "--bulk-users=1" in asked["command"]
