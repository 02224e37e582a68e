"""A process that traces is killed again and again; what it finally writes is what an undisturbed one writes."""

import json
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

SCRIPT = """
import sys
import anndata, numpy as np, torch
from scircuit.cells.tokens import tokenize
from scircuit.models.geneformer import load_geneformer
from scircuit.sae.base import SaeConfig
from scircuit.sae.topk import TopKSAE
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.tracer import trace

model = load_geneformer(sys.argv[1], device="cpu")
store = tokenize(anndata.read_h5ad(sys.argv[2]), model.tokenizer)
g = torch.Generator().manual_seed(0)
saes = {}
for layer in range(4):
    decoder = torch.nn.functional.normalize(torch.randn(64, 32, generator=g), dim=1)
    config = SaeConfig("topk", 32, 64, k=6, layer=layer)
    saes[layer] = TopKSAE(config, decoder.T.clone(), torch.zeros(64), decoder, torch.zeros(32))
settings = TraceSettings(
    engine=sys.argv[4], cells_per_block=2, sources_per_block=6, tokens=400, retention=1.0, confirm="all",
    accept_approximation=True, check_cells=20, check_sources=8, n_random=1,
)
trace(model, saes, store, {0: range(16), 1: range(16), 2: range(8)}, sys.argv[3], settings=settings)
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["exact", "local"])
def test_killed_and_resumed_is_the_same_as_undisturbed(engine, geneformer_folder, cells, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    cells.copy().write_h5ad(tmp_path / "cells.h5ad")
    rng = random.Random(f"when to kill {engine}")

    def start(out):
        command = [sys.executable, str(tmp_path / "script.py"), str(geneformer_folder), str(tmp_path / "cells.h5ad")]
        with open(tmp_path / "stderr.txt", "w") as errors:
            return subprocess.Popen([*command, str(tmp_path / out), engine], stderr=errors)

    def parts():
        return {p.relative_to(tmp_path) for p in (tmp_path / "disturbed").glob("parts/*/*/*.safetensors")}

    undisturbed = start("undisturbed")
    assert undisturbed.wait(120) == 0, (tmp_path / "stderr.txt").read_text()
    survived = []
    for sign in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        before = parts()
        process = start("disturbed")
        enough = len(before) + rng.randrange(1, 60)
        while process.poll() is None and len(parts()) < enough:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.02)
        assert process.poll() is None, (tmp_path / "stderr.txt").read_text()
        process.send_signal(sign)
        assert process.wait(60) != 0
        assert not (tmp_path / "disturbed" / "trace.json").exists()
        assert before <= parts(), "what was done stays done"
        survived.append(len(parts()))
    assert survived[0] < survived[-1]
    last = start("disturbed")
    assert last.wait(120) == 0, (tmp_path / "stderr.txt").read_text()
    for name in ("effects", "tests", "cell_effects", "source_cells"):
        a, b = (pd.read_parquet(tmp_path / run / f"{name}.parquet") for run in ("undisturbed", "disturbed"))
        pd.testing.assert_frame_equal(a, b, check_exact=True)
    reports = [json.loads((tmp_path / run / "trace.json").read_text()) for run in ("undisturbed", "disturbed")]
    assert reports[0] == reports[1]
    assert reports[0]["n_ablated_forwards"] > 100
    left = [{p.name for p in (tmp_path / run).iterdir()} for run in ("undisturbed", "disturbed")]
    assert left[0] == left[1], "no part and no temporary file stays behind"
