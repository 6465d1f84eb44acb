"""An environment whose ONNX Runtime says that it has CUDA, and computes on the CPU: all that leads to a GPU but it.

Its processes, Triton's stubs included, find everything else in the environment of the tests.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

STAND_IN = """
import importlib.machinery
import json
import sys

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "onnxruntime":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (execute(module), replace(module))
        return spec


def replace(ort):
    def open_session(path, options=None, providers=(), provider_options=(), **others):
        session = opened(path, options, providers=[CPU])
        if list(providers) == [CUDA]:
            session.get_providers = lambda: [CUDA, CPU]
            with open(RECORD, "a") as file:
                file.write(json.dumps({"path": str(path), **provider_options[0]}) + "\\n")
        return session

    opened, ort.InferenceSession = ort.InferenceSession, open_session
    ort.get_available_providers = lambda: [CUDA, CPU]


sys.meta_path.insert(0, Finder)
"""


def make_environment(folder: Path, record: Path) -> Path:
    """Make the environment.

    Args:
        folder: Where; it does not exist yet.
        record: Gets a line of JSON for each session of CUDA: the path of the model, and the provider's options.

    Returns:
        Its Python.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "stand_in.py").write_text(f"RECORD = {str(record)!r}\n{STAND_IN}", encoding="utf-8")
    lines = [f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})", "import stand_in", ""]
    (packages / "stand_in.pth").write_text("\n".join(lines), encoding="utf-8")
    return folder / "bin" / "python"
