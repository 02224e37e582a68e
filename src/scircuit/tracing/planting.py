"""Paths of known dose planted in a user's own model: what a trace finds of them is what it could have found at all.

A path is of rank one: behind block t it adds gain x (what the stream before the block carries of the source's decoder
direction, less its mean) along the target's encoder direction. The mean leaves the target where it was on the average.
Its gain is sought such that the ablation of the source takes `dose` clean SD more from the target than before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scircuit._io import sha256_of
from scircuit._progress import progress
from scircuit._tables import iterate
from scircuit.cells.batch import TokenBatch
from scircuit.circuits.schema import ENDS, LAYER_PAIR
from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.models.stream import residuals
from scircuit.tracing.probes.walk import Step, firing_positions, mean_change, walk
from scircuit.tracing.setup import Setup


class PlantedPaths:
    """A model with paths planted behind some of its blocks; all else is the model's own. Engine `exact` runs on it."""

    def __init__(self, model: FoundationModel, paths: pd.DataFrame, setup: Setup) -> None:
        """`paths` as `draw_paths` gives them; those of dose 0 are left out."""
        self._model = model
        planted = paths[paths["dose"] > 0]
        self._behind = {
            layer: _Added.of(planted[planted["target_layer"] == layer], setup)
            for layer in planted["target_layer"].astype(int).unique().tolist()
        }
        self.fingerprint = sha256_of(model.fingerprint, paths[[*ENDS, "gain", "offset"]].to_numpy())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def layer(self, i: int, h: Tensor, batch: TokenBatch) -> Tensor:
        """Block i, and what the paths behind it add."""
        out = self._model.layer(i, h, batch)
        added = self._behind.get(i)
        return out if added is None else out + added.to(h)


class _Added(NamedTuple):
    """The paths behind one block: `read` and `write` float `[path, d_model]`, `offset` `[path]`."""

    read: Tensor
    write: Tensor
    offset: Tensor

    @classmethod
    def of(cls, paths: pd.DataFrame, setup: Setup) -> "_Added":
        read = torch.stack([_read(setup, row.source_layer, row.source_feature) for row in iterate(paths)])
        encoders = [setup.saes[int(row.target_layer)].W_enc[:, row.target_feature].detach() for row in iterate(paths)]
        write = torch.stack([encoder / encoder.square().sum() for encoder in encoders])
        gain, offset = (torch.tensor(paths[c].to_numpy(), dtype=read.dtype, device=read.device) for c in _NUMBERS)
        return cls(read, gain[:, None] * write, offset)

    def to(self, h: Tensor) -> Tensor:
        """What is added to the stream behind the block, from the stream before it."""
        return ((h.to(self.read.dtype) @ self.read.T - self.offset) @ self.write).to(h.dtype)


_NUMBERS = ("gain", "offset")


def _read(setup: Setup, layer: int, feature: int) -> Tensor:
    """The row whose product with a stream gives the activation that the source's decoder direction has there."""
    row = setup.saes[layer].W_dec[feature].detach()
    return row / row.square().sum()


Row = tuple[float, ...]
"""A path: a value for each of `PATHS`."""


@dataclass(frozen=True)
class Survey:
    """What the clean cells say of all paths from the sources of one layer to one later layer."""

    layer: int
    target_layer: int
    features: tuple[int, ...]
    n_both: np.ndarray
    """Cells in which the target fires at one of its positions, int64 `[source, latent]`."""
    clean_sd: np.ndarray
    """SD over cells of the target's mean activation at the source's positions, float64 `[source, latent]`."""
    carried: np.ndarray
    """What of the source arrives before the target's block, mean over its positions and cells, float64 `[source]`."""
    offset: np.ndarray
    """Mean of that reading over all gene positions, float64 `[source]`."""

    def draw(self, dose: Sequence[float], taken: np.ndarray, least: int, rng: np.random.Generator) -> list[Row]:
        """One path (`PATHS`) per source that has a target firing with it in `least` cells, each target once.

        `dose` is that of each source; `taken`, bool `[source, latent]`, are pairs that are no choice.
        """
        taken = taken.copy()
        rows: list[Row] = []
        for i, feature in enumerate(self.features):
            fit = np.flatnonzero((self.n_both[i] >= least) & (self.clean_sd[i] > 0) & ~taken[i])
            if not len(fit) or self.carried[i] <= 0:
                continue
            target = int(rng.choice(fit))
            taken[:, target] = True
            sd = self.clean_sd[i, target]
            gain = dose[i] * sd / self.carried[i]
            rows.append((self.layer, feature, self.target_layer, target, dose[i], sd, gain, self.offset[i]))
        return rows


PATHS = [*ENDS, "dose", "clean_sd", "gain", "offset"]


