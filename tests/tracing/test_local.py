"""The local engine: exact one layer up, exact with all rows as context, measured, confirmed, or refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from scircuit.cells.tokens import tokenize
from scircuit.errors import ScircuitError
from scircuit.models.geneformer import load_geneformer
from scircuit.models.scgpt import load_scgpt
from scircuit.models.stream import gene_rows
from scircuit.published.definitions import PAPER
from scircuit.sae.settings import SaeTraining
from scircuit.sae.training import train_saes
from scircuit.tracing.assemble import Tables
from scircuit.tracing.confirm import borderline, replace_rows
from scircuit.tracing.engines.clean import clean_batch, make_jobs
from scircuit.tracing.engines.exact import suffix_responses
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.engines.local import local_responses
from scircuit.tracing.fidelity import Fidelity, choose_context
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.setup import Setup
from scircuit.tracing.tracer import trace


@pytest.fixture(scope="module", params=["geneformer", "scgpt"])
def setup(request, geneformer_folder, scgpt_folder, cells):
    load, folder = {"geneformer": (load_geneformer, geneformer_folder), "scgpt": (load_scgpt, scgpt_folder)}[
        request.param
    ]
    model = load(folder, device="cpu")
    store = tokenize(cells, model.tokenizer)
    layers = range(model.n_layers)
    config = SaeTraining(k=4, n_steps=60, batch_rows=64, buffer_rows=2000, expansion=2)

    def stream(epoch):
        return (rows for rows, _, _ in gene_rows(model, store.batches(8), layers))

    return model, train_saes(stream, 32, layers, config), store


def responses(engine, setup, layer, rows, **options):
    """`{target: float64 [job, latent]}` of every latent of a layer in some cells, and the clean side."""
    model, saes, store = setup
    batch = store.batch(np.array(rows))
    clean = clean_batch(model, saes[layer], batch, layer)
    jobs = make_jobs(clean, saes[layer], [Intervention((f,)) for f in range(64)])
    targets = list(range(layer + 1, model.n_layers))
    found = {t: torch.full((len(jobs), 64), torch.nan, dtype=torch.float64) for t in targets}
    before = {t: torch.full((len(jobs), 64), torch.nan, dtype=torch.float64) for t in targets}
    for r in engine(model, saes, clean, jobs, targets, **options):
        index = torch.from_numpy(r.job)
        assert torch.isnan(found[r.layer][index]).all(), "each job answers once per layer"
        found[r.layer][index], before[r.layer][index] = r.delta, r.clean
    return found, before


def test_exact_for_the_first_layer_above_and_the_same_clean_side(setup):
    exact, clean0 = responses(suffix_responses, setup, 0, [0, 3, 11])
    local, clean1 = responses(local_responses, setup, 0, [0, 3, 11])
    torch.testing.assert_close(local[1], exact[1], atol=2e-5, rtol=1e-4)
    assert int((exact[1] != 0).sum()) > 200
    for t in exact:
        torch.testing.assert_close(clean1[t], clean0[t], atol=2e-5, rtol=1e-4)


def test_approximate_beyond_but_not_elsewhere_and_exact_with_every_row_as_context(setup):
    exact, _ = responses(suffix_responses, setup, 0, [0, 3])
    local, _ = responses(local_responses, setup, 0, [0, 3])
    everything, _ = responses(local_responses, setup, 0, [0, 3], context_rows=float("inf"))
    last = max(exact)
    assert (local[last] - exact[last]).abs().max() > 1e-3, "paths that leave and come back are dropped"
    for t in exact:
        torch.testing.assert_close(everything[t], exact[t], atol=5e-5, rtol=1e-3)


def test_more_context_is_closer_to_exact(setup):
    exact, _ = responses(suffix_responses, setup, 0, range(8))
    last = max(exact)
    errors = []
    for context in (0.0, 1.0, 4.0):
        local, _ = responses(local_responses, setup, 0, range(8), context_rows=context)
        errors.append(float((local[last] - exact[last]).square().mean()))
    assert errors[2] < errors[1] < errors[0]


@pytest.mark.parametrize("score_bytes", [1, 20_000, 1 << 27])
def test_chunks_do_not_change_the_result(setup, score_bytes):
    whole, _ = responses(local_responses, setup, 1, [5, 6], context_rows=0.5)
    parts, _ = responses(local_responses, setup, 1, [5, 6], context_rows=0.5, score_bytes=score_bytes)
    for t in whole:
        torch.testing.assert_close(parts[t], whole[t], atol=2e-5, rtol=1e-3)


def test_leaving_out_the_own_keys_would_be_wrong(setup):
    """The oracle of the approximation: the same rows in a full forward with every other row held clean."""
    model, saes, store = setup
    batch = store.batch(np.array([9]))
    clean = clean_batch(model, saes[0], batch, 0)
    job = make_jobs(clean, saes[0], [Intervention((int(clean.latents[0].indices[2, 0]),))])[0]
    states = [clean.h]
    for i in range(1, model.n_layers):
        states.append(model.layer(i, states[-1], batch))
    h = clean.h.clone()
    h[0, job.edit.positions] += job.edit.rows
    for i in range(1, model.n_layers):
        moved = model.layer(i, h, batch)
        h = states[i].clone()
        h[0, job.edit.positions] = moved[0, job.edit.positions]
        z1, z0 = (saes[i].encode(x[0, job.edit.positions]).dense(64).double() for x in (h, states[i]))
        got = next(r for r in local_responses(model, saes, clean, [job], [i]) if r.layer == i)
        torch.testing.assert_close(got.delta[0], (z1 - z0).mean(dim=0), atol=2e-5, rtol=1e-3)


SETTINGS = TraceSettings(
    engine="local", context_rows=0.0, check_sources=40, check_cells=24, min_r=0.5, min_sign=0.5, cells_per_block=20,
    tokens=2000, n_random=0, confirm="none",
)  # fmt: skip


def test_the_fidelity_check_raises_the_context_or_refuses(setup):
    model, saes, store = setup

    def checked(**options):
        settings = TraceSettings(engine="local", check_sources=40, check_cells=24, tokens=4000, **options)
        return choose_context(Setup.of(model, saes, store, {0: range(64)}, settings))

    easy = checked(min_r=0.2, min_sign=0.2)
    assert easy.context_rows == 0
    assert easy.passed
    assert easy.table["distance"].tolist() == list(range(1, model.n_layers))
    assert easy.table.loc[0, "r"] > 0.9999
    assert easy.table.loc[0, "rmse"] < 1e-2
    level = float(easy.table["r"].min())
    raised = checked(min_r=level + 0.3 * (1 - level), min_sign=0.2, accept_approximation=True)
    assert raised.table["r"].min() > level
    assert raised.context_rows > 0
    with pytest.raises(ScircuitError, match=r"use engine='exact', or --accept-approximation"):
        checked(context_rows=0.0, min_r=1.0, min_sign=1.0)


def test_a_local_trace_is_marked_and_reports_its_fidelity(setup, tmp_path):
    import json

    model, saes, store = setup
    live = saes[0].encode(next(gene_rows(model, store.batches(8), [0]))[0][0]).indices.unique().tolist()
    folder = trace(model, saes, store, {0: live}, tmp_path / "t", settings=SETTINGS)
    info = json.loads((folder / "trace.json").read_text())
    effects = pd.read_parquet(folder / "effects.parquet")
    assert info["engine"] == "local"
    assert [row["distance"] for row in info["fidelity"]["table"]] == list(range(1, model.n_layers))
    assert set(effects["engine"]) == {"local"}
    confirmed = trace(
        model, saes, store, {0: live}, tmp_path / "c", settings=TraceSettings(**{**vars(SETTINGS), "confirm": "all"})
    )
    mixed = pd.read_parquet(confirmed / "effects.parquet")
    exact = trace(
        model, saes, store, {0: live}, tmp_path / "e", settings=TraceSettings(**{**vars(SETTINGS), "engine": "exact"})
    )
    truth = pd.read_parquet(exact / "effects.parquet")
    ends = ["source_layer", "source_feature", "target_layer", "target_feature"]
    mine = mixed[mixed["engine"] == "exact"].set_index(ends)
    assert len(mine) > 0
    both = mine.join(truth.set_index(ends), rsuffix="_truth", how="left")
    # d is in units of an SD, and so is what rounding in other batches does to it.
    np.testing.assert_allclose(both["cohens_d"], both["cohens_d_truth"], rtol=0, atol=5e-5)
    assert (
        json.loads((confirmed / "trace.json").read_text())["n_sources_confirmed"]
        == mine.reset_index()["source_feature"].nunique()
    )


def test_auto_is_local_for_exhaustive_runs_on_models_that_show_their_keys(setup):
    model, saes, store = setup

    def engine(model, latents, asked="auto"):
        return Setup(model, saes, store, {0: latents}, settings=TraceSettings(engine=asked)).engine

    assert engine(model, range(40)) == "local"
    assert engine(model, range(5)) == "exact"
    assert engine(object(), range(64)) == "exact"
    assert engine(model, [1], "local") == "local"


def fake_tables(rows, n_cells=40, cells=Path("cells")):
    columns = ["source_layer", "source_feature", "target_layer", "cohens_d", "consistency", "n_nonzero", "p_value"]
    effects = pd.DataFrame(rows, columns=columns).assign(kind="latent", draw=0, n_cells=n_cells)
    effects["n_pos"] = (effects["consistency"] * effects["n_nonzero"]).round().astype(int)
    effects["n_neg"] = effects["n_nonzero"] - effects["n_pos"]
    tests = effects.groupby(["source_layer", "source_feature", "target_layer"]).size().rename("n_tests").reset_index()
    tests = tests.assign(kind="latent", draw=0)
    return Tables(effects, tests, cells, Path("fired"), None, pd.DataFrame(), 5, 7)


def ablations(features):
    return {layer: [(feature, "latent", 0) for feature in some] for layer, some in features.items()}


def test_borderline_is_what_the_measured_error_could_flip(tmp_path):
    fidelity = Fidelity(0.0, pd.DataFrame({"distance": [1, 2], "rmse": [1e-7, 0.02]}), True)
    rows = [
        (0, 1, 1, 0.5001, 0.95, 40, 1e-9),  # distance 1: exact anyway
        (0, 2, 2, 0.55, 0.95, 40, 1e-9),  # within 3 x 0.02 of 0.5
        (0, 3, 2, 0.58, 0.95, 40, 1e-9),  # clear edge
        (0, 4, 2, 0.43, 0.95, 40, 1e-9),  # clear non-edge
        (0, 5, 2, -0.9, 0.725, 40, 1e-9),  # consistency within a cell and a half of 0.7
        (0, 6, 2, 0.9, 0.95, 40, 0.030),  # q near 0.05
        (1, 7, 3, -0.45, 0.95, 40, 1e-9),  # near from below, other layer
    ]
    tables = fake_tables(rows)
    assert borderline(tables, fidelity, TraceSettings()) == ablations({0: [2, 5, 6], 1: [7]})
    assert borderline(tables, fidelity, TraceSettings(confirm="all")) == ablations({0: [2, 3, 5, 6], 1: [7]})
    assert borderline(tables, fidelity, TraceSettings(confirm="none")) == {}
    again = fake_tables([(0, 2, 2, 0.49, 0.9, 40, 1e-8)], cells=tmp_path / "again.parquet")
    first = tmp_path / "first.parquet"
    for path, kept in ((first, [(0, 2, 7), (0, 3, 7)]), (again.cells, [(0, 2, 8)])):
        pd.DataFrame(kept, columns=["source_layer", "source_feature", "cell"]).to_parquet(path)
    merged = replace_rows(tables._replace(cells=first), again)
    assert pd.read_parquet(merged.cells).to_numpy().tolist() == [[0, 3, 7], [0, 2, 8]]
    assert merged.effects.query("source_feature == 2")["cohens_d"].tolist() == [0.49]
    assert len(merged.effects) == 7
    assert (merged.n_clean, merged.n_ablated) == (10, 14)


def test_borderline_counts_silent_cells_as_the_rule_does():
    """25 up, 25 down, 50 silent: half of the responding cells agree, three quarters where silence counts as a fall."""
    fidelity = Fidelity(0.0, pd.DataFrame({"distance": [2], "rmse": [0.001]}), True)
    tables = fake_tables([(0, 1, 2, 0.9, 0.5, 50, 1e-9)], n_cells=100)
    paper = replace(PAPER, min_consistency=0.75)
    assert borderline(tables, fidelity, TraceSettings()) == {}
    assert borderline(tables, fidelity, TraceSettings(rule=paper)) == ablations({0: [1]})
