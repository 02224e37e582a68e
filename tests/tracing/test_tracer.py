"""Tables of a trace: statistics against numpy and scipy, interruption, stale results, merging."""

import copy
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from agreement import assert_same_effects
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scircuit.cells.tokens import tokenize
from scircuit.circuits.rule import EdgeRule
from scircuit.errors import ScircuitError
from scircuit.models.geneformer import load_geneformer
from scircuit.models.stream import gene_rows
from scircuit.sae.base import SaeConfig
from scircuit.sae.jumprelu import JumpReLUSAE
from scircuit.sae.settings import SaeTraining
from scircuit.sae.topk import TopKSAE
from scircuit.sae.training import train_saes
from scircuit.tracing import tracer
from scircuit.tracing.engines.clean import clean_batch, make_jobs
from scircuit.tracing.engines.interventions import Edit, Intervention
from scircuit.tracing.engines.naive import forward, naive_response
from scircuit.tracing.floor import relative_floor
from scircuit.tracing.moments import Moments, merge
from scircuit.tracing.settings import TraceSettings

ENDS = ["source_layer", "source_feature", "target_layer", "target_feature"]
SETTINGS = TraceSettings(cells_per_block=4, sources_per_block=3, tokens=300, retention=1.0, decoy="random", n_random=1)
WHOLE = replace(SETTINGS, cells_per_block=100, sources_per_block=100, tokens=5000)


@pytest.fixture(scope="module")
def setup(geneformer_folder, cells):
    model = load_geneformer(geneformer_folder, device="cpu")
    store = tokenize(cells, model.tokenizer, rows=np.arange(14))
    config = SaeTraining(k=6, n_steps=60, batch_rows=64, buffer_rows=2000, expansion=2)

    def stream(epoch):
        return (rows for rows, _, _ in gene_rows(model, store.batches(8), range(4)))

    saes = train_saes(stream, 32, range(4), config)
    sources = {}
    for layer in (0, 2):
        clean = clean_batch(model, saes[layer], store.batch(np.arange(3)), layer)
        live = torch.cat([lat.indices[lat.values > 0] for lat in clean.latents]).unique().tolist()
        sources[layer] = live[:4]
    return model, saes, store, sources


@pytest.fixture(scope="module")
def traced(setup, tmp_path_factory):
    model, saes, store, sources = setup
    return tracer.trace(model, saes, store, sources, tmp_path_factory.mktemp("run") / "trace", settings=SETTINGS)


class Dense:
    """Another library's object: dense activations, a linear decoder, and nothing else."""

    def __init__(self, sae):
        self._sae, self.W_dec = sae, sae.W_dec

    def encode(self, h):
        return self._sae.encode(h).dense(self._sae.n_latents)

    def decode(self, z):
        return z @ self.W_dec + self._sae.b_dec + self._sae.mean


def test_objects_of_other_libraries_are_traced_as_they_are(setup, traced, tmp_path):
    model, saes, store, sources = setup
    foreign = {layer: Dense(sae) for layer, sae in saes.items()}
    path = tracer.trace(model, foreign, store, sources, tmp_path / "trace", settings=SETTINGS)
    ours, theirs = (pd.read_parquet(p / "effects.parquet") for p in (traced, path))
    of_weights = ["weight_effect", "push_weight"]
    assert theirs[of_weights].isna().all(axis=None)
    assert ours[of_weights].notna().all(axis=None)
    measured = [c for c in ours if c not in of_weights]
    pd.testing.assert_frame_equal(ours[measured], theirs[measured])


def test_dictionaries_whose_latents_are_no_directions_are_refused(setup, tmp_path):
    model, saes, store, sources = setup
    sae = saes[2]
    weights = (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, sae.mean)
    for changes, message in (
        ({"input_norm": "layer_norm"}, "cannot be ablated exactly"),
        ({"reads": "mlp_in", "writes": "mlp_out"}, "a transcoder from mlp_in to mlp_out"),
    ):
        wrong = {**saes, 2: TopKSAE(replace(sae.config, **changes), *weights)}
        with pytest.raises(ScircuitError, match=message):
            tracer.trace(model, wrong, store, sources, tmp_path / "trace", settings=SETTINGS)
    with pytest.raises(ScircuitError, match="an SAE of layer 2 was given for layer 1"):
        tracer.trace(model, {**saes, 1: sae}, store, sources, tmp_path / "trace", settings=SETTINGS)


