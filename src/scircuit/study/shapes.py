"""Shapes of models and random models of a shape: what can be timed before any weights are here."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from scircuit._io import read_json
from scircuit._packaged import model_folder
from scircuit.cells.batch import Role
from scircuit.cells.binning import BinningTokenizer
from scircuit.cells.rank_value import RankValueTokenizer
from scircuit.cells.tokens import TokenStore
from scircuit.cells.vocabulary import Vocabulary
from scircuit.config import ModelSection
from scircuit.errors import ScircuitError
from scircuit.knowledge.gmt import packaged_programs
from scircuit.models.geneformer import Geneformer
from scircuit.models.registry import Shape, known_checkpoint
from scircuit.models.scgpt import ScGPT
from scircuit.models.stack import choose_device, choose_dtype
from scircuit.sae.base import LinearSAE, SaeConfig
from scircuit.sae.topk import TopKSAE

_SPECIAL = {"geneformer": ("<pad>", "<mask>", "<cls>", "<eos>"), "scgpt": ("<pad>", "<cls>", "<eoc>")}


RandomModel = Geneformer | ScGPT


def shape_of(model: ModelSection) -> Shape:
    """Shape of a run's model: of its files where they are here, else as published."""
    source = model.source
    folder = model_folder(source)
    if (folder / "args.json").is_file():
        a, n_tokens = read_json(folder / "args.json"), len(read_json(folder / "vocab.json"))
        return Shape("scgpt", a["nlayers"], a["embsize"], a["nheads"], a["d_hid"], n_tokens, a["max_seq_len"])
    if (folder / "config.json").is_file():
        c = read_json(folder / "config.json")
        if "max_position_embeddings" in c and "hidden_size" in c:
            return Shape(
                "geneformer", c["num_hidden_layers"], c["hidden_size"], c["num_attention_heads"],
                c["intermediate_size"], c["vocab_size"], c["max_position_embeddings"],
            )  # fmt: skip
    known = known_checkpoint(source)
    if known is None or known.kind not in _SPECIAL:
        raise ScircuitError(
            f"the shape of {source} is not known, so nothing can be timed; give the folder of a Geneformer or scGPT "
            "checkpoint, or a name of `scircuit models list`."
        )
    return known


def random_model(shape: Shape, model: ModelSection, n_layers: int, device: str) -> RandomModel:
    """A model of that shape and tokenizer with random weights (none at all on `meta`) and only `n_layers` layers."""
    n_genes = shape.n_tokens - len(_SPECIAL[shape.kind])
    known = sorted({gene for genes in packaged_programs().genes.values() for gene in genes})[:n_genes]
    names = known + [f"G{i}" for i in range(n_genes - len(known))]
    genes = pd.DataFrame({"ensembl_id": "", "symbol": names, "token": np.arange(n_genes)})
    special = {name: n_genes + i for i, name in enumerate(_SPECIAL[shape.kind])}
    vocabulary = Vocabulary(genes, special, np.ones(n_genes))
    build = _geneformer if shape.kind == "geneformer" else _scgpt
    torch.manual_seed(0)
    with choose_device(device):
        built = build(shape, model, vocabulary, n_layers)
    built = built.to(dtype=choose_dtype("float32" if model.dtype == "tf32" else model.dtype))
    built.requires_grad_(False)
    built.eval()
    built.fingerprint = "random"
    return built


def _geneformer(shape: Shape, model: ModelSection, vocabulary: Vocabulary, n_layers: int) -> RandomModel:
    config: Mapping[str, Any] = {
        "hidden_size": shape.d_model, "layer_norm_eps": 1e-12, "hidden_act": "relu", "num_hidden_layers": n_layers,
        "num_attention_heads": shape.n_heads, "intermediate_size": shape.d_mlp, "vocab_size": shape.n_tokens,
        "max_position_embeddings": shape.max_length, "type_vocab_size": 2,
    }  # fmt: skip
    return Geneformer(dict(config), RankValueTokenizer(vocabulary, shape.max_length, model.protocol), "random")


def _scgpt(shape: Shape, model: ModelSection, vocabulary: Vocabulary, n_layers: int) -> RandomModel:
    args = {
        "embsize": shape.d_model, "nlayers": n_layers, "nheads": shape.n_heads, "d_hid": shape.d_mlp, "mask_value": -1,
    }  # fmt: skip
    tokenizer = BinningTokenizer(vocabulary, shape.max_length, protocol=model.protocol)
    return ScGPT(args, tokenizer, shape.n_tokens, "random")


def random_cells(model: RandomModel, n_cells: int, length: int, columns: Sequence[str] = ()) -> TokenStore:
    """`n_cells` cells of `length` gene positions each, genes drawn at random; all alike in the obs `columns`."""
    rng = np.random.default_rng(0)
    n_genes = len(model.genes)
    gene = np.concatenate([rng.choice(n_genes, length, replace=False) for _ in range(n_cells)]).astype(np.int32)
    token, value = model.tokenizer.pad
    return TokenStore(
        tokens=gene.astype(np.int64),
        gene=gene,
        role=np.full(len(gene), Role.GENE, dtype=np.int8),
        values=None if value is None else rng.integers(1, 51, len(gene)).astype(np.float32),
        offsets=np.arange(n_cells + 1, dtype=np.int64) * length,
        cells=pd.DataFrame({"_row": np.arange(n_cells), **dict.fromkeys(columns, "any")}),
        pad=(token, value),
        info={},
    )


def random_saes(model: RandomModel, layers: Sequence[int], expansion: int, k: int) -> dict[int, LinearSAE]:
    """TopK dictionaries with random unit directions: as many latents, and as many of them active, as trained ones."""
    d, n_latents = model.d_model, expansion * model.d_model
    out: dict[int, LinearSAE] = {}
    for layer in layers:
        generator = torch.Generator().manual_seed(layer)
        decoder = torch.nn.functional.normalize(torch.randn(n_latents, d, generator=generator), dim=1)
        config = SaeConfig("topk", d, n_latents, k=k)
        sae = TopKSAE(config, decoder.T.clone(), torch.zeros(n_latents), decoder, torch.zeros(d))
        out[layer] = sae.to(model.device)
    return out
