"""scGPT whole-human (Cui et al., Nature Methods 2024) from its published folder."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scircuit._io import read_json
from scircuit.cells.batch import TokenBatch
from scircuit.cells.binning import BinningTokenizer
from scircuit.cells.vocabulary import from_scgpt
from scircuit.errors import ScircuitError
from scircuit.models.adapter import Adapter
from scircuit.models.base import Masked
from scircuit.models.files import read_safetensors, read_state_dict
from scircuit.models.origin import read_origin
from scircuit.models.registry import Checkpoint
from scircuit.models.stack import BlockStack, assign, check_depth, choose_device, choose_dtype, hidden

# Heads that the perception path does not use: the whole-cell decoder of pre-training and the embedding of
# the "generated" flag. Everything else in the file must be ours, name by name.
_UNUSED = frozenset(
    {"flag_encoder.weight"}
    | {f"mvc_decoder.{part}.{kind}" for part in ("gene2query", "W", "fc1", "fc2") for kind in ("weight", "bias")}
)
_ARGS = ("embsize", "nheads", "nlayers", "d_hid", "max_seq_len", "n_bins", "pad_value", "mask_value")
_FIXED = {"pre_norm": False, "input_emb_style": "continuous", "input_style": "binned"}
_MAX_VALUE = 512.0  # ContinuousValueEncoder clamps there


class ScGPT(BlockStack):
    """Gene and value embeddings, post-norm blocks, value decoder; no positions."""

    def __init__(self, args: dict[str, Any], tokenizer: BinningTokenizer, n_tokens: int, name: str) -> None:
        d = args["embsize"]
        super().__init__(
            n_layers=args["nlayers"], d_model=d, n_heads=args["nheads"], d_mlp=args["d_hid"],
            activation="relu", eps=1e-5,
        )  # fmt: skip
        self.name, self.tokenizer, self.mask_value = name, tokenizer, float(args["mask_value"])
        self.gene = nn.Embedding(n_tokens, d)
        self.gene_norm = nn.LayerNorm(d)
        self.value1 = nn.Linear(1, d)
        self.value2 = nn.Linear(d, d)
        self.value_norm = nn.LayerNorm(d)
        self.decoder = nn.ModuleList([nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, 1)])

    def embed(self, batch: TokenBatch) -> Tensor:
        """Residual stream before block 0."""
        if batch.values is None:
            raise ScircuitError("The batch has no values; tokenize with this model's own tokenizer.")
        values = self.tensor(batch.values).clamp(max=_MAX_VALUE).unsqueeze(-1)
        value = self.value_norm(self.value2(F.relu(self.value1(values))))
        return self.gene_norm(self.gene(self.tensor(batch.tokens))) + value

    def logits(self, h: Tensor) -> Tensor:
        """Predicted expression bin of each position, `[..., 1]`, from the residual of the last layer."""
        h = F.leaky_relu(self.decoder[0](h))
        return self.decoder[2](F.leaky_relu(self.decoder[1](h)))

    def mask(self, batch: TokenBatch, share: float, generator: torch.Generator) -> Masked:
        """Replace the values of a share of the genes by the mask value."""
        assert batch.values is not None
        chosen = hidden(batch, share, generator)
        values = batch.values.copy()
        values[chosen] = self.mask_value
        masked = TokenBatch(batch.tokens, batch.role, batch.gene, batch.cell, values)
        return Masked(masked, torch.from_numpy(chosen).nonzero(), torch.from_numpy(batch.values[chosen]))

    def masked_loss(self, h: Tensor, masked: Masked) -> Tensor:
        """Mean squared error in bins over the hidden values."""
        rows = h[masked.positions[:, 0], masked.positions[:, 1]]
        return F.mse_loss(self.logits(rows).squeeze(-1).float(), masked.targets.to(h.device))


def load_scgpt(
    folder: str | Path,
    *,
    protocol: str = "official",
    device: str = "auto",
    dtype: str = "float32",
    options: dict[str, Any] | None = None,
    checkpoint: Checkpoint | None = None,
) -> ScGPT:
    """Load a published scGPT folder: `args.json`, `vocab.json`, `best_model.pt` (or `model.safetensors`).

    A tab-separated `genes.tsv` (`ensembl_id`, `symbol`) in the folder lets data with Ensembl ids in. With
    `checkpoint`, every file is held to the registered size and hash of that published model, where they are known.
    """
    folder = Path(folder)
    args = read_json(folder / "args.json")
    absent = [key for key in _ARGS if key not in args]
    if absent:
        raise ScircuitError(f"{folder / 'args.json'} lacks {absent[0]!r}; take the published args.json.")
    for key, value in _FIXED.items():
        if args.get(key, value) != value:
            raise ScircuitError(f"{folder / 'args.json'} has {key} = {args[key]!r}; only {value!r} models can be read.")
    path = folder / "best_model.pt"
    if not path.is_file():
        path = folder / "model.safetensors"
    table = folder / "genes.tsv"
    origin = read_origin([folder / "args.json", folder / "vocab.json", table, path], path, checkpoint)
    vocabulary = from_scgpt(folder / "vocab.json", table if table.is_file() else None)
    tokenizer = BinningTokenizer(
        vocabulary, args["max_seq_len"], args["n_bins"], float(args["pad_value"]), protocol, options or {}
    )
    weights = _rename(read_state_dict(path) if path.suffix == ".pt" else read_safetensors(path))
    check_depth(args["nlayers"], len(weights), path)
    with torch.device("meta"):
        model = ScGPT(args, tokenizer, vocabulary.size, origin.named(folder))
    assign(model, weights, path, _UNUSED)
    model = model.to(device=choose_device(device), dtype=choose_dtype(dtype))
    model.seal(dict(origin.files)[path.name], {key: args[key] for key in _ARGS}, origin)
    return model


def _rename(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published names to ours; fused attention (`Wqkv`, also under `_impl`) and torch's `in_proj_` alike."""
    parts = {
        "self_attn.Wqkv": "qkv", "self_attn.out_proj": "out", "norm1": "norm1", "linear1": "up",
        "linear2": "down", "norm2": "norm2",
    }  # fmt: skip
    top = {
        "encoder.embedding": "gene", "encoder.enc_norm": "gene_norm", "value_encoder.linear1": "value1",
        "value_encoder.linear2": "value2", "value_encoder.norm": "value_norm", "decoder.fc.0": "decoder.0",
        "decoder.fc.2": "decoder.1", "decoder.fc.4": "decoder.2",
    }  # fmt: skip
    out: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        plain = name.replace("self_attn._impl.", "self_attn.").replace("self_attn.in_proj_", "self_attn.Wqkv.")
        stem, _, kind = plain.rpartition(".")
        if stem in top:
            out[f"{top[stem]}.{kind}"] = tensor
        elif stem.startswith("transformer_encoder.layers."):
            number, _, part = stem.removeprefix("transformer_encoder.layers.").partition(".")
            out[f"blocks.{number}.{parts[part]}.{kind}" if part in parts else name] = tensor
        else:
            out[name] = tensor
    return out


ADAPTER = Adapter("scGPT", ("args.json", "vocab.json"), "args.json, vocab.json and best_model.pt", load_scgpt)
