"""An export does not depend on the CPU that makes it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

OLD_CPU = {
    "ATEN_CPU_CAPABILITY": "default",  # torch's own kernels without AVX
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL",
    "OMP_NUM_THREADS": "1",
}
MEASURED_HERE = "validation.json"


def snapshot(repository: Path) -> dict[str, bytes]:
    """Return the content of every file; a folder of a version counts as one, whatever its number."""
    files = [path for pattern in ("*", "*/*", "*/*/*") for path in repository.glob(pattern) if path.is_file()]
    names = {path: re.sub(r"/\d+/", "/version/", str(path.relative_to(repository))) for path in files}
    return {name: path.read_bytes() for path, name in names.items() if not path.name.startswith(".")}


@pytest.mark.slow
def test_another_cpu_writes_the_same_bytes(repository: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lychee_export.exporter import export_checkpoint; "
        "export_checkpoint('lychee-mini', Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "models")], env={**os.environ, **OLD_CPU}, check=True)
    here, there = snapshot(repository), snapshot(tmp_path / "models")
    assert here.keys() == there.keys()
    assert MEASURED_HERE in here
    assert {name for name in here if here[name] != there[name]} <= {MEASURED_HERE}
