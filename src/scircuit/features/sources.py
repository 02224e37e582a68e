"""Which latents are ablated, and by which recorded rule they were chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scircuit.errors import ScircuitError

RULES = ("annotated", "all", "random", "random_annotated", "attribution", "list")
N_STRATA = 10


@dataclass(frozen=True)
class Sources:
    """Chosen latents and how they were chosen."""

    table: pd.DataFrame
    """`layer, feature`, by layer and then feature."""
    rule: dict[str, Any]
    """Everything needed to choose them again; goes into the artefact."""


def select_sources(
    features: pd.DataFrame,
    rule: str | Sequence[tuple[int, int]] = "annotated",
    *,
    n: int = 30,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    min_frequency: float = 0.01,
    min_top_genes: int = 10,
) -> Sources:
    """Choose the latents to ablate in each layer.

    Parameters
    ----------
    features : DataFrame
        A labelled feature table (`label_features`).
    rule : str or list of (layer, feature)
        `annotated`: the `n` best of the annotated latents by `annotation_score`, among those with at least
        `min_top_genes` top genes and a firing rate of at least `min_frequency` (arXiv 2603.01752, source
        selection); `random_annotated`: `n` at random from the same pool; `random`: `n` of the live latents,
        stratified by firing rate; `attribution`: the `n` of largest absolute `attribution`, a column of the table
        (integrated gradients of a behaviour); `all`: every live latent; or the latents themselves.
    n : int
        Latents per layer (by default all layers); fewer where a layer has fewer.

    Raises
    ------
    ScircuitError
        On an unknown rule or layer, a latent that is not in the table or is dead, or when nothing can be chosen.
    """
    known = sorted(features["layer"].unique().tolist())
    layers = known if layers is None else sorted(int(i) for i in set(layers))
    strange = [i for i in layers if i not in known]
    if strange:
        raise ScircuitError(f"The feature table has no layer {strange[0]}; it has {', '.join(map(str, known))}.")
    if not isinstance(rule, str):
        return _listed(features, rule)
    if rule not in RULES[:-1]:
        raise ScircuitError(f"The source rule {rule!r} is unknown; it may be {', '.join(RULES[:-1])} or a list.")
    record: dict[str, Any] = {"rule": rule, "layers": layers}
    live = features[(features["n_firings"] > 0) & features["layer"].isin(layers)]
    if rule != "all":
        record["n"] = n
    if rule.startswith("random"):
        record["seed"] = seed
    if rule.endswith("annotated"):
        record |= {"min_frequency": min_frequency, "min_top_genes": min_top_genes}
        live = live[
            (live["n_terms"] > 0) & (live["frequency"] >= min_frequency) & (live["top_genes"].map(len) >= min_top_genes)
        ]
    chosen = [_choose(live[live["layer"] == layer], rule, n, np.random.default_rng([seed, layer])) for layer in layers]
    table = pd.concat(chosen)[["layer", "feature"]].sort_values(["layer", "feature"], ignore_index=True)
    if table.empty:
        pool = f" (annotated, firing rate >= {min_frequency}, >= {min_top_genes} top genes)"
        raise ScircuitError(
            f"No latent of layers {', '.join(map(str, layers))} meets the source rule {rule!r}"
            f"{pool if rule.endswith('annotated') else ''}; loosen it or use the rule 'random'."
        )
    return Sources(table, record)


def annotation_score(features: pd.DataFrame) -> pd.Series:
    """10 * libraries + terms - log10(max(best q, 1e-30)), the published score of a source latent.

    As the published program computes it (arXiv 2603.01752); its text describes another formula. A table that brings
    its own `score` (features.published) keeps it.
    """
    if "score" in features:
        return features["score"]
    q = features["best_q"].fillna(1.0).clip(lower=1e-30)
    return 10 * features["n_libraries"] + features["n_terms"] - np.log10(q)


def _choose(pool: pd.DataFrame, rule: str, n: int, rng: np.random.Generator) -> pd.DataFrame:
    if rule == "all":
        return pool
    if rule == "annotated":
        scored = pool.assign(score=annotation_score(pool))
        return scored.sort_values(["score", "feature"], ascending=[False, True]).head(n)
    if rule == "attribution":
        return pool.sort_values(["attribution", "feature"], key=_size, ascending=[False, True]).head(n)
    if rule == "random_annotated":
        return pool.iloc[np.sort(rng.choice(len(pool), min(n, len(pool)), replace=False))]
    return _stratified(pool, n, rng)


def _size(column: pd.Series) -> pd.Series:
    return column.abs()


def _stratified(pool: pd.DataFrame, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Equal shares from tenths of the firing rate; the remainder falls on strata at random."""
    order = pool.sort_values(["frequency", "feature"], kind="stable")
    n = min(n, len(order))
    strata = [part for part in np.array_split(np.arange(len(order)), min(N_STRATA, max(n, 1))) if len(part)]
    if not strata:
        return order
    share = np.full(len(strata), n // len(strata))
    share[rng.permutation(len(strata))[: n % len(strata)]] += 1
    share = np.minimum(share, [len(part) for part in strata])
    taken = [rng.choice(part, k, replace=False) for part, k in zip(strata, share, strict=True)]
    left = np.setdiff1d(np.arange(len(order)), np.concatenate(taken))
    taken.append(rng.choice(left, n - int(share.sum()), replace=False))
    return order.iloc[np.concatenate(taken)]


def _listed(features: pd.DataFrame, latents: Sequence[tuple[int, int]]) -> Sources:
    wanted = sorted({(int(layer), int(feature)) for layer, feature in latents})
    firings = features.set_index(["layer", "feature"])["n_firings"].to_dict()
    for layer, feature in wanted:
        if (layer, feature) not in firings:
            raise ScircuitError(f"There is no latent {feature} in layer {layer} of the feature table; check the list.")
        if firings[layer, feature] == 0:
            raise ScircuitError(
                f"Latent {feature} of layer {layer} never fires on these cells, so it cannot be ablated; leave it out."
            )
    if not wanted:
        raise ScircuitError("The list of source latents is empty; name at least one (layer, feature).")
    record = {"rule": "list", "latents": [list(latent) for latent in wanted]}
    return Sources(pd.DataFrame(wanted, columns=["layer", "feature"]), record)
