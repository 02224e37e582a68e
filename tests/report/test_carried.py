"""What travels with a page: every edge and latent with what the run's other tables say of them."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from unpacked import Carried, unpacked

from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.schema import ENDS, GRADES
from scircuit.report import carried
from scircuit.report.packing import Words, power, real, rows_among, whole


@pytest.fixture(scope="module")
def held(rich_run: Artefacts) -> Carried:
    return unpacked(carried.packed(rich_run))


@pytest.fixture(scope="module")
def edges(rich_run: Artefacts) -> pd.DataFrame:
    table = rich_run.circuit(grade="reproducible").edges
    return table.iloc[np.argsort(-table["cohens_d"].abs(), kind="stable")].reset_index(drop=True)


def test_every_edge_of_every_grade_travels_with_its_numbers(held: Carried, edges: pd.DataFrame) -> None:
    assert held.ends() == [tuple(row) for row in edges[ENDS].to_numpy()]
    assert held.facts["n_edges"] == len(edges)
    assert held.facts["shown"] == "specific"
    assert held.facts["grades"] == [*GRADES]
    for name in ("mean_delta", "effect_sd", "clean_sd", "ci_low"):
        np.testing.assert_allclose(held.columns[f"e.{name}"], edges[name], rtol=2e-5)
    np.testing.assert_allclose(10.0 ** held.columns["e.q_value"].astype(float), edges["q_value"], rtol=1e-3)
    np.testing.assert_array_equal(held.columns["e.grade"], edges["grade"].cat.codes)
    np.testing.assert_array_equal(held.columns["e.n_cells"], edges["n_cells"])


def test_edges_bring_other_cells_single_cells_and_decoys(
    held: Carried, edges: pd.DataFrame, rich_run: Artefacts
) -> None:
    again = rich_run.table("confirmation")
    row = rows_among(again, edges, ENDS)
    assert (held.columns["e.again"] > 0).tolist() == (row >= 0).tolist()
    found = (again["q_value"] < 0.05).to_numpy()[row] & (row >= 0)
    assert (held.columns["e.again"] == 2).tolist() == found.tolist()
    responses = rich_run.table("cell_effects").groupby(ENDS)["delta"].apply(np.sort)
    for e in (0, 17, len(edges) - 1):
        own = responses[tuple(edges.loc[e, ENDS])]
        steps = held.rows("cells", "step", e) / 127 * held.columns["e.largest"][e]
        np.testing.assert_allclose(steps, own, atol=1.01 * np.abs(own).max() / 254)
    np.testing.assert_allclose(held.columns["e.decoy_typical"], 2.0 * 0.05, rtol=1e-4)
    controls = rich_run.circuit(grade="reproducible").controls
    mine = rows_among(edges, controls, ENDS)
    assert len(held.columns["decoys.delta"]) == (mine >= 0).sum() > 0
    e = int(mine[mine >= 0][0])
    np.testing.assert_allclose(held.rows("decoys", "delta", e), controls["mean_delta"][mine == e], rtol=2e-5)
    assert held.rows("groups", "n_cells", 3).tolist() == [edges.loc[3, "n_cells"]] * 2
    assert np.isfinite(held.columns["e.local_share"]).sum() == 50
    assert held.rows("doses", "value", 0).tolist() == [0.5]


def test_latents_bring_their_catalogue(held: Carried, rich_run: Artefacts) -> None:
    table = rich_run.table("features").set_index(["layer", "feature"])
    i = 5
    own = table.loc[(held.columns["n.layer"][i], held.columns["n.feature"][i])]
    assert held.genes(i) == list(own["top_genes"])
    genes = rich_run.table("genes").set_index(["layer", "feature", "gene"])["mean_activation"]
    ends = int(held.columns["n.layer"][i]), int(held.columns["n.feature"][i])
    shown = held.rows("genes", "activation", i)
    np.testing.assert_allclose(shown, [genes[(*ends, gene)] for gene in held.genes(i)], rtol=2e-5)
    np.testing.assert_allclose(held.columns["n.q95"][i], own["q95"], rtol=2e-5)
    assert held.words("n.runner_up")[i] == "Ribosome"
    cells = [held.facts["words"][place] for place in held.rows("top", "cell", i)]
    assert cells[:2] == ["CELL0 (T cell)", "CELL1 (T cell)"]
    assert len(cells) == 8


def test_a_circuit_too_large_for_a_page_brings_its_strictest_and_strongest(
    rich_run: Artefacts, edges: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = int((edges["grade"] == "specific").sum()) + 10
    monkeypatch.setattr(carried, "MOST_EDGES", 2 * n)
    few = unpacked(carried.packed(rich_run, n_runs=2))
    assert few.facts["n_edges"] == len(edges)
    kept = edges[(edges["grade"] == "specific") | edges.index.isin(edges.index[edges["grade"] == "sizeable"][:10])]
    assert few.ends() == [tuple(row) for row in kept[ENDS].to_numpy()]


def test_what_is_not_there_is_not_carried(make_run: Callable[..., Artefacts]) -> None:
    bare = unpacked(carried.packed(make_run("bare", n=60)))
    assert not {"e.again", "cells.at", "groups.at", "e.local_share", "doses.at", "top.at"} & set(bare.columns)
    assert bare.facts["shown"] == "reproducible"
    assert not bare.columns["e.grade"].any()


def test_the_same_run_gives_the_same_text(rich_run: Artefacts) -> None:
    assert carried.packed(rich_run) == carried.packed(rich_run)


def test_numbers_are_packed_with_the_digits_that_are_shown() -> None:
    values = np.array([1.0, -0.123456789, 1e-30, 3.4e38, 0.0])
    np.testing.assert_allclose(real(values), values.astype(np.float32), rtol=2e-5)
    assert np.isnan(real([np.inf, np.nan])).all()
    assert power([0.0]) == pytest.approx(-300)
    assert [whole([n]).dtype for n in (255, 256, 70_000)] == [np.uint8, np.uint16, np.uint32]
    words = Words()
    assert words.places(["b", None, "a", "b"]).tolist() == [1, 0, 2, 1]
    assert words.listed == ["", "b", "a"]
