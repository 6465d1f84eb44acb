"""What an exported model has to compute: the torch modules' outputs, as arrays that outlive the modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from graphlib import TopologicalSorter

import numpy as np
import torch

from lychee_export.contract.signature import ModelSignature, Tensors
from lychee_export.families import Checkpoint, Piece, Reference

__all__ = ["ExpectedValues", "Sample", "compute_expected", "execution_order", "run_ensemble", "run_step"]

_BATCH_SIZES = (1, 3, 7)


@dataclass(frozen=True)
class Sample:
    """Inputs of one model and what its module makes of them.

    Args:
        inputs: The inputs by tensor name, as many rows as the batch has.
        outputs: The outputs that the module computes from them, by tensor name.
    """

    inputs: Tensors
    outputs: Tensors

    @property
    def rows(self) -> int:
        """The size of the batch."""
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True)
class ExpectedValues:
    """The values that a whole export is compared with.

    Args:
        signatures: The models, each after those whose outputs it takes.
        ensembles: The ensembles over them.
        samples: The batches of several sizes, by model name.
        ensemble_samples: The realistic rows, by ensemble name.
        sigmoid: Whether a score is the sigmoid of its logit.
    """

    signatures: tuple[ModelSignature, ...]
    ensembles: tuple[ModelSignature, ...]
    samples: Mapping[str, tuple[Sample, ...]]
    ensemble_samples: Mapping[str, Sample]
    sigmoid: bool = True


def compute_expected(checkpoint: Checkpoint, reference: Reference) -> ExpectedValues:
    """Run the torch modules, one by one and as ensembles."""
    pieces = {piece.signature.name: piece for piece in checkpoint.pieces}
    ensembles = checkpoint.card.ensembles
    return ExpectedValues(
        signatures=execution_order(tuple(piece.signature for piece in checkpoint.pieces), ensembles),
        ensembles=ensembles,
        samples={name: tuple(_samples(piece)) for name, piece in pieces.items()},
        ensemble_samples={
            ensemble.name: run_ensemble(pieces, ensemble, reference.ensemble_rows[ensemble.name])
            for ensemble in ensembles
        },
        sigmoid=checkpoint.card.sigmoid,
    )


def execution_order(
    signatures: tuple[ModelSignature, ...], ensembles: tuple[ModelSignature, ...]
) -> tuple[ModelSignature, ...]:
    """Sort models so that each comes after those before it in any ensemble."""
    order: TopologicalSorter[str] = TopologicalSorter({signature.name: () for signature in signatures})
    for ensemble in ensembles:
        names = [step.name for step in ensemble.steps]
        for index, name in enumerate(names):
            order.add(name, *names[:index])
    by_name = {signature.name: signature for signature in signatures}
    return tuple(by_name[name] for name in order.static_order())


def _samples(piece: Piece) -> Iterator[Sample]:
    for rows in _BATCH_SIZES:
        inputs = piece.sample_inputs(np.random.default_rng(rows), rows)
        yield Sample(inputs, _run_module(piece, inputs))


def _run_module(piece: Piece, tensors: Tensors) -> Tensors:
    with torch.no_grad():
        outputs = piece.module(*(torch.from_numpy(tensors[spec.name]) for spec in piece.signature.inputs))
    if isinstance(outputs, torch.Tensor):
        outputs = (outputs,)
    return {spec.name: value.numpy() for spec, value in zip(piece.signature.outputs, outputs, strict=True)}


def run_ensemble(pieces: Mapping[str, Piece], ensemble: ModelSignature, rows: Tensors) -> Sample:
    """Run the torch modules of an ensemble, one after the other."""
    tensors = dict(rows)
    for step in ensemble.steps:
        tensors |= run_step(ensemble, step, tensors, partial(_run_module, pieces[step.name]))
    return Sample(rows, {spec.name: tensors[spec.name] for spec in ensemble.outputs})


def run_step(
    ensemble: ModelSignature, step: ModelSignature, tensors: Tensors, run: Callable[[Tensors], Tensors]
) -> Tensors:
    """Run a model of an ensemble on the ensemble's tensors.

    Args:
        ensemble: The ensemble.
        step: One of its steps.
        tensors: What is there already, by the ensemble's names.
        run: Computes the step's outputs from its inputs, both by the step's own names.

    Returns:
        What the ensemble takes of the outputs, by its names.
    """
    outputs = run({name: tensors[tensor] for name, tensor in ensemble.input_names(step).items()})
    return {tensor: outputs[name] for name, tensor in ensemble.output_names(step).items()}
