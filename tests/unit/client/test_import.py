"""Importing the package is light and does no work."""

import subprocess
import sys

import pytest
from lychee_client._command import CLI_LIBRARIES

HEAVY = ("torch", "transformers", "onnx", "onnxruntime", "grpc", "tritonclient", "typer", "rich", "aiohttp")
HEAVY += ("asyncio", "multiprocessing", "ssl", "tokenizers", "pydantic", "scipy", "sklearn", "matplotlib")


def test_import_loads_nothing_heavy_and_starts_no_thread() -> None:
    code = (
        "import sys, threading, lychee_client\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[] 1", "")


def test_client_and_command_never_load_model_libraries() -> None:
    code = (
        "import sys, lychee_client.cli\n"
        "lychee_client.LycheeClient('localhost:1').close()\n"
        f"print([name for name in {HEAVY[:4]!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("missing", CLI_LIBRARIES)
def test_program_says_what_to_install(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from lychee_client._command import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"lychee: {missing} is not installed; run: pip install 'lychee-rerank-client[cli]'\n"
