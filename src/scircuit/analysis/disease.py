"""Disease: which latents carry disease genes, and whether these are more central or more conserved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import hypergeom

from scircuit.analysis.conditions import LabelledEdges, check_conditions, label_codes, label_vocabulary
from scircuit.analysis.nodes import NodeIndex, need_edges
from scircuit.analysis.question import Question
from scircuit.analysis.regression import odds_ratio, rate_ratio, raw_odds_ratio
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import LATENT, SOURCE
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg

ASSOCIATED = ("disease", "n_overlap", "set_size", "fold", "p_value", "q_value")
_GLOSSARY = (
    "disease latent: one whose gene profile, of the same length for every latent, holds more genes of a curated "
    "disease set than a random draw from the model's genes (hypergeometric, BH over all latents and sets). Adjusted "
    "ratios hold firing rate, label frequency and degree fixed; raw ratios do not, and grow with them."
)

_NULL = "equal degree at equal firing rate, label frequency and layer"


@dataclass(frozen=True)
class Associations:
    """Latents whose genes belong to diseases.

    `table` has one row per significant (latent, set): `layer, feature, disease, n_overlap, set_size, fold, p_value,
    q_value`; `latents` every latent that was tested: `layer, feature, is_disease`; `n_genes` are those of the universe.
    """

    table: pd.DataFrame
    latents: pd.DataFrame
    n_tests: int
    profile_size: int
    n_genes: int


def associate(
    genes: pd.DataFrame,
    sets: Mapping[str, Sequence[str]],
    profile_size: int = 50,
    min_firings: int = 5,
    min_overlap: int = 3,
    max_q: float = 0.05,
) -> Associations:
    """Test every latent against every disease set.

    A latent's profile is its `profile_size` genes of highest mean activation among those at which it fired at least
    `min_firings` times; latents with fewer such genes are not tested, so that power is the same for all. The universe
    is every gene at which any latent fired; sets are cut to it, and those with fewer than `min_overlap` genes left are
    not tested. Benjamini-Hochberg is over all (latent, set).
    """
    universe = pd.Index(sorted(genes["gene"].unique()))
    diseases = {name: universe.get_indexer(pd.Index(sorted(set(members)))) for name, members in sets.items()}
    diseases = {name: place[place >= 0] for name, place in diseases.items()}
    diseases = {name: place for name, place in diseases.items() if len(place) >= min_overlap}
    if not diseases:
        raise ScircuitError(
            f"no disease set shares {min_overlap} genes with the model; check that both use symbols, or read other "
            "sets."
        )
    profile, latents = _profiles(genes, universe, profile_size, min_firings)
    if not len(latents):
        raise ScircuitError(
            f"no latent fires at {profile_size} genes {min_firings} times each; lower profile_size or min_firings, or "
            "build the catalogue from more cells."
        )
    size = np.array([len(place) for place in diseases.values()])
    row, column = np.repeat(np.arange(len(size)), size), np.concatenate(list(diseases.values()))
    member = sparse.csr_array((np.ones(len(row)), (row, column)), shape=(len(size), len(universe)))
    overlap = (profile @ member.T).toarray()
    p = hypergeom.sf(overlap - 1, len(universe), size[None, :], profile_size)
    q = benjamini_hochberg(p.ravel()).reshape(p.shape)
    latent, disease = np.nonzero((q < max_q) & (overlap >= min_overlap))
    found = overlap[latent, disease]
    table = latents.iloc[latent].assign(
        disease=np.array(list(diseases), dtype=object)[disease],
        n_overlap=found.astype(int),
        set_size=size[disease],
        fold=found * len(universe) / (profile_size * size[disease]),
        p_value=p[latent, disease],
        q_value=q[latent, disease],
    )
    is_disease = np.zeros(len(latents), dtype=bool)
    is_disease[latent] = True
    table = table.sort_values(["q_value", "layer", "feature"], ignore_index=True)
    return Associations(table, latents.assign(is_disease=is_disease), p.size, profile_size, len(universe))


def disease_centrality(circuit: Circuit, associations: Associations) -> Result:
    """Whether latents that carry disease genes have more edges than others that fire as often.

    Negative-binomial regression of in-degree (latents of target layers, exposure: sources traced into the layer) and of
    out-degree (traced sources, exposure: tests made) on being a disease latent, log firing rate, log label frequency
    and layer; beside the raw ratio of mean degrees per exposure.

    Measures `in_degree_ratio`, `raw_in_degree_ratio`, `out_degree_ratio`, `raw_out_degree_ratio`; null 1, p of the Wald
    test (raw: none). NaN where no or every latent is a disease latent. Table: one row per latent that has a profile,
    with `is_disease, in_degree, out_degree, frequency, label_frequency`.
    """
    need_edges(circuit)
    index = NodeIndex.of(circuit.nodes)
    nodes = circuit.nodes[["layer", "feature", "label", "frequency"]].reset_index(drop=True)
    nodes["in_degree"] = np.bincount(index.targets(circuit.edges), minlength=len(nodes))
    nodes["out_degree"] = np.bincount(index.sources(circuit.edges), minlength=len(nodes))
    labels = label_vocabulary([circuit])
    code = label_codes(circuit, labels)
    nodes["label_frequency"] = np.r_[np.bincount(code[code >= 0], minlength=len(labels)), 0][code]
    tests = circuit.tests[circuit.tests["kind"] == "latent"]
    nodes["sources_into_layer"] = nodes["layer"].map(tests.groupby("target_layer").size()).fillna(0)
    per_source = tests.groupby(SOURCE)["n_tests"].sum()
    nodes["tests_from"] = per_source.reindex(pd.MultiIndex.from_frame(nodes[LATENT])).fillna(0).to_numpy()
    table = nodes.merge(associations.latents, on=LATENT)
    if table.empty:
        raise ScircuitError("no latent of the circuit has a gene profile; give the associations of the same run.")
    measures = []
    for name, exposure in (("in_degree", "sources_into_layer"), ("out_degree", "tests_from")):
        part = table[table[exposure] > 0]
        covariates = pd.DataFrame(
            {
                "is_disease": part["is_disease"],
                "log_frequency": np.log(part["frequency"].clip(lower=1e-9)),
                "log_label_frequency": np.log1p(part["label_frequency"]),
                "layer": part["layer"],
            }
        )
        counts, weight = part[name].to_numpy(np.float64), part[exposure].to_numpy(np.float64)
        measures.append(rate_ratio(counts, covariates, "is_disease", weight).measure(f"{name}_ratio", "latents"))
        ill = part["is_disease"].to_numpy()
        rates = [counts[side].sum() / weight[side].sum() if side.any() else np.nan for side in (ill, ~ill)]
        raw = rates[0] / rates[1] if rates[1] > 0 else np.nan
        measures.append(Measure(f"raw_{name}_ratio", raw, null=1.0, n=len(part), unit_of_n="latents"))
    table = table.drop(columns=["sources_into_layer", "tests_from"])
    return Result.of(
        "disease_centrality",
        "disease_centrality/1",
        measures,
        table,
        _NULL,
        glossary=_GLOSSARY,
    )


def disease(
    circuit: Circuit,
    genes: pd.DataFrame,
    sets: Mapping[str, Sequence[str]],
    profile_size: int = 50,
    min_firings: int = 5,
    max_q: float = 0.05,
) -> Result:
    """`associate` and `disease_centrality` in one answer.

    Measures of `disease_centrality`, and `disease_latent_share` (of the latents with a full profile). Table: one row
    per (latent, disease), latents without a disease once: that of `disease_centrality`, with `disease, n_overlap,
    set_size, fold, p_value, q_value`.
    """
    found = associate(genes, sets, profile_size=profile_size, min_firings=min_firings, max_q=max_q)
    central = disease_centrality(circuit, found)
    ill = int(found.latents["is_disease"].sum())
    share = Measure("disease_latent_share", ill / len(found.latents), n=len(found.latents), unit_of_n="latents")
    measures = pd.concat([central.measures, pd.DataFrame([share])], ignore_index=True)
    table = central.table.merge(found.table[["layer", "feature", *ASSOCIATED]], how="left", on=LATENT)
    table = table.sort_values(["q_value", "layer", "feature"], ignore_index=True)
    return QUESTION.answer(measures, table)


def disease_conservation(
    conditions: Sequence[Artefacts], associations: Mapping[str, Associations], min_models: int = 2
) -> Result:
    """Whether label pairs with disease at both ends are conserved between models more than other pairs of their size.

    A label is a disease label if at least half of its latents, over all conditions, are disease latents
    (`associations`: of each condition, by its name). Logistic regression of conserved on that, log label frequency and
    log number of edges of either label, standard errors clustered by source and by target label; beside the raw odds
    ratio, which frequent labels inflate.

    Over label pairs of two different labels; null 1. Table: one row per pair: `source_label, target_label, conserved,
    is_disease, source_frequency, target_frequency, source_edges, target_edges`.
    """
    models = check_conditions(conditions)
    absent = [condition.name for condition in conditions if condition.name not in associations]
    if absent:
        raise ScircuitError(f"there are no disease associations of {absent[0]!r}; give associate(...) of its loadings.")
    labels = label_vocabulary([condition.circuit() for condition in conditions])
    ill = _disease_labels(conditions, associations, labels)
    table = _pairs(conditions, models, labels, min_models)
    s, t = table.pop("source").to_numpy(), table.pop("target").to_numpy()
    table.insert(0, "source_label", labels.to_numpy()[s])
    table.insert(1, "target_label", labels.to_numpy()[t])
    table["is_disease"] = ill[s] & ill[t]
    names = ["source_frequency", "target_frequency", "source_edges", "target_edges"]
    covariates = table[names].transform(np.log).assign(is_disease=table["is_disease"])
    conserved = table["conserved"].to_numpy()
    measures = [
        odds_ratio(conserved, covariates, "is_disease", s, t).measure("odds_ratio", "pairs"),
        raw_odds_ratio(conserved, table["is_disease"].to_numpy()).measure("raw_odds_ratio", "pairs"),
    ]
    return BETWEEN_MODELS.answer(measures, table)


def _profiles(
    genes: pd.DataFrame, universe: pd.Index, profile_size: int, min_firings: int
) -> tuple[sparse.csr_array, pd.DataFrame]:
    """Membership of the top genes, CSR `[latent, gene]`, and `layer, feature` of the latents."""
    kept = genes.loc[genes["n_firings"] >= min_firings, ["layer", "feature", "gene", "mean_activation"]]
    kept = kept.sort_values(["layer", "feature", "mean_activation", "gene"], ascending=[True, True, False, True])
    groups = kept.groupby(LATENT)
    full = groups["gene"].transform("size") >= profile_size
    top = kept[(groups.cumcount() < profile_size) & full]
    latents = top[LATENT].drop_duplicates().reset_index(drop=True)
    row = np.repeat(np.arange(len(latents)), profile_size)
    column = universe.get_indexer(pd.Index(top["gene"]))
    return sparse.csr_array((np.ones(len(row)), (row, column)), shape=(len(latents), len(universe))), latents


def _disease_labels(
    conditions: Sequence[Artefacts], associations: Mapping[str, Associations], labels: pd.Index
) -> np.ndarray:
    """Labels of which at least half of the tested latents are disease latents, bool `[label]`."""
    total, ill = np.zeros(len(labels)), np.zeros(len(labels))
    for condition in conditions:
        code = pd.Series(
            label_codes(condition.circuit(), labels),
            index=pd.MultiIndex.from_frame(condition.circuit().nodes[LATENT]),
        )
        latents = associations[condition.name].latents
        own = code.reindex(pd.MultiIndex.from_frame(latents[LATENT])).fillna(-1).to_numpy(np.int64)
        total += np.bincount(own[own >= 0], minlength=len(labels))
        ill += np.bincount(own[(own >= 0) & latents["is_disease"].to_numpy()], minlength=len(labels))
    return (total > 0) & (ill >= total / 2)


def _pairs(conditions: Sequence[Artefacts], models: list[str], labels: pd.Index, min_models: int) -> pd.DataFrame:
    """Label pairs of any model with their size: `source, target, conserved` and the four covariates."""
    n = len(labels)
    found = np.zeros((len(models), n * n), dtype=bool)
    frequency, as_source, as_target = np.zeros(n), np.zeros(n), np.zeros(n)
    for condition in conditions:
        edges = LabelledEdges.of(condition.circuit(), labels)
        found[models.index(condition.model_name), edges.source * n + edges.target] = True
        code = label_codes(condition.circuit(), labels)
        frequency += np.bincount(code[code >= 0], minlength=n)
        as_source += np.bincount(edges.source, minlength=n)
        as_target += np.bincount(edges.target, minlength=n)
    pair = np.flatnonzero(found.any(axis=0))
    pair = pair[pair // n != pair % n]
    s, t = pair // n, pair % n
    return pd.DataFrame(
        {
            "source": s,
            "target": t,
            "conserved": found[:, pair].sum(axis=0) >= min_models,
            "source_frequency": frequency[s],
            "target_frequency": frequency[t],
            "source_edges": as_source[s],
            "target_edges": as_target[t],
        }
    )


QUESTION = Question(
    asks="Do latents with disease genes have more edges than others that fire as often?",
    title="Disease",
    function=disease,
    definition="disease/1",
    null_model=_NULL,
    glossary=_GLOSSARY,
    needs=("circuit", "genes", "disease_sets"),
    figure="ratios",
    marks="Ratios with 95% intervals; grey: raw. Dashed: 1, no difference.",
    by_itself=False,
)

BETWEEN_MODELS = Question(
    asks="Are edges between disease labels conserved more than others of their size? The raw odds ratio grows with the "
    "frequency of labels; the adjusted one holds it fixed.",
    title="Disease between models",
    function=disease_conservation,
    definition="disease_conservation/1",
    null_model="equal odds at equal label frequency and number of edges",
    glossary=_GLOSSARY,
    figure="ratios",
    marks="Ratios with 95% intervals; dashed: 1, no difference.",
    words={
        "odds_ratio": "odds ratio of conservation, adjusted for label frequency and degree",
        "raw_odds_ratio": "odds ratio of conservation, raw",
    },
    of_runs=True,
)
