"""What public screens are known to show, from the files themselves."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scircuit.errors import ScircuitError
from scircuit.perturbation.differential import differential_expression
from scircuit.perturbation.opening import open_screen
from scircuit.perturbation.predictions import GenePredictions
from scircuit.perturbation.statistics import effective, on_target
from scircuit.perturbation.truth import truth_from_effects, truth_from_gene_sets, truth_from_table
from scircuit.perturbation.validation import validate

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PERTURB = SHARED / "perturb"
pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="real data sets are not beside the project")

# Enhancers carry the name of the gene they regulate, and HS2 of the beta-globin locus regulates HBE1.
ENHANCERS = {f"{gene}-{i}": gene for gene in ("GATA1", "MYC", "ZFPM2") for i in "ABCD"} | {
    f"HS2-{i}": "HBE1" for i in "ABCD"
}


def test_schraivogel_every_target_falls():
    screen = open_screen(PERTURB / "schraivogel_k562_crispri_21977x72.h5ad", targets=ENHANCERS)
    assert screen.scale == "counts"
    table = on_target(screen)
    assert len(table) == 26
    assert (table["log2_fold_change"] < 0).all()
    assert (table["p_fall"] < 0.1).all()
    # The weakest are enhancers; all ten promoters and the globin enhancer fall clearly.
    assert len(effective(screen, max_log2_fold_change=-0.5).labels) == 18


@pytest.fixture(scope="module")
def papalexi():
    screen = open_screen(PERTURB / "papalexi_thp1_20729x299.h5ad")
    return screen, differential_expression(screen)


def test_papalexi_interferon_gamma_pathway_converges(papalexi):
    _, effects = papalexi
    pathway = ["JAK2", "STAT1", "IFNGR1", "IFNGR2"]
    labels = effects.perturbations["label"]
    similar = pd.DataFrame(effects.log2_fold_change, index=labels).T.corr("spearman")
    inside = similar.loc[pathway, pathway].to_numpy()[np.triu_indices(4, 1)]
    others = similar.loc[pathway].drop(columns=pathway)
    assert inside.min() > 0.6
    assert others.max().max() < inside.min()
    n_responding = pd.Series((effects.q_value < 0.05).sum(axis=1), index=labels)
    assert set(n_responding.nlargest(4).index) == set(pathway)


def test_papalexi_knock_downs_predict_each_other_within_the_pathway(papalexi):
    """JAK2's measured profile as a prediction for STAT1 and the receptors: skill beyond every baseline."""
    screen, effects = papalexi
    pathway = ["STAT1", "IFNGR1", "IFNGR2"]
    table = pd.DataFrame(effects.log2_fold_change, index=effects.perturbations["label"], columns=effects.genes)
    scores = pd.DataFrame(np.tile(table.loc["JAK2"], (3, 1)), index=pathway, columns=effects.genes)
    result = validate(GenePredictions(scores, "profile of JAK2"), truth_from_effects(effects), screen)
    circuit = result.summary[result.summary["method"] == "circuit"].set_index("metric")["estimate"]
    assert circuit["direction"] > 0.9
    assert circuit["spearman"] > 0.6


def test_lines_and_log_values_are_told_apart():
    path = PERTURB / "perturbench_norman19_mcfaline23_devel.h5ad"
    with pytest.raises(ScircuitError, match="mixes 4 lines"):
        open_screen(path)
    screen = open_screen(path, lines="k562")
    assert screen.scale == "log1p"
    assert not screen.labels["label"].str.contains("+", regex=False).any()
    # CRISPR activation: the one measured target rises.
    table = on_target(screen).set_index("gene")
    assert table.loc["TMSB4X", "log2_fold_change"] > 1


def replogle() -> dict[str, list[str]]:
    with gzip.open(PERTURB / "replogle_k562_crispri_up.gmt.gz", "rt") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    return {row[0]: row[2:] for row in rows if row[1] == "up_significant"}


def test_replogle_signatures_of_one_complex_predict_each_other():
    """Ribosomal knock-downs share their rises; a profile shuffled over genes predicts nothing."""
    rises = replogle()
    ribosome = [t for t in rises if t.startswith(("RPL", "RPS")) and t[3].isdigit() and len(rises[t]) >= 20]
    assert len(ribosome) >= 10
    measured = sorted({gene for genes in rises.values() for gene in genes})
    truth = truth_from_gene_sets({t: rises[t] for t in ribosome}, measured)
    assert truth.one_sided
    frequency = truth.sign.astype(float).sum(axis=0)
    leave_one_out = pd.DataFrame(frequency - truth.sign, index=ribosome, columns=measured)
    leave_one_out.index = truth.knockdowns["gene"]
    good = validate(GenePredictions(leave_one_out, "other ribosomal knock-downs"), truth)
    estimate = good.comparison.set_index("metric")
    assert estimate.loc["auroc", "low"] > 0.7
    rng = np.random.default_rng(0)
    shuffled = pd.DataFrame(
        np.array([rng.permutation(row) for row in leave_one_out.to_numpy()]),
        index=leave_one_out.index,
        columns=measured,
    )
    none = validate(GenePredictions(shuffled, "shuffled"), truth)
    found = none.comparison.set_index("metric").loc["auroc"]
    assert found["low"] < 0.5 < found["high"]
    assert any("covers 0.5, the value without skill" in sentence for sentence in none.sentences)


def test_a_published_edge_table_is_a_truth():
    table = pd.read_csv(PERTURB / "cd4_crispri_robust_edges_balanced30.csv.gz")
    table = table.rename(columns={"perturbed_gene": "target", "measured_gene": "gene", "log_fc": "score"})
    truth = truth_from_table(table)
    assert len(truth.knockdowns) == 30
    assert {-1, 1} <= set(np.unique(truth.sign))
    # Every knock-down against the mean of the others, as if that were a circuit.
    others = pd.DataFrame(np.nan_to_num(truth.score), index=truth.knockdowns["gene"], columns=truth.genes)
    others = (others.sum() - others) / (len(others) - 1)
    found = validate(GenePredictions(others, "mean of the others"), truth).comparison.set_index("metric")
    assert found.loc["direction", "n_knockdowns"] == 30
    assert "better" not in set(found.loc[["direction", "auroc_direction"], "verdict"])
