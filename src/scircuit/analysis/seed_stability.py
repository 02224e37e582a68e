"""Stability over dictionaries: whether the edges of one SAE seed are found with another."""

from pathlib import Path

import numpy as np
import pandas as pd

from scircuit._io import read_json, within
from scircuit.analysis.agreement import Agreement, agreement, chance_of_sign
from scircuit.analysis.nodes import NodeIndex, need_columns, need_edges, traced_sources
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS, TARGET
from scircuit.errors import ScircuitError
from scircuit.stats.resampling import permutation_p

_CHUNK = 1 << 11
COLUMNS = ["layer", "feature_first", "feature_second", "similarity"]


def seed_stability(
    first: Circuit,
    second: Circuit,
    matches: pd.DataFrame,
    min_similarity: float = 0.7,
    draws: int = 200,
    seed: int = 0,
) -> Result:
    """Edges of two circuits whose dictionaries were trained from different seeds.

    Compared are the edges whose ends both have a partner in the other dictionary and whose source both runs traced. A
    latent's partner is its best one of `matches` (`match_dictionaries`), one to one, at `min_similarity` or above.

    Measures `jaccard`, `r` of d and `sign` agreement over edges found in both (null: partners of the targets permuted
    within each layer), `matched_latents` (null: latents as alike to another of their own dictionary) and
    `comparable_edges` (shares). Table: one row per edge of either, in the first's numbering: `d_first, d_second` (NaN
    where it is no edge).
    """
    need_edges(first)
    need_columns("match table", matches, COLUMNS)
    rng = np.random.default_rng(seed)
    partner = one_to_one(matches, min_similarity)
    own = _comparable(first.edges, partner, "feature_first", traced_sources(second), "feature_second")
    other = _comparable(second.edges, partner, "feature_second", traced_sources(first), "feature_first")
    if own.empty and other.empty:
        raise ScircuitError(
            f"no edge of either circuit has matched ends at similarity {min_similarity}; "
            "lower min_similarity or trace the matched sources in both."
        )
    index = NodeIndex.of(first.nodes)
    jaccard = _compare(own, other, index).jaccard
    permuted = [_compare(own, _permuted(other, partner, rng), index) for _ in range(draws)]
    null = np.array([p.jaccard for p in permuted])
    table = own.merge(other, on=ENDS, how="outer", suffixes=("_first", "_second")).rename(
        columns={"cohens_d_first": "d_first", "cohens_d_second": "d_second"}
    )
    both = table.replace([np.inf, -np.inf], np.nan).dropna()
    r = float(np.corrcoef(both["d_first"], both["d_second"])[0, 1]) if len(both) > 2 else np.nan
    sign = float((np.sign(both["d_first"]) == np.sign(both["d_second"])).mean()) if len(both) else np.nan
    n, of_first = len(both), len(first.nodes)
    strangers = _strangers(matches, min_similarity)
    measures = [
        Measure("jaccard", jaccard, null=float(null.mean()), n=len(table), p_value=permutation_p(jaccard, null)),
        Measure("r", r, null=0.0, n=n),
        Measure("sign", sign, null=chance_of_sign(own["cohens_d"], other["cohens_d"]), n=n),
        Measure("matched_latents", len(partner) / of_first, null=strangers, n=of_first, unit_of_n="latents"),
        Measure("comparable_edges", len(own) / len(first.edges), n=len(first.edges)),
    ]
    return QUESTION.answer(measures, table)


def one_to_one(matches: pd.DataFrame, min_similarity: float) -> pd.DataFrame:
    """Each latent with its best partner of the other dictionary, at `min_similarity` or above."""
    good = matches.loc[matches["similarity"] >= min_similarity]
    good = good.sort_values("similarity", ascending=False, kind="stable")
    good = good.drop_duplicates(["layer", "feature_first"])
    return good.drop_duplicates(["layer", "feature_second"])[COLUMNS]


def _strangers(matches: pd.DataFrame, min_similarity: float) -> float:
    """Share of latents as alike to another latent of their own dictionary as partners must be; NaN where not known."""
    return float((matches["similarity_own"] >= min_similarity).mean()) if "similarity_own" in matches else np.nan


def _comparable(edges: pd.DataFrame, partner: pd.DataFrame, own: str, traced: pd.DataFrame, other: str) -> pd.DataFrame:
    """Edges with matched ends whose source the other run traced, in the first dictionary's numbering."""
    source = partner.merge(
        traced.rename(columns={"source_layer": "layer", "source_feature": other}), on=["layer", other]
    )
    table = edges[[*ENDS, "cohens_d"]]
    for end, known in (("source", source), ("target", partner)):
        named = known[["layer", "feature_first", "feature_second"]]
        table = table.merge(named, left_on=[f"{end}_layer", f"{end}_feature"], right_on=["layer", own], how="inner")
        table[f"{end}_feature"] = table["feature_first"]
        table = table[[*ENDS, "cohens_d"]]
    return table


