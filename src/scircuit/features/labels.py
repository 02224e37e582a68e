"""One label for every latent, by one rule, whichever end of an edge it stands on."""

import numpy as np
import pandas as pd

from scircuit.features.enrichment import rank_terms
from scircuit.knowledge.gmt import readable

UNLABELLED = "unlabelled"


def label_features(features: pd.DataFrame, terms: pd.DataFrame) -> pd.DataFrame:
    """Add `label, label_term_id, runner_up, n_terms, n_libraries, best_q` to a feature table.

    The rule: of a latent's significant terms the most enriched, which is the one with the smallest q, then the one with
    the larger fold, then the more informative (smaller within the background), then library and name in alphabetical
    order. `label` is the term without a trailing accession, `label_term_id` the term as in `terms.parquet`, `runner_up`
    the term that comes second. A latent without a significant term is called `unlabelled` with empty ids: its top genes
    stand beside it, and never pose as a label. `features` has `layer, feature` first, `terms` are `Enrichment.terms`.
    """
    ranked = rank_terms(terms)
    groups = ranked.groupby(["layer", "feature"], sort=False)
    place = groups.cumcount()
    summary = pd.DataFrame(
        {
            "label_term_id": ranked[place == 0].set_index(["layer", "feature"])["term"],
            "runner_up": ranked[place == 1].set_index(["layer", "feature"])["term"],
            "n_terms": groups.size(),
            "n_libraries": groups["library"].nunique(),
            "best_q": groups["q_value"].min(),
        }
    )
    out = features.drop(columns=[c for c in ("label", *summary.columns) if c in features])
    out = out.merge(summary, how="left", left_on=["layer", "feature"], right_index=True)
    for name in ("label_term_id", "runner_up"):
        out[name] = out[name].astype(object).where(out[name].notna(), "")
    for name in ("n_terms", "n_libraries"):
        out[name] = out[name].fillna(0).astype(np.int32)
    label = [readable(term) if term else UNLABELLED for term in out["label_term_id"]]
    out.insert(2, "label", pd.Series(label, index=out.index, dtype=object))
    out.insert(3, "label_term_id", out.pop("label_term_id"))
    return out.reset_index(drop=True)
