"""The experiment that a gateway runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lychee_client import Policy, RerankResponse
from lychee_client.experiments.events import EVENT_KINDS
from lychee_client.experiments.records import describe_ranking, describe_user, make_record
from prometheus_client import Counter

from lychee_server.defaults import MIB, state_dir
from lychee_server.errors import SettingsError
from lychee_server.gateway.experiments.canary import REASONS
from lychee_server.gateway.experiments.experiment_file import CONTROL, ExperimentFile, read_experiment
from lychee_server.gateway.experiments.feedback import FeedbackEvent
from lychee_server.gateway.experiments.recorder import Recorder
from lychee_server.gateway.experiments.shadow import Shadow
from lychee_server.gateway.metrics import PREFIX, Metrics
from lychee_server.gateway.model_services import ModelServices
from lychee_server.gateway.request_schemas import RerankRequest
from lychee_server.gateway.service import Service

FOLDER: Final = "experiments"  # of the state's folder


@dataclass(frozen=True, slots=True)
class Participant:
    """A user, or a call, that takes part, and its arm.

    Attributes:
        user: The user's key, or the id of the request where calls are what is assigned.
        arm: The name of the arm.
        control: The control's model, and the request as the control has it; None where the arm has no other model.
    """

    user: str = field(repr=False)
    arm: str
    control: tuple[Service, RerankRequest] | None = None


class RunningExperiment:
    """Gives requests their arm, and writes down what came of it.

    Args:
        file: What the experiment is.
        folder: Where it is written down.
        metrics: Where it is counted.

    Attributes:
        name: The name of the experiment.
        unit: What is assigned, "user" or "call".
        shadow: Asks another model as well; None before `bind`, and without one.
    """

    def __init__(self, file: ExperimentFile, folder: Path, metrics: Metrics) -> None:
        self.name = file.name
        self.unit = file.unit
        self.shadow: Shadow | None = None
        self._shadow_settings = file.shadow
        self._metrics = metrics
        self._models: dict[str, Service] = {}  # of each arm, where any has a model of its own
        self._arms = file.arms
        self._assignment = file.assignment()
        self._settings = {
            name: hashlib.sha256(arm.model_dump_json(exclude={"share"}, exclude_unset=True).encode()).hexdigest()
            for name, arm in file.arms.items()
        }

        def count(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}_experiment_{name}", text, labels, registry=metrics.registry)

        self._rankings = count("rankings", "Rankings of users who take part in the experiment", "arm")
        self._events = count("events", "Events of rankings, as they were told", "type")
        self._unknown = count("unknown_events", "Events of rankings that are none of this experiment's")
        self._lost = count("lost_records", "Records that could not be written")
        self._fallbacks = count("fallbacks", "Calls of an arm that the control's model answered", "arm", "reason")
        self._failures = count("failures", "Calls of an arm that nobody answered", "arm")
        for name in file.arms:
            self._rankings.labels(name)
            self._failures.labels(name)
            if file.arms[name].model and name != CONTROL:
                for reason in REASONS:
                    self._fallbacks.labels(name, reason)
        for kind in EVENT_KINDS:
            self._events.labels(kind)
        self._recorder = Recorder(folder, file.name, file.max_log_mb * MIB, self._lost.inc)

    @classmethod
    def load(cls, path: Path, metrics: Metrics) -> RunningExperiment:
        """Read the experiment of a file.

        Raises:
            SettingsError: It cannot be used, or its folder cannot be written.
        """
        file = read_experiment(path)
        folder = state_dir() / FOLDER if file.log_dir is None else path.parent / file.log_dir
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"the folder {folder} of the experiment cannot be made: {error.strerror}") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SettingsError(f"the folder {folder} of the experiment cannot be written; check its permissions")
        return cls(file, folder, metrics)

    def bind(self, services: ModelServices) -> None:
        """Find the models of arms and shadow among those that the gateway serves.

        Raises:
            SettingsError: One is not among them.
        """
        named = {f"arm {name!r}": arm.model for name, arm in self._arms.items() if arm.model}
        if self._shadow_settings is not None:
            named["the shadow"] = self._shadow_settings.model
        for owner, model in named.items():
            if not services.is_several or services.named(model) is None:
                served = ", ".join(services.services) if services.is_several else "one model alone"
                raise SettingsError(
                    f"the experiment {self.name}: {owner} has the model {model!r:.80}, and the gateway serves "
                    f"{served}; expected a name of the file that --models names"
                )
        if any(arm.model for arm in self._arms.values()):
            for name, arm in self._arms.items():
                self._models[name] = (services.named(arm.model) if arm.model else None) or services.default
        if self._shadow_settings is not None and (found := services.named(self._shadow_settings.model)) is not None:
            self.shadow = Shadow(self._shadow_settings, found, self._record_pair, self._metrics.registry)

    def find_shadow(self, request_id: str) -> Shadow | None:
        """Return the shadow, if a call is one of its share."""
        settings = self._shadow_settings
        if settings is None or not self._assignment.is_drawn(request_id, settings.share):
            return None
        return self.shadow

    def assign(self, body: RerankRequest, request_id: str, asked: Service | None = None) -> Participant | None:
        """Give a request the settings and the model of its arm; they replace those of the request.

        Without a user, or with one who takes no part, the control's settings fill in what the request leaves out. Where
        arms have models, a call that names another model than the control's takes no part and stays as it is.

        Args:
            body: The request.
            request_id: Its id, which decides where calls are assigned.
            asked: The service of the model that the call names; None: it names none.

        Returns:
            Who takes part; None: the call does not count.
        """
        if not self._arms or (self._models and asked not in (None, self._models[CONTROL])):
            return None
        key = request_id if self.unit == "call" else body.user
        name = self._assignment.variant(key) if key else None
        control = None
        if self._models and name is not None and self._models[name] is not self._models[CONTROL]:
            control = self._models[CONTROL], body.model_copy()
            self._apply(control[1], CONTROL, replaces=True)
        self._apply(body, name or CONTROL, replaces=name is not None)
        return None if name is None or not key else Participant(key, name, control)

    def _apply(self, body: RerankRequest, name: str, *, replaces: bool) -> None:
        arm = self._arms[name]
        for setting in arm.settings - {"model"}:
            if replaces or setting not in body.model_fields_set:
                setattr(body, setting, getattr(arm, setting))
        if self._models:
            body.model = self._models[name].name
        if body.top_n:
            body.min_results = min(body.min_results, body.top_n)  # one side may come from the arm

    def record_ranking(
        self,
        participant: Participant,
        response: RerankResponse,
        policy: Policy,
        *,
        served: str,
        seconds: float,
        fallback: str | None = None,
    ) -> str:
        """Write down what a user was given, and return the ranking's id.

        Args:
            participant: Whose ranking it is.
            response: What was answered.
            policy: What decided.
            served: The name of the model that answered.
            seconds: How long the caller waited for it.
            fallback: Why the control's model answered in place of the arm's; None: it did not.
        """
        settings = self._settings[participant.arm if fallback is None else CONTROL]
        if fallback is not None:
            self._fallbacks.labels(participant.arm, fallback).inc()
        ranking_id = self._assignment.make_ranking_id()
        self._rankings.labels(participant.arm).inc()
        self._recorder.note(
            make_record(
                self._assignment,
                **describe_user(self._assignment, participant.user, participant.arm),
                **describe_ranking(response, policy),
                ranking_id=ranking_id,
                settings_sha256=settings,
                **self._describe_call(served, response.model_version, seconds),
                **({} if fallback is None else {"fallback": fallback}),
            )
        )
        return ranking_id

    def record_failure(self, participant: Participant, error: Exception, *, served: str, seconds: float) -> None:
        """Write down that a call of an arm got no answer, and it was not its caller's mistake."""
        self._failures.labels(participant.arm).inc()
        self._recorder.note(
            make_record(
                self._assignment,
                record="failure",
                **describe_user(self._assignment, participant.user, participant.arm),
                error=type(error).__name__,
                **self._describe_call(served, None, seconds),
            )
        )

    def _describe_call(self, served: str, version: int | None, seconds: float) -> dict[str, Any]:
        told = {"served": served} if self._models else {}
        return {"unit": self.unit, **told, "model_version": version, "latency_ms": round(1e3 * seconds, 3)}

    def _record_pair(self, fields: Mapping[str, Any]) -> None:
        self._recorder.note(make_record(self._assignment, **fields))

    async def record_events(self, ranking_id: str, events: Sequence[FeedbackEvent]) -> bool:
        """Write down what a user did, also with a ranking that this experiment does not know.

        Returns:
            Whether the ranking is one of this experiment's, by whichever gateway.

        Raises:
            LycheeError: It cannot be written.
        """
        records = [
            make_record(self._assignment, record="feedback", ranking_id=ranking_id, **event.describe())
            for event in events
        ]
        await self._recorder.write(records)
        known = bool(self._arms) and self._assignment.is_ranking_id(ranking_id)
        for event in events:
            self._events.labels(event.type).inc()
        if not known:
            self._unknown.inc(len(events))
        return known

    def begin_stopping(self) -> None:
        """End the calls that nobody waits for, so that the gateway waits for none of them."""
        if self.shadow is not None:
            self.shadow.begin_stopping()

    async def stop_shadow(self) -> None:
        """End the calls that nobody waits for, and return when they have ended."""
        if self.shadow is not None:
            await self.shadow.aclose()

    def close(self) -> None:
        """Write what is not written yet."""
        self._recorder.close()
