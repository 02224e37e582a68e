"""Geneformer equals Hugging Face's BERT, and refuses files that are not whole."""

import json
import shutil

import anndata as ad
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from scircuit.cells.tokens import tokenize
from scircuit.errors import ScircuitError
from scircuit.models.geneformer import load_geneformer
from scircuit.models.stream import residuals, resume


@pytest.fixture
def model(geneformer_folder):
    return load_geneformer(geneformer_folder, device="cpu")


@pytest.fixture
def batch(model, cells):
    store = tokenize(cells, model.tokenizer)
    return store.batch(np.array([0, 5, 9, 17]))


def hf_states(folder, batch):
    hf = transformers.BertForMaskedLM.from_pretrained(folder).eval()
    mask = torch.from_numpy((batch.role != 0).astype(np.int64))
    with torch.no_grad():
        return hf(input_ids=torch.from_numpy(batch.tokens), attention_mask=mask, output_hidden_states=True)


def test_every_hidden_state_and_the_logits_equal_hugging_face(model, batch, geneformer_folder):
    keep = torch.from_numpy(batch.role != 0)
    assert not keep.all(), "the batch must be padded for this to test the mask"
    expected = hf_states(geneformer_folder, batch)
    torch.testing.assert_close(model.embed(batch), expected.hidden_states[0], atol=1e-6, rtol=0)
    for layer, h in residuals(model, batch, range(model.n_layers)).items():
        assert (h - expected.hidden_states[layer + 1])[keep].abs().max() <= 1e-6
    assert (model.logits(h) - expected.logits)[keep].abs().max() <= 1e-5


def test_gelu_and_another_eps_come_from_the_config(geneformer_folder, batch, tmp_path):
    folder = shutil.copytree(geneformer_folder, tmp_path / "gelu")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "gelu", "layer_norm_eps": 1e-3}))
    keep = torch.from_numpy(batch.role != 0)
    expected = hf_states(folder, batch)
    model = load_geneformer(folder, device="cpu")
    for layer, h in residuals(model, batch, range(4)).items():
        assert (h - expected.hidden_states[layer + 1])[keep].abs().max() <= 1e-6
    relu = residuals(load_geneformer(geneformer_folder, device="cpu"), batch, [3])[3]
    assert (h - relu)[keep].abs().max() > 1e-2
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "silu"}))
    with pytest.raises(ScircuitError, match="activation='silu' is unknown; it may be relu, gelu"):
        load_geneformer(folder, device="cpu")


def test_masked_loss_equals_hugging_face(model, batch, geneformer_folder):
    masked = model.mask(batch, 0.3, torch.Generator().manual_seed(1))
    assert len(masked.targets) > 10
    labels = torch.full(batch.tokens.shape, -100)
    labels[masked.positions[:, 0], masked.positions[:, 1]] = masked.targets
    assert (masked.batch.tokens[labels.numpy() != -100] == 1).all()
    hf = transformers.BertForMaskedLM.from_pretrained(geneformer_folder).eval()
    mask = torch.from_numpy((batch.role != 0).astype(np.int64))
    expected = hf(input_ids=torch.from_numpy(masked.batch.tokens), attention_mask=mask, labels=labels).loss
    h = residuals(model, masked.batch, [3])[3]
    assert float(model.masked_loss(h, masked)) == pytest.approx(expected.item(), abs=1e-5)


def test_resuming_anywhere_equals_the_full_forward_and_stopping_early_equals_the_prefix(model, batch):
    whole = residuals(model, batch, range(4))
    for i in range(4):
        for layer, h in resume(model, whole[i], i, batch):
            assert torch.equal(h, whole[layer])
        assert torch.equal(residuals(model, batch, [i])[i], whole[i])


def test_unknown_layer_is_refused(model, batch):
    with pytest.raises(ScircuitError, match="layers are 0 to 3"):
        residuals(model, batch, [4])


def rewrite(folder, out, change):
    shutil.copytree(folder, out, dirs_exist_ok=True)
    weights = load_file(out / "model.safetensors")
    change(weights)
    save_file(weights, out / "model.safetensors")
    return out


