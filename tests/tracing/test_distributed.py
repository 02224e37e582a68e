"""Units on Dask workers: the same bits as here, whatever dies on the way."""

import json
import os
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from dictionaries import random_saes

from scircuit.cells.tokens import tokenize
from scircuit.errors import ScircuitError
from scircuit.models.geneformer import load_geneformer
from scircuit.tracing import tracer
from scircuit.tracing.distributed import open_client, run_units
from scircuit.tracing.parts import Unit
from scircuit.tracing.settings import TraceSettings

pytest.importorskip("distributed")
SETTINGS = TraceSettings(n_random=1, engine="exact", cells_per_block=2, sources_per_block=4, tokens=300, retention=1.0)


# A cluster of real processes takes some 15 s to start, lose a worker and stop.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(geneformer_folder, cells):
    model = load_geneformer(geneformer_folder, device="cpu")
    store = tokenize(cells, model.tokenizer, rows=np.arange(8))
    saes = random_saes(48)
    return model, saes, store, {0: [1, 2, 3, 4], 2: [5, 6]}


@pytest.fixture(scope="module")
def client():
    before = torch.get_num_threads()
    with open_client("local:2") as client:
        assert len(client.scheduler_info()["workers"]) == 2
        yield client
    torch.set_num_threads(before)


def assert_same(a, b):
    for name in ("effects", "tests", "cell_effects"):
        left, right = (pd.read_parquet(folder / f"{name}.parquet") for folder in (a, b))
        assert len(left)
        pd.testing.assert_frame_equal(left, right, check_exact=True)
    assert json.loads((a / "trace.json").read_text()) == json.loads((b / "trace.json").read_text())


def slowed(seconds, marks):
    """`run_unit`, leaving a mark per call, slow enough for something to happen meanwhile."""
    original = tracer.run_unit

    def run(setup, unit):
        (marks / f"{unit.name}.{os.getpid()}").touch()
        time.sleep(seconds)
        return original(setup, unit)

    return run


def test_a_killed_worker_costs_its_own_units_only(inputs, client, tmp_path, monkeypatch):
    model, saes, store, sources = inputs
    alone = tracer.trace(model, saes, store, sources, tmp_path / "alone", settings=SETTINGS)
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setattr(tracer, "run_unit", slowed(0.15, marks))
    killed = []

    def kill():
        while len(list(marks.iterdir())) < 4:
            time.sleep(0.01)
        killed.append(int(sorted(marks.iterdir(), key=os.path.getmtime)[-1].name.rsplit(".", 1)[1]))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    together = tracer.trace(model, saes, store, sources, tmp_path / "together", settings=SETTINGS, client=client)
    killer.join()
    assert killed
    assert os.getpid() not in {int(m.name.rsplit(".", 1)[1]) for m in marks.iterdir()}, "units ran on workers"
    runs = [m.name.rsplit(".", 1)[0] for m in marks.iterdir()]
    n_units = 3 * 4
    assert len(set(runs)) == n_units
    assert n_units < len(runs) <= n_units + 1, "only the unit that died with its worker runs again"
    assert_same(alone, together)


def test_an_interrupted_trace_goes_on_with_workers(inputs, client, tmp_path, monkeypatch):
    model, saes, store, sources = inputs
    original, done = tracer.run_unit, []

    def interrupted(*args, **options):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return original(*args, **options)

    monkeypatch.setattr(tracer, "run_unit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tracer.trace(model, saes, store, sources, tmp_path / "t", settings=SETTINGS)
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setattr(tracer, "run_unit", original)
    monkeypatch.setattr(tracer, "run_unit", slowed(0.0, marks))
    tracer.trace(model, saes, store, sources, tmp_path / "t", settings=SETTINGS, client=client)
    monkeypatch.setattr(tracer, "run_unit", original)
    assert len(list(marks.iterdir())) == 12 - 3
    assert_same(tracer.trace(model, saes, store, sources, tmp_path / "alone", settings=SETTINGS), tmp_path / "t")


def test_errors_of_a_worker_arrive_as_they_are(client, tmp_path):
    units = [Unit(0, 0, c, (), np.arange(1)) for c in range(3)]

    def refuse(unit):
        raise ScircuitError(f"no {unit.cell_block}")

    with pytest.raises(ScircuitError, match=r"no \d"):
        list(run_units(units, refuse, tmp_path, client))


def test_a_folder_that_is_not_shared_is_named(client, tmp_path):
    class Elsewhere:
        def write(self, path):
            path.with_suffix(".elsewhere").touch()

    with pytest.raises(ScircuitError, match="file system that all workers share"):
        list(run_units([Unit(0, 0, 0, (), np.arange(1))], lambda unit: Elsewhere(), tmp_path, client))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("cloud", "it may be local, local:N, slurm:N or tcp://HOST:PORT"),
        ("local:x", "positive number"),
        ("local:0", "positive number"),
        ("slurm", "positive number"),
    ],
)
def test_unknown_clusters_are_refused(where, message):
    with pytest.raises(ScircuitError, match=message), open_client(where):
        pass


def test_any_scheduler_address(client):
    with open_client(client.scheduler_info()["address"]) as other:
        assert other.submit(lambda: 41 + 1).result(timeout=10) == 42
