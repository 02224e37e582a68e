"""MaxToki (theodoris-lab/MaxToki): a Llama over Geneformer's rank-ordered genes, from its Hugging Face folder."""

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
from scircuit.models.files import read_safetensors
from scircuit.models.origin import read_origin
from scircuit.models.pre_norm import PreNormBlock, PreNormShape
from scircuit.models.registry import Checkpoint
from scircuit.models.stack import Stack, assign, check_depth, choose_device, choose_dtype, hidden

_GENES = 20275
"""Tokens of Geneformer V2's dictionaries, which MaxToki shares: `<cls>` and `<eos>` are its `<bos>` and `<eos>`."""
_TOP = {"model.embed_tokens": "word", "model.norm": "final_norm", "lm_head": "head"}
_BLOCK = {
    "input_layernorm": "norm1", "post_attention_layernorm": "norm2", "self_attn.q_proj": "q", "self_attn.k_proj": "k",
    "self_attn.v_proj": "v", "self_attn.o_proj": "out", "mlp.gate_proj": "gate", "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}  # fmt: skip
_CONFIG = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "rms_norm_eps",
    "vocab_size", "max_position_embeddings",
)  # fmt: skip


class MaxToki(Stack):
    """Gene embeddings, Llama's blocks (causal, rotary positions), a final norm and an untied head."""

    def __init__(self, config: dict[str, Any], tokenizer: RankValueTokenizer, name: str) -> None:
        d, vocabulary = config["hidden_size"], config["vocab_size"]
        shape = PreNormShape(
            d, config["num_attention_heads"], config["intermediate_size"], config["hidden_act"],
            config["rms_norm_eps"], rms=True, gated=True, bias=False, causal=True,
            n_kv_heads=config.get("num_key_value_heads"), d_head=config.get("head_dim"), rope_theta=_theta(config),
        )  # fmt: skip
        super().__init__([PreNormBlock(shape) for _ in range(config["num_hidden_layers"])], d)
        self.name, self.tokenizer = name, tokenizer
        self.word = nn.Embedding(vocabulary, d)
        self.final_norm = shape.norm()
        self.head = nn.Linear(d, vocabulary, bias=False)

    def embed(self, batch: TokenBatch) -> Tensor:
        """Residual stream before block 0."""
        embedded: Tensor = self.word(self.tensor(batch.tokens))
        return embedded

    def logits(self, h: Tensor) -> Tensor:
        """Logits of the next token `[..., vocabulary]` from the residual of the last layer."""
        out: Tensor = self.head(self.final_norm(h))
        return out

    def mask(self, batch: TokenBatch, share: float, generator: torch.Generator) -> Masked:
        """A share of the genes, to be told from what stands before them: nothing has to be hidden."""
        chosen = hidden(batch, share, generator)
        return Masked(batch, torch.from_numpy(chosen).nonzero(), torch.from_numpy(batch.tokens[chosen]))

    def masked_loss(self, h: Tensor, masked: Masked) -> Tensor:
        """Mean cross-entropy in nats of those genes as next tokens."""
        rows = h[masked.positions[:, 0], masked.positions[:, 1] - 1]
        return F.cross_entropy(self.logits(rows).float(), masked.targets.to(h.device))


def load_maxtoki(
    folder: str | Path,
    *,
    protocol: str = "official",
    dictionaries: str | Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    options: dict[str, Any] | None = None,
    checkpoint: Checkpoint | None = None,
) -> MaxToki:
    """Load a published MaxToki folder (`config.json`, `model.safetensors`), with Geneformer V2's dictionaries.

    MaxToki's own medians are not published; those of Geneformer V2 order the genes.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    absent = [key for key in _CONFIG if key not in config]
    if absent or config.get("attention_bias") or config.get("mlp_bias") or config.get("tie_word_embeddings"):
        what = f"lacks {absent[0]!r}" if absent else "has biases or a tied head"
        raise ScircuitError(f"{folder / 'config.json'} {what}, so it is no MaxToki; {OTHER_DECODERS}.")
    path = folder / "model.safetensors"
    if config["vocab_size"] != _GENES and not (folder / "vocabulary.json").is_file():
        raise ScircuitError(
            f"{folder} is a Llama over {config['vocab_size']:,} tokens, MaxToki has {_GENES:,}; {OTHER_DECODERS}."
        )
    tables = find_geneformer_files(folder, dictionaries, config["vocab_size"])
    origin = read_origin([folder / "config.json", path, *tables], path, checkpoint)
    vocabulary = open_geneformer_vocabulary(tables, config["vocab_size"])
    tokenizer = RankValueTokenizer(vocabulary, config["max_position_embeddings"], protocol, options or {})
    weights = {_ours(name): tensor for name, tensor in read_safetensors(path).items()}
    check_depth(config["num_hidden_layers"], len(weights), path)
    with torch.device("meta"):
        model = MaxToki(config, tokenizer, origin.named(folder))
    assign(model, weights, path, frozenset())
    model = model.to(device=choose_device(device), dtype=choose_dtype(dtype))
    settings = {key: config[key] for key in _CONFIG} | {"rope_theta": _theta(config)}
    model.seal(dict(origin.files)[path.name], settings, origin)
    return model


def _theta(config: dict[str, Any]) -> float:
    """Base of the rotary positions: a key of its own, or within `rope_parameters` since transformers 5."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", "default") != "default":
        raise ScircuitError(f"Rotary positions of type {rope['rope_type']!r} are not MaxToki's; {OTHER_DECODERS}.")
    return float(config.get("rope_theta") or rope.get("rope_theta") or 10000.0)


def _ours(name: str) -> str:
    """A Hugging Face name as ours."""
    stem, _, kind = name.rpartition(".")
    number, _, part = stem.removeprefix("model.layers.").partition(".")
    if stem.startswith("model.layers."):
        return f"blocks.{number}.{_BLOCK.get(part, part)}.{kind}"
    return f"{_TOP.get(stem, stem)}.{kind}"


OTHER_DECODERS = "wrap another decoder with scircuit.HookedModel (docs/adapters.md)"

ADAPTER = Adapter(
    "MaxToki", ("config.json",), "config.json (llama) and model.safetensors", load_maxtoki, dictionaries=True,
    kinds=("llama",),
)  # fmt: skip
