"""Edges with a mediator held at its clean value, cell by cell: what `analysis.mediation` reads."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scircuit._progress import progress
from scircuit.cells.batch import TokenBatch
from scircuit.circuits.schema import ENDS, SOURCE
from scircuit.errors import ScircuitError
from scircuit.models.stream import residuals
from scircuit.sae.base import SparseAutoencoder
from scircuit.tracing.probes.walk import Copy, Step, firing_positions, mean_change, walk
from scircuit.tracing.setup import Setup

_MEDIATOR = ["mediator_layer", "mediator_feature"]


@torch.inference_mode()
def trace_mediation(setup: Setup, candidates: pd.DataFrame) -> pd.DataFrame:
    """Ablate each source with and without its mediators held, and read its targets.

    Holding latent m at layer l adds (z_m clean - z_m) W_dec[m] to the residual of the ablated run at every gene
    position, z_m being encoded as the run arrives there: the path through m is closed, all others stay open. Besides
    each mediator alone, all of kind `mediator` of an edge are held at once (`joint`, from the lowest layer up; its
    mediator is -1).

    `candidates` are those of `analysis.mediation.candidate_mediators`. The table is `mediation.parquet`: a row for
    every cell in which the source fires, with means over the positions where it does.
    """
    saes, cells = setup.saes, setup.cells
    plans = [_Plan(rows) for _, rows in _checked(saes, candidates).groupby(SOURCE, sort=True)]
    parts = []
    for batch in progress(cells.batches(1, by_length=False), total=len(cells), desc="mediation", unit="cell"):
        h = residuals(setup.model, batch, {plan.layer for plan in plans})
        for plan in plans:
            positions = firing_positions(setup, batch, h, [(plan.layer, plan.feature)])
            if len(positions):
                change = _changes(setup, batch, h[plan.layer][0], plan, positions)
                parts.append(plan.rows(change, int(batch.cell[0])))
    if not parts:
        raise ScircuitError("No source of the candidates fires in any of these cells; choose other cells or edges.")
    return pd.concat(parts, ignore_index=True)


class _Plan:
    """All runs of one source: copy 0 ablates it, the others hold a mediator or all of an edge besides."""

    def __init__(self, candidates: pd.DataFrame) -> None:
        self.layer, self.feature = (int(x) for x in candidates[SOURCE].iloc[0])
        mine = [*ENDS, *_MEDIATOR, "kind"]
        joint = candidates.loc[candidates["kind"] == "mediator", ENDS].drop_duplicates()
        joint = joint.assign(mediator_layer=-1, mediator_feature=-1, kind="joint")
        self.table = pd.concat([candidates[mine], joint[mine]], ignore_index=True)
        ablate = Step(self.layer, (self.feature,))
        number: dict[Copy, int] = {(ablate,): 0}
        held = [(ablate, *steps) for steps in self._held(candidates)]
        self.copy_of_row = np.array([number.setdefault(copy, len(number)) for copy in held], dtype=np.int64)
        self.copies = list(number)
        self.targets = sorted(int(t) for t in self.table["target_layer"].unique())

    def _held(self, candidates: pd.DataFrame) -> list[Copy]:
        """The steps that hold the mediators of each row of the table."""
        own: dict[tuple[int, ...], dict[int, set[int]]] = {}
        for *ends, layer, feature in (
            candidates.loc[candidates["kind"] == "mediator", [*ENDS, *_MEDIATOR]].to_numpy(np.int64).tolist()
        ):
            own.setdefault(tuple(ends), {}).setdefault(layer, set()).add(feature)
        steps: list[Copy] = []
        kinds = self.table["kind"].tolist()
        for kind, (*ends, layer, feature) in zip(
            kinds, self.table[[*ENDS, *_MEDIATOR]].to_numpy(np.int64).tolist(), strict=True
        ):
            members = own[tuple(ends)] if kind == "joint" else {layer: {feature}}
            steps.append(tuple(Step(at, tuple(sorted(f)), "hold") for at, f in sorted(members.items())))
        return steps

    def rows(self, change: Mapping[int, Tensor], cell: int) -> pd.DataFrame:
        """The table for one cell; `change` is `[copy, latent]` per target layer."""
        layer, feature = (self.table[c].to_numpy(np.int64) for c in ENDS[2:])
        delta, held = np.zeros(len(layer)), np.zeros(len(layer))
        for target, values in change.items():
            at = layer == target
            delta[at] = values[0, feature[at]].numpy()
            held[at] = values[self.copy_of_row[at], feature[at]].numpy()
        return self.table.assign(cell=np.int32(cell), delta=delta, delta_held=held)


def _changes(setup: Setup, batch: TokenBatch, h: Tensor, plan: _Plan, positions: Tensor) -> dict[int, Tensor]:
    """Change of every latent of each target layer in every copy, float64 `[copy, latent]`."""
    at_once = max(1, setup.settings.tokens // batch.tokens.shape[1] - 1)
    found: dict[int, list[Tensor]] = {t: [] for t in plan.targets}
    for start in range(0, len(plan.copies), at_once):
        copies: Sequence[Copy] = plan.copies[start : start + at_once]
        for layer, state in walk(setup, batch, h, plan.layer, copies, plan.targets[-1]):
            if layer in found:
                found[layer].append(mean_change(setup.saes[layer], state, positions, range(1, 1 + len(copies))))
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def _checked(saes: Mapping[int, SparseAutoencoder], candidates: pd.DataFrame) -> pd.DataFrame:
    needs = [*ENDS, *_MEDIATOR, "kind"]
    missing = [column for column in needs if column not in candidates]
    if missing:
        raise ScircuitError(f"The candidates lack {', '.join(missing)}; take them from candidate_mediators.")
    if candidates.empty:
        raise ScircuitError("There is no candidate mediator; choose edges that span more than one layer.")
    strange = ~candidates["kind"].isin(["mediator", "random"])
    if strange.any():
        kind = candidates.loc[strange, "kind"].iloc[0]
        raise ScircuitError(f"The candidates hold kind {kind!r}; it may be mediator or random.")
    layer = candidates["mediator_layer"]
    between = (candidates["source_layer"] < layer) & (layer < candidates["target_layer"]) & layer.isin(list(saes))
    if not between.all():
        row = candidates.loc[~between].iloc[0]
        raise ScircuitError(
            f"The mediator in layer {row['mediator_layer']} does not lie between source layer {row['source_layer']} "
            f"and target layer {row['target_layer']} in a layer with a dictionary; choose one that does."
        )
    return candidates