def true_responses(setup, kind_of):
    """Every response by the oracle in float64: {(source layer, source, target layer): [cell, latent]}."""
    model, saes, store, sources = setup
    exact, dictionaries = copy.deepcopy(model).double(), {t: copy.deepcopy(sae).double() for t, sae in saes.items()}
    out = {}
    for layer, features in sources.items():
        for cell in range(len(store)):
            batch = store.batch(np.array([cell]))
            jobs = make_jobs(clean_batch(model, saes[layer], batch, layer), saes[layer], [kind_of(f) for f in features])
            before = forward(exact, batch)
            for job in jobs:
                edit = Edit(job.edit.positions, job.edit.rows.double())
                found = naive_response(exact, dictionaries, batch, layer, edit, range(layer + 1, 4), before)
                for t, delta in found.items():
                    out.setdefault((layer, features[job.row], t), []).append(delta.numpy())
    return {key: np.stack(rows) for key, rows in out.items()}


def relu_dictionaries(saes):
    """The same directions, silent below a bias instead of by rank: rounding moves an activation, never by a jump."""
    out = {}
    for layer, sae in saes.items():
        config = SaeConfig("standard", sae.d_in, sae.n_latents, layer=layer)
        out[layer] = JumpReLUSAE(config, sae.W_enc, sae.b_enc - 0.3, sae.W_dec, sae.b_dec, sae.mean)
    return out


def test_every_statistic_of_every_effect(setup, tmp_path):
    """Against float64; where it finds a response of the size of float32's noise, either count is right."""
    model, saes, store, sources = setup
    setup = model, relu_dictionaries(saes), store, sources
    out = tracer.trace(*setup, tmp_path / "t", settings=WHOLE)
    effects, tests = (pd.read_parquet(out / f"{name}.parquet") for name in ("effects", "tests"))
    noise = 3 * relative_floor(torch.float32, model.device)  # of residuals whose entries are of size 1
    for kind, draw, make in (
        ("latent", 0, lambda f: Intervention((f,))),
        ("random", 1, lambda f: Intervention((f,), "random", draw=1)),
    ):
        mine = effects[(effects["kind"] == kind) & (effects["draw"] == draw)].set_index(ENDS)
        counted = tests.set_index(["source_layer", "source_feature", "target_layer", "kind", "draw"])
        checked = undecided = 0
        for (layer, feature, t), x in true_responses(setup, make).items():
            row = counted.loc[(layer, feature, t, kind, draw)]
            assert row["n_cells"] == len(x)
            assert (np.abs(x) > noise).any(axis=0).sum() <= row["n_tests"] <= (x != 0).any(axis=0).sum()
            small = ((x != 0) & (np.abs(x) < noise)).any(axis=0)
            undecided += small.sum()
            for latent in np.flatnonzero((x != 0).any(axis=0) & ~small)[:12]:
                values = x[:, latent]
                sd = values.std(ddof=1) if len(values) > 1 else 0.0
                got = mine.loc[(layer, feature, t, latent)]
                assert got["n_nonzero"] == np.count_nonzero(values)
                assert (got["n_pos"], got["n_neg"]) == ((values > 0).sum(), (values < 0).sum())
                assert got["mean_delta"] == pytest.approx(values.mean(), abs=1e-5)
                assert got["sd_delta"] == pytest.approx(sd, abs=1e-5)
                if got["sd_delta"] > 1e-3:
                    assert got["cohens_d"] == pytest.approx(values.mean() / sd, rel=1e-2, abs=1e-2)
                assert got["consistency"] == max(got["n_pos"], got["n_neg"]) / got["n_nonzero"]
                checked += 1
        assert checked > 40
        assert undecided < 0.05 * len(mine)


