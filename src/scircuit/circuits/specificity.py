"""Is an effect larger than that of pushes of the same size without meaning? Competition of latents with decoys.

A decoy edits the same positions of the same cells as a source's ablation, by rows of the same norm, along a direction
that means nothing. A latent's effect is specific where it beats the decoys by a score for which nothing is assumed of
their tails (target-decoy competition: Elias & Gygi, Nat Methods 2007; with the +1 of Barber & Candes, Ann Stat 2015,
and He et al., arXiv 1501.00537):

1. per unit of push, u = mean response / mean norm of the removed rows, so that decoys of all sources of a layer pool;
   c = encoder of the target . mean removed row / the same norm, the u of a push that only passes down the stream;
2. per (source layer, target), from the decoys: the scale of u, the line u = b c, and the scale of what it leaves;
3. score = the larger of |u| / scale and |u - b c| / scale left: a push that passes straight on is special when it
   points at the target as no random one does, any other when it does what its direction alone does not explain;
4. within (source layer, target layer), q(S) = min over S' <= S of (1 + decoys at S' or above) / (latents at S' or
   above) x (tests of latents / tests of decoys), among those tests alone that pass the rest of the rule.

A decoy is scored on the scales of the other decoys, or it would flatter itself. Every fourth draw of a source is held
out: it neither sets a scale nor competes, and shows what the whole rule lets through where nothing is to be found.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import pandas as pd

from scircuit.circuits.schema import DECOYS, SCALE_KEY

_HELD_OUT_EVERY = 4


def is_decoy(tests: pd.DataFrame) -> np.ndarray:
    """Which rows are of decoys, bool `[row]`."""
    return tests["kind"].isin(DECOYS).to_numpy()


def held_out(tests: pd.DataFrame) -> np.ndarray:
    """Which rows are of decoys that are held out of the competition, bool `[row]`."""
    return is_decoy(tests) & (tests["draw"].to_numpy(np.int64) % _HELD_OUT_EVERY == 0)


def competes(tests: pd.DataFrame) -> np.ndarray:
    """Which rows are of decoys that set scales and compete, bool `[row]`."""
    return is_decoy(tests) & ~held_out(tests)


def of_family(tests: pd.DataFrame, name: str) -> np.ndarray:
    """Which rows belong to a family of tests, bool `[row]`: `latent` (ablations of sources) or `random` (decoys)."""
    return is_decoy(tests) if name == "random" else (tests["kind"] == name).to_numpy()


def n_made(tests: pd.DataFrame, name: str) -> int:
    """Tests with a response that `tests.parquet` counts of a family."""
    return int(tests.loc[of_family(tests, name), "n_tests"].sum())


def scores(effects: pd.DataFrame, scales: pd.DataFrame) -> np.ndarray:
    """Specificity score of each test, float64 `[test]`; NaN where no decoy was traced to that layer.

    `effects` has the ends, `kind, draw, mean_delta, push_norm, push_weight`; `scales` is `trace/scales.parquet`.
    """
    if scales.empty or effects.empty:
        return np.full(len(effects), np.nan)
    found = effects[SCALE_KEY].merge(scales, on=SCALE_KEY, how="left")
    n, uu, uc, cc = (found[name].to_numpy(np.float64) for name in ("n_decoys", "sum_uu", "sum_uc", "sum_cc"))
    with np.errstate(divide="ignore", invalid="ignore"):
        u = effects["mean_delta"].to_numpy(np.float64) / effects["push_norm"].to_numpy(np.float64)
        c = effects["push_weight"].to_numpy(np.float64) / effects["push_norm"].to_numpy(np.float64)
        mine = np.where(competes(effects), 1.0, 0.0)
        # A target without a visible encoder has no c: its direct path is not told from the rest.
        seen = np.isfinite(c) & np.isfinite(cc)
        c = np.where(seen, c, 0.0)
        n, uu = n - mine, uu - mine * u**2
        uc, cc = np.where(seen, uc - mine * u * c, 0.0), np.where(seen, cc - mine * c**2, 0.0)
        slope = np.where(cc > 0, uc / np.where(cc > 0, cc, 1.0), 0.0)
        left = np.maximum(uu - slope * uc, _rounding(uu))
        whole = np.abs(u) / np.sqrt(uu / n)
        beyond = np.abs(u - slope * c) / np.sqrt(left / np.maximum(n - 1, 1))
        # Any response where no decoy ever caused one is beyond every scale; two decoys are no scale at all.
        score = np.where(uu > 0, np.where(seen, np.fmax(whole, beyond), whole), np.where(u != 0, np.inf, 0.0))
    return np.where(n >= 3, score, np.nan)


def typical_of_decoys(edges: pd.DataFrame, scales: pd.DataFrame) -> np.ndarray:
    """How far decoys that push as hard as each edge typically move its target (root mean square), float64 `[edge]`.

    `edges` have the ends and `push_norm`; `scales` is `trace/scales.parquet`. NaN where no decoy was traced there.
    """
    found = edges[SCALE_KEY].merge(scales, on=SCALE_KEY, how="left")
    n, uu = (found[name].to_numpy(np.float64) for name in ("n_decoys", "sum_uu"))
    return edges["push_norm"].to_numpy(np.float64) * np.sqrt(uu / np.where(n > 0, n, np.nan))


def _rounding(total: np.ndarray) -> np.ndarray:
    """What a difference of sums near `total` cannot tell from nothing."""
    return 1e-12 * total


def q_specific(effects: pd.DataFrame, score: np.ndarray, passes: np.ndarray, tests: pd.DataFrame) -> np.ndarray:
    """Target-decoy q of each test, float64 `[test]`; 1 for tests that fail the rest of the rule or have no score.

    `effects` are latents and decoys together, `score` as `scores` gives; `passes`, bool `[test]`, says whether a test
    passes the rest of the rule. `tests` is `tests.parquet`.
    """
    q = np.ones(len(effects))
    latent, decoy = of_family(effects, "latent"), competes(effects)
    made = _sizes(tests, of_family(tests, "latent"))
    against = _sizes(tests, competes(tests))
    usable = passes & ~np.isnan(score)
    for ends, rows in effects.groupby(["source_layer", "target_layer"], observed=True).indices.items():
        pair = cast(tuple[int, int], ends)
        if not against.get(pair, 0):
            continue
        mine = rows[usable[rows]]
        own, decoys = np.sort(score[mine[latent[mine]]]), np.sort(score[mine[decoy[mine]]])
        q[mine] = _competition(own, decoys, made.get(pair, 0) / against[pair], score[mine])
    return q


def _sizes(tests: pd.DataFrame, chosen: np.ndarray) -> dict[tuple[int, int], int]:
    sums = tests.loc[chosen].groupby(["source_layer", "target_layer"], as_index=False, observed=True)["n_tests"].sum()
    ends = zip(sums["source_layer"].tolist(), sums["target_layer"].tolist(), strict=True)
    return dict(zip(ends, sums["n_tests"].tolist(), strict=True))


def _competition(own: np.ndarray, decoys: np.ndarray, ratio: float, at: np.ndarray) -> np.ndarray:
    """q at the scores `at`, given the sorted scores of latents and decoys that pass; 1 below every latent."""
    if not len(own):
        return np.ones(len(at))
    above = len(decoys) - np.searchsorted(decoys, own, side="left")
    rate = (1 + above) * ratio / (len(own) - np.searchsorted(own, own, side="left"))
    best = np.minimum.accumulate(np.minimum(rate, 1.0))
    place = np.searchsorted(own, at, side="right")
    return np.where(place > 0, best[np.maximum(place - 1, 0)], 1.0)


def merge_scales(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Sums over the decoys of several blocks of sources, one row per (source layer, target)."""
    return pd.concat(parts, ignore_index=True).groupby(SCALE_KEY, as_index=False, sort=True).sum(min_count=1)
