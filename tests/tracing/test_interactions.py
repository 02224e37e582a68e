"""Interactions: every subset against a plain loop, additive models add up, a planted synergy is found."""

import numpy as np
import pandas as pd
import pytest
import torch
from planted import WIDTH, planted_cells, random_saes, wired_model

from scircuit.analysis.interactions import interactions
from scircuit.cells.tokens import tokenize
from scircuit.errors import ScircuitError
from scircuit.models.geneformer import load_geneformer
from scircuit.tracing.probes.interactions import trace_interactions
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.setup import Setup

ADDITIVE = {((0, 0), (1, 2)): 0.8, ((0, 1), (1, 2)): -0.5, ((0, 0), (2, 1)): -0.6, ((0, 3), (2, 1)): 0.7}
# Either source alone holds latent (1, 2) down to zero, so ablating one does nothing where both fire.
SYNERGY = {((0, 0), (1, 2)): -12.0, ((0, 1), (1, 2)): -12.0}


def naive(model, saes, batch, members, subset, layer_read):
    """One cell, one subset, a full forward with each latent removed as it is found; the change at every position."""

    def run(chosen):
        h = model.embed(batch)
        for layer in range(layer_read + 1):
            h = model.layer(layer, h, batch)
            features = [f for at, f in chosen if at == layer]
            if features:
                z = saes[layer].encode(h[0]).dense(saes[layer].n_latents)
                z[~torch.from_numpy(batch.is_gene[0])] = 0.0
                h = h.clone()
                h[0] -= z[:, features] @ saes[layer].W_dec[features]
        return saes[layer_read].encode(h[0]).dense(saes[layer_read].n_latents)

    fires = torch.zeros(batch.tokens.shape[1], dtype=torch.bool)
    for layer, feature in members:
        h = model.embed(batch)
        for i in range(layer + 1):
            h = model.layer(i, h, batch)
        fires |= saes[layer].encode(h[0]).column(feature) > 0
    fires &= torch.from_numpy(batch.is_gene[0])
    if not bool(fires.any()):
        return None
    chosen = [m for i, m in enumerate(members) if subset >> i & 1]
    return (run(chosen)[fires].double() - run([])[fires].double()).mean(dim=0).numpy()


@pytest.fixture(scope="module")
def geneformer(geneformer_folder, cells):
    model = load_geneformer(geneformer_folder, device="cpu")
    store = tokenize(cells, model.tokenizer, rows=np.arange(4))
    return model, random_saes(model, 48, k=6), store


@pytest.mark.parametrize("tokens", [1, 100_000])
def test_every_subset_equals_a_plain_loop(geneformer, tokens):
    model, saes, store = geneformer
    sets = [[(0, 3), (0, 17)], [(0, 5), (1, 9), (2, 11)], [(1, 9), (1, 20)], [(0, 8), (2, 30)]]
    found = trace_interactions(Setup(model, saes, store, settings=TraceSettings(tokens=tokens)), sets, targets=[3])
    n_cells = found.sets.set_index(["set_id", "member"])["n_cells"]
    dense = {}
    for key, rows in found.effects.groupby(["set_id", "subset", "cell"]):
        dense[key] = np.bincount(rows["target_feature"], rows["delta"], minlength=48)
    checked = 0
    for set_id, members in enumerate(sets):
        responding = 0
        for cell in range(len(store)):
            batch = store.batch(np.array([cell]))
            for subset in range(1, 1 << len(members)):
                expected = naive(model, saes, batch, members, subset, 3)
                if expected is None:
                    assert (set_id, subset, cell) not in dense
                    continue
                responding += subset == 1
                got = dense.get((set_id, subset, cell), np.zeros(48))
                np.testing.assert_allclose(got, expected, atol=2e-5)
                checked += np.count_nonzero(expected)
        assert (n_cells[set_id] == responding).all()
    assert checked > 100


