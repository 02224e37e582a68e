"""The published rule edge for edge: written out over the oracle's responses, in plain loops."""

import math

import numpy as np
import pandas as pd
import pytest
from dictionaries import random_saes

from scircuit.cells.tokens import tokenize
from scircuit.circuits.build import build_circuit
from scircuit.circuits.rule import EdgeRule
from scircuit.circuits.schema import TERMS
from scircuit.models.geneformer import load_geneformer
from scircuit.published.definitions import PAPER
from scircuit.tracing.engines.clean import clean_batch, make_jobs
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.engines.naive import naive_response
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.tracer import trace

N_LATENTS, TOP = 80, 50


@pytest.fixture(scope="module")
def setup(geneformer_folder, cells):
    model = load_geneformer(geneformer_folder, device="cpu")
    saes = random_saes(N_LATENTS, seed=5)
    return model, saes, tokenize(cells, model.tokenizer, rows=np.arange(12))


def published_edges(setup, layer, feature):
    """`{(target layer, target): d}` of one source, as the published code finds them."""
    model, saes, store = setup
    n, mean, m2, pos = 0, {}, {}, {}
    for cell in range(len(store)):
        batch = store.batch(np.array([cell]))
        clean = clean_batch(model, saes[layer], batch, layer)
        for job in make_jobs(clean, saes[layer], [Intervention((feature,))]):
            n += 1
            for t, delta in naive_response(model, saes, batch, layer, job.edit, range(layer + 1, 4)).items():
                x = delta.numpy()
                off = x - mean.setdefault(t, np.zeros(N_LATENTS))
                mean[t] = mean[t] + off / n
                m2[t] = m2.get(t, 0.0) + off * (x - mean[t])
                pos[t] = pos.get(t, 0) + (x > 0)
    found = {}
    for t in mean if n > 1 else ():
        d = mean[t] / np.maximum(np.sqrt(m2[t] / (n - 1)), 1e-10)
        consistency = np.maximum(pos[t], n - pos[t]) / n
        passes = [j for j in range(N_LATENTS) if abs(d[j]) > 0.5 and consistency[j] > 0.7]
        for j in sorted(passes, key=lambda j: -abs(d[j]))[:TOP]:
            found[t, j] = float(d[j])
    return n, found


def test_the_paper_rule_gives_the_published_edges(setup, tmp_path):
    model, saes, store = setup
    clean = clean_batch(model, saes[0], store.batch(np.arange(12)), 0)
    cells_of = {f: sum(bool((x.column(f) > 0).any()) for x in clean.latents) for f in range(N_LATENTS)}
    sources = [f for f, n in sorted(cells_of.items(), key=lambda item: item[1]) if n > 1][:8]  # rare: large p
    sources += [f for f, n in cells_of.items() if n == 12][:2]
    folder = trace(
        model, saes, store, {0: sources}, tmp_path / "t",
        settings=TraceSettings(engine="exact", rule=EdgeRule(max_q=None), n_random=0, cells_per_block=5),
    )  # fmt: skip
    effects, tests = (pd.read_parquet(folder / f"{name}.parquet") for name in ("effects", "tests"))
    features = pd.DataFrame(
        {
            "layer": np.repeat(np.arange(4), N_LATENTS), "feature": np.tile(np.arange(N_LATENTS), 4), "label": "",
            "frequency": 0.1, "mean_activation": 1.0, "top_genes": [[]] * 4 * N_LATENTS, "n_terms": 0, "n_firings": 9,
        }
    )  # fmt: skip
    columns = ("layer", "feature", "library", "term", *TERMS)
    terms = pd.DataFrame(columns=list(dict.fromkeys(columns)))
    circuit = build_circuit(effects, tests, features, terms, PAPER, {"kept_abs_d": 0.5})
    found = 0
    for source in sources:
        n, expected = published_edges(setup, 0, source)
        mine = circuit.edges[circuit.edges["source_feature"] == source]
        assert (mine["n_cells"] == n).all()
        got = {(int(r.target_layer), int(r.target_feature)): r.cohens_d for r in mine.itertuples()}
        assert got.keys() == expected.keys(), f"source {source}, which fires in {n} cells"
        for end, d in expected.items():
            assert math.isclose(got[end], d, rel_tol=1e-3) or (abs(d) > 1e6 and math.isinf(got[end]))
        found += len(got)
    assert found > 100
    assert (circuit.edges["p_value"] > 0.05).any(), "edges that a retention level alone would have lost"