def test_the_positions_table_of_v1_files_is_ignored(geneformer_folder, tmp_path, model):
    def change(weights):
        weights["bert.embeddings.position_ids"] = torch.arange(48)[None]

    loaded = load_geneformer(rewrite(geneformer_folder, tmp_path / "v1", change), device="cpu")
    assert torch.equal(loaded.word.weight, model.word.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("bert.encoder.layer.2.attention.self.key.bias"), "lacks the weight blocks.2.qkv.bias"),
        (lambda w: w.pop("bert.embeddings.LayerNorm.weight"), "lacks the weight norm.weight"),
        (lambda w: w.update({"bert.encoder.layer.9.output.dense.bias": torch.zeros(32)}), "unexpected weight blocks.9"),
        (lambda w: w.update({"classifier.weight": torch.zeros(2, 32)}), "unexpected weight classifier.weight"),
        (lambda w: w.update({"bert.embeddings.LayerNorm.bias": torch.zeros(31)}), "different models"),
    ],
)
def test_weights_that_do_not_fit_are_refused(geneformer_folder, tmp_path, change, message):
    folder = rewrite(geneformer_folder, tmp_path / "bad", change)
    with pytest.raises(ScircuitError, match=message):
        load_geneformer(folder, device="cpu")


def test_truncated_and_missing_files_are_refused(geneformer_folder, tmp_path):
    folder = shutil.copytree(geneformer_folder, tmp_path / "cut")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ScircuitError, match="truncated"):
        load_geneformer(folder, device="cpu")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ScircuitError, match="does not exist"):
        load_geneformer(folder, device="cpu")
    (folder / "vocabulary.json").unlink()
    with pytest.raises(ScircuitError, match="dictionaries="):
        load_geneformer(folder, device="cpu")


@pytest.mark.parametrize("content", ['{"hidden_size": 32}', '{"model_type": "llama"}'])
def test_the_config_of_something_else_is_refused(geneformer_folder, tmp_path, content):
    folder = shutil.copytree(geneformer_folder, tmp_path / "other")
    (folder / "config.json").write_text(content)
    with pytest.raises(ScircuitError, match=r"config\.json lacks '.*'; take the config\.json of a Geneformer"):
        load_geneformer(folder, device="cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "xla"])
def test_a_device_that_is_not_there_is_refused(geneformer_folder, device):
    with pytest.raises(ScircuitError, match=f"device='{device}' cannot be used .* it may be auto, .*cpu"):
        load_geneformer(geneformer_folder, device=device)


@pytest.mark.parametrize(
    ("series", "vocab_size", "length", "place"),
    [("gc30M", 25426, 2048, "geneformer/gene_dictionaries_30m"), ("gc104M", 20275, 4096, "geneformer")],
)
def test_published_folders_of_both_series(shared_data, tmp_path, series, vocab_size, length, place):
    """The publisher's repository: checkpoints in folders of their own, the dictionaries of both series beside them."""
    dictionaries = tmp_path / place
    dictionaries.mkdir(parents=True)
    for file in (shared_data / "tokenizers").glob(f"geneformer_*_{series}.pkl"):
        (dictionaries / file.name.removeprefix("geneformer_")).symlink_to(file)
    config = transformers.BertConfig(
        vocab_size=vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        hidden_act="relu", layer_norm_eps=1e-12, max_position_embeddings=length, pad_token_id=0,
    )  # fmt: skip
    folder = tmp_path / "checkpoint"
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    if series == "gc30M":
        weights = load_file(folder / "model.safetensors")
        weights["bert.embeddings.position_ids"] = torch.arange(length)[None]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = load_geneformer(folder, device="cpu")
    pbmc = ad.read_h5ad(shared_data / "scrna" / "pbmc3k_counts.h5ad", backed="r")
    batch = tokenize(pbmc, model.tokenizer, rows=np.arange(2)).batch(np.arange(2))
    bracketed = batch.tokens[0, 0] == 2 and batch.tokens[0, batch.lengths[0] - 1] == 3
    assert bracketed == (series == "gc104M"), "only the second series has <cls> and <eos>"
    assert batch.is_gene.sum(axis=1).min() > 300
    keep = torch.from_numpy(batch.role != 0)
    expected = hf_states(folder, batch)
    assert (residuals(model, batch, [1])[1] - expected.hidden_states[2])[keep].abs().max() <= 1e-6


def test_the_protocol_is_part_of_the_fingerprint(geneformer_folder, model):
    paper = load_geneformer(geneformer_folder, device="cpu", protocol="paper")
    half = load_geneformer(geneformer_folder, device="cpu", dtype="bfloat16")
    assert len({model.fingerprint, paper.fingerprint, half.fingerprint}) == 3
    assert load_geneformer(geneformer_folder, device="cpu").fingerprint == model.fingerprint
