"""`Variant`: the model with a set of latents kept and all others silenced, or the other way round."""

from typing import NamedTuple

import numpy as np
import pandas as pd

ABLATIONS = ("mean", "zero")
"""What a silenced latent becomes at every gene position: its mean over them in the catalogue cells, or 0."""
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Sizes of a curve, of all latents or edges (Mueller et al. 2025, arXiv 2504.13151)."""
ORDERS = ("specific", "d", "weight", "rate_norm", "gradient", "random")
"""By what latents and edges are taken: specificity, |d|, |weight effect|, firing rate x norm of what is written,
integrated gradients of the behaviour, at random."""
UNITS, RANDOM_ORDERS = ("node", "edge"), 3
"""What is ordered, and how often at random: single random orders differ more than the others do."""
N_CELLS, DRAWS, N_MEMBERS = 100, 50, 30
"""Cells; random circuits and single latents; members taken away: where nothing else is asked."""
N_VARIANTS = 9 + 3 * DRAWS + N_MEMBERS + len(UNITS) * (len(ORDERS) - 1 + RANDOM_ORDERS) * len(SHARES)
"""Forward passes of a cell with these."""
KINDS = (
    "model", "empty", "circuit", "rest", "random_circuit", "random_rest", "without", "beside", "order", "held_out",
    "majority",
)  # fmt: skip
"""Of rows of the table: the model as it is; with every latent silenced; the circuit alone; the model without it; the
same of random circuits of equal size; the circuit without one member, or with a random latent `beside` it; the first
latents or edges of an order. `held_out`: whether a probe tells a cell that it was not fitted on, `majority`: whether
that cell is of the commonest category."""
COLUMNS = (
    "behaviour", "kind", "unit", "order", "share", "n_latents", "ablation", "error", "draw", "layer", "feature",
    "cell", "group", "value",
)  # fmt: skip
"""`trace/faithfulness.parquet`: one row per variant and cell."""


class Variant(NamedTuple):
    """What is kept, and as what it counts."""

    kind: str
    """One of `KINDS`."""
    members: np.ndarray
    """The latents, int64 `[latent, 2]` (layer, feature)."""
    removed: bool = False
    """Whether the members are silenced and all others kept, and not the other way round."""
    ablation: str = "mean"
    """One of `ABLATIONS`."""
    error: str = "kept"
    """`ablated`: what the dictionaries do not reconstruct is taken away too."""
    unit: str = ""
    order: str = ""
    share: float = np.nan
    """Of an order: of what (`node` or `edge`), by what, and the share taken of all there are."""
    draw: int = 0
    """Number of a random circuit, or of a random order."""
    layer: int = -1
    feature: int = -1
    """The member that is missing, or the random latent beside the circuit."""

    @property
    def key(self) -> tuple[bytes, bool, str, str]:
        """Equal for variants that are the same forward pass."""
        ordered = self.members[np.lexsort(self.members.T[::-1])]
        return ordered.astype(np.int64).tobytes(), self.removed, self.ablation, self.error


def table_of(behaviour: str, variants: list[Variant], cells: pd.DataFrame, values: np.ndarray) -> pd.DataFrame:
    """The tidy table from `values` `[variant, cell]`; `cells` have the columns `cell, group`."""
    fields = [name for name in Variant._fields if name not in ("members", "removed")]
    rows = pd.DataFrame([{name: getattr(v, name) for name in fields} for v in variants])
    rows.insert(0, "n_latents", [len(v.members) for v in variants])
    long = rows.loc[np.repeat(np.arange(len(rows)), len(cells))].reset_index(drop=True)
    long = long.assign(behaviour=behaviour, value=values.ravel())
    for name in ("cell", "group"):
        long[name] = np.tile(cells[name].to_numpy(), len(variants))
    texts = ["behaviour", "kind", "unit", "order", "ablation", "error"]
    return long[list(COLUMNS)].astype(dict.fromkeys(texts, "category"))
