"""Any Hugging Face encoder over gene tokens (BERT, RoBERTa, DistilBERT, ELECTRA, ...) from a local folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scircuit._optional import optional
from scircuit.cells.batch import Role, TokenBatch
from scircuit.cells.rank_value import RankValueTokenizer
from scircuit.cells.vocabulary import Vocabulary, read_token_table
from scircuit.errors import ScircuitError
from scircuit.models.adapter import Adapter
from scircuit.models.base import Masked
from scircuit.models.hooked import HookedModel
from scircuit.models.origin import read_origin
from scircuit.models.stack import choose_device, choose_dtype, hidden, mask_tokens

TOKEN_TABLE = "tokens.tsv"


class HuggingFaceEncoder(HookedModel):
    """A transformers encoder; its masked-gene loss is there when the checkpoint has a masked-language-model head."""

    def __init__(self, module: Any, tokenizer: RankValueTokenizer, name: str) -> None:
        config = module.config
        super().__init__(
            module, blocks=_blocks(module, name), call=_call, tokenizer=tokenizer, name=name,
            d_model=config.hidden_size, settings=_settings(config),
            masked=(self._hide, self._loss) if config.architectures[0].endswith("ForMaskedLM") else None,
        )  # fmt: skip

    def _hide(self, batch: TokenBatch, share: float, generator: torch.Generator) -> Masked:
        return mask_tokens(batch, hidden(batch, share, generator), self.tokenizer.vocabulary.special["<mask>"])

    def _loss(self, h: Tensor, masked: Masked) -> Tensor:
        """Cross-entropy in nats; the head is reached by running the module with `h` in place of its last residual."""

        def replace(layer: nn.Module, args: Any, out: Any) -> Any:
            return (h, *out[1:]) if isinstance(out, tuple) else h

        handle = self.layers[-1].register_forward_hook(replace)
        try:
            logits = _call(self.module, masked.batch).logits
        finally:
            handle.remove()
        rows = logits[masked.positions[:, 0], masked.positions[:, 1]]
        return F.cross_entropy(rows.float(), masked.targets.to(rows.device))


def load_hf_encoder(
    folder: str | Path,
    *,
    protocol: str = "official",
    device: str = "auto",
    dtype: str = "float32",
    options: dict[str, Any] | None = None,
) -> HuggingFaceEncoder:
    """Load a folder that `save_pretrained` wrote, with a table of its tokens beside it.

    `tokens.tsv` (see `cells.vocabulary.read_token_table`) says which token is which gene. A cell is its genes in
    descending order of count / median (of count, where the table has no medians), between `<cls>` and `<eos>` where
    both exist. Nothing is downloaded and no code of the folder is run.
    """
    transformers = optional("transformers", "A Hugging Face encoder needs transformers: pip install 'scircuit[hf]'.")
    folder = Path(folder)
    weights = folder / "model.safetensors"
    origin = read_origin([folder / "config.json", weights, folder / TOKEN_TABLE], weights)
    vocabulary = read_token_table(folder / TOKEN_TABLE)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        kind = transformers.AutoModelForMaskedLM if _has_head(transformers, config) else transformers.AutoModel
        _check_size(config, kind, weights)
        module, info = kind.from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # transformers raises nearly anything on a damaged folder
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ScircuitError(f"{folder} is no whole Hugging Face encoder ({first}); save it again.") from None
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing:
        raise ScircuitError(f"{folder} lacks the weight {missing[0]} ({len(missing)} in all); take a complete file.")
    _check_tokens(folder, vocabulary, config)
    module = module.to(device=choose_device(device), dtype=choose_dtype(dtype))
    tokenizer = RankValueTokenizer(vocabulary, _max_length(module), protocol, options or {})
    model = HuggingFaceEncoder(module, tokenizer, origin.named(folder))
    model.origin = origin
    return model


def _has_head(transformers: Any, config: Any) -> bool:
    """Whether the folder has a masked-language-model head; refused unless it is an encoder."""
    architecture = (config.architectures or ["nothing"])[0]
    encoder = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING and not config.is_encoder_decoder
    if not encoder or getattr(config, "is_decoder", False) or not architecture.endswith(("Model", "ForMaskedLM")):
        raise ValueError(
            f"its architecture is {architecture}; a ...Model or ...ForMaskedLM of an encoder is needed; "
            "wrap a decoder with scircuit.HookedModel, docs/adapters.md"
        )
    return architecture.endswith("ForMaskedLM")


def _check_size(config: Any, kind: Any, weights: Path) -> None:
    """Refuse a config whose module would be larger than the weights, before transformers takes the memory."""
    from safetensors import safe_open

    with safe_open(weights, framework="pt") as file:
        n_tensors = len(file.keys())
    if config.num_hidden_layers > n_tensors:
        raise ValueError(
            f"config.json asks for {config.num_hidden_layers:,} layers, the file has {n_tensors:,} tensors"
        )
    with torch.device("meta"):
        n_numbers = sum(p.numel() for p in kind.from_config(config).parameters())
    if n_numbers > weights.stat().st_size:  # no number takes less than a byte
        raise ValueError(f"config.json asks for {n_numbers:,} weights, the file has {weights.stat().st_size:,} bytes")


def _settings(config: Any) -> Mapping[str, Any]:
    """What decides the output beyond the weights; what only says who saved it is left out."""
    unread = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "_attn_implementation_autoset")
    return {key: value for key, value in config.to_diff_dict().items() if key not in unread}


def _call(module: nn.Module, batch: TokenBatch) -> Any:
    device = next(module.parameters()).device
    mask = torch.from_numpy((batch.role != Role.PAD).astype("int64"))
    return module(input_ids=torch.from_numpy(batch.tokens).to(device), attention_mask=mask.to(device))


def _blocks(module: Any, name: str) -> str:
    n = module.config.num_hidden_layers
    lists = [path for path, m in module.named_modules() if isinstance(m, nn.ModuleList) and len(m) == n]
    if len(lists) != 1:
        raise ScircuitError(f"{name} has {len(lists)} lists of {n} layers, one is needed; wrap it with HookedModel.")
    return lists[0]


def _max_length(module: Any) -> int:
    """Longest sequence; a position table with a padding row (RoBERTa) starts after it."""
    for path, table in module.named_modules():
        if path.endswith("position_embeddings") and isinstance(table, nn.Embedding):
            return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    return int(module.config.max_position_embeddings)


def _check_tokens(folder: Path, vocabulary: Vocabulary, config: Any) -> None:
    table, last, special = folder / TOKEN_TABLE, vocabulary.size - 1, vocabulary.special
    if last >= config.vocab_size:
        raise ScircuitError(f"{table} has token ids up to {last}, the weights {config.vocab_size} tokens; take theirs.")
    absent = [name for name in ("<pad>", "<mask>") if name not in special]
    if absent:
        raise ScircuitError(f"{table} has no row for {absent[0]}; add it with its token id.")
    if special["<pad>"] != config.pad_token_id:
        raise ScircuitError(f"<pad> in {table} is not config.json's {config.pad_token_id}; mend one of them.")


ADAPTER = Adapter(
    "a Hugging Face encoder",
    ("config.json", TOKEN_TABLE),
    f"config.json, model.safetensors and {TOKEN_TABLE}",
    load_hf_encoder,
)
