"""The file that describes an experiment: its arms, their shares, and what differs between them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Final, Literal

from lychee_client import ConfigurationError, Policy
from lychee_client.experiments import Assignment
from lychee_client.instructions import get_instruction
from lychee_client.instructions.templates import text_problem
from pydantic import Field, ValidationError

from lychee_server.errors import SettingsError
from lychee_server.gateway.errors import RequestValueError
from lychee_server.gateway.lax_types import Count, LaxModel, Positive, Unit
from lychee_server.gateway.request_schemas import Content, CustomPolicy, NamedInstruction, RerankRequest
from lychee_server.gateway.shape_problems import describe_shape
from lychee_server.gateway.unknown_names import UnknownNames

CONTROL: Final = "control"
MIN_SALT_CHARACTERS: Final = 16
# What an arm may say of a request.
ARM_FIELDS: Final = frozenset(
    {
        "chunking",
        "instruction",
        "max_tokens_per_doc",
        "max_tokens_per_query",
        "min_results",
        "model",
        "policy",
        "relevant_spans",
        "score_threshold",
        "top_n",
        "truncation",
    }
)
_NAME: Final = re.compile(r"[\w.-]{1,64}")  # it becomes the name of files, and the label of a metric


class Arm(RerankRequest):
    """What a file says of an arm: its share of the users, and the fields of a request that it sets."""

    query: Content = ""
    documents: list[Content] = Field(default_factory=list)
    share: Positive

    @property
    def settings(self) -> frozenset[str]:
        """The names of the fields that the arm sets."""
        return frozenset(self.model_fields_set - {"share"})


class ShadowSettings(LaxModel):
    """What a file says of a shadow: the model that is asked as well, and for how much.

    Attributes:
        model: The name by which the gateway serves it.
        share: Of the calls.
        timeout_s: How long one may take.
        max_running: How many may run at the same time; what comes then is dropped.
        max_mb: How many MiB of queries and documents they may hold together; likewise.
    """

    model: str
    share: Unit
    timeout_s: Positive = 10.0
    max_running: Count = 4
    max_mb: Count = 64


class ExperimentFile(LaxModel):
    """An experiment as its file describes it; with a shadow it may have no arms."""

    name: str
    salt: str = Field(repr=False)
    arms: dict[str, Arm] = Field(default_factory=dict)
    unit: Literal["user", "call"] = "user"
    shadow: ShadowSettings | None = None
    traffic_share: Unit = 1.0
    log_dir: Path | None = None
    max_log_mb: Count = 2048

    def assignment(self) -> Assignment:
        """Return who gets which arm; the order of the arms in the file does not matter.

        Without arms it says of nobody which one is theirs: `RunningExperiment` does not ask.
        """
        if not self.arms:
            return Assignment(self.name, {CONTROL: 0.5, "shadow": 0.5}, self.salt)
        others = sorted(self.arms.keys() - {CONTROL})
        return Assignment(
            self.name, {name: self.arms[name].share for name in (CONTROL, *others)}, self.salt, self.traffic_share
        )


def read_experiment(path: Path) -> ExperimentFile:
    """Read a file of TOML (`.toml`) or JSON.

    Raises:
        SettingsError: It cannot be read or used; the message names the place, and never the salt.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise SettingsError(f"the experiment {path} cannot be read: {error.strerror}; check --experiment") from error
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON (TOML's files end with .toml)"
        raise SettingsError(f"the experiment {path} is not {kind}: {error}; correct it there") from error
    try:
        if isinstance(data, dict) and not isinstance(data.get("salt", ""), str):
            raise ConfigurationError("salt is no string; write it in quotation marks")
        experiment = ExperimentFile.model_validate(data)
        _check(experiment)
    except ValidationError as error:
        problems = [{**problem, "loc": ("file", *problem["loc"])} for problem in error.errors()]
        message = describe_shape(problems)[0].removesuffix("; see /docs")
        raise SettingsError(f"the experiment {path} cannot be used: {message}") from None  # it would show the salt
    except (ConfigurationError, RequestValueError) as error:
        raise SettingsError(f"the experiment {path} cannot be used: {error}") from error
    return experiment


def _check(experiment: ExperimentFile) -> None:
    """Refuse what would only fail later.

    Raises:
        ConfigurationError: Something cannot be used.
    """
    for name in (experiment.name, *experiment.arms):
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"the name {name!r:.80} has other characters; expected up to 64 letters, digits, dots, hyphens and "
                "underscores"
            )
    if len(experiment.salt) < MIN_SALT_CHARACTERS:
        raise ConfigurationError(
            f"salt has {len(experiment.salt)} characters; expected at least {MIN_SALT_CHARACTERS}, made at random: "
            "whoever can guess it can tell who the users are"
        )
    if CONTROL not in experiment.arms and (experiment.arms or experiment.shadow is None):
        raise ConfigurationError(
            f"the arms are {', '.join(experiment.arms) or 'none'}; expected one called {CONTROL!r}, which others are "
            "compared with"
        )
    experiment.assignment()
    names = UnknownNames(strict=True)
    names.check_fields(experiment)
    if experiment.shadow is not None:
        names.check_fields(experiment.shadow)
    for name, arm in experiment.arms.items():
        try:
            names.check_fields(arm)
            _check_values(arm)
        except ConfigurationError as error:
            raise ConfigurationError(f"arm {name!r}: {error}") from error


def _check_values(arm: Arm) -> None:
    if others := sorted(arm.settings - ARM_FIELDS):
        raise ConfigurationError(f"{others[0]} is nothing that an arm sets; expected {', '.join(sorted(ARM_FIELDS))}")
    policy, instruction = arm.policy, arm.instruction
    if isinstance(policy, CustomPolicy):
        Policy("arm", accept=policy.accept, review=policy.accept if policy.review is None else policy.review)
    if isinstance(instruction, NamedInstruction):
        get_instruction(instruction.name, instruction.language)
    elif instruction is not None and (problem := text_problem(instruction)) is not None:
        raise ConfigurationError(f"the instruction {problem}")
