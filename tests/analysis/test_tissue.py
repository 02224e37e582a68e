import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scircuit.analysis.cell_ontology import read_obo
from scircuit.analysis.tissue import tissue
from scircuit.circuits.schema import ENDS
from scircuit.errors import ScircuitError

OBO = """format-version: 1.2

[Term]
id: CL:0000542
name: lymphocyte

[Term]
id: CL:0000084
name: T cell
is_a: CL:0000542 ! lymphocyte

[Term]
id: CL:0000236
name: B cell
is_a: CL:0000542 {source="x"} ! lymphocyte

[Term]
id: CL:0000136
name: adipocyte
synonym: "fat cell" EXACT []

[Term]
id: CL:0009999
name: gone
is_obsolete: true

[Typedef]
id: part_of
name: part of
"""
TYPES = ("CL:0000084", "CL:0000236", "CL:0000136")


@pytest.fixture
def ontology(tmp_path):
    (tmp_path / "cl.obo").write_text(OBO)
    return read_obo(tmp_path / "cl.obo")


def grouped(rng, n_tests: int = 40, n_cells: int = 30, specific: int = 6):
    """Per-cell responses of three cell types; the first tests respond in lymphocytes only."""
    responses = {name: rng.normal(-0.5, 1, (n_tests, n_cells)) for name in TYPES}
    responses["CL:0000136"][:specific] += 2.5
    rows = []
    for name, values in responses.items():
        rows.append(pd.DataFrame({
            "group_name": "cell_type", "group": name, "source_layer": 0, "source_feature": np.arange(n_tests) // 10,
            "target_layer": 1, "target_feature": np.arange(n_tests) % 10, "n_cells": n_cells,
            "mean_delta": values.mean(axis=1), "sd_delta": values.std(axis=1, ddof=1),
        }))  # fmt: skip
    return pd.concat(rows, ignore_index=True), responses


def counted(groups, n_targets: int = 10, n_cells: int = 90):
    """`trace/tests.parquet` of sources with so many targets that respond."""
    sources = groups[["source_layer", "source_feature", "target_layer"]].drop_duplicates(ignore_index=True)
    return sources.assign(kind="latent", draw=0, n_cells=n_cells, n_targets=n_targets, n_tests=n_targets)


def test_specific_edges_are_found_by_t_of_the_smaller_side(ontology):
    groups, responses = grouped(np.random.default_rng(0))
    result = tissue(groups, counted(groups), "cell_type", ontology, ["lymphocyte", "T cell"], max_q=1.1)
    table = result.table[result.table["term"] == "lymphocyte"].sort_values(["source_feature", "target_feature"])
    inside = np.concatenate([responses["CL:0000084"], responses["CL:0000236"]], axis=1)
    oracle = stats.ttest_ind(inside, responses["CL:0000136"], axis=1, equal_var=False)
    np.testing.assert_allclose(table["t"], oracle.statistic, rtol=1e-9)
    np.testing.assert_allclose(table["p_value"], 2 * stats.t.sf(np.abs(oracle.statistic), 29), rtol=1e-6)
    assert (table["p_value"] >= oracle.pvalue).all()
    reach = stats.t.ppf(0.975, 29) * table["difference"] / table["t"]
    for side, bound in (("low", -reach), ("high", reach)):
        np.testing.assert_allclose(table[side], table["difference"] + bound, rtol=1e-6)
    called = tissue(groups, counted(groups), "cell_type", ontology, ["lymphocyte"])
    assert set(called.table["target_feature"]) >= set(range(6))
    assert called["lymphocyte_specific_share"].estimate == pytest.approx(6 / 40, abs=0.05)


def test_tests_that_were_not_kept_are_part_of_the_family():
    groups, _ = grouped(np.random.default_rng(0))
    whole = tissue(groups, counted(groups), "cell_type", max_q=1.1)
    larger = tissue(groups, counted(groups, n_targets=1000), "cell_type", max_q=1.1)
    assert larger["CL:0000136_specific_share"].n == 4000
    first, second = (r.table.set_index(["term", *ENDS])["q_value"] for r in (whole, larger))
    low = second < 1
    assert low.any()
    np.testing.assert_allclose(second[low], 100 * first[second.index[low]], rtol=1e-9)
    few = counted(groups, n_targets=1000).assign(source_feature=lambda t: t["source_feature"] + 100, n_cells=19)
    both = pd.concat([counted(groups), few])
    assert tissue(groups, both, "cell_type")["CL:0000136_specific_share"].n == 40


def test_groups_by_themselves_and_no_difference():
    groups, _ = grouped(np.random.default_rng(1), specific=0)
    result = tissue(groups, counted(groups), "cell_type")
    assert len(result.measures) == 3
    assert (result.measures["estimate"] < 0.06).all()


def test_membership_follows_the_ontology_not_the_name(ontology):
    assert ontology.members("lymphocyte", TYPES) == ["CL:0000084", "CL:0000236"]
    # "t cell" stands in "fat cell", and an adipocyte is no T cell.
    assert ontology.members("T cell", TYPES) == ["CL:0000084"]
    assert ontology.ancestors("b CELL") == {"CL:0000236", "CL:0000542"}
    with pytest.raises(ScircuitError, match="'gone' is no term"):
        ontology.identifier("gone")


def test_a_missing_test_counts_as_silence():
    groups, _ = grouped(np.random.default_rng(2))
    silent = (groups["group"] == "CL:0000084") & (groups["target_feature"] == 3) & (groups["source_feature"] == 0)
    result = tissue(groups[~silent], counted(groups), "cell_type", max_q=1.1).table
    row = result[(result["term"] == "CL:0000084") & (result["target_feature"] == 3) & (result["source_feature"] == 0)]
    assert row["mean_inside"].item() == 0.0
    assert row["n_inside"].item() == 30


def test_what_cannot_be_asked(ontology, tmp_path):
    groups, _ = grouped(np.random.default_rng(3))
    with pytest.raises(ScircuitError, match="not grouped by 'tissue'; it has cell_type"):
        tissue(groups, counted(groups), "tissue")
    with pytest.raises(ScircuitError, match="covers none of the groups"):
        tissue(groups[groups["group"] != "CL:0000136"], counted(groups), "cell_type", ontology, ["adipocyte"])
    with pytest.raises(ScircuitError, match="covers all of the groups"):
        tissue(groups[groups["group"] != "CL:0000136"], counted(groups), "cell_type", ontology, ["lymphocyte"])
    with pytest.raises(ScircuitError, match="terms need an ontology"):
        tissue(groups, counted(groups), "cell_type", terms=["T cell"])
    with pytest.raises(ScircuitError, match="no test has 500 cells"):
        tissue(groups, counted(groups), "cell_type", min_cells=500)
    with pytest.raises(ScircuitError, match="lacks sd_delta"):
        tissue(groups.drop(columns="sd_delta"), counted(groups), "cell_type")
    with pytest.raises(ScircuitError, match="does not exist"):
        read_obo(tmp_path / "none.obo")
    (tmp_path / "empty.obo").write_text("format-version: 1.2\n")
    with pytest.raises(ScircuitError, match="holds no"):
        read_obo(tmp_path / "empty.obo")
