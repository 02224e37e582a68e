"""What several rooms' tests build by hand: published weights under their published names."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from scircuit._io import write_json
from scircuit.cells.vocabulary import Vocabulary, write_vocabulary
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.variants import ORDERS, Variant, table_of

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
"""Real data sets, where they lie beside the project."""

SCGPT_ARGS = {
    "embsize": 32, "nheads": 4, "nlayers": 3, "d_hid": 48, "max_seq_len": 30, "n_bins": 51, "pad_value": -2,
    "mask_value": -1,
}  # fmt: skip


def write_token_table(path: Path, vocabulary: Vocabulary) -> None:
    """The vocabulary as a generic Hugging Face encoder's `tokens.tsv`."""
    special = [(i, "", name, "") for name, i in vocabulary.special.items()]
    genes = zip(
        vocabulary.genes["token"], vocabulary.genes["ensembl_id"], vocabulary.genes["symbol"], vocabulary.medians,
        strict=True,
    )  # fmt: skip
    table = pd.DataFrame([*special, *genes], columns=["token_id", "ensembl_id", "symbol", "median"])
    table.to_csv(path, sep="\t", index=False)


def save_encoder(folder: Path, vocabulary: Vocabulary, config: Any, *, head: bool = True) -> Path:
    """A random Hugging Face encoder of any architecture with its table of tokens, as `load_hf_encoder` reads it."""
    import transformers

    torch.manual_seed(0)
    kind = transformers.AutoModelForMaskedLM if head else transformers.AutoModel
    module = kind.from_config(config)
    for parameter in module.parameters():  # the usual 0.02 makes layers that hardly differ
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    module.save_pretrained(folder)
    write_token_table(folder / "tokens.tsv", vocabulary)
    return folder


def save_llama(folder: Path, vocabulary: Vocabulary, **changes: Any) -> Any:
    """A random Llama saved by transformers, with our vocabulary; and the model itself."""
    import transformers

    config = transformers.LlamaConfig(**{
        "vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40,
        "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "max_position_embeddings": 48, "pad_token_id": 0,
        "bos_token_id": 2, "eos_token_id": 3, "initializer_range": 0.3, **changes,
    })  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    write_vocabulary(folder / "vocabulary.json", vocabulary)
    return model


def scgpt_weights(args: dict, n_tokens: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """A random state dict under the published names, fused attention and unused heads included."""
    g = torch.Generator().manual_seed(seed)
    d, hidden = args["embsize"], args["d_hid"]
    shapes = {
        "encoder.embedding.weight": (n_tokens, d), "value_encoder.linear1.weight": (d, 1),
        "value_encoder.linear2.weight": (d, d), "decoder.fc.0.weight": (d, d), "decoder.fc.2.weight": (d, d),
        "decoder.fc.4.weight": (1, d), "flag_encoder.weight": (2, d), "mvc_decoder.gene2query.weight": (d, d),
        "mvc_decoder.W.weight": (d, d), "mvc_decoder.gene2query.bias": (d,),
    }  # fmt: skip
    for name, size in (("value_encoder.linear1", d), ("value_encoder.linear2", d), ("decoder.fc.0", d),
                       ("decoder.fc.2", d), ("decoder.fc.4", 1)):  # fmt: skip
        shapes[f"{name}.bias"] = (size,)
    norms = ["encoder.enc_norm", "value_encoder.norm"]
    for i in range(args["nlayers"]):
        p = f"transformer_encoder.layers.{i}"
        shapes |= {
            f"{p}.self_attn.Wqkv.weight": (3 * d, d), f"{p}.self_attn.Wqkv.bias": (3 * d,),
            f"{p}.self_attn.out_proj.weight": (d, d), f"{p}.self_attn.out_proj.bias": (d,),
            f"{p}.linear1.weight": (hidden, d), f"{p}.linear1.bias": (hidden,),
            f"{p}.linear2.weight": (d, hidden), f"{p}.linear2.bias": (d,),
        }  # fmt: skip
        norms += [f"{p}.norm1", f"{p}.norm2"]
    out = {name: torch.randn(shape, generator=g) * 0.2 for name, shape in shapes.items()}
    for name in norms:
        out[f"{name}.weight"] = 1 + 0.1 * torch.randn(d, generator=g)
        out[f"{name}.bias"] = 0.1 * torch.randn(d, generator=g)
    return out


def write_circuit_record(path: Path, record: dict[str, Any]) -> None:
    """A changed `circuit/run.json` as the run of that record would have written it."""
    content = {key: value for key, value in record.items() if key not in ("format_version", "run_id", "files")}
    write_json(path, record | {"run_id": Circuit.id_of(content)})


def behaviour_table(rng: np.random.Generator) -> pd.DataFrame:
    """A behaviour under every variant: the more is kept, the nearer to 1."""
    none = np.zeros((0, 2), dtype=np.int64)
    variants, level = [], []
    for ablation, error in (("mean", "kept"), ("zero", "kept"), ("mean", "ablated")):
        how = {"ablation": ablation, "error": error}
        variants += [Variant(kind, none, **how) for kind in ("empty", "circuit", "rest")]
        level += [0.0, 0.8, 0.3]
    variants += [Variant("model", none), *(Variant("random_circuit", none, draw=i) for i in range(4))]
    variants += [Variant("random_rest", none, draw=i) for i in range(4)]
    variants += [Variant("without", none, layer=1, feature=i) for i in range(3)]
    variants += [Variant("beside", none, layer=2, feature=i) for i in range(30)]
    level += [1.0, *[0.2] * 4, *[0.9] * 4, *[0.5] * 3, *[0.8] * 30]
    for unit in ("node", "edge"):
        for order, draw in [*((order, 0) for order in ORDERS), ("random", 1)]:
            for share, value in ((0.1, 0.4), (1.0, 1.0)):
                variants.append(Variant("order", none, unit=unit, order=order, share=share, draw=draw))
                level.append(value)
    cells = pd.DataFrame({"cell": range(12), "group": ""})
    values = np.array(level)[:, None] + 0.01 * rng.standard_normal((len(level), 12))
    table = table_of("loss", variants, cells, values)
    told = pd.DataFrame({"kind": "held_out", "cell": range(6), "value": [1.0, 1.0, 1.0, 1.0, 0.0, 1.0]})
    chance = told.assign(kind="majority", value=[1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    return pd.concat([table, *(part.assign(behaviour="loss", group="") for part in (told, chance))], ignore_index=True)