def test_the_spread_of_all_tests_is_counted(traced):
    """With every test kept, the sums of the test table are those of the effect table."""
    effects, tests = (pd.read_parquet(traced / f"{name}.parquet") for name in ("effects", "tests"))
    size = effects.loc[np.isfinite(effects["cohens_d"])].assign(a=lambda t: t["cohens_d"].abs())
    by = ["source_layer", "source_feature", "target_layer", "kind", "draw"]
    sums = size.groupby(by, observed=True)["a"].agg(["size", "sum", lambda a: (a**2).sum()])
    ours = tests.set_index(by)[["n_sized", "sum_abs_d", "sum_sq_d"]]
    np.testing.assert_allclose(ours.loc[sums.index], sums, rtol=1e-6)
    assert ours["n_sized"].sum() == len(size)


def test_p_values_are_the_exact_sign_flip_test(setup, traced):
    effects = pd.read_parquet(traced / "effects.parquet")
    per_cell = pd.read_parquet(traced / "cell_effects.parquet")
    few = effects[(effects["kind"] == "latent") & effects["n_nonzero"].between(2, 10)].nsmallest(8, "p_value")
    assert len(few) == 8
    for row in few.itertuples():
        mine = per_cell[(per_cell[ENDS] == [getattr(row, e) for e in ENDS]).all(axis=1)]["delta"].to_numpy(np.float64)
        assert len(mine) == row.n_nonzero
        expected = stats.permutation_test((mine,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
        assert row.p_value == pytest.approx(expected, rel=1e-6)


def read(folder):
    tables = {n: pd.read_parquet(folder / f"{n}.parquet") for n in ("effects", "tests", "cell_effects")}
    return tables, json.loads((folder / "trace.json").read_text())


def assert_same(a, b):
    for name in a[0]:
        pd.testing.assert_frame_equal(a[0][name], b[0][name], check_exact=True)
    assert a[1] == b[1]


@pytest.mark.parametrize("stop_after", [0, 1, 5, 11])
def test_an_interrupted_trace_resumes_to_the_same_bytes_and_counts(setup, traced, tmp_path, monkeypatch, stop_after):
    model, saes, store, sources = setup
    original, done = tracer.run_unit, []

    def interrupted(*args, **options):
        if len(done) == stop_after:
            raise KeyboardInterrupt
        done.append(1)
        return original(*args, **options)

    monkeypatch.setattr(tracer, "run_unit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tracer.trace(model, saes, store, sources, tmp_path / "t", settings=SETTINGS)
    assert not (tmp_path / "t" / "trace.json").exists()
    calls = []
    monkeypatch.setattr(tracer, "run_unit", lambda *a, **o: calls.append(1) or original(*a, **o))
    tracer.trace(model, saes, store, sources, tmp_path / "t", settings=SETTINGS)
    assert_same(read(tmp_path / "t"), read(traced))
    units = sum(-(-2 * len(f) // 3) for f in sources.values()) * 4
    assert len(calls) == units - stop_after
    assert not (tmp_path / "t" / "parts").exists()


def test_blocks_of_sources_and_batches_do_not_change_the_result(setup, traced, tmp_path):
    model, saes, store, sources = setup
    tracer.trace(model, saes, store, sources, tmp_path / "t", settings=WHOLE)
    a, b = (read(folder)[0]["effects"] for folder in (tmp_path / "t", traced))
    assert_same_effects(a, b, [*ENDS, "kind", "draw"])


def test_where_edges_need_no_test_every_strong_effect_is_kept(setup, traced, tmp_path):
    model, saes, store, sources = setup
    keys = [*ENDS, "kind", "draw"]
    all_tests = read(traced)[0]["effects"].set_index(keys)
    kept = {}
    for max_q in (None, 0.05):
        settings = replace(WHOLE, retention=0.05, rule=EdgeRule(max_q=max_q))
        out = tracer.trace(model, saes, store, sources, tmp_path / str(max_q), settings=settings)
        kept[max_q] = read(out)[0]["effects"].set_index(keys).index
    strong = all_tests.index[all_tests["cohens_d"].abs() > 0.5]
    small_p = all_tests.index[all_tests["p_value"] <= 0.05]
    assert len(strong.difference(small_p)) > 20, "sources that fire in few cells"
    assert set(kept[None]) == set(strong) | set(small_p)
    assert set(kept[0.05]) == set(small_p)


def test_a_finished_trace_is_returned_and_another_is_refused(setup, traced, monkeypatch):
    model, saes, store, sources = setup
    monkeypatch.setattr(tracer, "run_unit", lambda *a, **o: pytest.fail("nothing is left to run"))
    assert tracer.trace(model, saes, store, sources, traced, settings=SETTINGS) == traced
    for changed in (
        {"settings": TraceSettings(seed=1, retention=1.0)},
        {"cells": store.subset(np.arange(5))},
        {"sources": {0: sources[0][:1]}},
    ):
        inputs = {"cells": store, "sources": sources, "settings": SETTINGS, **changed}
        with pytest.raises(ScircuitError, match="holds the trace of other inputs"):
            tracer.trace(model, saes, inputs["cells"], inputs["sources"], traced, settings=inputs["settings"])


def test_wrong_sources_are_refused_before_any_work(setup, tmp_path):
    model, saes, store, _ = setup
    for sources, message in (
        ({3: [0]}, "No SAE lies above source layer 3"),
        ({0: [64]}, "no latent 64; its latents are 0 to 63"),
        ({9: [0]}, "Layer 9 has no SAE"),
        ({}, "No source was given"),
    ):
        with pytest.raises(ScircuitError, match=message):
            tracer.trace(model, saes, store, sources, tmp_path / "t", settings=SETTINGS)
    assert not (tmp_path / "t").exists()
    with pytest.raises(ScircuitError, match="it may be auto, exact, local"):
        TraceSettings(engine="approximate")


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_moments_merge_to_the_same_as_one_pass(seed, n):
    rng = np.random.default_rng(seed)
    delta = torch.from_numpy(rng.normal(size=(n, 5)) * (rng.random((n, 5)) < 0.6))
    clean = torch.from_numpy(rng.random((n, 5)))
    rows = rng.integers(0, 3, n)
    whole = Moments.zeros(3, 5, torch.device("cpu"))
    whole.add(rows, delta, clean)
    cut = rng.integers(0, n + 1)
    parts = []
    for span in (slice(0, cut), slice(cut, n)):
        part = Moments.zeros(3, 5, torch.device("cpu"))
        part.add(rows[span], delta[span], clean[span])
        parts.append(part)
    merged = merge(parts)
    for name, value in merged.arrays().items():
        np.testing.assert_allclose(value, whole.arrays()[name], rtol=1e-12, atol=1e-12)
    r = int(rows[0])
    mine = delta.numpy()[rows == r]
    np.testing.assert_allclose(whole.total[r], mine.sum(axis=0), atol=1e-12)
    np.testing.assert_allclose(whole.total_sq[r], (mine**2).sum(axis=0), atol=1e-12)
    assert whole.n_pos[r].tolist() == (mine > 0).sum(axis=0).tolist()
    again = Moments.from_tensors(whole.tensors("x"), "x")
    assert all((again.arrays()[k] == v).all() for k, v in whole.arrays().items())


def test_sums_are_read_two_parts_at_a_time_however_many_cells(setup, tmp_path, monkeypatch):
    """What `assemble` holds does not grow with the blocks of cells."""
    import weakref

    model, saes, store, sources = setup
    alive: weakref.WeakValueDictionary[int, Moments] = weakref.WeakValueDictionary()
    most = []
    original = Moments.from_tensors.__func__

    def from_tensors(cls, tensors, prefix):
        found = original(cls, tensors, prefix)
        alive[id(found)] = found
        most.append(len(alive))
        return found

    monkeypatch.setattr(Moments, "from_tensors", classmethod(from_tensors))
    one_cell = TraceSettings(**{**vars(SETTINGS), "cells_per_block": 1})
    tracer.trace(model, saes, store, {0: sources[0]}, tmp_path / "t", settings=one_cell)
    assert len(most) >= len(store) * 3, "one part per cell and target layer was read"
    assert max(most) <= 2
