"""AnnData in, AnnData out: latents beside genes, a circuit from cells in memory, figures of both."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import sparse

import scircuit
from scircuit import ScircuitError
from scircuit.analysis.registry import every_question

SMALL = {
    "seed": 3,
    "sources": {"rule": "random", "n": 3},
    "trace": {"cells_per_block": 8, "n_random": 1},
    "edges": {"min_nonzero": 5, "max_q": "null", "min_effect_sd": "null", "max_q_specific": "null"},
}


@pytest.fixture(scope="module")
def run(finished: dict[str, Path]) -> scircuit.Run:
    return scircuit.Run(finished["geneformer"] / "out")


@pytest.fixture(scope="module")
def seen(run: scircuit.Run, cells: ad.AnnData) -> ad.AnnData:
    adata = cells.copy()
    adata.obsm["X_umap"] = np.arange(2 * adata.n_obs, dtype=float).reshape(-1, 2)
    found = scircuit.tl.features(adata, run, min_rate=0.1, copy=True)
    assert found is not None
    assert list(adata.obsm) == ["X_umap"], "the cells given are as they were"
    return found


def test_activations_are_those_of_each_cell_alone(run: scircuit.Run, seen: ad.AnnData, cells: ad.AnnData) -> None:
    model = run.model()
    saes = run.saes(model)
    store = scircuit.tokenize(cells, model.tokenizer, min_rate=0.1)
    for cell in (0, 17, 39):
        batch = store.batch(np.array([cell]))
        with torch.inference_mode():
            for layer, h in scircuit.residuals(model, batch, list(saes)).items():
                z = saes[layer].encode(h[torch.from_numpy(batch.is_gene)]).dense(saes[layer].n_latents)
                got = seen.obsm[f"scircuit_L{layer:02d}"][cell].toarray()[0]
                np.testing.assert_allclose(got, z.mean(dim=0).numpy(), rtol=1e-4, atol=1e-6)


def test_what_was_left_survives_the_file(seen: ad.AnnData, run: scircuit.Run, tmp_path: Path) -> None:
    seen.write_h5ad(tmp_path / "seen.h5ad")
    back = ad.read_h5ad(tmp_path / "seen.h5ad")
    assert (back.obsm["scircuit_L02"] != seen.obsm["scircuit_L02"]).nnz == 0
    edges = back.uns["scircuit"]["edges"]
    assert len(edges) == len(run.circuit().edges) > 0
    np.testing.assert_array_equal(edges["cohens_d"], run.circuit().edges["cohens_d"])
    assert back.uns["scircuit"]["features"]["top_genes"].str.contains("GENE").any()


def test_latents_are_variables(seen: ad.AnnData) -> None:
    latents = scircuit.tl.latents(seen)
    assert latents.n_obs == seen.n_obs
    assert list(latents.obsm) == ["X_umap"]
    at = latents.var.index.get_loc("L02_F0005")
    assert (latents.var["layer"].iloc[at], latents.var["feature"].iloc[at]) == (2, 5)
    assert (latents.X[:, [at]] != sparse.csr_matrix(seen.obsm["scircuit_L02"])[:, [5]]).nnz == 0


def test_scanpy_groups_by_latents(seen: ad.AnnData) -> None:
    sc = pytest.importorskip("scanpy")
    latents = scircuit.tl.latents(seen)
    busy = latents.var_names[np.asarray(latents.X.sum(axis=0)).ravel().argsort()[-3:]].tolist()
    means = sc.get.aggregate(latents[:, busy], by="kind", func="mean")
    for group in ("a", "b"):
        want = latents[latents.obs["kind"] == group, busy].X.toarray().mean(axis=0)
        np.testing.assert_allclose(np.asarray(means[group].layers["mean"])[0], want, rtol=1e-5)


def test_a_run_as_an_anndata(run: scircuit.Run) -> None:
    found = run.to_anndata()
    assert found.n_obs == len(run.cells())
    assert set(found.obs["_split"]) >= {"catalogue", "discovery"}
    assert found.uns["scircuit"]["run"] == str(run.root)


def test_cells_that_cannot_be_read_are_refused(run: scircuit.Run, cells: ad.AnnData) -> None:
    empty = cells.copy()
    empty.X = sparse.diags([float(i != 3) for i in range(40)], format="csr") @ empty.X
    with pytest.raises(ScircuitError, match=r"1 of 40 cells \(cell3, ...\) have no gene"):
        scircuit.tl.features(empty, run, min_rate=0.1)
    with pytest.raises(ScircuitError, match=r"call scircuit\.tl\.features"):
        scircuit.tl.latents(empty)
    with pytest.raises(ScircuitError, match="both model= and saes="):
        scircuit.tl.features(cells, model="geneformer-mini")
    with pytest.raises(ScircuitError, match="not both"):
        scircuit.tl.features(cells, run, model="geneformer-mini")
    with pytest.raises(ScircuitError, match="how counts are read"):
        scircuit.tl.features(cells, run, layer="counts")


def test_from_cells_to_a_circuit(run: scircuit.Run, geneformer_folder: Path, cells: ad.AnnData, tmp_path: Path) -> None:
    adata = cells.copy()
    sets = [f"set{i}\t\t" + "\t".join(f"GENE{g}" for g in range(4 * i, 4 * i + 12)) for i in range(12)]
    (tmp_path / "sets.gmt").write_text("\n".join(sets))
    chosen = SMALL | {
        "features": {"gene_sets": [str(tmp_path / "sets.gmt")], "min_firings": 2, "min_overlap": 2},
        "cells": {"min_match": 0.1, "shares": {"train": 0.3, "catalogue": 0.2, "discovery": 0.3, "confirmation": 0.2}},
        "sae": {"expansion": 2, "k": 6, "n_steps": 20, "batch_rows": 64, "buffer_rows": 2000, "quality_cells": 8},
    }
    made = scircuit.tl.trace(adata, tmp_path / "r", model=str(geneformer_folder), **chosen)
    assert len(made.circuit(grade="reproducible").edges) > 0
    assert "scircuit_L01" in adata.obsm
    written = (made.root / "trace" / "effects.parquet").stat().st_mtime_ns
    again = scircuit.tl.trace(adata, tmp_path / "r", model=str(geneformer_folder), activations=False, **chosen)
    assert (again.root / "trace" / "effects.parquet").stat().st_mtime_ns == written
    other = cells.copy()
    other.X = 2 * other.X
    with pytest.raises(ScircuitError, match="holds other cells"):
        scircuit.tl.trace(other, tmp_path / "r", model=str(geneformer_folder), **chosen)
    with pytest.raises(ScircuitError, match=r"cells\.path is an argument of its own"):
        scircuit.tl.trace(adata, tmp_path / "s", cells={"path": "x.h5ad"})


def test_every_answer_has_a_figure(run: scircuit.Run, tmp_path: Path) -> None:
    axes = scircuit.pl.sign_balance(run, save=tmp_path / "balance.svg")
    assert "<svg" in (tmp_path / "balance.svg").read_text()
    assert axes.has_data()
    assert {"circuit", "layer_pairs"} | set(every_question()) == set(dir(scircuit.pl))
    assert scircuit.pl.hubs.__doc__.startswith(every_question()["hubs"].asks)
    mine = scircuit.pl.threshold_sweep(run, ax=axes)
    assert mine is axes
    with pytest.raises(AttributeError, match="no figure 'cake'"):
        _ = scircuit.pl.cake
    with pytest.raises(ScircuitError, match="asked of several runs"):
        scircuit.pl.consensus(run)


def test_the_circuit_around_a_gene(run: scircuit.Run) -> None:
    circuit = run.circuit()
    edge = circuit.edges.iloc[0]
    node = circuit.nodes[
        (circuit.nodes["layer"] == edge["source_layer"]) & (circuit.nodes["feature"] == edge["source_feature"])
    ].iloc[0]
    gene = node["top_genes"][0]
    holders = {(row.layer, row.feature) for row in circuit.nodes.itertuples() if gene in row.top_genes}
    ends = [
        {(e.source_layer, e.source_feature), (e.target_layer, e.target_feature)} for e in circuit.edges.itertuples()
    ]
    assert len(circuit.around(gene.lower())) == sum(bool(pair & holders) for pair in ends)
    name = f"{edge['source_layer']}:{edge['source_feature']}"
    one = {(edge["source_layer"], edge["source_feature"])}
    assert len(circuit.around(name)) == sum(bool(pair & one) for pair in ends) > 0
    assert scircuit.pl.circuit(run, around=name).has_data()
    assert scircuit.pl.layer_pairs(circuit).has_data()
    with pytest.raises(ScircuitError, match=r"No latent of the circuit is 'GENE0x'.*did you mean 'GENE"):
        circuit.around("GENE0x")
