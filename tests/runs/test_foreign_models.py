"""Models that are neither Geneformer nor scGPT, from cells to the report."""

import json

import pandas as pd
import pytest
import transformers

from builders import save_encoder
from scircuit.config_file import load_config
from scircuit.errors import ScircuitError
from scircuit.runs.stages import run

BERT = transformers.BertConfig(
    vocab_size=64, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, pad_token_id=0, intermediate_size=48,
    max_position_embeddings=48,
)  # fmt: skip


@pytest.mark.parametrize("head", [True, False])
def test_a_run_from_cells_to_report(project, tmp_path, vocabulary, head: bool) -> None:
    folder = project(save_encoder(tmp_path / "mine", vocabulary, BERT, head=head))
    finished = run(load_config(folder / "run.toml"))
    assert (finished.stage("report") / "index.html").stat().st_size > 10_000
    record = json.loads((finished.stage("circuit") / "run.json").read_text())
    assert set(record["model"]["files"]) == {"config.json", "model.safetensors", "tokens.tsv"}
    metrics = json.loads((finished.stage("saes") / "manifest.json").read_text())["layers"]["0"]["metrics"]
    assert ("loss_clean" in metrics) is head
    effects = pd.read_parquet(finished.stage("trace") / "effects.parquet")
    assert len(effects)
    assert set(effects["engine"]) == {"exact"}


def test_the_local_engine_is_refused_before_anything_is_written(project, tmp_path, vocabulary) -> None:
    folder = project(
        save_encoder(tmp_path / "mine", vocabulary, BERT),
        edit=lambda text: text.replace("[trace]", '[trace]\nengine = "local"'),
    )
    with pytest.raises(
        ScircuitError, match="'local' reads keys and values, which mine does not show; use 'exact' or 'auto'"
    ):
        run(load_config(folder / "run.toml"))
    assert not (folder / "out").exists()