@torch.inference_mode()
def survey(setup: Setup, layer: int) -> Survey:
    """Look at every path from the traced sources of a layer to the next layer that is read."""
    target, features = setup.targets[layer][0], tuple(int(f) for f in setup.sources[layer])
    sae, read = setup.saes[target], torch.stack([_read(setup, layer, f) for f in features])
    shape = (len(features), sae.n_latents)
    n_cells, n_both = np.zeros(len(features), dtype=np.int64), np.zeros(shape, dtype=np.int64)
    total, square = np.zeros(shape), np.zeros(shape)
    seen, carried, offset = 0, np.zeros(len(features)), np.zeros(len(features))
    copies = [(Step(layer, (f,)),) for f in features]
    for batch in progress(setup.cells.batches(1, by_length=False), total=len(setup.cells), desc="survey", unit="cell"):
        h = residuals(setup.model, batch, {layer, target})
        genes = torch.from_numpy(batch.is_gene[0]).to(h[layer].device)
        latents = sae.encode(h[target][0, genes]).dense(sae.n_latents).double()
        # The last state is that before the target's block.
        *_, (_, state) = walk(setup, batch, h[layer][0], layer, copies, target - 1)
        reading = (state.h.to(read.dtype) @ read.T)[:, genes].double()
        offset, seen = offset + reading[0].sum(dim=0).cpu().numpy(), seen + int(genes.sum())
        for i, feature in enumerate(features):
            at = firing_positions(setup, batch, h, [(layer, feature)])
            if not len(at):
                continue
            rows = torch.isin(genes.nonzero().squeeze(1), at)
            arrives = reading[0, rows, i] - reading[int(state.of_copy[i + 1]), rows, i]
            mean = latents[rows].mean(dim=0).cpu().numpy()
            n_cells[i] += 1
            n_both[i] += (mean > 0).astype(np.int64)
            total[i], square[i] = total[i] + mean, square[i] + mean**2
            carried[i] += float(arrives.mean())
    n = np.maximum(n_cells, 1)
    variance = np.maximum(square - total**2 / n[:, None], 0.0) / np.maximum(n[:, None] - 1, 1)
    return Survey(layer, target, features, n_both, np.sqrt(variance), carried / n, offset / max(seen, 1))


def draw_paths(
    surveys: Mapping[int, Survey],
    doses: Sequence[float],
    turn: int,
    least: int,
    rng: np.random.Generator,
    known: pd.DataFrame,
) -> pd.DataFrame:
    """The paths of one turn, columns `PATHS`: doses go round among the sources, another for each turn.

    Pairs of `known` (ends of edges) are left out. Refused where no source has a target that fires with it.
    """
    place = turn
    rows: list[Row] = []
    for layer, found in sorted(surveys.items()):
        taken = np.zeros(found.n_both.shape, dtype=bool)
        mine = known[(known["source_layer"] == layer) & (known["target_layer"] == found.target_layer)]
        mine = mine[mine["source_feature"].isin(found.features)]
        taken[mine["source_feature"].map(found.features.index).astype(int), mine["target_feature"].astype(int)] = True
        dose = [doses[(place + i) % len(doses)] for i in range(len(found.features))]
        rows += found.draw(dose, taken, least, rng)
        place += len(found.features)
    if not rows:
        raise ScircuitError(
            f"no source has a later latent that fires at its positions in {least} cells, so no path can be planted; "
            "trace more cells or sources."
        )
    return pd.DataFrame(rows, columns=PATHS)


def adjusted(setup: Setup, paths: pd.DataFrame, rounds: int = 4) -> pd.DataFrame:
    """The paths with gains that give their doses, and `realised`, the dose that they give, over the setup's cells.

    What of a change of its input a target shows depends on where it fires, which the path itself changes; so the gain
    is sought by a few secant steps, of which each path keeps the best.
    """
    before = _taken(setup, setup.model, paths)
    best = paths.assign(realised=0.0, miss=np.inf)
    for _ in range(rounds):
        realised = (_taken(setup, PlantedPaths(setup.model, paths, setup), paths) - before) / paths["clean_sd"]
        factor = (paths["dose"] / realised.where(realised > 0)).fillna(_MOST).clip(1 / _MOST, _MOST)
        miss = np.log(factor).abs()
        better = (miss < best["miss"]) & (paths["dose"] > 0)
        best.loc[better] = paths.assign(realised=realised, miss=miss).loc[better]
        paths = paths.assign(gain=paths["gain"] * factor)
    return best.drop(columns="miss")


_MOST = 5.0
"""Largest factor of one step."""


@torch.inference_mode()
def _taken(setup: Setup, model: Any, paths: pd.DataFrame) -> np.ndarray:
    """What the ablation of each path's source takes from its target, mean over cells in which it fires."""
    setup = replace(setup, model=model)
    total, n = np.zeros(len(paths)), np.zeros(len(paths))
    groups = {
        (int(layer), int(target)): np.flatnonzero((paths[LAYER_PAIR] == [layer, target]).all(axis=1))
        for layer, target in paths[LAYER_PAIR].drop_duplicates().to_numpy().tolist()
    }
    for batch in setup.cells.batches(1, by_length=False):
        h = residuals(model, batch, {layer for layer, _ in groups})
        for (layer, target), rows in groups.items():
            features = paths["source_feature"].to_numpy()[rows].tolist()
            copies = [(Step(layer, (f,)),) for f in features]
            *_, (_, state) = walk(setup, batch, h[layer][0], layer, copies, target)
            for copy, (row, feature) in enumerate(zip(rows, features, strict=True), start=1):
                at = firing_positions(setup, batch, h, [(layer, feature)])
                if len(at):
                    change = mean_change(setup.saes[target], state, at, [copy])
                    total[row] -= float(change[0, paths["target_feature"].iloc[row]])
                    n[row] += 1
    return total / np.maximum(n, 1)
