"""The check of a GPU for `lychee doctor`: whether one is there, wanted, and usable."""

import contextlib
from collections.abc import Iterator

from lychee_client.checks import CheckContext, CheckResult, CheckSkipped, Verdict

from lychee_server import state
from lychee_server.doctor.files import find_repository
from lychee_server.errors import RepositoryError
from lychee_server.execution import device
from lychee_server.repository import read_config


def check_gpu(context: CheckContext) -> Iterator[CheckResult]:
    """A GPU that is there, or for which the models were exported, can be used."""
    wanted = models_for_gpus(context)
    seen = device.describe_machine()
    if not wanted and not device.has_gpu() and device.CUDA_BUILD not in device.installed_builds():
        yield CheckResult("gpu", "ok", f"none is needed. {seen}")
        return
    problem = device.find_gpu_problem()
    if not problem:
        yield CheckResult("gpu", "ok", f"ONNX Runtime computes on it. {seen}")
        return
    known = state.read_state()
    running = known is not None and known.is_running()  # on the CPU, as it was told
    verdict: Verdict = "failed" if wanted and not running else "warning"
    asks = f", and {', '.join(wanted)} of the repository ask for one" if wanted else ""
    advice = f"run {device.INSTALL}, or serve on the CPU: `lychee load --device cpu`"
    yield CheckResult("gpu", verdict, f"not usable{asks}: {problem}. {seen}", advice)


def models_for_gpus(context: CheckContext) -> list[str]:
    """Name the models of the repository that were exported for GPUs; none if there is no repository."""
    found = []
    with contextlib.suppress(CheckSkipped):
        for path in sorted(find_repository(context).glob("*/config.pbtxt")):
            with contextlib.suppress(RepositoryError):  # the check of configurations says what is wrong with it
                if device.wants_gpu(read_config(path.parent)):
                    found.append(path.parent.name)
    return found
