"""Special tokens are edited and read on request alone."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from dictionaries import random_saes

from scircuit.cells.batch import Role
from scircuit.cells.tokens import tokenize
from scircuit.models.load import load_model
from scircuit.tracing.engines.clean import clean_batch, make_jobs
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.engines.naive import naive_response
from scircuit.tracing.settings import RESOURCES, TraceSettings
from scircuit.tracing.tracer import trace

SETTINGS = TraceSettings(engine="exact", n_random=0, retention=1.0)


@pytest.fixture(scope="module")
def setup(geneformer_folder, cells):
    model = load_model(geneformer_folder, device="cpu")
    return model, random_saes(64), tokenize(cells, model.tokenizer, rows=np.arange(12))


def test_positions_are_those_of_genes_and_on_request_of_special_tokens(setup):
    model, saes, store = setup
    batch = store.batch(np.arange(3))
    genes, every = (clean_batch(model, saes[0], batch, 0, special).positions for special in (False, True))
    for cell, role in enumerate(batch.role):
        assert genes[cell].tolist() == np.flatnonzero(role == Role.GENE).tolist()
        assert every[cell].tolist() == np.flatnonzero(np.isin(role, [Role.GENE, Role.CLS, Role.EOS])).tolist()
        assert len(every[cell]) == len(genes[cell]) + 2


def test_a_trace_of_them_is_that_of_the_oracle(setup, tmp_path):
    model, saes, store = setup
    clean = clean_batch(model, saes[0], store.batch(np.arange(12)), 0, special_tokens=True)
    first = clean.latents[0].rows([0])
    feature = int(first.indices[first.values > 0][0])  # fires on the <cls> of the first cell
    tables = {}
    for special in (False, True):
        settings = replace(SETTINGS, special_tokens=special)
        out = trace(model, saes, store, {0: [feature]}, tmp_path / str(special), settings=settings)
        tables[special] = pd.read_parquet(out / "cell_effects.parquet")
    own = tables[True][(tables[True]["cell"] == 0) & (tables[True]["target_layer"] == 1)]
    batch = store.batch(np.array([0]))
    (job,) = make_jobs(clean_batch(model, saes[0], batch, 0, True), saes[0], [Intervention((feature,))])
    assert 0 in job.edit.positions
    expected = naive_response(model, saes, batch, 0, job.edit, [1])[1]
    for row in own.itertuples():
        assert row.delta == pytest.approx(float(expected[row.target_feature]), rel=1e-4, abs=1e-6)
    both = tables[True].merge(tables[False], on=["target_layer", "target_feature", "cell"], suffixes=("", "_genes"))
    assert not np.allclose(both["delta"], both["delta_genes"])


def test_traces_made_before_there_was_the_choice_are_the_same():
    assert "special_tokens" not in SETTINGS.deciding(RESOURCES)
    assert replace(SETTINGS, special_tokens=True).deciding(RESOURCES)["special_tokens"] is True
