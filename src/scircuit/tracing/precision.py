"""What a precision below float32 costs: a sample of the responses, computed in both and compared."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.models.stack import BlockStack
from scircuit.tracing.fidelity import check_sample, compare, plain, sample_moments
from scircuit.tracing.floor import uses_tf32
from scircuit.tracing.setup import Setup


def is_reduced(model: FoundationModel) -> bool:
    """Whether the model computes with less than float32."""
    return torch.finfo(model.dtype).bits < 32 or uses_tf32(model.device)


def precision_report(setup: Setup) -> dict[str, Any]:
    """Agreement of a reduced precision with float32, for `trace.json`; its `table` has the columns of `Fidelity.table`.

    The seeded sample of the fidelity check (`check_sources`, `check_cells`) is traced twice by the exact engine: by the
    model as it is, and by the same weights in float32 without TF32. Each side encodes its own residuals, so that
    firings which rounding adds or removes count.
    """
    sample, model = check_sample(setup).by("exact"), setup.model
    reduced = sample_moments(sample)
    with _in_float32(model) as reference:
        full = sample_moments(replace(sample, model=reference))
    return {
        "dtype": str(model.dtype).removeprefix("torch."),
        "tf32": uses_tf32(model.device),
        "n_cells": len(sample.cells),
        "n_sources": sum(map(len, sample.sources.values())),
        "table": plain(compare(full, reduced, setup.settings)),
    }


@contextmanager
def _in_float32(model: FoundationModel) -> Iterator[FoundationModel]:
    """The model with its weights in float32, TF32 off meanwhile."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        if torch.finfo(model.dtype).bits >= 32:
            yield model
        elif isinstance(model, BlockStack):
            yield copy.deepcopy(model).float()
        else:
            raise ScircuitError(f"{model.name} has {model.dtype} weights; load it in float32 to be traced.")
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
