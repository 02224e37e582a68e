"""From summed moments to the tables of a trace: every test counted, those with a small p kept."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from scircuit.circuits.rule import stored_size
from scircuit.circuits.schema import DECOYS, P_UNSKEWED
from scircuit.circuits.specificity import competes
from scircuit.sae.base import SparseAutoencoder
from scircuit.stats.effect import hedges
from scircuit.stats.signflip import can_reach, screen_p, signflip_p
from scircuit.stats.skew import skewness
from scircuit.tracing.engines.interventions import KINDS, Intervention
from scircuit.tracing.moments import Moments
from scircuit.tracing.parts import CellEffects


class Weights(NamedTuple):
    """What a push would do to a target if it passed unchanged down the residual stream: products, no forward pass.

    `of_push` `[intervention, target latent]`: encoder of the target . mean row added (units of the target). `push_norm`
    `[intervention]`: mean norm of these rows. `per_unit` `[intervention, target latent]`: encoder of the target .
    decoder of the source, or of the decoy in its place, per unit of the source's activation; 0 for interventions that
    are no loss along one direction. NaN where the target is an object that does not show its encoder, and where an
    intervention acted in no cell.
    """

    of_push: np.ndarray
    push_norm: np.ndarray
    per_unit: np.ndarray


class OverUnits(NamedTuple):
    """What is taken over whole units (donors, batches) instead of cells, `[intervention, latent]` each.

    `p`, half of the 95 % interval of the mean, and `p_unskewed`, which allows for skewed responses of the units.
    """

    p: np.ndarray
    half_width: np.ndarray
    p_unskewed: np.ndarray


def effect_table(
    layer: int,
    target: int,
    interventions: tuple[Intervention, ...],
    moments: Moments,
    effects: CellEffects,
    *,
    retention: float,
    seed: int,
    weights: Weights,
    over_units: OverUnits | None = None,
    kept_abs_d: float | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of `effects.parquet` and `tests.parquet` for one source block and one target layer.

    `over_units` takes the place of p and intervals over cells (see `groups`). Tests with |d| > `kept_abs_d` are rows
    whatever their p.
    """
    m = moments.arrays()
    p = cell_p(m, effects, retention=retention, seed=seed) if over_units is None else over_units.p
    kept = (p <= retention) & (m["n_nonzero"] > 0)
    if kept_abs_d is not None:
        kept |= (m["n_nonzero"] > 0) & ~(stored_size(_finite_size(m)) <= kept_abs_d)
    table = effect_rows(layer, target, interventions, m, p, kept, weights, over_units)
    table["skewness"] = skewness_of(kept, effects)
    return table, _tests(layer, target, interventions, m, kept)


def cell_p(m: Mapping[str, np.ndarray], effects: CellEffects, *, retention: float, seed: int) -> np.ndarray:
    """p `[intervention, latent]` with cells as units.

    By `signflip_p` on the per-cell responses wherever it can be as small as `retention`, by the t form of the same test
    elsewhere, and where the per-cell responses were not kept.
    """
    sums = m["n_nonzero"], m["total"], m["total_sq"]
    p = screen_p(*sums)
    _refine(p, can_reach(retention, *sums), effects, seed)
    return p


def skewness_of(kept: np.ndarray, effects: CellEffects) -> np.ndarray:
    """Skewness of the responses of each test in `kept`, bool `[intervention, latent]`, float32 `[test]`.

    Over the cells that respond, as the sign-flip test sees them; NaN where per-cell responses were not kept.
    """
    number = np.cumsum(kept).reshape(kept.shape) - 1
    mine = kept[effects.row, effects.latent]
    of_test = number[effects.row[mine], effects.latent[mine]]
    return skewness(effects.delta[mine], of_test, int(kept.sum())).astype(np.float32)


