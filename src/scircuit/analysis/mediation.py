"""Mediation: which latents between source and target carry an edge, by holding them at their clean value."""

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import NodeIndex, need_columns
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.analysis.strata import node_strata
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS, SOURCE, TARGET
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.stats.resampling import Interval, bootstrap_draws, clustered_mean, percentile_interval, ratio, t_p
from scircuit.stats.signflip import signflip_p

MEDIATOR = ["mediator_layer", "mediator_feature"]
COLUMNS = [*ENDS, *MEDIATOR, "kind", "cell", "delta", "delta_held"]
KINDS = ("mediator", "random", "joint")


def candidate_mediators(circuit: Circuit, edges: pd.DataFrame, top: int = 10, seed: int = 0) -> pd.DataFrame:
    """The latents worth holding for some edges: what a tracer needs to measure `mediation`.

    Candidates m of an edge s -> t are those with edges s -> m and m -> t; the `top` of them by |d(s -> m) d(m -> t)|
    are taken. Every one gets a random latent of its layer and firing-rate decile that is no candidate, so that the
    strongest of the ones stands against the strongest of as many others.

    Returns the ends with `mediator_layer, mediator_feature, kind` (`mediator` or `random`) and `score` (NaN for
    random). Edges without a candidate do not appear.
    """
    rng = np.random.default_rng(seed)
    known = circuit.edges[[*ENDS, "cohens_d"]]
    first = edges[ENDS].merge(
        known.rename(columns=dict(zip(TARGET, MEDIATOR, strict=True)) | {"cohens_d": "d_in"}), on=SOURCE
    )
    paths = first.merge(
        known.rename(columns=dict(zip(SOURCE, MEDIATOR, strict=True)) | {"cohens_d": "d_out"}),
        on=[*MEDIATOR, *TARGET],
    )
    paths = paths.assign(score=(paths["d_in"] * paths["d_out"]).abs(), kind="mediator")
    paths = paths.sort_values([*ENDS, "score"], ascending=[True] * 4 + [False], kind="stable")
    chosen = paths[paths.groupby(ENDS).cumcount() < top]
    table = pd.concat([chosen, *_random_mediators(circuit, paths, chosen, rng)], ignore_index=True)
    return table[[*ENDS, *MEDIATOR, "kind", "score"]].sort_values([*ENDS, "kind"], ignore_index=True)


def _random_mediators(
    circuit: Circuit, paths: pd.DataFrame, chosen: pd.DataFrame, rng: np.random.Generator, attempts: int = 20
) -> list[pd.DataFrame]:
    """A latent alike in layer and firing rate for every chosen mediator; none where a stratum holds no other."""
    index, strata = NodeIndex.of(circuit.nodes), node_strata(circuit.nodes)
    layer, feature = (circuit.nodes[name].to_numpy() for name in ("layer", "feature"))
    taken = pd.MultiIndex.from_frame(paths[[*ENDS, *MEDIATOR]])
    waiting = chosen[strata.code[index.rows(*(chosen[name] for name in MEDIATOR))] >= 0]
    found = []
    for _ in range(attempts):
        own = index.rows(*(waiting[name] for name in MEDIATOR))
        drawn = strata.draw(own, own.shape, rng)
        table = waiting.drop(columns="score").assign(
            mediator_layer=layer[drawn], mediator_feature=feature[drawn], kind="random"
        )
        keys = pd.MultiIndex.from_frame(table[[*ENDS, *MEDIATOR]])
        free = ~(keys.isin(taken) | keys.duplicated())
        found.append(table[free])
        taken, waiting = taken.append(keys[free]), waiting[~free]
    return [table for table in found if len(table)]


