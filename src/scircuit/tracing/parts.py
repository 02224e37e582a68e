"""The units of a trace and their files: what one block of cells did under one block of interventions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from scircuit._io import atomic
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.moments import Moments

V = TypeVar("V")
_EFFECTS = ("row", "latent", "cell", "delta")
EFFECT_BYTES = 16
"""Of one entry of `CellEffects`."""


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
        return cls(*(np.concatenate([getattr(p, n) for p in parts]) for n in _EFFECTS))

    def take(self, chosen: np.ndarray) -> "CellEffects":
        """The entries that `chosen`, bool `[entry]`, marks."""
        return CellEffects(self.row[chosen], self.latent[chosen], self.cell[chosen], self.delta[chosen])


@dataclass
class Part:
    """Result of a unit.

    Per target layer `moments`, per-cell responses (`cell_effects`) and, for each grouping of the cells, moments
    with one row per (intervention, group) (`groups`). `acted` int32 `[2, n]` lists the interventions (rows) and
    cells in which they found something to change. `pushes` float64 `[intervention, d_model + 1]` sums over those cells
    the mean row that was added (over the positions of a cell) and the mean norm of these rows. `n_clean` and
    `n_ablated` count forwards.
    """

    moments: Mapping[int, Moments]
    cell_effects: Mapping[int, CellEffects]
    groups: Mapping[int, list[Moments]]
    acted: np.ndarray
    pushes: np.ndarray
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
            for name in _EFFECTS:
                tensors[f"{target}.cell_{name}"] = torch.from_numpy(getattr(effects, name))
        tensors["counts"] = torch.tensor([self.n_clean, self.n_ablated])
        tensors["acted"] = torch.from_numpy(self.acted)
        tensors["pushes"] = torch.from_numpy(self.pushes)
        tensors["n_groupings"] = torch.tensor(max((len(g) for g in self.groups.values()), default=0))
        with atomic(path) as temporary:
            save_file(tensors, temporary)

    @classmethod
    def read(cls, path: Path) -> "Part":
        """What `write` wrote; sums and responses are read from the file each time that they are asked for."""
        tensors = _File(path)
        targets = sorted({int(name.split(".")[0]) for name in tensors if "." in name})
        n_groupings = int(tensors["n_groupings"])
        n_clean, n_ablated = tensors["counts"].tolist()
        return cls(
            _Lazy(targets, lambda t: Moments.from_tensors(tensors, f"{t}")),
            _Lazy(targets, lambda t: CellEffects(*(tensors[f"{t}.cell_{name}"].numpy() for name in _EFFECTS))),
            _Lazy(
                targets,
                lambda t: [Moments.from_tensors(tensors, f"{t}.group{number}") for number in range(n_groupings)],
            ),
            tensors["acted"].numpy(),
            tensors["pushes"].numpy(),
            n_clean,
            n_ablated,
        )


class _File(Mapping[str, torch.Tensor]):
    """The tensors of a safetensors file by name, mapped into memory when they are asked for."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self._file = safe_open(path, framework="pt")
        self._names = list(self._file.keys())

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _Lazy(Mapping[int, V]):
    """Values made anew by `make` at each look."""

    def __init__(self, keys: Sequence[int], make: Callable[[int], V]) -> None:
        self._keys, self._make = keys, make

    def __getitem__(self, key: int) -> V:
        return self._make(key)

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def plan_units(
    interventions: Mapping[int, Sequence[Intervention]], cells: np.ndarray, sources_per_block: int, cells_per_block: int
) -> list[Unit]:
    """All units of a trace in the order in which their sums are taken."""
    units = []
    for layer, todo in sorted(interventions.items()):
        size = -(-len(todo) // max(1, -(-len(todo) // most_at_once(sources_per_block))))
        for s, first in enumerate(range(0, len(todo), max(1, size))):
            block = tuple(todo[first : first + size])
            for c, start in enumerate(range(0, len(cells), cells_per_block)):
                units.append(Unit(layer, s, c, block, cells[start : start + cells_per_block]))
    return units


def most_at_once(sources_per_block: int) -> int:
    """Interventions of the largest block.

    Every block pays the clean side of its cells again, so that an eighth more in each is better than a small one at
    the end, as the decoys of a layer traced whole would make it.
    """
    return sources_per_block + sources_per_block // 8


def source_blocks(units: Sequence[Unit]) -> list[list[Unit]]:
    """Units of the same sources, whose parts are summed together, in order."""
    blocks: dict[tuple[int, int], list[Unit]] = {}
    for unit in units:
        blocks.setdefault((unit.layer, unit.source_block), []).append(unit)
    return list(blocks.values())
