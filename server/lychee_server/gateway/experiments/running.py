"""The experiment that a gateway runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lychee_client import Policy, RerankResponse
from lychee_client.experiments.events import EVENT_KINDS
from lychee_client.experiments.records import describe_ranking, describe_user, make_record
from prometheus_client import Counter

from lychee_server.defaults import MIB, state_dir
from lychee_server.errors import SettingsError
from lychee_server.gateway.experiments.experiment_file import CONTROL, ExperimentFile, read_experiment
from lychee_server.gateway.experiments.feedback import FeedbackEvent
from lychee_server.gateway.experiments.recorder import Recorder
from lychee_server.gateway.metrics import PREFIX, Metrics
from lychee_server.gateway.request_schemas import RerankRequest

FOLDER: Final = "experiments"  # of the state's folder


@dataclass(frozen=True, slots=True)
class Participant:
    """A user who takes part, and the arm that the user has."""

    user: str = field(repr=False)
    arm: str


class RunningExperiment:
    """Gives requests their arm, and writes down what came of it.

    Args:
        file: What the experiment is.
        folder: Where it is written down.
        metrics: Where it is counted.
    """

    def __init__(self, file: ExperimentFile, folder: Path, metrics: Metrics) -> None:
        self.name = file.name
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
        for name in file.arms:
            self._rankings.labels(name)
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

    def assign(self, body: RerankRequest) -> Participant | None:
        """Give a request the settings of its user's arm; they replace those of the request.

        Without a user, or with one who takes no part, the control's settings fill in what the request leaves out.

        Returns:
            The user who takes part; None: the call does not count.
        """
        name = self._assignment.variant(body.user) if body.user else None
        arm = self._arms[name or CONTROL]
        for setting in arm.settings:
            if name is not None or setting not in body.model_fields_set:
                setattr(body, setting, getattr(arm, setting))
        if body.top_n:
            body.min_results = min(body.min_results, body.top_n)  # one side may come from the arm
        return None if name is None or not body.user else Participant(body.user, name)

    def record_ranking(self, participant: Participant, response: RerankResponse, policy: Policy) -> str:
        """Write down what a user was given, and return the ranking's id."""
        ranking_id = self._assignment.make_ranking_id()
        self._rankings.labels(participant.arm).inc()
        self._recorder.note(
            make_record(
                self._assignment,
                **describe_user(self._assignment, participant.user, participant.arm),
                **describe_ranking(response, policy),
                ranking_id=ranking_id,
                settings_sha256=self._settings[participant.arm],
            )
        )
        return ranking_id

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
        known = self._assignment.is_ranking_id(ranking_id)
        for event in events:
            self._events.labels(event.type).inc()
        if not known:
            self._unknown.inc(len(events))
        return known

    def close(self) -> None:
        """Write what is not written yet."""
        self._recorder.close()
