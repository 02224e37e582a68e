"""Path shares: both engines' means over cells by hand, and what must hold of their parts."""

import numpy as np
import pandas as pd
import pytest
import torch
from planted import planted_cells, planted_model, random_saes

from scircuit.cells.tokens import tokenize
from scircuit.errors import ScircuitError
from scircuit.models.geneformer import load_geneformer
from scircuit.tracing.engines.clean import clean_batch, make_jobs
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.engines.local import local_responses
from scircuit.tracing.engines.naive import naive_response
from scircuit.tracing.probes.path_shares import path_shares
from scircuit.tracing.setup import Setup

ENDS = ["source_layer", "source_feature", "target_layer", "target_feature"]


@pytest.fixture(scope="module")
def setup(geneformer_folder, cells):
    model = load_geneformer(geneformer_folder, device="cpu")
    saes = random_saes(model, 40, k=20)
    return model, saes, tokenize(cells, model.tokenizer, rows=np.arange(8))


def edges():
    rows = [(0, s, t, f) for s in (3, 8) for t in (1, 3) for f in range(0, 40, 3)]
    rows += [(1, s, 3, f) for s in (5, 9) for f in range(1, 40, 7)]
    return pd.DataFrame(rows, columns=ENDS).sample(frac=1.0, random_state=0)


def test_shares_are_means_over_cells_by_both_engines(setup):
    model, saes, store = setup
    table = path_shares(Setup(model, saes, store), edges())
    assert len(table) == len(edges())
    checked = 0
    for (layer, feature, target), rows in table.groupby(ENDS[:3]):
        exact, local, z = [], [], []
        for cell in range(len(store)):
            batch = store.batch(np.array([cell]))
            clean = clean_batch(model, saes[layer], batch, layer)
            for job in make_jobs(clean, saes[layer], [Intervention((feature,))]):
                exact.append(naive_response(model, saes, batch, layer, job.edit, [target])[target].numpy())
                (r,) = local_responses(model, saes, clean, [job], [target])
                local.append(r.delta[0].numpy())
                values = clean.latents[0].dense(40)[:, feature]
                z.append(float(values[values > 0].mean()))
        for row in rows.itertuples():
            assert row.n_cells == len(exact)
            assert row.mean_delta == pytest.approx(np.mean(exact, axis=0)[row.target_feature], abs=1e-5)
            assert row.local_delta == pytest.approx(np.mean(local, axis=0)[row.target_feature], abs=1e-5)
            product = float(torch.dot(saes[layer].W_dec[feature], saes[target].W_enc[:, row.target_feature]))
            assert row.weight_effect == pytest.approx(product, abs=1e-6)
            assert row.weight_delta == pytest.approx(-np.mean(z) * product, abs=1e-5)
            checked += abs(row.mean_delta) > 1e-4
    assert checked > 10


def test_parts_add_up_and_the_next_layer_has_no_context(setup):
    table = path_shares(Setup(*setup), edges())
    np.testing.assert_allclose(table["local_delta"] + table["context_delta"], table["mean_delta"], atol=1e-12)
    moved = table["mean_delta"] != 0
    np.testing.assert_allclose(table.loc[moved, "local_share"] + table.loc[moved, "context_share"], 1.0)
    assert table.loc[~moved, "local_share"].isna().all()
    near = table["target_layer"] - table["source_layer"] == 1
    np.testing.assert_allclose(table.loc[near, "context_delta"], 0.0, atol=1e-5)
    assert table.loc[~near, "context_delta"].abs().max() > 1e-3


def test_what_cannot_be_split_is_refused(setup):
    with pytest.raises(ScircuitError, match="lack target_feature"):
        path_shares(Setup(*setup), edges().drop(columns="target_feature"))
    with pytest.raises(ScircuitError, match="later layer"):
        path_shares(Setup(*setup), edges().assign(target_layer=0))
    model, saes, store = setup
    never = pd.DataFrame([(0, f, 1, 0) for f in range(40)], columns=ENDS)
    with pytest.raises(ScircuitError, match="fires in none of these cells"):
        path_shares(Setup(model, random_saes(model, 40, k=1), store.subset(np.array([0]))), never)
    model, saes = planted_model()
    one = pd.DataFrame([(0, 0, 1, 2)], columns=ENDS)
    with pytest.raises(ScircuitError, match="only engine='exact'"):
        path_shares(Setup(model, saes, planted_cells(model, 2)), one)
