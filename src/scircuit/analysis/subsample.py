"""A trace, or the edges of a circuit, in fewer cells: from stored per-cell responses, nothing is run again."""

from dataclasses import replace

import numpy as np
import pandas as pd

from scircuit.analysis.agreement import CellEffects
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.build import build_circuit
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.rule import DEFAULT, EdgeRule
from scircuit.circuits.schema import ENDS, SOURCE
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


def in_fewer_cells(run: Artefacts, n_cells: int, seed: int = 0, rule: EdgeRule | None = None) -> Circuit:
    """The circuit of a run as if it had been traced in `n_cells` of its cells (`subsample`), under its rule or another.

    Scales of decoys were measured in all cells, so that no edge is told specific.
    """
    whole = run.circuit()
    if whole.provenance.get("config", {}).get("trace", {}).get("units"):
        raise ScircuitError(
            f"{run.root} was tested over whole donors or batches (trace.units), which a draw of cells would break; "
            "trace it again in fewer cells."
        )
    effects, tests, responses, source_cells = (
        run.table(name) for name in ("effects", "tests", "cell_effects", "source_cells")
    )
    effects, tests = subsample(effects, tests, responses, source_cells, n_cells, seed)
    was = whole.provenance.get("n_cells")
    provenance = whole.provenance | {"n_cells": n_cells, "subsampled_from": was, "subsample_seed": seed}
    built = build_circuit(effects, tests, whole.nodes, whole.terms, rule or run.rule() or DEFAULT, provenance)
    return built.at(built.provenance["grade"])


def _tests(tests: pd.DataFrame, found: pd.DataFrame, source_cells: pd.DataFrame, drawn: np.ndarray) -> pd.DataFrame:
    own = tests[tests["kind"] == "latent"].copy()
    source = SOURCE
    fired = source_cells[source_cells["cell"].isin(drawn)].groupby(source).size()
    own["n_cells"] = fired.reindex(pd.MultiIndex.from_frame(own[source])).fillna(0).to_numpy()
    retained = found.groupby([*source, "target_layer"]).size()
    key = pd.MultiIndex.from_frame(own[[*source, "target_layer"]])
    own["n_retained"] = retained.reindex(key).fillna(0).to_numpy()
    return own.astype({"n_cells": tests["n_cells"].dtype, "n_retained": tests["n_retained"].dtype})


def at_equal_cells(
    circuit: Circuit, effects: pd.DataFrame, source_cells: pd.DataFrame, n: int, rng: np.random.Generator
) -> Circuit:
    """The circuit with d of every edge taken over `n` cells, drawn at random from those in which its source fires.

    The error of d, and with it the mean of |d|, depends on the number of cells: circuits are comparable where it is the
    same. Edges of sources that fire in fewer cells, or without kept responses, are left out.
    """
    if n < 2:
        raise ScircuitError(f"d over {n} cells is not defined; choose at least 2.")
    source, cell = SOURCE, [*SOURCE, "cell"]
    shuffled = source_cells[cell].iloc[rng.permutation(len(source_cells))]
    chosen = shuffled[shuffled.groupby(source).cumcount() < n]
    enough = chosen.groupby(source).size().loc[lambda size: size == n].index
    seen = effects.merge(chosen, on=cell)
    delta = seen["delta"].astype(np.float64)
    sums = seen[ENDS].assign(total=delta, square=delta**2).groupby(ENDS)[["total", "square"]].sum()
    kept = pd.MultiIndex.from_frame(effects[ENDS].drop_duplicates())
    edges = circuit.edges
    ends = pd.MultiIndex.from_frame(edges[ENDS])
    usable = pd.MultiIndex.from_frame(edges[source]).isin(enough) & ends.isin(kept)
    # Edges whose responses all lie in other cells do nothing in these: a d of 0.
    total, square = sums.reindex(ends[usable]).fillna(0.0).to_numpy().T
    sd = np.sqrt(np.maximum(square - total**2 / n, 0) / (n - 1))
    d = np.divide(total / n, sd, out=np.zeros(len(sd)), where=sd > 0)
    constant = (sd == 0) & (total != 0)
    d[constant] = np.copysign(np.inf, total[constant])
    return replace(circuit, edges=edges[usable].assign(cohens_d=d, n_cells=np.int32(n)))
