"""Which cells take part, and in which split: filter, disjoint splits, stratified draws, all seeded.

A cell's split follows from the seed and its row in the data set alone, not from what else was drawn. Two runs on
one data set with the same seed and shares (one that trains dictionaries, one that traces with them) therefore keep
the same cells apart, however different their filters and numbers of cells are.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scircuit.errors import ScircuitError

log = logging.getLogger(__name__)

SPLITS = ("train", "catalogue", "discovery", "confirmation")
"""What cells are used for: to teach dictionaries, to describe features, to find edges, to find them again."""

_NEIGHBOURS = 20
_CHUNK = 1 << 16


def check_shares(shares: Mapping[str, Any], where: str = "cells.shares") -> None:
    """Refuse shares that name no split, are no share, or do not sum to 1."""
    for name, share in shares.items():
        if name not in SPLITS:
            raise ScircuitError(f"{where} names {name!r}; splits are {', '.join(SPLITS)}.")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ScircuitError(f"{where}: {name} = {share!r} is no share; give a number from 0 to 1.")
    total = sum(shares.values())
    if abs(total - 1) > 1e-9:
        raise ScircuitError(f"{where} sum to {total:.6g}; the shares of {', '.join(SPLITS)} must sum to 1.")


def split_of(identity: np.ndarray, seed: int, shares: Mapping[str, float], n_cells: int = _NEIGHBOURS) -> np.ndarray:
    """The split of each cell, `[cell]` of str: a pure function of (seed, identity) in one data set.

    `identity`, int64 `[cell]`, names a cell for good: its row in the AnnData, or its `soma_joinid` in the Census. Every
    20 neighbouring rows are put in an order of their own by a hash of (seed, row) (SplitMix64, Steele et al. 2014) and
    dealt out in that order, so that shares are met even in small data sets and along the file, in which batches lie one
    after another. A data set of fewer cells, `n_cells`, is dealt out among those it has.
    """
    check_shares(shares)
    bounds = np.cumsum([shares.get(name, 0.0) for name in SPLITS])
    last = max(i for i, name in enumerate(SPLITS) if shares.get(name, 0.0) > 0)
    identity = np.asarray(identity, dtype=np.int64)
    chunks = [identity[start : start + _CHUNK] for start in range(0, len(identity), _CHUNK)]
    dealt = (
        np.concatenate([_dealt(chunk, seed, min(n_cells, _NEIGHBOURS)) for chunk in chunks]) if chunks else np.zeros(0)
    )
    place = np.minimum(np.searchsorted(bounds - 1e-12, dealt, side="right"), last)
    return np.array(SPLITS, dtype=object)[place]


def _dealt(identity: np.ndarray, seed: int, neighbours: int) -> np.ndarray:
    """Place in [0, 1) of each cell: its rank among its neighbours, and a shift that they share."""
    block = identity // neighbours
    others = _hash(block[:, None] * neighbours + np.arange(neighbours), seed)
    rank = (others < _hash(identity, seed)[:, None]).sum(axis=1)
    shift = (_hash(-1 - block, seed) >> np.uint64(11)).astype(np.float64) / float(1 << 53)
    return (rank + shift) / neighbours


def _hash(number: np.ndarray, seed: int) -> np.ndarray:
    """SplitMix64 of (seed, number), uint64."""
    return _mix(_mix(np.full(1, seed % (1 << 64), dtype=np.uint64)) ^ number.astype(np.int64).view(np.uint64))


def _mix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def matching(obs: pd.DataFrame, where: Mapping[str, Any]) -> np.ndarray:
    """Rows of `obs` that pass every condition, int64; a condition is a value or a list of values per column.

    Raises
    ------
    ScircuitError
        When a column is unknown, a value does not occur in its column, or no cell is left.
    """
    keep = np.ones(len(obs), dtype=bool)
    for column, value in where.items():
        if column not in obs:
            raise ScircuitError(f"cells.where names {column!r}; obs has {', '.join(map(str, obs.columns))}.")
        allowed = list(value) if isinstance(value, list | tuple) else [value]
        present = list(obs[column].dropna().unique())
        for one in allowed:
            if not isinstance(one, str | bool | int | float):
                raise ScircuitError(f"cells.where: {column} = {value!r} is of the wrong kind; give a value or a list.")
            if not any(_same(one, other) for other in present):
                seen = ", ".join(repr(getattr(v, "item", lambda v=v: v)()) for v in present[:8])
                raise ScircuitError(f"No cell has {column} = {one!r}; its values are {seen}.")
        wanted = [other for other in present if any(_same(one, other) for one in allowed)]
        keep &= obs[column].isin(wanted).to_numpy(dtype=bool)
    if not keep.any():
        raise ScircuitError(f"No cell meets all conditions of cells.where ({dict(where)}); loosen one of them.")
    return np.flatnonzero(keep)


def _same(asked: Any, present: Any) -> bool:
    """Equal, with true and 1 kept apart."""
    return bool(asked == present) and isinstance(asked, bool) == isinstance(present, bool | np.bool_)


class Rule(NamedTuple):
    """How cells are drawn.

    `stratify` are obs columns: a draw takes their joint values in proportion, at least one cell of each. `equal`
    shares a draw out equally among the values of the first column instead, `n_per` in the proportions given (and, for
    the whole sample, exactly those numbers).
    """

    stratify: tuple[str, ...] = ()
    equal: bool = False
    n_per: Mapping[str, int] = {}

    def check(self, n: int | None, where: str = "cells") -> None:
        """Refuse rules that say too little or too much."""
        if (self.equal or self.n_per) and not self.stratify:
            raise ScircuitError(f"{where}.equal and n_per are over the first column of {where}.stratify; name one.")
        if self.equal and self.n_per:
            raise ScircuitError(f"{where}.equal and {where}.n_per exclude each other; keep one of them.")
        if self.equal and n is None:
            raise ScircuitError(f"{where}.equal needs the number of cells to share out; set {where}.n.")
        for value, number in self.n_per.items():
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ScircuitError(f"{where}.n_per: {value} = {number!r} is no number of cells; give at least 1.")
        if self.n_per and n is not None and n != sum(self.n_per.values()):
            raise ScircuitError(f"{where}.n = {n} but n_per sums to {sum(self.n_per.values())}; leave n out.")


class Sample(NamedTuple):
    """Drawn cells: their rows (ascending, int64) and the split of each."""

    rows: np.ndarray
    split: np.ndarray


def draw_sample(
    obs: pd.DataFrame,
    identity: np.ndarray,
    *,
    where: Mapping[str, Any],
    n: int | None,
    rule: Rule,
    shares: Mapping[str, float],
    seed: int,
) -> Sample:
    """Filter, split, and draw `n` cells (all by default), every split by its share and stratified alike.

    Raises
    ------
    ScircuitError
        As `matching`; on columns obs has not, more cells of a value than there are, or a split without any cell.
    """
    rule.check(n)
    if not len(obs):
        raise ScircuitError("The file holds no cells; name one that does.")
    rows = matching(obs, where)
    split = split_of(identity[rows], seed, shares, int(identity.max()) + 1)
    n = sum(rule.n_per.values()) if rule.n_per else n
    if n is not None and n > len(rows):
        log.warning("cells.n asks for %d cells, there are %d: all of them are taken", n, len(rows))
    kept = np.arange(len(rows))
    if n is not None and (n < len(rows) or rule.n_per or rule.equal):
        kept = _draw_by_split(obs.iloc[rows], split, n, rule, shares, np.random.default_rng([seed, 0]))
    for name in SPLITS:
        share = shares.get(name, 0.0)
        if share > 0 and not (split[kept] == name).any():
            raise ScircuitError(
                f"None of {len(kept)} cells is in the {name} split; take more cells or raise its share in cells.shares "
                f"(a share of {share:g} takes {int(np.ceil(1 / share))} cells)."
            )
    return Sample(rows[kept], split[kept])


def _draw_by_split(
    obs: pd.DataFrame, split: np.ndarray, n: int, rule: Rule, shares: Mapping[str, float], rng: np.random.Generator
) -> np.ndarray:
    group, values, sizes, numbers = _numbers(obs, n, rule)
    unknown = [value for value in rule.n_per if value not in values]
    if unknown:
        raise ScircuitError(f"cells.n_per names {unknown[0]!r}; {rule.stratify[0]} is {', '.join(values[:8])}.")
    short = [i for i, value in enumerate(values) if rule.n_per and numbers[i] < rule.n_per.get(value, 0)]
    if short:
        raise ScircuitError(
            f"cells.n_per asks for {rule.n_per[values[short[0]]]} cells of {rule.stratify[0]} = "
            f"{values[short[0]]!r}; there are {sizes[short[0]]}."
        )
    strata = _strata(obs, rule.stratify)
    proportions = np.array([shares.get(name, 0.0) for name in SPLITS])
    chosen = []
    for g, number in enumerate(numbers):
        pools = [np.flatnonzero((group == g) & (split == name)) for name in SPLITS]
        takes = allot(int(number), proportions, np.array([len(p) for p in pools]), minimum=0)
        chosen += [_draw(pool, strata, int(take), rng) for pool, take in zip(pools, takes, strict=True)]
    return np.sort(np.concatenate(chosen))


def draw_stratified(obs: pd.DataFrame, n: int | None, rule: Rule, seed: Sequence[int]) -> np.ndarray:
    """Positions of `n` of the cells `obs` (all by default), int64 ascending, drawn by the same rule as the sample."""
    if n is None or n >= len(obs):
        return np.arange(len(obs))
    rng = np.random.default_rng(list(seed))
    group, _, _, numbers = _numbers(obs, n, rule)
    strata = _strata(obs, rule.stratify)
    drawn = [_draw(np.flatnonzero(group == g), strata, int(number), rng) for g, number in enumerate(numbers)]
    return np.sort(np.concatenate(drawn))


def allot(n: int, weights: np.ndarray, sizes: np.ndarray, *, minimum: int) -> np.ndarray:
    """Share `n` out in proportion to `weights`, nobody above its size: largest remainders, int64 `[stratum]`.

    `minimum` is given to every stratum first (to the heaviest ones where `n` does not reach for all). What a small
    stratum cannot take goes to the others in proportion, so the numbers sum to min(n, sum of sizes with weight).
    """
    weights = np.asarray(weights, dtype=np.float64)
    sizes = np.where(weights > 0, np.asarray(sizes, dtype=np.int64), 0)
    n = min(n, int(sizes.sum()))
    heaviest = np.argsort(-weights, kind="stable")
    out = np.minimum(sizes, minimum)
    if out.sum() > n:
        out[heaviest[np.cumsum(out[heaviest]) > n]] = 0
    while (left := n - int(out.sum())) > 0:
        open_ = out < sizes
        # Towards the proportional number of the whole, not of the rest: the minimum is part of a stratum's share.
        ideal = np.where(open_, n * weights / weights[sizes > 0].sum(), 0.0)
        missing = np.where(open_, np.maximum(ideal - out, 0.0), 0.0)
        if missing.sum() <= 0:
            missing = np.where(open_, weights, 0.0)
        wish = missing * (left / missing.sum())
        step = np.minimum(np.floor(wish).astype(np.int64), sizes - out)
        if not step.any():
            order = np.lexsort((heaviest.argsort(), -(wish - np.floor(wish)) * open_))
            step[order[open_[order]][:left]] = 1
        out = out + step
    return out


def _draw(pool: np.ndarray, strata: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` of the positions `pool`, in proportion to their strata with at least one of each."""
    labels, code, sizes = np.unique(strata[pool], return_inverse=True, return_counts=True)
    if 0 < n < len(labels):
        log.warning("%d cells cannot hold one of each of %d strata; the largest are taken", n, len(labels))
    takes = allot(n, sizes, sizes, minimum=1)
    parts = [rng.choice(pool[code == i], take, replace=False) for i, take in enumerate(takes) if take]
    return np.concatenate(parts) if parts else pool[:0]