def test_independent_effects_have_no_interaction_and_norm_ratio_one(tmp_path):
    model, saes = wired_model(ADDITIVE)
    sets = [[(0, 0), (0, 1)], [(0, 0), (0, 1), (0, 3)]]
    found = trace_interactions(Setup(model, saes, planted_cells(model, 20)), sets)
    found.write(tmp_path)
    read = [pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("interactions", "interaction_sets")]
    result = interactions(*read)
    estimate = result.measures.set_index("measure")["estimate"]
    assert estimate["norm_ratio_2"] == pytest.approx(1.0, abs=1e-9)
    assert estimate["norm_ratio_3"] == pytest.approx(1.0, abs=1e-9)
    assert (result.table["interaction"] == 0).all()
    assert {(1, 2), (2, 1)} <= set(result.table[["target_layer", "target_feature"]].itertuples(index=False, name=None))


def test_a_planted_synergy_is_found_where_it_is():
    model, saes = wired_model({**SYNERGY, ((0, 3), (1, 4)): 0.5, ((0, 5), (1, 4)): 0.4})
    found = trace_interactions(Setup(model, saes, planted_cells(model, 30)), [[(0, 0), (0, 1)], [(0, 3), (0, 5)]])
    table = interactions(found.effects, found.sets).table.set_index(["set_id", "target_layer", "target_feature"])
    assert table.loc[(0, 1, 2), "effect"] == "synergistic"
    assert table.loc[(0, 1, 2), "mean_response"] > table.loc[(0, 1, 2), "mean_sum"] > 0
    assert table.loc[(1, 1, 4), "effect"] == "additive"
    assert table.loc[(1, 1, 4), "interaction"] == 0


def test_a_chain_is_redundant_with_its_own_link():
    # All that (0, 1) does to (2, 4) passes through (1, 3): ablating both does what ablating (1, 3) does.
    model, saes = wired_model({((0, 1), (1, 3)): 0.5, ((1, 3), (2, 4)): 0.4})
    found = trace_interactions(Setup(model, saes, planted_cells(model, 20)), [[(0, 1), (1, 3)]], targets=[2])
    delta = found.effects.pivot(index="cell", columns="subset", values="delta")
    np.testing.assert_allclose(delta[3], delta[2], rtol=1e-9)
    assert (delta[1].dropna() != 0).any()
    table = interactions(found.effects, found.sets).table
    assert table.set_index("target_feature").loc[4, "effect"] == "redundant"


def test_a_subset_without_any_response_is_still_seen_to_have_been_ablated():
    model, saes = wired_model({((0, 0), (1, 2)): 0.8})
    found = trace_interactions(Setup(model, saes, planted_cells(model, 8)), [[(0, 0), (0, 4)]])
    silent = found.effects[found.effects["subset"] == 2]
    assert len(silent) == 1
    assert (silent["delta"] == 0).all()
    assert interactions(found.effects, found.sets).measures.set_index("measure")["estimate"]["norm_ratio_2"] == 1.0


@pytest.mark.parametrize(
    ("sets", "options", "message"),
    [
        ([[(0, 0)]], {}, "at least two different"),
        ([[(0, 0), (0, 0)]], {}, "at least two different"),
        ([[(0, 0), (0, WIDTH)]], {}, "Latent 6 of layer 0 is in no dictionary"),
        ([[(0, 0), (3, 0)]], {}, "No target layer with a dictionary lies above layer 3"),
        ([[(0, 0), (1, 0)]], {"targets": [1]}, "lies above layer 1"),
    ],
)
def test_wrong_sets_are_refused(sets, options, message):
    model, saes = wired_model(ADDITIVE)
    with pytest.raises(ScircuitError, match=message):
        trace_interactions(Setup(model, saes, planted_cells(model, 2)), sets, **options)


def test_sets_that_never_fire_are_refused():
    model, saes = wired_model(ADDITIVE)
    with torch.no_grad():
        saes[0].W_enc[:, :2] = 0.0
    with pytest.raises(ScircuitError, match="No set has a member that fires"):
        trace_interactions(Setup(model, saes, planted_cells(model, 2)), [[(0, 0), (0, 1)]])
