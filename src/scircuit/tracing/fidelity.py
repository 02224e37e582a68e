"""How far the local engine is from the exact one, measured on a random sample of sources and cells."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from scircuit._progress import progress
from scircuit.errors import ScircuitError
from scircuit.stats.signflip import screen_p
from scircuit.tracing.engines.clean import clean_batch, make_jobs
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.moments import Moments
from scircuit.tracing.settings import CONTEXT_LADDER, TraceSettings
from scircuit.tracing.setup import Setup
from scircuit.tracing.units import respond

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fidelity:
    """Agreement of the local engine with the exact one."""

    context_rows: float
    """Context rows per firing position at which it was measured."""
    table: pd.DataFrame
    """One row per layer distance: `distance, n_tests`, `r` and `slope` of local on exact d, `sign` (share of tests with
    the same sign of d), `rmse` of d, `precision` and `recall` of edges (by |d|, consistency and the screening p on the
    checked cells)."""
    passed: bool
    """Whether r and sign reach their floors at every distance."""

    def to_json(self) -> dict[str, Any]:
        """For `trace.json`; numbers that are not defined (no edge to recall) are null."""
        return {"context_rows": self.context_rows, "passed": self.passed, "table": plain(self.table)}


def choose_context(setup: Setup) -> Fidelity:
    """The least context that meets the floors, or the best tried."""
    sample, settings = check_sample(setup), setup.settings
    ladder = CONTEXT_LADDER if settings.context_rows is None else (settings.context_rows,)
    exact = sample_moments(sample.by("exact"))
    best: Fidelity | None = None
    for context in ladder:
        local = sample_moments(sample.by("local", context))
        found = _agreement(exact, local, context, settings)
        log.info("context %g: lowest r %.4f, sign %.4f", context, found.table["r"].min(), found.table["sign"].min())
        if best is None or found.table["r"].min() > best.table["r"].min():
            best = found
        if found.passed:
            return found
    assert best is not None
    if not settings.accept_approximation:
        r, sign = best.table["r"], best.table["sign"]
        raise ScircuitError(
            f"The local engine agrees with the exact one only to r = {r.min():.4f} and sign = {sign.min():.4f} (lowest "
            f"over distances, {best.context_rows:g} context rows), below the floors {settings.min_r:g} and "
            f"{settings.min_sign:g}; use engine='exact', or --accept-approximation "
            "(trace.accept_approximation) to go on."
        )
    return best


def check_sample(setup: Setup) -> Setup:
    """The ablations of a seeded sample of sources per layer in one of cells: what is compared by different means."""
    settings, cells = setup.settings, setup.cells
    rng = np.random.default_rng([settings.seed, 4])
    rows = np.sort(rng.choice(len(cells), min(settings.check_cells, len(cells)), replace=False))
    sample = {
        layer: np.sort(rng.choice(features, min(settings.check_sources, len(features)), replace=False)).tolist()
        for layer, features in setup.sources.items()
    }
    todo = {layer: [Intervention((f,)) for f in features] for layer, features in sample.items()}
    return replace(setup, cells=cells.subset(rows), sources=sample, todo=todo, groupings=())


def sample_moments(setup: Setup) -> dict[tuple[int, int], Moments]:
    """Moments of a sample, per (source layer, target layer)."""
    saes = setup.saes
    out: dict[tuple[int, int], Moments] = {}
    for layer, todo in setup.todo.items():
        sums = {t: Moments.zeros(len(todo), saes[t].n_latents, torch.device("cpu")) for t in setup.targets[layer]}
        for batch in progress(setup.cells.batches(1), desc=f"check (layer {layer})", unit="cell", leave=False):
            clean = clean_batch(setup.model, saes[layer], batch, layer, setup.settings.special_tokens)
            jobs = make_jobs(clean, saes[layer], todo)
            row_of = np.array([job.row for job in jobs], dtype=np.int64)
            if jobs:
                for r in respond(setup, clean, jobs):
                    sums[r.layer].add(row_of[r.job], r.delta, r.clean)
        out |= {(layer, t): m for t, m in sums.items()}
    return out


def _agreement(
    exact: Mapping[tuple[int, int], Moments],
    local: Mapping[tuple[int, int], Moments],
    context: float,
    settings: TraceSettings,
) -> Fidelity:
    table = compare(exact, local, settings)
    few = table[(table["n_tests"] < 10) | table["r"].isna()]
    if len(few):
        raise ScircuitError(
            f"The fidelity check found {few['n_tests'].iloc[0]} tests at distance {few['distance'].iloc[0]}, too few "
            "to compare the engines; raise check_sources or check_cells, or use engine='exact'."
        )
    passed = bool((table["r"] >= settings.min_r).all() and (table["sign"] >= settings.min_sign).all())
    return Fidelity(context, table, passed)


def compare(
    exact: Mapping[tuple[int, int], Moments], other: Mapping[tuple[int, int], Moments], settings: TraceSettings
) -> pd.DataFrame:
    """Agreement of two measurements of the same effects per layer distance: the columns of `Fidelity.table`.

    NaN where a number is not defined: r and slope of effects that do not vary, precision and recall without edges.
    """
    rows = []
    for distance in sorted({t - s for s, t in exact}):
        pairs = [key for key in exact if key[1] - key[0] == distance]
        d0, edge0, use = _effects([exact[p] for p in pairs], settings)
        d1, edge1, also = _effects([other[p] for p in pairs], settings)
        use &= also
        a, b = d0[use], d1[use]
        varies = len(a) > 1 and a.std() > 0 and b.std() > 0
        both = int((edge0 & edge1).sum())
        rows.append(
            {
                "distance": distance,
                "n_tests": len(a),
                "r": float(np.corrcoef(a, b)[0, 1]) if varies else np.nan,
                "slope": float(np.cov(a, b)[0, 1] / a.var(ddof=1)) if varies else np.nan,
                "sign": float((np.sign(a) == np.sign(b)).mean()) if len(a) else np.nan,
                "rmse": float(np.sqrt(np.mean((a - b) ** 2))) if len(a) else np.nan,
                "precision": both / edge1.sum() if edge1.any() else np.nan,
                "recall": both / edge0.sum() if edge0.any() else np.nan,
            }
        )
    return pd.DataFrame(rows)


def plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table for JSON: one dict per row, null where a number is not defined."""
    records = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in records]


def _effects(moments: Sequence[Moments], settings: TraceSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """d, whether it is an edge, and whether d means anything (half of the cells respond, at least 4), flat."""
    # The few cells of the check allow no q: the screening p stands for it, and for the count of responding cells.
    untested = replace(settings.rule, max_q=None, min_nonzero=0)
    parts = []
    for moment in moments:
        m = moment.arrays()
        n = m["n_cells"][:, None].astype(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = m["total"] / n
            sd = np.sqrt(np.maximum(m["total_sq"] - m["total"] ** 2 / n, 0.0) / (n - 1))
            d = mean / sd
        use = np.isfinite(d) & (m["n_nonzero"] >= np.maximum(4, n / 2))
        p = screen_p(m["n_nonzero"], m["total"], m["total_sq"])
        tests = {
            "cohens_d": d,
            "n_cells": np.broadcast_to(n, d.shape),
            "n_nonzero": m["n_nonzero"],
            "n_pos": m["n_pos"],
            "n_neg": m["n_nonzero"] - m["n_pos"],
        }
        edge = use & untested.passes(tests) & (p <= settings.retention)
        parts.append((d.ravel(), edge.ravel(), use.ravel()))
    d, edge, use = (np.concatenate(x) for x in zip(*parts, strict=True))
    return d, edge, use
