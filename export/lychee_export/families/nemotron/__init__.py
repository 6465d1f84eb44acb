"""NVIDIA's Llama Nemotron rerankers: a Llama that reads in both directions, and a head on the mean of its states.

The checkpoints bring Python code of their own, which is never run here: the same is computed with transformers' own
classes, for the settings that ``checks.py`` admits and for no others.

Source: the modeling, configuration and processing files of nvidia/llama-nemotron-rerank-1b-v2 and -rerank-vl-1b-v2, in
public copies; NVIDIA-NeMo/Automodel, components/models/llama_bidirectional/model.py; vllm-project/vllm,
model_executor/models/nemotron_vl.py and examples/pooling/score/template/nemotron-rerank.jinja.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.families.family import Checkpoint, Family
from lychee_export.families.nemotron import image_reranker, text_reranker

__all__ = ["FAMILY", "load"]

_LOADERS: Mapping[str, Callable[[CheckpointSource, Limits], Checkpoint]] = {
    module.MODEL_TYPE: module.load for module in (text_reranker, image_reranker)
}


def load(source: CheckpointSource, limits: Limits) -> Checkpoint:
    """Load a Llama Nemotron reranker.

    Raises:
        CheckpointError: A file is missing or damaged, or does not fit the others; the checkpoint is no reranker of one
            label, brings unknown code, or asks for something that is not computed here.
    """
    return _LOADERS[source.config["model_type"]](source, limits)


FAMILY = Family(
    name="nemotron",
    model_types=tuple(_LOADERS),
    load=load,
    checkpoints=("nvidia/llama-nemotron-rerank-1b-v2", "nvidia/llama-nemotron-rerank-vl-1b-v2"),
)