def _numbers(obs: pd.DataFrame, n: int, rule: Rule) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
    """Group of each cell, and of the groups the values, the sizes and how many cells are drawn.

    Groups are the values of the first column where numbers are given per value; one of all cells otherwise.
    """
    require_columns(obs, rule.stratify, "cells.stratify")
    group, values = np.zeros(len(obs), dtype=np.int64), [""]
    if rule.equal or rule.n_per:
        group, found = pd.factorize(obs[rule.stratify[0]].astype(str), sort=True)
        values = [str(value) for value in found]
    sizes = np.bincount(group, minlength=len(values))
    weights = np.ones(len(values)) if rule.equal else sizes.astype(np.float64)
    if rule.n_per:
        weights = np.array([float(rule.n_per.get(value, 0)) for value in values])
    return group, values, sizes, allot(n, weights, sizes, minimum=0)


def _strata(obs: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Code of the joint value of the columns, int64 `[cell]`; 0 for all without columns."""
    if not columns:
        return np.zeros(len(obs), dtype=np.int64)
    return obs.groupby([obs[c].astype(str) for c in columns], sort=True).ngroup().to_numpy()


def strata_counts(obs: pd.DataFrame, split: np.ndarray, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Cells per stratum and split, for the record: one dict per stratum with its values and four numbers."""
    keys = pd.DataFrame({c: obs[c].astype(str).to_numpy() for c in columns}, index=range(len(obs)))
    keys["_split"] = split
    rows = []
    grouped = keys.groupby(list(columns), sort=True) if columns else [((), keys)]
    for values, part in grouped:
        counts = part["_split"].value_counts()
        rows.append(dict(zip(columns, values, strict=True)) | {name: int(counts.get(name, 0)) for name in SPLITS})
    return rows


def require_columns(obs: pd.DataFrame, columns: Sequence[str], asked: str) -> None:
    """Refuse columns that obs has not, naming the setting that asks for them."""
    missing = [c for c in columns if c not in obs]
    if missing:
        allowed = ", ".join(str(c) for c in obs if not str(c).startswith("_"))
        raise ScircuitError(f"{asked} names {missing[0]!r}; obs has {allowed}.")


def require_values(obs: pd.DataFrame, columns: Sequence[str], asked: str) -> None:
    """Refuse columns that obs has not, or that have no value in some cells, naming the setting that asks for them."""
    require_columns(obs, columns, asked)
    for column in columns:
        if n := int(obs[column].isna().sum()):
            raise ScircuitError(
                f"{asked} names {column!r}, which has no value in {n} of {len(obs)} cells; fill it in, or keep the "
                "cells that have one by naming its values in cells.where."
            )
