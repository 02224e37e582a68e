"""What the feature and trace stages add to the catalogue: controls, modules, matches, pairs without intervention."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from scircuit._io import read_json
from scircuit.cells.tokens import TokenStore
from scircuit.circuits.circuit import Circuit
from scircuit.config_file import load_config
from scircuit.features.across import watch_across
from scircuit.features.detectors import one_gene_shares
from scircuit.models.load import load_model
from scircuit.models.stream import gene_rows
from scircuit.runs.stages import run
from scircuit.sae.checkpoint import load_saes
from scircuit.sae.stability import stability


@pytest.fixture(scope="module")
def opened(finished: dict[str, Path]):
    """Model, tokens, dictionaries and folder of a finished run."""
    folder = finished["geneformer"]
    config = load_config(folder / "run.toml")
    model = load_model(config.model.source, device="cpu")
    out = folder / "out"
    return model, TokenStore.read(out / "tokens"), load_saes(out / "saes"), out


def dense(opened, cells: np.ndarray) -> tuple[dict[int, np.ndarray], np.ndarray, np.ndarray]:
    """Activations `[position, latent]` per layer, gene and cell of each position."""
    model, store, saes, _ = opened
    rows, gene, cell = next(iter(gene_rows(model, store.batches(len(cells), cells=cells), list(saes))))
    out = {}
    for layer, sae in saes.items():
        latents = sae.encode(rows[layer])
        full = np.zeros((len(rows[layer]), sae.n_latents))
        np.put_along_axis(full, latents.indices.numpy(), latents.values.detach().numpy(), axis=1)
        out[layer] = full
    return out, gene, cell


def test_one_gene_shares_agree_with_the_dense_definition(opened) -> None:
    model, store, saes, _ = opened
    cells = np.arange(12)
    active, gene, _ = dense(opened, cells)
    shares = one_gene_shares(model, saes, store.batches(5, cells=cells), threshold=0.2)
    for layer, a in active.items():
        sums = np.zeros((a.shape[1], len(model.genes)))
        np.add.at(sums.T, gene, a)
        live = sums[sums.any(axis=1)]
        assert shares[layer] == pytest.approx((live.max(axis=1) > 0.2 * live.sum(axis=1)).mean())


def test_pmi_and_activations_agree_with_the_dense_definition(opened) -> None:
    model, store, saes, _ = opened
    cells = np.arange(3, 15)
    active, _, cell = dense(opened, cells)
    sources = {0: [1, 5, 8], 1: [2]}
    seen = watch_across(model, store.batches(4, cells=cells), saes, sources, cells)
    for layer, a in active.items():
        mean = np.stack([a[cell == c].mean(axis=0) for c in cells])
        np.testing.assert_allclose(seen.activations[layer], mean, rtol=2e-4, atol=1e-5)
    table = seen.pmi.set_index(["source_layer", "source_feature", "target_layer", "target_feature"])
    assert set(table.index.get_level_values(0)) <= {0, 1}
    n = 0
    for a, features in sources.items():
        for s in features:
            for b in range(a + 1, model.n_layers):
                for t in range(active[b].shape[1]):
                    fires_s, fires_t = active[a][:, s] > 0, active[b][:, t] > 0
                    together = (fires_s & fires_t).mean()
                    if together == 0:
                        assert (a, s, b, t) not in table.index
                        continue
                    n += 1
                    expected = np.log2(together / (fires_s.mean() * fires_t.mean()))
                    assert table.loc[(a, s, b, t), "pmi"] == pytest.approx(expected)
    assert n == len(table) > 50


def test_tables_beside_the_catalogue(opened) -> None:
    out = opened[-1]
    circuit = Circuit.read(out / "circuit")
    across = pd.read_parquet(out / "features" / "coactivation_across.parquet")
    sources = circuit.nodes.loc[circuit.nodes["is_source"], ["layer", "feature"]]
    assert set(map(tuple, across[["source_layer", "source_feature"]].to_numpy())) <= set(map(tuple, sources.to_numpy()))
    correlations = pd.read_parquet(out / "features" / "correlations.parquet")
    assert len(correlations) == len(circuit.edges)
    assert correlations["latent_r"].dropna().between(-1.001, 1.001).all()
    assert correlations["gene_r"].notna().any()
    matches = pd.read_parquet(out / "features" / "layer_matches.parquet")
    assert (matches["cosine"].abs() >= 0.7).all()
    assert {"coactivation", "modules"} <= {p.stem for p in (out / "features").glob("*.parquet")}


def test_chance_is_told(opened) -> None:
    out = opened[-1]
    control = read_json(out / "features" / "labels.json")["random_genes"]
    features = pd.read_parquet(out / "features" / "features.parquet")
    assert control["n_annotated"] == (features["n_terms"] > 0).sum()
    assert control["draws"] == 20
    record = read_json(out / "circuit" / "run.json")["annotation"]
    assert record["beyond"] == pytest.approx(control["annotated"] - control["control"])
    assert "the same share, their genes drawn at random" in (out / "report" / "index.html").read_text(encoding="utf-8")


def test_quality_says_how_many_latents_are_one_gene(opened) -> None:
    manifest = read_json(opened[-1] / "saes" / "manifest.json")
    for entry in manifest["layers"].values():
        assert 0 <= entry["metrics"]["one_gene_share"] <= 1
        assert "seed_stability" not in entry["metrics"]


def test_options_switch_the_extras_off_and_seeds_on(project, scgpt_folder: Path) -> None:
    def edit(text: str) -> str:
        quiet = "[features]\ncoactivation = false\nmin_cosine = 'null'\ncontrol_draws = 0\npair_cells = 0"
        return text.replace("[features]", quiet).replace("[sae]", "[sae]\nstability_seeds = 1")

    out = run(load_config(project(scgpt_folder, edit=edit) / "run.toml"), until="trace").root
    names = {p.stem for p in (out / "features").glob("*.parquet")}
    assert not {"coactivation", "modules", "layer_matches", "coactivation_across", "correlations"} & names
    assert read_json(out / "features" / "labels.json")["random_genes"] is None
    assert read_json(out / "circuit" / "run.json")["annotation"] == {}
    for layer, entry in read_json(out / "saes" / "manifest.json")["layers"].items():
        metrics = entry["metrics"]
        assert 0 < metrics["seed_stability"] <= 1
        own = load_saes(out / "saes")[int(layer)].W_dec
        unrelated = torch.randn(own.shape, generator=torch.Generator().manual_seed(99))
        assert metrics["seed_stability_random"] == pytest.approx(stability(own, unrelated).mean, abs=0.03)
        assert stability(own, own).mean == pytest.approx(1, abs=1e-5)
