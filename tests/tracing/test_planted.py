"""Planted circuits are recovered: every edge, no other, right signs, sizes as in the closed form."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from planted import D_MODEL, N_GENES, N_LAYERS, WIDTH, planted_model, total_effects
from scipy import sparse

from scircuit.cells.tokens import tokenize
from scircuit.circuits.build import build_circuit
from scircuit.circuits.rule import EdgeRule
from scircuit.models.stream import residuals
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.tracer import trace


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    model, saes = planted_model()
    rng = np.random.default_rng(0)
    x = rng.poisson(1.0, (40, N_GENES)).astype(float)
    x[:, 0] += 1
    adata = ad.AnnData(sparse.csr_matrix(x), var=pd.DataFrame(index=model.genes["ensembl_id"].to_numpy()))
    store = tokenize(adata, model.tokenizer)
    sources = {layer: list(range(WIDTH)) for layer in range(N_LAYERS - 1)}
    settings = TraceSettings(tokens=4000, n_random=4)
    out = trace(model, saes, store, sources, tmp_path_factory.mktemp("trace") / "t", settings=settings)
    return model, saes, store, pd.read_parquet(out / "effects.parquet"), pd.read_parquet(out / "tests.parquet")


def features():
    rows = [
        {"layer": layer, "feature": f, "label": "", "frequency": 0.5, "mean_activation": 1.0, "top_genes": [],
         "n_terms": 0, "n_firings": 100}
        for layer in range(N_LAYERS) for f in range(WIDTH)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def terms():
    columns = ("layer", "feature", "term", "n_overlap", "set_size", "query_size", "fold", "p_value", "q_value")
    return pd.DataFrame({c: [] for c in (*columns, "information_content")})


def truth():
    total = total_effects()
    return {
        (a // WIDTH, a % WIDTH, b // WIDTH, b % WIDTH): total[a, b]
        for a in range(D_MODEL) for b in range(D_MODEL) if total[a, b] and a // WIDTH < b // WIDTH
    }  # fmt: skip


def test_precision_and_recall_are_one_with_the_right_signs(traced):
    *_, effects, tests = traced
    circuit = build_circuit(effects, tests, features(), terms(), EdgeRule(), {"retention": 0.05})
    ends = ["source_layer", "source_feature", "target_layer", "target_feature"]
    found = {
        tuple(int(v) for v in row[:4]): row[4] for row in circuit.edges[[*ends, "mean_delta"]].itertuples(index=False)
    }
    expected = truth()
    assert set(found) == set(expected), "precision and recall"
    for edge, weight in expected.items():
        assert np.sign(found[edge]) == -np.sign(weight), edge


def test_unconnected_latents_are_never_even_a_test(traced):
    *_, tests = traced
    mine = tests[tests["kind"] == "latent"]
    expected = pd.Series([(a, b, c) for a, b, c, _ in truth()]).value_counts()
    for row in mine.itertuples():
        assert row.n_tests == expected.get((row.source_layer, row.source_feature, row.target_layer), 0)


def test_effects_equal_the_closed_form(traced):
    model, saes, store, effects, _ = traced
    expected = truth()
    mine = effects[effects["kind"] == "latent"].set_index(
        ["source_layer", "source_feature", "target_layer", "target_feature"]
    )
    for (layer, source, target_layer, target), weight in expected.items():
        per_cell = []
        for batch in store.batches(1, by_length=False):
            h = residuals(model, batch, [layer])[layer][0]
            z = saes[layer].encode(h).column(source)
            per_cell.append(-weight * float(z[z > 0].mean()) if bool((z > 0).any()) else np.nan)
        per_cell = np.array(per_cell)[np.isfinite(per_cell)]
        row = mine.loc[(layer, source, target_layer, target)]
        assert row["n_cells"] == len(per_cell)
        assert row["mean_delta"] == pytest.approx(per_cell.mean(), rel=1e-4)
        assert row["sd_delta"] == pytest.approx(per_cell.std(ddof=1), rel=1e-2, abs=1e-5)


def test_weight_effect_is_zero_without_a_direct_residual_copy(traced):
    *_, effects, _ = traced
    own = effects[effects["kind"] == "latent"]
    assert (own["weight_effect"] == 0).all(), "each layer's dictionary lives in its own slice"
