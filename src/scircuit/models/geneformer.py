"""Geneformer V1 and V2 (Theodoris et al., Nature 2023; Chen et al. 2024) from a published folder."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scircuit._io import read_json
from scircuit.cells.batch import TokenBatch
from scircuit.cells.rank_value import RankValueTokenizer
from scircuit.cells.vocabulary import find_geneformer_files, open_geneformer_vocabulary
from scircuit.errors import ScircuitError
from scircuit.models.adapter import Adapter
from scircuit.models.base import Masked
from scircuit.models.block import ACTIVATIONS
from scircuit.models.files import read_safetensors
from scircuit.models.origin import read_origin
from scircuit.models.registry import Checkpoint
from scircuit.models.stack import BlockStack, assign, check_depth, choose_device, choose_dtype, hidden, mask_tokens

# The tied decoder is absent from published files, the V1 file carries a constant table of positions, and
# some exports add the classifier-era pooler: none of them takes part in the masked language model.
_UNUSED = frozenset(
    {"bert.embeddings.position_ids", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    | {f"bert.pooler.dense.{part}" for part in ("weight", "bias")}
)
_TOP = {
    "bert.embeddings.word_embeddings": "word", "bert.embeddings.position_embeddings": "position",
    "bert.embeddings.token_type_embeddings": "segment", "bert.embeddings.LayerNorm": "norm",
    "cls.predictions.transform.dense": "head", "cls.predictions.transform.LayerNorm": "head_norm",
}  # fmt: skip
_BLOCK = {
    "attention.self.query": "q", "attention.self.key": "k", "attention.self.value": "v",
    "attention.output.dense": "out", "attention.output.LayerNorm": "norm1", "intermediate.dense": "up",
    "output.dense": "down", "output.LayerNorm": "norm2",
}  # fmt: skip
_CONFIG = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps",
    "vocab_size", "max_position_embeddings", "type_vocab_size",
)  # fmt: skip


class Geneformer(BlockStack):
    """A BERT over rank-ordered genes: word + position + type embeddings, post-norm blocks, tied decoder."""

    def __init__(self, config: dict[str, Any], tokenizer: RankValueTokenizer, name: str) -> None:
        d, eps, act = config["hidden_size"], config["layer_norm_eps"], config["hidden_act"]
        super().__init__(
            n_layers=config["num_hidden_layers"], d_model=d, n_heads=config["num_attention_heads"],
            d_mlp=config["intermediate_size"], activation=act, eps=eps,
        )  # fmt: skip
        self.name, self.tokenizer = name, tokenizer
        self.activation = ACTIVATIONS[act]
        self.word = nn.Embedding(config["vocab_size"], d)
        self.position = nn.Embedding(config["max_position_embeddings"], d)
        self.segment = nn.Embedding(config["type_vocab_size"], d)
        self.norm = nn.LayerNorm(d, eps=eps)
        self.head = nn.Linear(d, d)
        self.head_norm = nn.LayerNorm(d, eps=eps)
        self.head_bias = nn.Parameter(torch.zeros(config["vocab_size"]))

    def embed(self, batch: TokenBatch) -> Tensor:
        """Residual stream before block 0."""
        tokens = self.tensor(batch.tokens)
        if tokens.shape[1] > self.position.num_embeddings:
            raise ScircuitError(
                f"A cell has {tokens.shape[1]} tokens, {self.name} reads {self.position.num_embeddings}; "
                "tokenize with this model's own tokenizer."
            )
        summed = self.word(tokens) + self.segment.weight[0]
        return self.norm(summed + self.position.weight[: tokens.shape[1]])

    def logits(self, h: Tensor) -> Tensor:
        """Masked-token logits `[..., vocabulary]` from the residual of the last layer."""
        return F.linear(self.head_norm(self.activation(self.head(h))), self.word.weight, self.head_bias)

    def mask(self, batch: TokenBatch, share: float, generator: torch.Generator) -> Masked:
        """Replace a share of the genes by `<mask>`, every chosen one (evaluation; training mixes 80/10/10)."""
        return mask_tokens(batch, hidden(batch, share, generator), self.tokenizer.vocabulary.special["<mask>"])

    def masked_loss(self, h: Tensor, masked: Masked) -> Tensor:
        """Mean cross-entropy in nats over the hidden genes."""
        rows = h[masked.positions[:, 0], masked.positions[:, 1]]
        return F.cross_entropy(self.logits(rows).float(), masked.targets.to(h.device))


def load_geneformer(
    folder: str | Path,
    *,
    protocol: str = "official",
    dictionaries: str | Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    options: dict[str, Any] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Geneformer:
    """Load any published Geneformer folder (`config.json`, `model.safetensors`).

    The token dictionaries are looked for in `dictionaries`, or in the folder and its parents' `geneformer/`. With
    `checkpoint`, every file is held to the registered hash of that published model.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    absent = [key for key in _CONFIG if key not in config]
    architecture = (config.get("architectures") or [""])[0]
    if absent and architecture.endswith(("ForCausalLM", "LMHeadModel")):
        raise ScircuitError(
            f"{folder} holds {architecture}, a decoder; its vocabulary and call are not known here: wrap it with "
            "scircuit.HookedModel in a file of your own (docs/adapters.md), and name FILE.py:FUNCTION as model.source."
        )
    if absent:
        raise ScircuitError(f"{folder / 'config.json'} lacks {absent[0]!r}; take the config.json of a Geneformer.")
    path = folder / "model.safetensors"
    tables = find_geneformer_files(folder, dictionaries, config["vocab_size"])
    origin = read_origin([folder / "config.json", path, *tables], path, checkpoint)
    vocabulary = open_geneformer_vocabulary(tables, config["vocab_size"])
    tokenizer = RankValueTokenizer(vocabulary, config["max_position_embeddings"], protocol, options or {})
    weights = _rename(read_safetensors(path))
    check_depth(config["num_hidden_layers"], len(weights), path)
    with torch.device("meta"):
        model = Geneformer(config, tokenizer, origin.named(folder))
    assign(model, weights, path, _UNUSED)
    model = model.to(device=choose_device(device), dtype=choose_dtype(dtype))
    model.seal(dict(origin.files)[path.name], {key: config[key] for key in _CONFIG}, origin)
    return model


def _rename(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face names to ours; query, key and value become one matrix."""
    out: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        stem, _, kind = name.rpartition(".")
        number, _, part = stem.removeprefix("bert.encoder.layer.").partition(".")
        if stem in _TOP:
            out[f"{_TOP[stem]}.{kind}"] = tensor
        elif stem.startswith("bert.encoder.layer."):
            out[f"blocks.{number}.{_BLOCK.get(part, part)}.{kind}"] = tensor
        else:
            out["head_bias" if name == "cls.predictions.bias" else name] = tensor
    for query in [name for name in out if ".q." in name]:
        parts = [out.pop(query.replace(".q.", f".{x}."), None) for x in "qkv"]
        whole = [part for part in parts if part is not None]
        if len(whole) == len(parts):
            out[query.replace(".q.", ".qkv.")] = torch.cat(whole)
    return out


ADAPTER = Adapter(
    "Geneformer", ("config.json",), "config.json and model.safetensors", load_geneformer, dictionaries=True
)
