"""Consensus without labels: latents of two models matched by the genes they stand for, edges compared through it."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import rankdata

from scircuit.analysis.agreement import chance_of_sign
from scircuit.analysis.conditions import check_conditions
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.schema import ENDS, LATENT, SOURCE, TARGET
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.stats.resampling import cluster_bootstrap, permutation_p, ratio_interval

_BLOCK = 1024


@dataclass(frozen=True)
class Matching:
    """Latents of two models that stand for the same genes, or the latents of one that two runs share."""

    table: pd.DataFrame
    """One row per matched pair: `layer_a, feature_a, layer_b, feature_b, correlation, p_value, q_value`; the last three
    NaN where the dictionaries are the same, for then nothing is tested."""
    n_a: int
    n_b: int
    """Latents of each model that could be matched."""
    by_chance: float = np.nan
    """Matches at least as alike as the weakest of them, were no latent shared."""
    p_value: float = np.nan
    """Of no latent being shared at all (Simes over the mutual nearest neighbours)."""


def match_latents(a: Artefacts, b: Artefacts, min_genes: int = 5, max_q: float = 0.05) -> Matching:
    """Match the latents at the ends of edges of two conditions by their gene profiles.

    Runs of one model with the same dictionaries have the same latents: each is its own match, whatever its genes.

    A profile is the square root of the share of a latent's summed activation at each shared gene, less the mean over
    the latents of its model: abundant genes, which every latent sees, do not make latents alike. Latents are matched
    if each is the other's nearest by Pearson correlation and q < `max_q`.

    Latents that have nothing to do with each other are alike too: genes are abundant in both models and go together in
    both. How alike is seen within a model, whose latents of one layer are different latents: p is the share of them
    whose nearest neighbour in their own layer is at least as alike, times as many as the other model offers more
    latents to choose from. Shuffled genes would undo what genes share, and match what is only that.

    Latents that load on fewer than `min_genes` shared genes take no part. q is over the latents of `a`: fewer shared
    ones than some 1 / (2 `max_q`), ten at the default, cannot be told from chance.
    """
    if _same_dictionaries(a, b):
        return _themselves(a, b)
    loadings_a, loadings_b = _loadings(a), _loadings(b)
    genes = np.intersect1d(loadings_a["gene"].unique(), loadings_b["gene"].unique())
    if len(genes) < 20:
        raise ScircuitError(
            f"{a.name} and {b.name} share {len(genes)} genes; at least 20 are needed: check that both use symbols."
        )
    (x, latents_a), (y, latents_b) = (_profiles(c, genes, min_genes) for c in (a, b))
    best, partner, mutual = _nearest(x, y)
    strangers = [_strangers(x, latents_a[:, 0]), _strangers(y, latents_b[:, 0])]
    p_value = _chance(best[mutual], np.concatenate(strangers), len(y))
    q_value = benjamini_hochberg(p_value, len(x))
    pairs = np.concatenate([latents_a[mutual], latents_b[partner[mutual]]], axis=1)
    table = pd.DataFrame(pairs, columns=["layer_a", "feature_a", "layer_b", "feature_b"])
    table = table.assign(correlation=best[mutual], p_value=p_value, q_value=q_value)
    table = table[table["q_value"] < max_q].reset_index(drop=True)
    by_chance = len(x) * float(table["p_value"].max()) if len(table) else 0.0
    return Matching(table, len(x), len(y), by_chance, float(q_value.min(initial=1.0)))


def feature_consensus(
    a: Artefacts, b: Artefacts, matching: Matching | None = None, draws: int = 1000, seed: int = 0
) -> Result:
    """Edges of one model looked up in another through matched latents, by default those of `match_latents`.

    Nulls: of matches, as many as different latents of one model give at the same correlation (none where both runs have
    the same dictionaries); of the fold and the share, partner targets exchanged within layer pairs; of signs, from both
    shares of negative effects; of the rank correlation (Spearman), 0. What no edge can answer is NaN. Table: one row
    per testable edge of `a`, with d on both sides (NaN where not conserved).
    """
    check_conditions([a, b], 1 if a.model_name == b.model_name else 2)
    rng = np.random.default_rng(seed)
    matching = match_latents(a, b) if matching is None else matching
    n, smaller = len(matching.table), max(min(matching.n_a, matching.n_b), 1)
    null, p = matching.by_chance / smaller, matching.p_value
    measures = [Measure("matched_share", n / smaller, null=null, p_value=p, n=n, unit_of_n="latents")]
    table = _testable(a, b, matching.table)
    measures += _conserved(table, b, draws, rng) + _agreement(table[table["conserved"]], draws, rng)
    return QUESTION.answer(measures, table)


def _same_dictionaries(a: Artefacts, b: Artefacts) -> bool:
    recorded = [condition.provenance().get("saes") for condition in (a, b)]
    return recorded[0] is not None and recorded[0] == recorded[1]


def _themselves(a: Artefacts, b: Artefacts) -> Matching:
    """Every latent at an end of an edge of either, with itself."""
    latents = np.unique(np.concatenate([_ends(a), _ends(b)]), axis=0)
    table = pd.DataFrame(np.hstack([latents, latents]), columns=["layer_a", "feature_a", "layer_b", "feature_b"])
    return Matching(table.assign(correlation=np.nan, p_value=np.nan, q_value=np.nan), len(latents), len(latents))


def _ends(condition: Artefacts) -> np.ndarray:
    """The latents at the ends of edges, int64 `[latent, (layer, feature)]`, sorted."""
    edges = condition.circuit().edges
    return np.unique(np.concatenate([edges[names].to_numpy(np.int64) for names in (SOURCE, TARGET)]), axis=0)


def _loadings(condition: Artefacts) -> pd.DataFrame:
    if not condition.has("genes"):
        raise ScircuitError(
            f"{condition.name} has no gene loadings (features/genes.parquet); run `scircuit features` for it."
        )
    return condition.table("genes")


def _profiles(condition: Artefacts, genes: np.ndarray, min_genes: int) -> tuple[np.ndarray, np.ndarray]:
    """Centred unit profiles, float32 `[latent, gene]`, and `[latent, (layer, feature)]` of the ends of edges."""
    latents, loadings = _ends(condition), _loadings(condition)
    row = pd.MultiIndex.from_arrays(list(latents.T)).get_indexer(pd.MultiIndex.from_frame(loadings[LATENT]))
    column = pd.Index(genes).get_indexer(pd.Index(loadings["gene"]))
    mass = loadings["n_firings"].to_numpy(np.float64) * loadings["mean_activation"].to_numpy(np.float64)
    keep = (row >= 0) & (column >= 0) & (mass > 0)
    matrix = sparse.csr_array((mass[keep], (row[keep], column[keep])), shape=(len(latents), len(genes)))
    rich = np.flatnonzero(np.diff(matrix.indptr) >= min_genes)
    if len(rich) < 2:
        raise ScircuitError(
            f"fewer than two latents of {condition.name} load on {min_genes} shared genes; lower min_genes, or give "
            "the loadings of the run that made the edges."
        )
    dense = matrix[rich].toarray()
    dense = np.sqrt(dense / dense.sum(axis=1, keepdims=True))
    dense -= dense.mean(axis=0)
    dense -= dense.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(dense, axis=1, keepdims=True)
    return (dense / np.where(norm > 0, norm, 1.0)).astype(np.float32), latents[rich]


def _nearest(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best correlation of each row of x with y, the row of y, and whether the choice is mutual."""
    best, partner = np.empty(len(x), dtype=np.float32), np.empty(len(x), dtype=np.int64)
    back, back_of = np.full(len(y), -np.inf, dtype=np.float32), np.full(len(y), -1, dtype=np.int64)
    for start in range(0, len(x), _BLOCK):
        r = x[start : start + _BLOCK] @ y.T
        partner[start : start + len(r)] = r.argmax(axis=1)
        best[start : start + len(r)] = r.max(axis=1)
        highest, who = r.max(axis=0), r.argmax(axis=0) + start
        better = highest > back
        back[better], back_of[better] = highest[better], who[better]
    return best, partner, back_of[partner] == np.arange(len(x))


