"""A generic Hugging Face encoder: several architectures, their own hidden states, refusals, and a whole run."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from builders import save_encoder, write_token_table
from scircuit.cells.tokens import tokenize
from scircuit.errors import ScircuitError
from scircuit.models.hf_encoder import HuggingFaceEncoder
from scircuit.models.load import load_model
from scircuit.models.parity import check_adapter
from scircuit.models.stream import residuals

SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "pad_token_id": 0}
CONFIGS = {
    "bert": transformers.BertConfig(**SIZES, intermediate_size=48, max_position_embeddings=48),
    "roberta": transformers.RobertaConfig(
        **SIZES, intermediate_size=48, max_position_embeddings=49, bos_token_id=2, eos_token_id=3
    ),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=64, dim=32, n_layers=3, n_heads=4, hidden_dim=48, max_position_embeddings=48, pad_token_id=0
    ),
    "electra": transformers.ElectraConfig(**SIZES, embedding_size=16, intermediate_size=48, max_position_embeddings=48),
}


@pytest.fixture
def bert(tmp_path, vocabulary) -> Path:
    return save_encoder(tmp_path / "bert", vocabulary, CONFIGS["bert"])


def hidden_states(folder: Path, batch):
    module = transformers.AutoModel.from_pretrained(folder, use_safetensors=True).eval()
    mask = torch.from_numpy((batch.role != 0).astype(np.int64))
    with torch.no_grad():
        out = module(input_ids=torch.from_numpy(batch.tokens), attention_mask=mask, output_hidden_states=True)
    return out.hidden_states[1:]


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("name", [*CONFIGS])
def test_every_architecture_passes_the_parity_check(tmp_path, vocabulary, cells, name: str, head: bool) -> None:
    folder = save_encoder(tmp_path / name, vocabulary, CONFIGS[name], head=head)
    model = load_model(folder, device="cpu")
    assert isinstance(model, HuggingFaceEncoder)
    assert (model.n_layers, model.d_model, model.tokenizer.max_length) == (3, 32, 48)
    assert model.offers_loss is head
    batch = tokenize(cells, model.tokenizer).batch(np.array([0, 5, 9]))
    checks = check_adapter(model, batch, hidden_states(folder, batch), twin=load_model(folder, device="cpu"))
    assert "equals the reference" in [check.name for check in checks]


def test_its_loss_equals_the_one_of_transformers(bert, cells) -> None:
    model = load_model(bert, device="cpu")
    batch = tokenize(cells, model.tokenizer).batch(np.array([0, 5, 9]))
    masked = model.mask(batch, 0.3, torch.Generator().manual_seed(1))
    labels = torch.full(batch.tokens.shape, -100)
    labels[masked.positions[:, 0], masked.positions[:, 1]] = masked.targets
    original = transformers.BertForMaskedLM.from_pretrained(bert).eval()
    mask = torch.from_numpy((batch.role != 0).astype(np.int64))
    expected = original(input_ids=torch.from_numpy(masked.batch.tokens), attention_mask=mask, labels=labels).loss
    h = residuals(model, masked.batch, [2])[2]
    assert float(model.masked_loss(h, masked)) == pytest.approx(expected.item(), abs=1e-5)
    assert abs(float(model.masked_loss(torch.randn_like(h), masked)) - expected.item()) > 1e-3, "the residual decides"


def test_settings_and_tables_are_part_of_the_fingerprint(bert, tmp_path) -> None:
    def changed(name: str, change) -> str:
        folder = shutil.copytree(bert, tmp_path / name / "bert")
        change(folder)
        return load_model(folder, device="cpu").fingerprint

    def heads(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 2}))

    def median(folder: Path) -> None:
        table = pd.read_csv(folder / "tokens.tsv", sep="\t", keep_default_na=False)
        table.loc[10, "median"] = 9.5
        table.to_csv(folder / "tokens.tsv", sep="\t", index=False)

    same = changed("same", lambda folder: None)
    assert len({same, changed("heads", heads), changed("median", median)}) == 3
    assert same == load_model(bert, device="cpu").fingerprint
    assert [name for name, _ in load_model(bert, device="cpu").origin.files] == [
        "config.json", "model.safetensors", "tokens.tsv",
    ]  # fmt: skip


def rewrite(folder: Path, change) -> None:
    table = pd.read_csv(folder / "tokens.tsv", sep="\t", dtype=str, keep_default_na=False)
    change(table).to_csv(folder / "tokens.tsv", sep="\t", index=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop(columns="symbol"), "has no column 'symbol'"),
        (lambda t: t.assign(token_id=["7", *t["token_id"][1:]]), "comes twice"),
        (lambda t: t.assign(token_id=["x", *t["token_id"][1:]]), "no whole number"),
        (lambda t: t.assign(token_id=[*t["token_id"][:-1], "99"]), "token ids up to 99, the weights 64 tokens"),
        (lambda t: t[t["symbol"] != "<mask>"], "no row for <mask>"),
        (lambda t: t.assign(median=[*t["median"][:-1], "0"]), "without a positive median"),
        (lambda t: t.replace({"symbol": {"<pad>": "<eos>", "<eos>": "<pad>"}}), r"<pad> in .*tokens\.tsv is not"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(bert, change, says: str) -> None:
    rewrite(bert, change)
    with pytest.raises(ScircuitError, match=says):
        load_model(bert, device="cpu")


def test_without_medians_genes_are_ranked_by_count(bert) -> None:
    rewrite(bert, lambda t: t.drop(columns="median"))
    assert (load_model(bert, device="cpu").tokenizer.vocabulary.medians == 1).all()


def test_other_architectures_and_damaged_folders_are_refused(bert, tmp_path, vocabulary, monkeypatch) -> None:
    gpt = transformers.GPT2Config(
        vocab_size=64, n_positions=48, n_embd=32, n_layer=2, n_head=4, bos_token_id=2, eos_token_id=3, pad_token_id=0
    )
    transformers.GPT2LMHeadModel(gpt).save_pretrained(tmp_path / "gpt")
    write_token_table(tmp_path / "gpt" / "tokens.tsv", vocabulary)
    with pytest.raises(ScircuitError, match="architecture is GPT2LMHeadModel"):
        load_model(tmp_path / "gpt", device="cpu")
    shared = transformers.AlbertConfig(**SIZES, intermediate_size=48, embedding_size=16, max_position_embeddings=48)
    with pytest.raises(ScircuitError, match="0 lists of 3 layers"):
        load_model(save_encoder(tmp_path / "albert", vocabulary, shared), device="cpu")
    with pytest.raises(ScircuitError, match="dictionaries= belongs to Geneformer"):
        load_model(bert, dictionaries="x")
    data = (bert / "model.safetensors").read_bytes()
    (bert / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ScircuitError, match="no whole Hugging Face encoder"):
        load_model(bert, device="cpu")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ScircuitError, match=r"pip install 'scircuit\[hf\]'"):
        load_model(bert, device="cpu")


@pytest.mark.parametrize("change", [{"num_hidden_layers": 1 << 40}, {"intermediate_size": 1 << 40}])
def test_the_sizes_of_a_configuration_take_no_memory(bert, change) -> None:
    config = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ScircuitError, match=r"no whole Hugging Face encoder \(config\.json asks for"):
        load_model(bert, device="cpu")


def test_a_missing_weight_is_refused_and_not_drawn_at_random(bert) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(bert / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, bert / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ScircuitError, match=r"lacks the weight bert\.encoder.layer.1.output.dense.weight"):
        load_model(bert, device="cpu")
