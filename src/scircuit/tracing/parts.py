"""The units of a trace and their files: what one block of cells did under one block of interventions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from scircuit._io import atomic
from scircuit.tracing.interventions import Intervention
from scircuit.tracing.moments import Moments


@dataclass(frozen=True)
class Unit:
    """Work that is done whole or not at all: one source layer, one block of interventions, one of cells."""

    layer: int
    source_block: int
    cell_block: int
    interventions: tuple[Intervention, ...]
    cells: np.ndarray = field(repr=False)

    @property
    def name(self) -> str:
        """File name of the unit's part."""
        return f"L{self.layer:02d}_S{self.source_block:04d}_C{self.cell_block:05d}.safetensors"


@dataclass
class CellEffects:
    """Non-zero per-cell responses as a list: entry i says that `row[i]` changed `latent[i]` in `cell[i]`."""

    row: np.ndarray
    latent: np.ndarray
    cell: np.ndarray
    delta: np.ndarray

    @classmethod
    def concatenate(cls, parts: "list[CellEffects]") -> "CellEffects":
        """All entries, in the order given."""
        if not parts:
            return cls(*(np.zeros(0, dtype=t) for t in (np.int32, np.int32, np.int32, np.float32)))
        return cls(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("row", "latent", "cell", "delta")))

    def take(self, chosen: np.ndarray) -> "CellEffects":
        """The entries that `chosen`, bool `[entry]`, marks."""
        return CellEffects(self.row[chosen], self.latent[chosen], self.cell[chosen], self.delta[chosen])


@dataclass
class Part:
    """Result of a unit.

    Per target layer `moments`, per-cell responses (`cell_effects`) and, for each grouping of the cells, moments
    with one row per (intervention, group) (`groups`). `acted` int32 `[2, n]` lists the interventions (rows) and
    cells in which they found something to change. `n_clean` and `n_ablated` count forwards.
    """

    moments: dict[int, Moments]
    cell_effects: dict[int, CellEffects]
    groups: dict[int, list[Moments]]
    acted: np.ndarray
    n_clean: int
    n_ablated: int

    def write(self, path: Path) -> None:
        """Write atomically: a part that exists is whole."""
        from safetensors.torch import save_file

        tensors: dict[str, torch.Tensor] = {}
        for target, moments in self.moments.items():
            tensors |= moments.tensors(f"{target}")
            for number, of_groups in enumerate(self.groups[target]):
                tensors |= of_groups.tensors(f"{target}.group{number}")
            effects = self.cell_effects[target]
            for name in ("row", "latent", "cell", "delta"):
                tensors[f"{target}.cell_{name}"] = torch.from_numpy(getattr(effects, name))
        tensors["counts"] = torch.tensor([self.n_clean, self.n_ablated])
        tensors["acted"] = torch.from_numpy(self.acted)
        tensors["n_groupings"] = torch.tensor(max((len(g) for g in self.groups.values()), default=0))
        with atomic(path) as temporary:
            save_file(tensors, temporary)

    @classmethod
    def read(cls, path: Path) -> "Part":
        """Read what `write` wrote."""
        from safetensors.torch import load_file

        tensors = load_file(path)
        targets = sorted({int(name.split(".")[0]) for name in tensors if "." in name})
        moments = {t: Moments.from_tensors(tensors, f"{t}") for t in targets}
        effects = {
            t: CellEffects(*(tensors[f"{t}.cell_{name}"].numpy() for name in ("row", "latent", "cell", "delta")))
            for t in targets
        }
        n_groupings = range(int(tensors["n_groupings"]))
        groups = {t: [Moments.from_tensors(tensors, f"{t}.group{n}") for n in n_groupings] for t in targets}
        n_clean, n_ablated = tensors["counts"].tolist()
        return cls(moments, effects, groups, tensors["acted"].numpy(), n_clean, n_ablated)


def plan_units(
    interventions: Mapping[int, list[Intervention]], cells: np.ndarray, sources_per_block: int, cells_per_block: int
) -> list[Unit]:
    """All units of a trace in the order in which their sums are taken."""
    units = []
    for layer, todo in sorted(interventions.items()):
        for s, first in enumerate(range(0, len(todo), sources_per_block)):
            block = tuple(todo[first : first + sources_per_block])
            for c, start in enumerate(range(0, len(cells), cells_per_block)):
                units.append(Unit(layer, s, c, block, cells[start : start + cells_per_block]))
    return units
