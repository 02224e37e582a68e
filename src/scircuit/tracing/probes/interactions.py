"""Pairs and triples of sources ablated together and apart, cell by cell: what `analysis.interactions` reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scircuit._progress import progress
from scircuit._tables import write_parquet
from scircuit.errors import ScircuitError
from scircuit.models.stream import residuals
from scircuit.tracing.engines.clean import packed
from scircuit.tracing.probes.walk import Copy, Source, Step, firing_positions, mean_change, walk
from scircuit.tracing.setup import Setup


class Interactions(NamedTuple):
    """The two tables of `analysis.interactions`.

    `effects`: `set_id, subset, target_layer, target_feature, cell, delta`; responses of 0 are left out but for one
    row of each subset that never had another. `sets`: `set_id, member, layer, feature, n_cells`.
    """

    effects: pd.DataFrame
    sets: pd.DataFrame

    def write(self, folder: Path) -> None:
        """`interactions.parquet` and `interaction_sets.parquet`."""
        for name, table in (("interactions", self.effects), ("interaction_sets", self.sets)):
            write_parquet(folder / f"{name}.parquet", table)


@torch.inference_mode()
def trace_interactions(setup: Setup, sets: Sequence[Sequence[Source]], *, targets: Sequence[int] = ()) -> Interactions:
    """Ablate every subset of every set and read all of them at the same positions: where any member fires.

    Members of one layer are ablated together; members of different layers one after the other, each later one as it is
    encoded after the earlier ablations (arXiv 2603.11940). The positions are those of the clean cell. Sets of three at
    most are usual, for 2^n - 1 subsets are run. Without `targets`, every layer above all members is read.
    """
    saes, cells, tokens = setup.saes, setup.cells, setup.settings.tokens
    layers = [_targets(setup, members, targets) for members in sets]
    parts: list[pd.DataFrame] = []
    n_cells, n_subsets = np.zeros(len(sets), dtype=np.int64), [(1 << len(members)) - 1 for members in sets]
    for batch in progress(cells.batches(1, by_length=False), total=len(cells), desc="interactions", unit="cell"):
        h = residuals(setup.model, batch, {layer for members in sets for layer, _ in members})
        firing = [firing_positions(setup, batch, h, members) for members in sets]
        n_cells += np.array([len(p) > 0 for p in firing])
        for lowest in sorted({min(members)[0] for members in sets}):
            mine = [s for s, members in enumerate(sets) if min(members)[0] == lowest and len(firing[s])]
            # One sequence more is the clean cell.
            for chunk in packed(mine, n_subsets.__getitem__, max(1, tokens // batch.tokens.shape[1]) - 1):
                copies = [copy for s in chunk for copy in _subsets(sets[s])]
                first = np.cumsum([1] + [n_subsets[s] for s in chunk])
                deepest = max(layers[s][-1] for s in chunk)
                for layer, state in walk(setup, batch, h[lowest][0], lowest, copies, deepest):
                    for s, row in zip(chunk, first, strict=False):
                        if layer in layers[s]:
                            copies_of_set = range(row, row + n_subsets[s])
                            delta = mean_change(saes[layer], state, firing[s], copies_of_set)
                            parts.append(_rows(s, layer, int(batch.cell[0]), delta))
    if not parts:
        raise ScircuitError("No set has a member that fires in any of these cells; choose other cells or sets.")
    return Interactions(_with_silent(pd.concat(parts, ignore_index=True), sets), _set_table(sets, n_cells))


def _targets(setup: Setup, members: Sequence[Source], asked: Sequence[int]) -> list[int]:
    saes = setup.saes
    if len(set(members)) < max(2, len(members)):
        raise ScircuitError(f"The set {list(members)} needs at least two different (layer, latent) members.")
    for layer, feature in members:
        if layer not in saes or not 0 <= feature < saes[layer].n_latents:
            raise ScircuitError(f"Latent {feature} of layer {layer} is in no dictionary; name latents that are.")
    top = max(members)[0]
    targets = [t for t in (sorted(asked) or range(setup.model.n_layers)) if t > top and t in saes]
    if not targets:
        raise ScircuitError(f"No target layer with a dictionary lies above layer {top}; choose lower sources.")
    return targets


def _subsets(members: Sequence[Source]) -> list[Copy]:
    """The copies of subsets 1, 2, 3 ...: bit i of the number says whether member i is ablated."""
    copies = []
    for subset in range(1, 1 << len(members)):
        chosen = [m for i, m in enumerate(members) if subset >> i & 1]
        layers = sorted({layer for layer, _ in chosen})
        copies.append(tuple(Step(layer, tuple(f for at, f in chosen if at == layer)) for layer in layers))
    return copies


def _rows(set_id: int, layer: int, cell: int, delta: Tensor) -> pd.DataFrame:
    subset, feature = (x.cpu().numpy() for x in delta.nonzero(as_tuple=True))
    return pd.DataFrame(
        {
            "set_id": np.full(len(subset), set_id, dtype=np.int32),
            "subset": (subset + 1).astype(np.int16),
            "target_layer": np.full(len(subset), layer, dtype=np.int16),
            "target_feature": feature.astype(np.int32),
            "cell": np.full(len(subset), cell, dtype=np.int32),
            "delta": delta[delta != 0].cpu().numpy(),
        }
    )


def _with_silent(effects: pd.DataFrame, sets: Sequence[Sequence[Source]]) -> pd.DataFrame:
    """One row of 0 for each subset that never had a response, so that it is seen to have been ablated."""
    added = []
    for set_id, members in enumerate(sets):
        rows = effects[effects["set_id"] == set_id]
        missing = set(range(1, 1 << len(members))) - set(rows["subset"])
        added += [rows.iloc[:1].assign(subset=np.int16(subset), delta=0.0) for subset in sorted(missing)]
    return pd.concat([effects, *added], ignore_index=True)


def _set_table(sets: Sequence[Sequence[Source]], n_cells: np.ndarray) -> pd.DataFrame:
    rows = [
        (set_id, member, layer, feature, n_cells[set_id])
        for set_id, members in enumerate(sets)
        for member, (layer, feature) in enumerate(members)
    ]
    return pd.DataFrame(rows, columns=["set_id", "member", "layer", "feature", "n_cells"])
