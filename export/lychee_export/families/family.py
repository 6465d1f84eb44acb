"""What a family module gives to the family-free rest of the exporter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lychee_client.manifest import GoldenPair, ModelSpec
from numpy.typing import NDArray
from torch import nn

from lychee_export.checkpoint.range_data import RangeData
from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import SCORE_OUTPUTS, ModelSignature, Tensors

__all__ = ["Checkpoint", "Family", "ModelCard", "Piece", "Reference", "round_score", "round_scores"]

_SCORE_DIGITS = 6


@dataclass(frozen=True)
class Piece:
    """One torch module that becomes one ONNX file.

    Args:
        signature: The module's tensors; ``forward`` takes the inputs in this order.
        module: The module, in evaluation mode, float32. It must work with half weights too: cast integer inputs to the
            weights' dtype, keep softmax and norms in float32, give float32 outputs.
        sample_inputs: Makes valid inputs with the given number of rows.
    """

    signature: ModelSignature
    module: nn.Module
    sample_inputs: Callable[[np.random.Generator, int], Tensors]


@dataclass(frozen=True)
class Reference:
    """What the reference implementation computed.

    Args:
        ensemble_rows: At least seven realistic rows for every ensemble, as the client would send them, padded to a
            bucket that is not the largest.
        golden_pairs: A handful of pairs with reference scores in [0, 1], computed in float32 or float64 by what the
            checkpoint's authors use: the classes of transformers where the family has them.
        scored_rows: Natural rows with the reference's ``relevance_score``, float64, (rows, 1), for ensembles that a
            server may execute in several ways; they tell a server what each way costs in accuracy. An ensemble that is
            missing takes its ``ensemble_rows``.
        notes: Lines for the user, such as what the limits of the export cost.
        make_extreme_rows: Makes rows by ensemble with the largest images, drawn to make large values. A family whose
            images have one fixed size needs none: such images are drawn into its ``ensemble_rows``.
    """

    ensemble_rows: Mapping[str, Tensors]
    golden_pairs: tuple[GoldenPair, ...]
    scored_rows: Mapping[str, Tensors] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    make_extreme_rows: Callable[[], Mapping[str, Tensors]] = dict


@dataclass(frozen=True)
class ModelCard:
    """Everything about a checkpoint but its weights.

    Args:
        spec: What a client needs to know beyond the tensors; a part of the manifest.
        ensembles: Ensembles over the pieces; their outputs are SCORE_OUTPUTS.
        tokenizer_json: The content of a ``tokenizers`` file.
        heads: Ensembles of one step, which give clients one head of a piece that holds several. Clients do not see that
            piece.
        encoders: Ensembles that give clients an encoder made of several pieces. Clients see the last piece alone.
        sigmoid: Whether relevance_score is the sigmoid of logits. Otherwise it is another rising function of them,
            which the family states.
    """

    spec: ModelSpec
    ensembles: tuple[ModelSignature, ...]
    tokenizer_json: str
    heads: tuple[ModelSignature, ...] = ()
    encoders: tuple[ModelSignature, ...] = ()
    sigmoid: bool = True

    @property
    def inner_ensembles(self) -> tuple[ModelSignature, ...]:
        """Those that score no pair."""
        return (*self.heads, *self.encoders)

    @property
    def hidden(self) -> frozenset[str]:
        """The names of the pieces that clients do not see."""
        of_heads = (step.name for head in self.heads for step in head.steps)
        return frozenset(of_heads).union(step.name for encoder in self.encoders for step in encoder.steps[:-1])

    def __post_init__(self) -> None:
        for ensemble in (*self.ensembles, *self.heads):
            if ensemble.outputs != SCORE_OUTPUTS:
                raise ValueError(f"{ensemble.name}: an ensemble gives {SCORE_OUTPUTS}, got {ensemble.outputs}")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint, split into exportable pieces.

    Args:
        card: Everything but the weights.
        pieces: The torch modules, encoders first. They may share parameters with each other.
        make_reference: Runs the reference implementation. Call it before anything changes a module.
        sample_ranges: Turns range data into samples of the encoders, by their names. None where the family has no
            static int8.
    """

    card: ModelCard
    pieces: tuple[Piece, ...]
    make_reference: Callable[[], Reference]
    sample_ranges: Callable[[RangeData], Mapping[str, tuple[Tensors, ...]]] | None = None


@dataclass(frozen=True)
class Family:
    """One entry of the table in ``families/__init__.py``.

    Args:
        name: The module's name.
        model_types: Values of ``model_type`` in ``config.json`` that belong to it.
        architectures: Values of ``architectures`` that belong to it alone, for a family that shares its model types
            with another. Empty for one that takes what no other family claims.
        claims: Says of a checkpoint whether it is this family's, whatever its model type, because of files that only
            this family reads.
        load: Loads a checkpoint within the limits that the user chose. With ``source.weights`` False the modules lie
            on torch's meta device: they have shapes and no values, and ``make_reference`` is never called.
        checkpoints: Names that users know, for the message about an unknown family.
        has_templates: Whether the user may choose a prompt, which ``source.template`` names.
    """

    name: str
    model_types: tuple[str, ...]
    load: Callable[[CheckpointSource, Limits], Checkpoint]
    checkpoints: tuple[str, ...]
    has_templates: bool = False
    architectures: tuple[str, ...] = ()
    claims: Callable[[CheckpointSource], bool] = lambda _: False


def round_score(score: float) -> float:
    """Round a score for the manifest, finer than any tolerance.

    What a float64 reference computed has the same digits on every CPU; a float32 one may differ in the last.
    """
    return round(score, _SCORE_DIGITS)


def round_scores(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Do the same to an array."""
    return scores.astype(np.float64).round(_SCORE_DIGITS)