def mediation(effects: pd.DataFrame, draws: int = 2000, seed: int = 0) -> Result:
    """Share of each edge's response that vanishes when a mediator is held at its clean value.

    Share carried = sum over cells of (delta - delta_held) / sum of delta, `delta` being the response of the target to
    the ablation of the source, `delta_held` the same with the mediator's clean activation put back; one row per cell in
    which the source fires. Kind `joint` holds all mediators of the edge at once; its mediator columns are -1.

    Nulls: random latents, the strongest of an edge beside its strongest mediator. p and intervals are by t over
    sources, whose edges have their mediators in common; of a single source there are none. Table: one row per (edge,
    mediator): `kind, share, low, high, p_value, q_value, n_cells`, the interval over cells (p: sign-flips over cells of
    delta - delta_held; q within kinds).
    """
    _check(effects)
    rng = np.random.default_rng(seed)
    rows = []
    for key, cells in effects.groupby([*ENDS, *MEDIATOR, "kind"], observed=True):
        carried = (cells["delta"] - cells["delta_held"]).to_numpy(np.float64)
        sums = np.column_stack([carried, cells["delta"].to_numpy(np.float64)])
        share = float(ratio(sums.sum(axis=0)))
        interval = percentile_interval(share, bootstrap_draws(sums, ratio, rng, draws), 0.95, len(sums))
        p = float(signflip_p(carried[None], rng)[0])
        rows.append((*key, share, interval.low, interval.high, p, len(cells)))
    table = pd.DataFrame(rows, columns=[*ENDS, *MEDIATOR, "kind", "share", "low", "high", "p_value", "n_cells"])
    table["q_value"] = np.nan
    for kind in KINDS:
        of_kind = table["kind"] == kind
        table.loc[of_kind, "q_value"] = benjamini_hochberg(table.loc[of_kind, "p_value"].to_numpy())
    return QUESTION.answer(
        _measures(table),
        table.sort_values([*ENDS, "kind", "share"], ascending=[True] * 5 + [False], ignore_index=True),
    )


def _check(effects: pd.DataFrame) -> None:
    need_columns("mediation table", effects, COLUMNS)
    unknown = sorted(set(effects["kind"]) - set(KINDS))
    if unknown:
        raise ScircuitError(f"the mediation table holds kind {unknown[0]!r}; allowed are {', '.join(KINDS)}.")
    if not (effects["kind"] == "mediator").any():
        raise ScircuitError("the mediation table holds no row of kind mediator; trace candidate_mediators.")


def _measures(table: pd.DataFrame) -> list[Measure]:
    # An edge without any response in these cells has no share to give.
    known = table.dropna(subset=["share"])
    if not (known["kind"] == "mediator").any():
        raise ScircuitError("no edge has a response in these cells, so no share is defined; take more cells.")
    shares = {kind: rows.set_index(ENDS)["share"] for kind, rows in known.groupby("kind", observed=True)}
    best = shares["mediator"].groupby(ENDS).max()
    random_best, random_mean, p = np.nan, np.nan, np.nan
    if "random" in shares:
        drawn = shares["random"].groupby(ENDS).max()
        both = best.to_frame("own").join(drawn.rename("random"), how="inner")
        random_best, random_mean = float(both["random"].mean()), float(shares["random"].mean())
        p = t_p(_over_sources(both["own"] - both["random"]), 0.0) if len(both) else np.nan
    n = len(best)
    measures = [
        Measure.of("share_carried", _over_sources(best), n, random_best, p),
        Measure.of("mean_share_carried", _over_sources(shares["mediator"]), n, random_mean),
    ]
    if "joint" in shares:
        joint = shares["joint"]
        measures.append(Measure.of("joint_share_carried", _over_sources(joint), len(joint), 0.0))
    return measures


def _over_sources(of_edges: pd.Series) -> Interval:
    """Mean of values of edges, which index them, with its interval by t over their sources."""
    source = pd.MultiIndex.from_frame(of_edges.index.to_frame()[SOURCE])
    return clustered_mean(of_edges, pd.factorize(source)[0])


QUESTION = Question(
    asks="Which latents carry an edge?",
    title="Mediation",
    function=mediation,
    definition="mediation/3",
    null_model="as many random latents of the mediators' layers and firing rates, held in the same way",
    terms=("mediator", "response"),
    needs=("mediation",),
    marks="Cumulative share of (edge, latent held at its clean value) pairs.",
    words={
        "share_carried": "share of the response carried by an edge's strongest mediator",
        "mean_share_carried": "mean share of the response carried by a mediator",
        "joint_share_carried": "share carried by all mediators together",
    },
)
