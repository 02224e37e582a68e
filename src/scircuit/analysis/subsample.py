"""A trace as it would have been in fewer cells, from its stored per-cell responses; nothing is run again."""

import numpy as np
import pandas as pd

from scircuit.analysis.agreement import CellEffects
from scircuit.circuits.schema import ENDS
from scircuit.errors import ScircuitError


def subsample(
    effects: pd.DataFrame,
    tests: pd.DataFrame,
    cell_effects: pd.DataFrame,
    source_cells: pd.DataFrame,
    n_cells: int,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`effects` and `tests` of a random subset of the traced cells.

    Moments over the drawn cells are exact; p is the t form of the sign-flip test. Only tests that the whole trace
    retained can be recomputed: one that only the subset would have retained is missing, which costs no edge unless it
    passes the rule in the subset but has p above the retention level in all cells. The family of tests stays that of
    the whole trace, so q is never too small. Random directions keep no per-cell responses and are left out.

    Parameters
    ----------
    effects, tests, cell_effects, source_cells : DataFrame
        Of `trace/`.
    n_cells : int
        Cells to draw, without replacement.
    seed : int

    Raises
    ------
    ScircuitError
        More cells are asked for than were traced, or fewer than two.
    """
    data = CellEffects(cell_effects, source_cells)
    if not 2 <= n_cells <= len(data.cells):
        raise ScircuitError(
            f"{n_cells} cells cannot be drawn from a trace of {len(data.cells)}; choose 2 to {len(data.cells)}."
        )
    weight = np.zeros(len(data.cells), dtype=np.int64)
    weight[np.random.default_rng(seed).choice(len(data.cells), n_cells, replace=False)] = 1
    moments = data.moments(weight)
    kept = (moments["n_nonzero"] > 0).to_numpy()
    found = pd.concat([data.tests, moments], axis=1)[kept].astype({name: effects[name].dtype for name in ENDS})
    old = effects[effects["kind"] == "latent"]
    found = found.merge(old[[*ENDS, "clean_mean", "clean_sd", "weight_effect"]], on=ENDS)
    n, mean = found["n_cells"].to_numpy(np.float64), found["mean_delta"].to_numpy(np.float64)
    d = found["cohens_d"].to_numpy(np.float64)
    found = found.assign(
        sd_delta=np.divide(mean, d, out=np.zeros(len(d)), where=d != 0),
        consistency=found[["n_pos", "n_neg"]].max(axis=1) / found["n_nonzero"],
        kind="latent",
        draw=0,
    )
    found = found[n > 1].reset_index(drop=True)
    return found, _tests(tests, found, source_cells, data.cells[weight > 0])


def _tests(tests: pd.DataFrame, found: pd.DataFrame, source_cells: pd.DataFrame, drawn: np.ndarray) -> pd.DataFrame:
    own = tests[tests["kind"] == "latent"].copy()
    source = ["source_layer", "source_feature"]
    fired = source_cells[source_cells["cell"].isin(drawn)].groupby(source).size()
    own["n_cells"] = fired.reindex(pd.MultiIndex.from_frame(own[source])).fillna(0).to_numpy()
    retained = found.groupby([*source, "target_layer"]).size()
    key = pd.MultiIndex.from_frame(own[[*source, "target_layer"]])
    own["n_retained"] = retained.reindex(key).fillna(0).to_numpy()
    return own.astype({"n_cells": tests["n_cells"].dtype, "n_retained": tests["n_retained"].dtype})
