"""Both models at their published sizes with random weights: saved in the published layout, loaded, traced."""

import json
import pickle

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from builders import SHARED, scgpt_weights
from scircuit.cells.tokens import tokenize
from scircuit.models.load import load_model
from scircuit.models.stream import residuals
from scircuit.sae.base import SaeConfig
from scircuit.sae.topk import TopKSAE
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.tracer import trace

pytestmark = pytest.mark.slow


def scanpy_cells():
    import warnings

    import scanpy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return scanpy.datasets.pbmc68k_reduced()


@pytest.fixture(scope="module")
def real_cells(request):
    """Deep PBMC where the real data sets are at hand, else the shallow ones that scanpy ships."""
    if SHARED.exists():
        return ad.read_h5ad(SHARED / "scrna" / "pbmc3k_counts.h5ad")[:3].to_memory(), {}
    return scanpy_cells()[:3].copy(), {"counts": "raw", "scale": "log1p"}


def random_sae(layer, d, n_latents, k=32):
    g = torch.Generator().manual_seed(layer)
    W = torch.nn.functional.normalize(torch.randn(n_latents, d, generator=g), dim=1)
    zero = torch.zeros
    return TopKSAE(SaeConfig("topk", d, n_latents, k=k, layer=layer), W.T.clone(), zero(n_latents), W, zero(d))


def trace_one(model, cells, options, layer, tmp_path):
    """One latent that fires in the first cell, through the whole tracer; returns the tests table."""
    store = tokenize(cells, model.tokenizer, rows=np.arange(2), **options)
    saes = {i: random_sae(i, model.d_model, 4 * model.d_model) for i in range(layer, model.n_layers)}
    from scircuit.tracing.engines.clean import clean_batch

    clean = clean_batch(model, saes[layer], store.batch(np.array([0])), layer)
    latent = int(clean.latents[0].indices[5, 0])
    settings = TraceSettings(n_random=0, retention=1.0)
    folder = trace(model, saes, store, {layer: [latent]}, tmp_path / "trace", settings=settings)
    tests = pd.read_parquet(folder / "tests.parquet")
    assert tests["target_layer"].tolist() == list(range(layer + 1, model.n_layers))
    assert (tests["n_targets"] == 4 * model.d_model).all()
    assert (tests["n_tests"] > 0).all()
    effects = pd.read_parquet(folder / "effects.parquet")
    assert np.isfinite(effects["mean_delta"]).all()
    assert (effects["mean_delta"] != 0).all()


def same_states(model, hf, cells, options, layers):
    batch = tokenize(cells, model.tokenizer, rows=np.arange(1), **options).batch(np.arange(1))
    with torch.no_grad():
        expected = hf(input_ids=torch.from_numpy(batch.tokens), output_hidden_states=True).hidden_states
    for layer, h in residuals(model, batch, layers).items():
        assert (h - expected[layer + 1]).abs().max() <= 1e-5, "sums of 1,000 terms and more, in whatever order"


def test_geneformer_v2_316m(tmp_path, real_cells):
    import transformers

    cells, options = real_cells
    config = transformers.BertConfig(
        vocab_size=20275, hidden_size=1152, num_hidden_layers=18, num_attention_heads=18, intermediate_size=4608,
        hidden_act="relu", layer_norm_eps=1e-12, max_position_embeddings=4096, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path / "Geneformer-V2-316M"
    hf = transformers.BertForMaskedLM(config).eval()
    hf.save_pretrained(folder)
    assert (folder / "model.safetensors").stat().st_size == 1_265_455_076, "the published size, to the byte"
    write_dictionaries(folder, cells)
    model = load_model(folder, device="cpu")
    assert (model.n_layers, model.d_model, model.tokenizer.max_length) == (18, 1152, 4096)
    same_states(model, hf, cells, options, range(18))
    del hf
    trace_one(model, cells, options, 15, tmp_path)


def write_dictionaries(folder, cells):
    """The published four files, of the published sizes: real ones where at hand, else made from the cells' genes."""
    if SHARED.exists():
        for file in (SHARED / "tokenizers").glob("geneformer_*_gc104M.pkl"):
            (folder / file.name.removeprefix("geneformer_")).symlink_to(file)
        return
    symbols = list(cells.raw.var_names)
    ids = [f"ENSG{i:011d}" for i in range(20271)]
    tokens = {"<pad>": 0, "<mask>": 1, "<cls>": 2, "<eos>": 3} | {name: i + 4 for i, name in enumerate(ids)}
    medians = {name: np.float64(1 + i % 7) for i, name in enumerate(ids)}
    names = dict(zip(symbols, ids, strict=False))
    contents = {"token_dictionary": tokens, "gene_median_dictionary": medians, "gene_name_id_dict": names,
                "ensembl_mapping_dict": {name: name for name in ids}}  # fmt: skip
    for name, content in contents.items():
        (folder / f"{name}_gc104M.pkl").write_bytes(pickle.dumps(content))


def test_scgpt_whole_human(tmp_path, real_cells):
    cells, options = real_cells
    args = {"embsize": 512, "nheads": 8, "nlayers": 12, "d_hid": 512, "max_seq_len": 1200, "n_bins": 51,
            "pad_value": -2, "mask_value": -1}  # fmt: skip
    folder = tmp_path / "scGPT_human"
    folder.mkdir()
    if SHARED.exists():
        for name in ("vocab", "args"):
            (folder / f"{name}.json").symlink_to(SHARED / "tokenizers" / f"scgpt_whole_human_{name}.json")
        assert {k: json.loads((folder / "args.json").read_text())[k] for k in args} == args
    else:
        symbols = list(cells.raw.var_names) + [f"X{i}" for i in range(60694 - cells.raw.n_vars)]
        vocab = {name: i for i, name in enumerate([*symbols, "<pad>", "<cls>", "<eoc>"])}
        (folder / "vocab.json").write_text(json.dumps(vocab))
        (folder / "args.json").write_text(json.dumps(args))
    torch.save(scgpt_weights(args, 60697), folder / "best_model.pt")
    model = load_model(folder, device="cpu")
    assert (model.n_layers, model.d_model, len(model.genes)) == (12, 512, 60694)
    trace_one(model, cells, options, 9, tmp_path)


def test_maxtoki_217m(tmp_path, real_cells):
    import transformers

    cells, options = real_cells
    config = transformers.LlamaConfig(
        vocab_size=20275, hidden_size=1232, num_hidden_layers=11, num_attention_heads=8, num_key_value_heads=8,
        intermediate_size=2464, head_dim=154, hidden_act="silu", rms_norm_eps=1e-6, max_position_embeddings=4096,
        rope_theta=10000.0, tie_word_embeddings=False, pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path / "MaxToki-217M-HF"
    hf = transformers.LlamaForCausalLM(config).eval()
    hf.save_pretrained(folder)
    assert (folder / "model.safetensors").stat().st_size == 867_797_760, "the published size, to the byte"
    write_dictionaries(folder, cells)
    model = load_model(folder, device="cpu")
    assert (model.n_layers, model.d_model, model.tokenizer.max_length) == (11, 1232, 4096)
    same_states(model, hf, cells, options, range(10))  # the last one comes after the final norm
    del hf
    trace_one(model, cells, options, 8, tmp_path)
