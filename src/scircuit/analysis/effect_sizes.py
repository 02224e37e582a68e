"""Effect sizes: how large the responses are, uncapped, in three units."""

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import NodeIndex, need_edges, sizes
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import LAYER_PAIR
from scircuit.stats.resampling import clustered_ratio

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def effect_sizes(circuit: Circuit) -> Result:
    """Distribution of the responses over all edges, per layer pair.

    Units: |d|; the target's clean standard deviation over cells (|mean_delta| / clean_sd); the share of the target's
    clean activation that is lost (-mean_delta / clean_mean, supporting edges only). The null of each is the edges of
    random directions; intervals are by t over sources. Table: one row per (layer pair, unit): `n, mean, q05 .. q95,
    max, n_random, random_mean`.
    """
    need_edges(circuit)
    units, random = effect_units(circuit.edges), effect_units(circuit.controls)
    source = NodeIndex.of(circuit.nodes).sources(circuit.edges)
    measures = []
    for (name, values), null in zip(_quantities(units).items(), _quantities(random).values(), strict=True):
        known = np.isfinite(values)
        parts = np.bincount(source, weights=np.where(known, values, 0.0))
        interval = clustered_ratio(parts, np.bincount(source, weights=known))
        known_null = null[np.isfinite(null)]
        measures.append(Measure.of(name, interval, int(known.sum()), known_null.mean() if len(known_null) else np.nan))
    return QUESTION.answer(measures, _quantile_table(circuit, units, random))


def effect_units(edges: pd.DataFrame) -> pd.DataFrame:
    """Each edge's `abs_d`, `in_clean_sd` and `share_lost`; NaN where a unit is not defined."""
    response = edges["mean_delta"].to_numpy(np.float64)
    sd, mean = edges["clean_sd"].to_numpy(np.float64), edges["clean_mean"].to_numpy(np.float64)
    falls = (response < 0) & (mean > 0)
    return pd.DataFrame(
        {
            "abs_d": sizes(edges),
            "in_clean_sd": np.abs(response) / np.where(sd > 0, sd, np.nan),
            "share_lost": -response / np.where(falls, mean, np.nan),
        }
    )


def _quantities(units: pd.DataFrame) -> dict[str, np.ndarray]:
    """What is averaged over edges, float64 `[edge]` each; NaN where it is not defined."""
    size = units["abs_d"].to_numpy()
    return {
        "mean_abs_d": size,
        "share_abs_d_above_1": np.where(np.isfinite(size), size > 1, np.nan),
        "share_abs_d_above_2": np.where(np.isfinite(size), size > 2, np.nan),
        "mean_in_clean_sd": units["in_clean_sd"].to_numpy(),
        "mean_share_lost": units["share_lost"].to_numpy(),
    }


def _quantile_table(circuit: Circuit, units: pd.DataFrame, random: pd.DataFrame) -> pd.DataFrame:
    rows = []
    own, chance = _by_pair(circuit.edges, units), _by_pair(circuit.controls, random)
    for (pair, unit), known in own.items():
        quantiles = dict(zip(QUANTILES, np.quantile(known, QUANTILES), strict=True))
        aside = chance.get((pair, unit), np.empty(0))
        rows.append(
            dict(zip(LAYER_PAIR, divmod(pair, 1 << 10), strict=True))
            | {"unit": unit, "n": known.size, "mean": known.mean()}
            | {f"q{100 * q:02.0f}": value for q, value in quantiles.items()}
            | {"max": known.max(), "n_random": aside.size, "random_mean": aside.mean() if aside.size else np.nan}
        )
    return pd.DataFrame(rows)


def _by_pair(edges: pd.DataFrame, units: pd.DataFrame) -> dict[tuple[int, str], np.ndarray]:
    """The defined values of each unit by layer pair, unit by unit."""
    pair = edges["source_layer"].to_numpy(np.int64) << 10 | edges["target_layer"].to_numpy(np.int64)
    order = np.argsort(pair, kind="stable")
    cells, start = np.unique(pair[order], return_index=True)
    found = {}
    for unit in map(str, units):
        values = units[unit].to_numpy()[order]
        for cell, block in zip(cells.tolist(), np.split(values, start[1:]), strict=False):
            known = block[np.isfinite(block)]
            if known.size:
                found[cell, unit] = known
    return found


QUESTION = Question(
    asks="How large are the effects?",
    title="Effect sizes",
    function=effect_sizes,
    definition="effect-sizes/3",
    null_model="the edges of norm-matched random directions",
    terms=("d", "chosen", "response", "random direction"),
    marks="Share of edges with at least this |d|, on a logarithmic scale; nothing is cut off at the top. Upright line: "
    "the threshold that made a test an edge.",
    words={
        "mean_abs_d": "mean |d|",
        "share_abs_d_above_1": "edges with |d| above 1",
        "share_abs_d_above_2": "edges with |d| above 2",
        "mean_in_clean_sd": "mean |change| in clean standard deviations of the target",
        "mean_share_lost": "mean share of the target's clean activation lost (supporting edges)",
    },
    edge_columns=("mean_delta", "cohens_d", "clean_mean", "clean_sd"),
)
