"""The whole chain on real cells and real screens: both packaged models, traced, compared, judged.

Slow: two traces of real cells. What a small model of blood cells predicts of THP-1 and K562 knock-downs is not known in
advance; that no sentence claims more than the comparison with the best baseline gives is.
"""

from pathlib import Path

import pandas as pd
import pytest

from builders import SHARED
from scircuit._io import read_json
from scircuit.analysis.answers import read_answers
from scircuit.config_file import parse_config
from scircuit.perturbation import on_target, open_screen
from scircuit.runs.compare import compare
from scircuit.runs.screen import score_table, validate
from scircuit.runs.screen_options import ScreenOptions
from scircuit.runs.stages import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.exists(), reason="real data sets are not beside the project"),
]
PERTURB = SHARED / "perturb"
MODELS = ("geneformer-mini", "scgpt-mini")
BASELINES = {
    "always down", "gene-wise majority", "mean expression", "co-expression", "absolute co-expression",
    "in-silico deletion", "permuted sources",
}  # fmt: skip
PATHWAY = ["IFNGR1", "IFNGR2", "JAK2", "STAT1"]
ENHANCERS = {f"{gene}-{i}": gene for gene in ("GATA1", "MYC", "ZFPM2") for i in "ABCD"} | {
    f"HS2-{i}": "HBE1" for i in "ABCD"
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Both models traced in real PBMC, from sources of two layers."""
    out = tmp_path_factory.mktemp("world")
    for model in MODELS:
        config = parse_config(
            {
                "name": model,
                "out": str(out / model),
                "model": {"source": model, "device": "cpu"},
                "cells": {"path": str(SHARED / "scrna" / "pbmc3k_counts.h5ad"), "n": 500},
                "sae": {"k": 16, "n_steps": 150, "batch_rows": 512, "buffer_rows": 60_000, "quality_cells": 16},
                "features": {"control_draws": 2, "pair_cells": 0, "coactivation": False},
                "sources": {"n": 16, "layers": [0, 2], "min_frequency": 0.003},
                "trace": {"n_cells": 40, "cells_per_block": 20, "n_random": 0},
                "confirmation": {"n_cells": 0},
                "edges": {"min_effect_sd": None, "max_q_specific": None},
            }
        )
        run(config, until="trace")
    return [out / model for model in MODELS]


def claims_no_more_than_the_comparison(out: Path) -> None:
    record, comparison = read_json(out / "validation.json"), pd.read_parquet(out / "comparison.parquet")
    for definition, said in record["definitions"].items():
        own = comparison[(comparison["definition"] == definition) & (comparison["stratum"] == "all")]
        better = (own["verdict"] == "better").any()
        assert said["conclusion"].startswith("Skill beyond every baseline") == better
        for row in own[own["verdict"] == "better"].to_dict("records"):
            assert row["difference_low"] > 0
            assert row["estimate"] > row["baseline"]


def carried(run: Path) -> set[str]:
    """Genes that load on a traced source, of which alone a circuit can speak."""
    sources = pd.read_parquet(run / "circuit" / "edges.parquet")[["source_layer", "source_feature"]].drop_duplicates()
    loadings = pd.read_parquet(run / "features" / "genes.parquet")
    return set(loadings.merge(sources.set_axis(["layer", "feature"], axis=1))["gene"])


def test_both_models_against_papalexi(runs: list[Path]) -> None:
    tables, judged_genes = [], {}
    for folder in runs:
        out = validate(folder, PERTURB / "papalexi_thp1_20729x299.h5ad", logits=True, model_cells=10, profile="paper",
                       network=[SHARED / "networks" / "collectri.csv.gz"])  # fmt: skip
        record = read_json(out / "validation.json")
        assert {"loadings", "logits"} <= set(record["definitions"])
        for said in record["definitions"].values():
            assert set(said["baselines"]) == BASELINES
        assert (record["scale"], record["n_strata"]) == ("counts", 3)
        judged = pd.read_parquet(out / "knockdowns.parquet")
        judged_genes[folder.name] = set(judged.loc[judged["method"] == "circuit", "gene"]) & set(PATHWAY)
        assert judged_genes[folder.name] == carried(folder) & set(PATHWAY)
        pooled = pd.read_parquet(out / "pooled.parquet").set_index("method")
        assert set(pooled.index) == {"circuit", "always down", "sign bias"}
        assert pooled["n_pairs"].min() > 0
        claims_no_more_than_the_comparison(out)
        tables.append(score_table(out).assign(model=folder.name))
    assert judged_genes["geneformer-mini"] == set(PATHWAY)
    assert judged_genes["scgpt-mini"] >= {"STAT1"}
    print(pd.concat(tables).to_string(index=False))  # noqa: T201


def test_schraivogel_falls_in_26_of_26_and_both_models_are_judged(runs: list[Path]) -> None:
    path = PERTURB / "schraivogel_k562_crispri_21977x72.h5ad"
    table = on_target(open_screen(path, targets=ENHANCERS))
    assert len(table) == 26
    assert (table["log2_fold_change"] < 0).all()
    for folder in runs:
        out = validate(folder, path, options=ScreenOptions(targets=ENHANCERS), deletion=False)
        fallen = pd.read_parquet(out / "on_target.parquet")
        assert (fallen["log2_fold_change"] < 0).sum() == 26
        claims_no_more_than_the_comparison(out)


def test_replogle_signatures_judge_who_rises(runs: list[Path], tmp_path: Path) -> None:
    import gzip

    with gzip.open(PERTURB / "replogle_k562_crispri_up.gmt.gz", "rt") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    significant = ["\t".join([row[0], "up", *row[2:]]) for row in rows if row[1] == "up_significant" and len(row) >= 22]
    (tmp_path / "replogle.gmt").write_text("\n".join(significant) + "\n")
    for folder in runs:
        out = validate(folder, truth=tmp_path / "replogle.gmt", deletion=False)
        record = read_json(out / "validation.json")
        assert record["one_sided"]
        assert record["definitions"]["loadings"]["n_knockdowns"] > 100
        claims_no_more_than_the_comparison(out)


def test_both_models_are_compared(runs: list[Path], tmp_path: Path) -> None:
    table = read_answers(compare(runs, tmp_path / "cmp", profile="paper"))
    found = table[table["folder"].str.startswith("pairs")].set_index("measure")
    # Latents of two small models with dictionaries of a few steps are no more alike than strangers of one model.
    assert found.loc["matched_share", "p_value"] > 0.05
    assert found.loc["matched_share", "estimate"] < 0.05
    consensus = table[(table["question"] == "consensus") & (table["folder"] == "")].set_index("measure")
    assert consensus.loc["paper_fold", "estimate"] > consensus.loc["fold", "estimate"]
    page = (tmp_path / "cmp" / "index.html").read_text(encoding="utf-8")
    assert "Against knock-down screens" in page
    assert "Consensus without labels" in page