def _strangers(x: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Per latent the correlation with its nearest of its own layer, and how many there are; float64 `[latent, 2]`.

    Latents that are alone in their layer are left out.
    """
    found = []
    for mine in (np.flatnonzero(layer == number) for number in np.unique(layer)):
        for start in range(0, len(mine) if len(mine) > 1 else 0, _BLOCK):
            rows = mine[start : start + _BLOCK]
            r = x[rows] @ x[mine].T
            r[np.arange(len(rows)), start + np.arange(len(rows))] = -np.inf
            found.append(np.column_stack([r.max(axis=1), np.full(len(rows), len(mine) - 1)]))
    return np.concatenate(found) if found else np.zeros((0, 2))


def _chance(best: np.ndarray, pool: np.ndarray, n_candidates: int) -> np.ndarray:
    """p of each best correlation over `n_candidates` from those of `_strangers`, at most 1.

    The best of more candidates is higher, by at most their ratio in probability.
    """
    if not len(pool):
        return np.ones(len(best))
    pool = pool[np.argsort(pool[:, 0])]
    weight = np.maximum(n_candidates / pool[:, 1], 1.0)
    above = np.r_[np.cumsum(weight[::-1])[::-1], 0.0][np.searchsorted(pool[:, 0], best)]
    return np.minimum((weight.max() + above) / (len(pool) + 1), 1.0)


def _testable(a: Artefacts, b: Artefacts, matches: pd.DataFrame) -> pd.DataFrame:
    """Edges of a whose partner was tested in b, with `d_a`, `d_b`, `conserved`."""
    edges = a.circuit().edges[["source_layer", "source_feature", "target_layer", "target_feature", "cohens_d"]]
    edges = edges.rename(columns={"cohens_d": "d_a"})
    for end in ("source", "target"):
        partner = matches[["layer_a", "feature_a", "layer_b", "feature_b"]].set_axis(
            [f"{end}_layer", f"{end}_feature", f"{end}_layer_b", f"{end}_feature_b"], axis=1
        )
        edges = edges.merge(partner, on=[f"{end}_layer", f"{end}_feature"])
    tests = b.circuit().tests
    tested = tests.loc[tests["kind"] == "latent", ["source_layer", "source_feature", "target_layer"]].drop_duplicates()
    tested = tested.set_axis(["source_layer_b", "source_feature_b", "target_layer_b"], axis=1)
    edges = edges.merge(tested, on=list(tested.columns))
    ends = ENDS
    partners = b.circuit().edges[[*ends, "cohens_d"]].set_axis([*(f"{name}_b" for name in ends), "d_b"], axis=1)
    edges = edges.merge(partners, how="left", on=[f"{name}_b" for name in ends])
    return edges.assign(conserved=edges["d_b"].notna())


def _conserved(table: pd.DataFrame, b: Artefacts, draws: int, rng: np.random.Generator) -> list[Measure]:
    if table.empty:
        return [Measure("conserved_fold", np.nan, null=1.0), Measure("conserved_share", np.nan)]
    ends = ["source_layer_b", "source_feature_b", "target_layer_b", "target_feature_b"]
    stratum = table.groupby(["source_layer_b", "target_layer_b"]).ngroup().to_numpy()
    table = table.iloc[np.argsort(stratum, kind="stable")]
    bounds = np.r_[0, np.cumsum(np.bincount(stratum))]
    partners = b.circuit().edges[[name.removesuffix("_b") for name in ends]].to_numpy(np.int64)
    keys = table[ends].to_numpy(np.int64)
    width = np.maximum(partners.max(axis=0), keys.max(axis=0)) + 1
    known = np.unique(np.ravel_multi_index(tuple(partners.T), tuple(width)))
    source_key = np.ravel_multi_index((*keys[:, :3].T, np.zeros(len(keys), int)), tuple(width))
    target = keys[:, 3].copy()
    expected, drawn = np.zeros(len(keys)), np.empty(draws)
    for draw in range(draws):
        for begin, end in pairwise(bounds):
            rng.shuffle(target[begin:end])
        hit = np.isin(source_key + target, known)
        expected += hit
        drawn[draw] = hit.sum()
    expected /= max(draws, 1)
    source = pd.factorize(pd.MultiIndex.from_frame(table[SOURCE]))[0]
    own, null, n = (np.bincount(source, weights=w) for w in (table["conserved"], expected, np.ones(len(table))))
    p = permutation_p(float(own.sum()), drawn)
    return [
        Measure.of("conserved_fold", ratio_interval(own, null, rng), len(table), 1.0, p),
        Measure.of("conserved_share", ratio_interval(own, n, rng), len(table), float(expected.mean()), p),
    ]


def _agreement(edges: pd.DataFrame, draws: int, rng: np.random.Generator) -> list[Measure]:
    """Sign and rank of d on both sides of the conserved edges."""
    if len(edges) < 3:
        return [Measure("same_sign", np.nan), Measure("rank_correlation", np.nan, null=0.0, n=len(edges))]
    source = pd.factorize(pd.MultiIndex.from_frame(edges[SOURCE]))[0]
    d_a, d_b = edges["d_a"].to_numpy(np.float64), edges["d_b"].to_numpy(np.float64)
    same = (d_a < 0) == (d_b < 0)
    null_same = np.array([((d_a < 0) == (rng.permutation(d_b) < 0)).sum() for _ in range(draws)])
    ranks = np.stack([rankdata(d_a), rankdata(d_b)]) - (len(edges) + 1) / 2
    null_rank = np.array([ranks[0] @ rng.permutation(ranks[1]) for _ in range(draws)])
    parts = np.column_stack(
        [ranks[0] * ranks[1], ranks[0] ** 2, ranks[1] ** 2, ranks[0], ranks[1], np.ones(len(edges))]
    )
    sums = np.stack([np.bincount(source, weights=column) for column in parts.T], axis=1)
    n = np.bincount(source).astype(np.float64)
    return [
        Measure.of(
            "same_sign",
            ratio_interval(np.bincount(source, weights=same), n, rng),
            len(edges),
            chance_of_sign(edges["d_a"], edges["d_b"]),
            permutation_p(float(same.sum()), null_same),
        ),
        Measure.of(
            "rank_correlation",
            cluster_bootstrap(sums, _correlation, rng),
            len(edges),
            0.0,
            permutation_p(float(ranks[0] @ ranks[1]), null_rank),
        ),
    ]


def _correlation(totals: np.ndarray) -> np.ndarray:
    """Pearson r from sums of xy, xx, yy, x, y, 1."""
    xy, xx, yy, x, y, n = np.moveaxis(totals, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (n * xy - x * y) / np.sqrt((n * xx - x**2) * (n * yy - y**2))
    return np.where(np.isfinite(r), r, np.nan)


QUESTION = Question(
    asks="Do latents that stand for the same genes have the same edges?",
    title="Consensus without labels",
    function=feature_consensus,
    definition="feature_consensus/1",
    null_model="different latents of one layer (matches); partner targets exchanged within layer pairs (edges)",
    glossary="matched latents: mutual nearest neighbours by correlation of their gene profiles over the genes both "
    "models read, more alike than different latents of one model are. testable edge: both ends matched, and the "
    "partner source was traced into the partner target's layer; conserved: the partner edge exists.",
    marks="Every mark is an edge found in both models, d in one against d in the other; at most 3,000 are drawn.",
    words={
        "matched_share": "latents of the smaller side that are matched",
        "conserved_fold": "testable edges found in both, observed over expected",
        "conserved_share": "testable edges found in both",
        "same_sign": "of them with the same sign",
        "rank_correlation": "rank correlation of d over them",
    },
    of_runs=True,
)
