"""Another model that is easily told from lychee-mini, whose embeddings fit no embedding of lychee-mini."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import lychee_export
import numpy as np
from safetensors.numpy import load_file, save_file

from chaos.running_server import LYCHEE

SEED: Final = 18
BIAS: Final = 1.5  # added to the logit of every pair
# What the last axis of the embeddings runs through, in the file of the weights.
EMBEDDING_WEIGHTS: Final = (
    "text_encoder.encoder.layer.11.output.LayerNorm.weight",
    "text_encoder.encoder.layer.11.output.LayerNorm.bias",
    "text_encoder.center",
    "text_encoder.removed_directions",
    "vision_encoder.semantic_projection.weight",
)


def export_other_model(folder: Path) -> Path:
    """Export lychee-mini with half of its embeddings' components negated and another bias; return the repository.

    Two embeddings of the same model keep their cosine. An embedding of one model beside one of the other gives a score
    that neither model gives.
    """
    checkpoint, repository = folder / "checkpoint", folder / "repository"
    original = Path(lychee_export.__path__[0], "checkpoint", "bundled", "lychee_mini")
    shutil.copytree(original, checkpoint)
    weights: dict[str, Any] = load_file(original / "model.safetensors")
    size = weights["text_encoder.center"].shape[0]
    signs = np.array([1] * (size // 2) + [-1] * (size - size // 2))
    random.Random(SEED).shuffle(signs)
    for name in EMBEDDING_WEIGHTS:
        weights[name] = (weights[name] * signs).astype(weights[name].dtype)
    save_file(weights, checkpoint / "model.safetensors")
    config = json.loads((original / "config.json").read_text(encoding="utf-8"))
    for head in config["scoring_head"].values():
        head["bias"] += BIAS
    (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")
    command = [LYCHEE, "export", str(checkpoint), "--repository", str(repository)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # torch's idle threads spin otherwise
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return repository