def effect_rows(
    layer: int,
    target: int,
    interventions: tuple[Intervention, ...],
    m: Mapping[str, np.ndarray],
    p: np.ndarray,
    kept: np.ndarray,
    weights: Weights,
    over_units: OverUnits | None = None,
) -> pd.DataFrame:
    """Statistics of the tests in `kept`, bool `[intervention, latent]`, one row each.

    d = mean / sd over the cells in which the source fires (ddof 1); `hedges_g` is d without its small-sample
    bias (Hedges 1981); `ci_low` and `ci_high` are the 95 % interval of `mean_delta`, by t over cells or as `over_units`
    has it, which also gives `p_unskewed`; consistency = max(n_pos, n_neg) / n_nonzero. `push_norm` is the mean norm of
    the rows taken from the residual stream, over the positions of a cell and then over cells; `push_weight` and
    `weight_effect` as in `Weights`.
    """
    row, latent = np.nonzero(kept)
    n = m["n_cells"][row].astype(np.float64)
    mean = m["total"][row, latent] / n
    sd = _sd(m["total"][row, latent], m["total_sq"][row, latent], n)
    n_nonzero, n_pos = m["n_nonzero"][row, latent], m["n_pos"][row, latent]
    n_neg = n_nonzero - n_pos
    with np.errstate(divide="ignore", invalid="ignore"):
        d = np.where(sd > 0, mean / np.where(sd > 0, sd, 1.0), np.copysign(np.inf, mean))
        g = hedges(d, n).g
    if over_units is None:
        half = np.where(n > 1, stdtrit(np.maximum(n - 1, 1), 0.975) * sd / np.sqrt(n), np.nan)
    else:
        half = over_units.half_width[row, latent]
    table = pd.DataFrame(
        {
            "source_layer": np.int16(layer),
            "source_feature": np.array([i.features[0] for i in interventions], dtype=np.int32)[row],
            "target_layer": np.int16(target),
            "target_feature": latent.astype(np.int32),
            "n_cells": n.astype(np.int32),
            "n_nonzero": n_nonzero,
            "n_pos": n_pos,
            "n_neg": n_neg,
            "mean_delta": mean,
            "sd_delta": sd,
            "cohens_d": d,
            "hedges_g": g,
            "ci_low": mean - half,
            "ci_high": mean + half,
            "consistency": np.maximum(n_pos, n_neg) / n_nonzero,
            "p_value": p[row, latent],
            "clean_mean": m["clean"][row, latent] / n,
            "clean_sd": _sd(m["clean"][row, latent], m["clean_sq"][row, latent], n),
            "weight_effect": weights.per_unit[row, latent],
            "push_norm": weights.push_norm[row],
            "push_weight": weights.of_push[row, latent],
            "kind": pd.Categorical([interventions[i].kind for i in row], categories=KINDS),
            "draw": np.array([i.draw for i in interventions], dtype=np.int32)[row],
        }
    )
    return table if over_units is None else table.assign(**{P_UNSKEWED: over_units.p_unskewed[row, latent]})


