"""What `lychee tune` does, without its options: measure or look up, check, write."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lychee_client import LycheeClient, LycheeError
from lychee_client.files import write_atomically
from lychee_client.manifest import DEFAULT_ERROR_BUDGET
from lychee_client.repository import ASSETS_MODEL
from lychee_server import defaults, state
from lychee_server.errors import LycheeServerError, RepositoryError, SettingsError
from lychee_server.execution import serve, with_choice, without_choice
from lychee_server.repository import check_repository
from lychee_server.triton import TritonServer
from tritonclient.grpc import model_config_pb2

from lychee_loadtest.machine import describe_machine
from lychee_loadtest.tune.chart import draw_studies
from lychee_loadtest.tune.choice import Bounds
from lychee_loadtest.tune.profiles import ORIGIN, read_profiles
from lychee_loadtest.tune.progress import Progress
from lychee_loadtest.tune.report import study_lines, to_json
from lychee_loadtest.tune.settings import current_settings, with_settings
from lychee_loadtest.tune.study import STARTS, Effort, study_model
from lychee_loadtest.tune.variant import (
    check_name,
    check_writable,
    variant_text,
    whole_view,
    write_variants,
)
from lychee_loadtest.tune.workloads import Modality, Subject, read_model_id, read_subject

__all__ = ["Target", "apply_profile", "tune"]


@dataclass(frozen=True, slots=True)
class Target:
    """What to tune, and where the result goes."""

    repository: Path
    name: str
    modalities: tuple[Modality, ...]
    force: bool = False


def tune(
    target: Target,
    effort: Effort,
    limits: Bounds,
    output: Path,
    *,
    say: Callable[[str], None],
    report: Callable[[str], None],
) -> None:
    """Measure, choose, try the result with the whole repository, and write it.

    The repository is changed at the end only, when everything went well.

    Args:
        target: What to tune.
        effort: How thoroughly to measure.
        limits: What a choice may not exceed.
        output: The folder for `<name>.json` and `<name>.png`; made if it is missing.
        say: Shows progress.
        report: Shows results.

    Raises:
        LycheeServerError: Something is missing, not writable, or no setting is within the limits.
        ConfigurationError: A file cannot be written.
    """
    subjects = _read_subjects(target)
    for subject in subjects:
        if _runs_on_gpu(subject):
            raise RepositoryError(
                f"{subject.name} was exported for a GPU (KIND_GPU), and this command measures exports for CPUs; "
                "export with --target cpu to measure here, or take a starting point with --profile"
            )
    subjects = _choose_executions(target, subjects, say)
    _make_folder(output)
    known = state.read_state()
    if known is not None and known.is_running():
        pid = known.first.pid
        say(f"The server with pid {pid} runs beside this and distorts the numbers; better `lychee stop` first.")
    machine = describe_machine()
    report(f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}")
    progress = Progress(say, measuring_s=effort.seconds * len(subjects), starts=STARTS * len(subjects) + 1)
    studies = []
    for subject in subjects:
        study = study_model(subject, effort, limits, progress)
        report("\n".join(study_lines(study)))
        studies.append(study)
    where = f"on {machine['cpu']}, {machine['cores']} cores, {machine['date']}"
    texts = {
        study.subject.name: variant_text(
            with_settings(without_choice(study.subject.config), study.settings),
            f"from measurements {where}.",
            [f"It sets {study.settings.describe()}. Why:", *study.reasons],
        )
        for study in studies
    }
    progress.step(f"checking the whole repository with --config-name {target.name}")
    with whole_view(target.repository, target.name, texts) as view:
        _try(view, target.name)
    model_id = read_model_id(target.repository)
    content = to_json(studies, machine, target.name, model_id, effort, limits)
    json_path, picture_path = output / f"{target.name}.json", output / f"{target.name}.png"
    write_atomically(json_path, (json.dumps(content, indent=1) + "\n").encode("utf-8"))
    draw_studies(studies, machine, model_id, picture_path)
    for path in [*write_variants(target.repository, target.name, texts), json_path, picture_path]:
        report(f"wrote {path}")
    report(_next_step(target))


def apply_profile(target: Target, profile_name: str, *, report: Callable[[str], None]) -> None:
    """Write the variants that a profile asks for; nothing is measured or started.

    Raises:
        LycheeServerError: There is no such profile, or a file is missing or not writable.
        ConfigurationError: A file cannot be written.
    """
    profiles = read_profiles()
    if profile_name not in profiles:
        raise SettingsError(f"--profile is {profile_name!r}; expected one of {', '.join(profiles)}")
    profile = profiles[profile_name]
    texts = {}
    for subject in _read_subjects(target):
        batch, largest = profile.batches[subject.modality], subject.config.max_batch_size
        settings = replace(current_settings(subject.config), batches=(min(batch, largest),))
        notes = [f"This is {ORIGIN}.", f"It sets {settings.describe()}."]
        if batch > largest:
            notes.append(f"The profile's {batch} is above the model's max_batch_size {largest}.")
        report(f"{subject.name}: {profile.hardware}: {settings.describe()}: {ORIGIN}")
        source = f"from the profile {profile_name} ({profile.hardware})."
        texts[subject.name] = variant_text(with_settings(subject.config, settings), source, notes)
        if not _runs_on_gpu(subject):
            report(f"{subject.name} runs on a CPU here; for {profile.hardware}, export with --target cuda first")
    for path in write_variants(target.repository, target.name, texts):
        report(f"wrote {path}")
    report(_next_step(target))


def _choose_executions(target: Target, subjects: Sequence[Subject], say: Callable[[str], None]) -> list[Subject]:
    """Let the models run as `lychee load` would run them."""
    served = serve(target.repository, None, DEFAULT_ERROR_BUDGET, defaults.usable_cache_dir())
    for name, choice in served.choices.items():
        say(f"{name}: {choice.execution} ({choice.reason})")
    return [
        replace(subject, config=with_choice(subject.config, served.choices[subject.name], DEFAULT_ERROR_BUDGET))
        if subject.name in served.choices
        else subject
        for subject in subjects
    ]


def _read_subjects(target: Target) -> Sequence[Subject]:
    check_name(target.name)
    check_repository(target.repository)
    found = [read_subject(target.repository, modality) for modality in target.modalities]
    subjects = [subject for subject in found if subject is not None]
    if not subjects:
        raise RepositoryError(
            f"{target.repository} has no model to tune for {' or '.join(target.modalities)}; "
            "expected text_encoder or vision_encoder, as `lychee export` writes them"
        )
    for subject in subjects:
        check_writable(subject.folder, target.name, force=target.force)
    return subjects


def _runs_on_gpu(subject: Subject) -> bool:
    return any(group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU for group in subject.config.instance_group)


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LycheeServerError(f"{output} cannot be made: {error.strerror}; choose another --output") from error


def _try(view: Path, name: str) -> None:
    """Serve the whole repository with the variants, and replay the golden pairs if it has some.

    Raises:
        LycheeServerError: It does not load, or the scores are wrong.
    """
    log_path = defaults.state_dir() / "tuning" / "triton.log"
    server = TritonServer(view, config_name=name, http_port=0, grpc_port=0, metrics_port=0, log_path=log_path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(server)
        if ASSETS_MODEL not in server.models:
            return
        try:
            client = stack.enter_context(LycheeClient(server.grpc_url))
            checked = client.check_golden_pairs()
        except LycheeError as error:
            raise LycheeServerError(f"The golden pairs could not be scored: {error}") from error
        if not checked.passed:
            raise LycheeServerError(
                f"With the new settings the scores are off by {checked.max_abs_error:.4g} on the golden pairs; "
                f"expected at most {checked.tolerance:g}. Nothing was written; run `lychee doctor`."
            )


def _next_step(target: Target) -> str:
    command = ["lychee", "load", "--repository", str(target.repository), "--config-name", target.name]
    return f"use it: {shlex.join(command)}"
