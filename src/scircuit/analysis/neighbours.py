"""Nearest neighbours between two sets of unit rows, and how many would be as near by chance."""

from typing import NamedTuple

import numpy as np
import pandas as pd

_BLOCK = 1024


def competition(
    x: np.ndarray, layer_x: np.ndarray, y: np.ndarray, layer_y: np.ndarray
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pairs of latents of two models that are each other's nearest, and decoys: such pairs within one model's layer.

    Parameters
    ----------
    x, y : float32 `[latent, gene]`
        Unit profiles, centred over the latents of each model.
    layer_x, layer_y : int `[latent]`

    Returns
    -------
    DataFrame, DataFrame
        Pairs, `row_x, row_y, correlation, distance_ratio`, nearest among the latents of both their layers and all of
        the other model. Decoys, `distance_ratio, weight`, likewise; the ratio is the smallest over the other model's
        layers, which errs to the safe side. A decoy weighs as many pairs across as there are possible ones to each
        possible one within a layer.
    """
    sides = _Side.of(x, layer_x), _Side.of(y, layer_y)
    found = []
    for i, mine in enumerate(sides[0].rows):
        for j, theirs in enumerate(sides[1].rows):
            forth, back = between(x[mine], y[theirs])
            sides[0].meet(i, forth, theirs)
            sides[1].meet(j, back, mine)
            # Mutual neighbours of the pool of the two layers that are of two models.
            pool = sides[0].own[i].beside(forth), sides[1].own[j].beside(back)
            row = np.flatnonzero(forth.best > sides[0].own[i].best)
            row = row[(back.who[forth.who[row]] == row) & (back.best > sides[1].own[j].best)[forth.who[row]]]
            runner_up = np.maximum(pool[0].second[row], pool[1].second[forth.who[row]])
            ratio = _distance_ratio(forth.best[row], runner_up)
            rows = {"row_x": mine[row], "row_y": theirs[forth.who[row]]}
            found.append(pd.DataFrame({**rows, "correlation": forth.best[row], "distance_ratio": ratio}))
    pairs = pd.concat(found, ignore_index=True)
    row_x, row_y = pairs["row_x"].to_numpy(), pairs["row_y"].to_numpy()
    pairs = pairs[(sides[0].nearest[row_x] == row_y) & (sides[1].nearest[row_y] == row_x)].reset_index(drop=True)
    ratios = np.concatenate([side.decoys() for side in sides])
    weight = len(x) * len(y) / max(sum(side.n_pairs for side in sides), 1)
    return pairs, pd.DataFrame({"distance_ratio": ratios, "weight": weight})


def competitive_q(ratio: np.ndarray, decoy: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """q of each pair, small ratios first: (1 + weight of the decoys as small) / pairs as small, monotone, at most 1."""
    order = np.argsort(ratio, kind="stable")
    by_decoy = np.argsort(decoy, kind="stable")
    upto = np.append(0.0, np.cumsum(weight[by_decoy]))
    expected = 1 + upto[np.searchsorted(decoy[by_decoy], ratio[order], side="right")]
    found = np.searchsorted(ratio[order], ratio[order], side="right")
    q = np.empty(len(ratio))
    q[order] = np.minimum(np.minimum.accumulate((expected / np.maximum(found, 1))[::-1])[::-1], 1.0)
    return q


class Nearest(NamedTuple):
    """The nearest neighbour of each row, its correlation, and that of the next nearest; all `[row]`."""

    who: np.ndarray
    best: np.ndarray
    second: np.ndarray

    @classmethod
    def none(cls, n: int) -> "Nearest":
        """No neighbour yet: -1 and -inf."""
        return cls(np.full(n, -1, dtype=np.int64), np.full(n, -np.inf), np.full(n, -np.inf))

    def beside(self, other: "Nearest") -> "Nearest":
        """Nearest of the candidates of both."""
        mine = self.best >= other.best
        second = np.maximum(np.minimum(self.best, other.best), np.maximum(self.second, other.second))
        return Nearest(np.where(mine, self.who, other.who), np.maximum(self.best, other.best), second)


def between(x: np.ndarray, y: np.ndarray) -> tuple[Nearest, Nearest]:
    """Nearest rows of y to each row of x, and of x to each row of y."""
    forth, back = [], Nearest.none(len(y))
    for start in range(0, len(x), _BLOCK):
        r = x[start : start + _BLOCK] @ y.T
        forth.append(_top(r))
        own = _top(r.T)
        back = back.beside(own._replace(who=own.who + start))
    return Nearest(*(np.concatenate(part) for part in zip(*forth, strict=True))), back


def within(x: np.ndarray, n_model: int) -> Nearest:
    """Nearest other rows of x.

    Profiles centred on the mean of their model's latents repel each other by 1 / (latents - 1), which those of two
    models do not: that is added.
    """
    parts = []
    for start in range(0, len(x), _BLOCK):
        r = x[start : start + _BLOCK] @ x.T
        r[np.arange(len(r)), start + np.arange(len(r))] = -np.inf
        parts.append(_top(r))
    who, best, second = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Nearest(who, np.minimum(best + 1 / (n_model - 1), 1.0), np.minimum(second + 1 / (n_model - 1), 1.0))


class _Side(NamedTuple):
    """One model's latents while they meet those of the other: the rows of each layer and their neighbours within it.

    `nearest` and `closest` are the nearest latent of the other model and its correlation `[latent]`; `rival` is, for
    each layer's rows, the least of the closest rivals that a pair of them has in any layer of the other model.
    """

    rows: list[np.ndarray]
    own: list["Nearest"]
    nearest: np.ndarray
    closest: np.ndarray
    rival: list[np.ndarray]

    @classmethod
    def of(cls, x: np.ndarray, layer: np.ndarray) -> "_Side":
        rows = [np.flatnonzero(layer == value) for value in np.unique(layer)]
        own = [within(x[row], len(x)) for row in rows]
        nothing = np.full(len(x), -1), np.full(len(x), -np.inf)
        return cls(rows, own, *nothing, [np.full(len(row), np.inf) for row in rows])

    @property
    def n_pairs(self) -> int:
        """Pairs of latents of one layer."""
        return sum(len(row) * (len(row) - 1) // 2 for row in self.rows)

    def meet(self, i: int, found: "Nearest", names: np.ndarray) -> None:
        """Enter the neighbours, numbered by `names`, that the rows of layer i have in a layer of the other model."""
        rows, partner = self.rows[i], self.own[i].who
        nearer = found.best > self.closest[rows]
        self.nearest[rows[nearer]], self.closest[rows[nearer]] = names[found.who[nearer]], found.best[nearer]
        np.minimum(self.rival[i], np.maximum(found.best, found.best[partner]), out=self.rival[i])

    def decoys(self) -> np.ndarray:
        """Distance ratios of mutual neighbours within a layer that are closer than any latent of the other model."""
        ratios = []
        for rows, own, rival in zip(self.rows, self.own, self.rival, strict=True):
            row, free = np.arange(len(rows)), own.best > self.closest[rows]
            row = row[(own.who[own.who] == row) & (own.who > row) & free & free[own.who]]
            runner_up = np.maximum(np.maximum(own.second[row], own.second[own.who[row]]), rival[row])
            ratios.append(_distance_ratio(own.best[row], runner_up))
        return np.concatenate(ratios)


def _distance_ratio(best: np.ndarray, runner_up: np.ndarray) -> np.ndarray:
    """1 - best over 1 - runner-up; 1 (not set apart) where there is no runner-up, or one at no distance."""
    rest = 1 - runner_up
    return np.divide(1 - best, rest, out=np.ones(len(best)), where=np.isfinite(rest) & (rest > 1e-9))


def _top(r: np.ndarray) -> Nearest:
    row, who = np.arange(len(r)), r.argmax(axis=1)
    best = r[row, who].astype(np.float64)
    if r.shape[1] < 2:
        return Nearest(who, best, np.full(len(r), -np.inf))
    return Nearest(who, best, np.partition(r, -2, axis=1)[:, -2].astype(np.float64))