def _compare(own: pd.DataFrame, other: pd.DataFrame, index: NodeIndex) -> Agreement:
    keys = [index.sources(t) * index.n_nodes + index.targets(t) for t in (own, other)]
    every = np.union1d(*keys)
    flags, sizes = [], []
    for key, table in zip(keys, (own, other), strict=True):
        position = np.searchsorted(every, key)
        flag, d = np.zeros(len(every), dtype=bool), np.zeros(len(every))
        flag[position], d[position] = True, table["cohens_d"]
        flags.append(flag)
        sizes.append(d)
    return agreement(flags[0], flags[1], sizes[0], sizes[1])


def _permuted(edges: pd.DataFrame, partner: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The edges with their targets renamed by a random permutation of the matched latents of each layer."""
    features = partner.sort_values(["layer", "feature_first"])
    shuffled = features.groupby("layer")["feature_first"].transform(lambda f: rng.permutation(f.to_numpy()))
    renamed = features[["layer", "feature_first"]].set_axis(TARGET, axis=1).assign(new=shuffled)
    table = edges.merge(renamed, on=TARGET)
    return table.assign(target_feature=table["new"]).drop(columns="new")


def match_dictionaries(first: str | Path, second: str | Path) -> pd.DataFrame:
    """The nearest direction in `second` of every latent of `first`, layer by layer; both are folders of dictionaries.

    Returns `layer, feature_first, feature_second, similarity` (cosine of the decoder directions), `similarity_own` (to
    the nearest other direction of `first`), over the layers that both have; what `seed_stability` reads.
    """
    manifests = [_manifest(Path(folder)) for folder in (first, second)]
    for fact in ("fingerprint", "protocol"):
        a, b = (m["model"].get(fact) for m in manifests)
        if a != b:
            raise ScircuitError(
                f"the dictionaries of {first} and {second} describe models of different {fact} ({str(a)[:12]}, "
                f"{str(b)[:12]}); their directions cannot be matched: compare runs of one model and protocol."
            )
    layers = sorted(set(manifests[0]["layers"]) & set(manifests[1]["layers"]), key=int)
    if not layers:
        raise ScircuitError(f"{first} and {second} have no layer in common; train both on the same layers.")
    tables = []
    for layer in layers:
        own, other = (
            _directions(within(folder, m["layers"][layer]["path"]))
            for folder, m in zip((first, second), manifests, strict=True)
        )
        (best, similarity), (_, among_own) = _nearest(own, other), _nearest(own, own, others=True)
        rows = (np.int16(layer), np.arange(len(own)), best, similarity, among_own)
        tables.append(pd.DataFrame(dict(zip([*COLUMNS, "similarity_own"], rows, strict=True))))
    return pd.concat(tables, ignore_index=True)


def _manifest(folder: Path) -> dict[str, dict[str, dict[str, str]]]:
    content = read_json(folder / "manifest.json")
    if not {"model", "layers"} <= set(content):
        raise ScircuitError(f"{folder} holds no dictionaries (no model and layers in its manifest.json).")
    return dict(content)


def _directions(folder: Path) -> np.ndarray:
    """Unit decoder directions `[latent, d_model]`."""
    from safetensors import safe_open

    with safe_open(folder / "sae_weights.safetensors", framework="numpy") as file:
        weights = file.get_tensor("W_dec").astype(np.float32)
    return weights / np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-12)


def _nearest(a: np.ndarray, b: np.ndarray, others: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Index into `b` and cosine of the nearest direction of every row of `a`; with `others` not that of its number."""
    best, cosine = [], []
    for start in range(0, len(a), _CHUNK):
        part = a[start : start + _CHUNK] @ b.T
        if others:
            part[np.arange(len(part)), start + np.arange(len(part))] = -1.0
        best.append(part.argmax(axis=1))
        cosine.append(part.max(axis=1))
    return np.concatenate(best), np.concatenate(cosine)


QUESTION = Question(
    asks="Do dictionaries of another seed give the same edges?",
    title="Stability over dictionaries",
    function=seed_stability,
    definition="stability-seeds/1",
    null_model="partners of the targets permuted within each layer",
    terms=("jaccard", "d"),
    marks="Every mark is an edge whose ends both dictionaries know; at most 3,000 are drawn. Dashed: equal d.",
    words={"r": "correlation of d in both"},
    edge_columns=("cohens_d",),
    second="second",
    needs_second=True,
    matched=True,
)
