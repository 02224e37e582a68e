"""What it takes to ask whether a circuit carries a behaviour, told before it is traced."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scircuit._wording import duration
from scircuit.circuits.variants import N_CELLS, N_VARIANTS
from scircuit.models.stack import BlockStack
from scircuit.tracing.costs import kept_madds
from scircuit.tracing.setup import Setup


class Asking(NamedTuple):
    """`scircuit faithfulness` with its defaults, for one behaviour."""

    n_forwards: int
    madds: float
    """Multiply-adds; NaN for models that show no blocks."""
    seconds: float

    def line(self) -> str:
        """For the terminal."""
        return (
            f"afterwards, `scircuit faithfulness`: {self.n_forwards:,} forwards, {2e-12 * self.madds:,.4g} TFLOP, "
            f"{duration(self.seconds)}"
        )


def asking_of(setup: Setup, sample: Sequence[int], seconds: float) -> Asking:
    """Every variant in cells like those of `sample`, at `seconds` per unit of work (`plan.work_of`).

    Gradients, some per cent of it, are left out.
    """
    n, lengths = N_VARIANTS * N_CELLS, setup.cells.lengths[list(sample)].tolist()
    shown = isinstance(setup.model, BlockStack)
    each = [kept_madds(setup, length) if shown else length * setup.model.n_layers for length in lengths]
    work = n * float(np.mean(each))
    return Asking(n, work if shown else np.nan, work * seconds)
