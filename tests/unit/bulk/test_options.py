"""How a run scores."""

from typing import Any

import pytest
from lychee_bulk.options import ScoringOptions
from lychee_client import ConfigurationError


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"policy": "generous"}, "policy is 'generous'"),
        ({"instruction": "a\0b"}, "the instruction 'a.*b'"),
        ({"in_flight": 0}, "in_flight is 0; expected a positive number"),
        ({"documents_per_call": -1}, "documents_per_call is -1"),
        ({"timeout_s": 0.0}, "timeout_s is 0.0"),
        ({"patience_s": -0.5}, "patience_s is -0.5"),
    ],
)
def test_options_that_cannot_be_used_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        ScoringOptions(**change)


def test_an_actor_may_ask_the_server_of_its_node() -> None:
    options = ScoringOptions("grpc://{node_ip}:8001")
    assert options.for_node("10.0.0.7") == "grpc://10.0.0.7:8001"
    assert options.for_node("fd00::7") == "grpc://[fd00::7]:8001"
    assert ScoringOptions("triton:8001").for_node("10.0.0.7") == "triton:8001"
    assert ScoringOptions().for_node("10.0.0.7") is None


def test_the_manifest_has_thresholds_and_not_only_their_name() -> None:
    assert ScoringOptions(policy="exploratory", instruction="Find").to_json() == {
        "instruction": "Find",
        "policy": {"name": "exploratory", "accept": 0.55, "review": 0.4},
        "max_img_size": None,
    }