def _sd(total: np.ndarray, total_sq: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Sample standard deviation (ddof 1); 0 for a single cell and for constant values up to rounding."""
    centred = total_sq - total**2 / n
    centred = np.where(centred <= 1e-12 * total_sq, 0.0, centred)
    return np.sqrt(centred / np.maximum(n - 1, 1))


def _tests(
    layer: int, target: int, interventions: tuple[Intervention, ...], m: Mapping[str, np.ndarray], kept: np.ndarray
) -> pd.DataFrame:
    size = _finite_size(m)
    return pd.DataFrame(
        {
            "source_layer": np.int16(layer),
            "source_feature": np.array([i.features[0] for i in interventions], dtype=np.int32),
            "target_layer": np.int16(target),
            "kind": pd.Categorical([i.kind for i in interventions], categories=KINDS),
            "draw": np.array([i.draw for i in interventions], dtype=np.int32),
            "n_cells": m["n_cells"].astype(np.int32),
            "n_targets": np.int32(kept.shape[1]),
            "n_tests": (m["n_nonzero"] > 0).sum(axis=1),
            "n_retained": kept.sum(axis=1),
            "n_sized": np.isfinite(size).sum(axis=1),
            "sum_abs_d": np.nansum(size, axis=1),
            "sum_sq_d": np.nansum(size**2, axis=1),
        }
    )


def _finite_size(m: Mapping[str, np.ndarray]) -> np.ndarray:
    """|d| of every test with a response, `[intervention, latent]`; NaN elsewhere and where all cells agree exactly."""
    n = np.maximum(m["n_cells"], 1).astype(np.float64)[:, None]
    sd = _sd(m["total"], m["total_sq"], n)
    known = (m["n_nonzero"] > 0) & (sd > 0)
    return np.where(known, np.abs(m["total"] / n) / np.where(sd > 0, sd, 1.0), np.nan)


def _refine(p: np.ndarray, candidates: np.ndarray, effects: CellEffects, seed: int) -> None:
    """Replace the screening p of the candidates by the sign-flip p of their per-cell responses."""
    chosen = candidates[effects.row, effects.latent]
    key = effects.row[chosen].astype(np.int64) * p.shape[1] + effects.latent[chosen]
    order = np.argsort(key, kind="stable")
    tests, first, length = np.unique(key[order], return_index=True, return_counts=True)
    delta = effects.delta[chosen][order]
    rng = np.random.default_rng(seed)
    # Tests of like size together, so that short ones are not padded to the longest.
    by_size = np.argsort(length, kind="stable")
    for start in range(0, len(tests), 20_000):
        block = by_size[start : start + 20_000]
        values = np.zeros((len(block), int(length[block].max())))
        filled = np.arange(values.shape[1]) < length[block, None]
        values[filled] = np.concatenate([delta[first[t] : first[t] + length[t]] for t in block])
        p.reshape(-1)[tests[block]] = signflip_p(values, rng, draws=1000)


def weights_of(
    interventions: tuple[Intervention, ...],
    pushes: np.ndarray,
    n_cells: np.ndarray,
    source: SparseAutoencoder,
    target: SparseAutoencoder,
) -> Weights:
    """Weight-space part of each intervention's effects; `pushes` as in `Part`, over `n_cells` `[row]`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = pushes / n_cells[:, None]
    rows, norm = mean[:, :-1], mean[:, -1]
    per_unit = weight_effects(interventions, source, target)
    if not hasattr(target, "W_enc"):
        return Weights(per_unit.astype(np.float64), norm, per_unit)
    of_push = rows @ target.W_enc.detach().double().cpu().numpy()
    decoy = np.array([i.kind in DECOYS for i in interventions])
    removed = source.W_dec[[i.features[0] for i in interventions]].detach().double().norm(dim=1).cpu().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        per_unit[decoy] = (-of_push * (removed / norm)[:, None])[decoy]
    return Weights(of_push, norm, per_unit)


def weight_effects(
    interventions: Sequence[Intervention], source: SparseAutoencoder, target: SparseAutoencoder
) -> np.ndarray:
    """Encoder of each target latent . decoder of each ablated source, float32 `[intervention, target latent]`.

    0 for all but plain ablations; NaN where the target does not show its encoder.
    """
    if not hasattr(target, "W_enc"):
        return np.full((len(interventions), target.n_latents), np.nan, dtype=np.float32)
    decoder = source.W_dec[[i.features[0] for i in interventions]].detach()
    product = (decoder @ target.W_enc.detach().to(decoder.dtype)).float().cpu().numpy()
    product[[i.kind != "latent" for i in interventions]] = 0.0
    return product


def scale_table(
    layer: int, target: int, interventions: tuple[Intervention, ...], m: Mapping[str, np.ndarray], weights: Weights
) -> pd.DataFrame:
    """Rows of `scales.parquet`: sums over the decoys that compete, whether a target answered them or not.

    See `circuits.specificity`; a decoy that acted in no cell is none.
    """
    table = pd.DataFrame({"kind": [i.kind for i in interventions], "draw": [i.draw for i in interventions]})
    chosen = competes(table) & (m["n_cells"] > 0)
    n_latents = m["total"].shape[1]
    norm = weights.push_norm[chosen, None]
    u = m["total"][chosen] / m["n_cells"][chosen, None] / norm
    c = weights.of_push[chosen] / norm
    return pd.DataFrame(
        {
            "source_layer": np.int16(layer),
            "target_layer": np.int16(target),
            "target_feature": np.arange(n_latents, dtype=np.int32),
            "n_decoys": np.int32(chosen.sum()),
            "sum_uu": (u**2).sum(axis=0),
            "sum_uc": (u * c).sum(axis=0),
            "sum_cc": (c**2).sum(axis=0),
        }
    )
