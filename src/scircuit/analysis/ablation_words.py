"""Ablation as a factor: what the same edges are when a latent is set to its mean, its optimum, another cell's value."""

import numpy as np
import pandas as pd

from scircuit.analysis.agreement import chance_of_sign
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.rule import DEFAULT, EdgeRule
from scircuit.circuits.schema import ENDS, SOURCE
from scircuit.circuits.specificity import n_made
from scircuit.errors import ScircuitError
from scircuit.stats.resampling import ratio_interval

WORDS = ("mean", "optimal", "resample", "set", "scale")
"""Kinds of intervention that take a latent away by another measure than zero."""


def ablation_words(
    effects: pd.DataFrame, tests: pd.DataFrame, rule: EdgeRule = DEFAULT, draws: int = 2000, seed: int = 0
) -> Result:
    """Reproducible edges by ablation to zero, beside those by every other word that the trace was asked for.

    Per word (and dose): `kept_WORD`, share of the edges that it calls too (null: edge sets of that size drawn at random
    from its tests); `r_WORD` of d and `sign_WORD` over edges that the trace kept under both. Intervals resample
    sources. Table: one row per (word, dose): `n_edges, kept, r, slope` (of its d on that of zero), `sign`.
    """
    zero = _called(effects, tests, "latent", rule)
    if not zero["edge"].any():
        raise ScircuitError("no edge is reproducible by ablation to zero, so there is none to hold to other words.")
    asked = tests.loc[tests["kind"].isin(WORDS), ["kind", "draw"]].drop_duplicates()
    if asked.empty:
        raise ScircuitError(
            "latents were ablated to zero alone; trace with trace.interventions = ['mean', 'optimal', 'resample']."
        )
    edges, rng, measures, rows = zero[zero["edge"]], np.random.default_rng(seed), [], []
    for kind, draw in asked.sort_values(["kind", "draw"]).itertuples(index=False):
        other = _called(effects, tests, kind, rule, draw)
        both = edges.merge(other, on=ENDS, how="left", suffixes=("", "_other"))
        kept = both["edge_other"].fillna(False).astype(bool)
        of_source = both.assign(kept=kept).groupby(SOURCE)["kept"].agg(["sum", "size"])
        made = int(tests.loc[(tests["kind"] == kind) & (tests["draw"] == draw), "n_tests"].sum())
        n, name = len(both), kind if (asked["kind"] == kind).sum() == 1 else f"{kind}_{draw}"
        chance = float(other["edge"].sum()) / made if made else np.nan
        share = ratio_interval(of_source["sum"], of_source["size"], rng, draws)
        measures.append(Measure.of(f"kept_{name}", share, n, chance))
        x, y = (both[c].to_numpy(np.float64) for c in ("cohens_d", "cohens_d_other"))
        known = np.isfinite(x) & np.isfinite(y)
        r = float(np.corrcoef(x[known], y[known])[0, 1]) if known.sum() > 2 else np.nan
        sign = float((np.sign(x) == np.sign(y))[known].mean()) if known.any() else np.nan
        by_chance = chance_of_sign(both["cohens_d"][known], both["cohens_d_other"][known]) if known.any() else np.nan
        measures.append(Measure(f"r_{name}", r, null=0.0, n=int(known.sum())))
        measures.append(Measure(f"sign_{name}", sign, null=by_chance, n=int(known.sum())))
        slope = float(x[known] @ y[known] / (x[known] @ x[known])) if known.any() else np.nan
        facts = {"n_edges": int(other["edge"].sum()), "kept": share.estimate, "r": r, "slope": slope, "sign": sign}
        rows.append({"word": kind, "draw": draw, **facts})
    return QUESTION.answer(measures, pd.DataFrame(rows))


def _called(effects: pd.DataFrame, tests: pd.DataFrame, kind: str, rule: EdgeRule, draw: int = 0) -> pd.DataFrame:
    """Ends, d and whether it is an edge, of the kept tests of one word, corrected as a family of its own."""
    rows = effects[(effects["kind"] == kind) & (effects["draw"] == draw)]
    mine = tests[(tests["kind"] == kind) & (tests["draw"] == draw)]
    edge = rule.passes(rows, n_tests=n_made(mine, kind))
    return rows[[*ENDS, "cohens_d"]].assign(edge=edge)


QUESTION = Question(
    asks="Are they the same edges when a latent is set to its mean, its optimum or another cell's value?",
    title="Ablation as a factor",
    function=ablation_words,
    definition="ablation-words/1",
    null_model="edge sets of the same size drawn at random from the tests of the word; effects drawn independently",
    terms=("d",),
    glossary="optimal: the mean activation where the latent fires, the constant that changes the residual least.",
    needs=("effects", "tests"),
    by_itself=False,
    figure="measures",
)
