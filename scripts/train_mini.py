"""Train the two small models that ship inside the package.

    python scripts/train_mini.py geneformer --cells FOLDER --out src/scircuit/data
    python scripts/train_mini.py scgpt --cells FOLDER --out src/scircuit/data

FOLDER holds the three 10x sets (CC BY 4.0) as AnnData files: `pbmc3k_counts.h5ad`,
`zheng_facs_pbmc800_counts.h5ad`, `pbmc_5k_protein_v3.h5ad`. Everything is seeded; `training.json` beside the
weights holds the loss curve, the held-out losses and the baselines that the model card prints.

With `--tissue FILE`, an AnnData of raw counts of a tissue that was not trained on, its loss is measured as well (the
cards were made with 1,020 gut cells, SCP1884); with `--tissue-only` nothing is trained.
"""

import argparse
import json
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from scipy import sparse
from torch import Tensor

from scircuit._io import read_json, write_json
from scircuit.cells.batch import TokenBatch
from scircuit.cells.binning import BinningTokenizer
from scircuit.cells.rank_value import RankValueTokenizer
from scircuit.cells.tokens import TokenStore, tokenize
from scircuit.cells.vocabulary import Vocabulary, from_scgpt, read_vocabulary, write_vocabulary
from scircuit.knowledge.genes import GeneNames
from scircuit.knowledge.gmt import packaged_programs
from scircuit.models.geneformer import Geneformer
from scircuit.models.load import load_model
from scircuit.models.scgpt import ScGPT

SEED = 0
N_GENES = 6000
MIN_CELLS = 5
HELD_OUT = 0.05
SETS = ("pbmc3k_counts", "zheng_facs_pbmc800_counts", "pbmc_5k_protein_v3")
GENEFORMER = {
    "architectures": ["BertForMaskedLM"], "model_type": "bert", "hidden_size": 128, "num_hidden_layers": 6,
    "num_attention_heads": 4, "intermediate_size": 256, "hidden_act": "relu", "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512, "type_vocab_size": 2, "pad_token_id": 0,
}  # fmt: skip
SCGPT = {
    "embsize": 128, "nheads": 4, "nlayers": 6, "d_hid": 256, "max_seq_len": 512, "n_bins": 51, "pad_token": "<pad>",
    "pad_value": -2, "mask_value": -1, "input_style": "binned", "input_emb_style": "continuous",
}  # fmt: skip


def read_cells(folder: Path) -> ad.AnnData:
    """The three sets as one AnnData of raw counts on shared Ensembl ids."""
    sets = {name: ad.read_h5ad(folder / f"{name}.h5ad") for name in SETS}
    reference = sets["zheng_facs_pbmc800_counts"].var
    to_ensembl = dict(zip(reference["symbol"], reference["ensembl_id"], strict=True))
    to_symbol = dict(zip(reference["ensembl_id"], reference["symbol"], strict=True))
    parts = []
    for name, data in sets.items():
        ids = data.var.get("ensembl_id", pd.Series(data.var_names, index=data.var_names).map(to_ensembl))
        known = ids.isin(list(to_symbol)) & ~ids.duplicated()
        part = ad.AnnData(sparse.csr_matrix(data.X)[:, known.to_numpy()].astype(np.float32))
        part.obs_names = [f"{name}:{cell}" for cell in data.obs_names]
        part.var_names = ids[known].tolist()
        parts.append(part)
    cells = ad.concat(parts, join="outer", fill_value=0)
    cells.var["symbol"] = [to_symbol[i] for i in cells.var_names]
    return cells


def make_vocabulary(cells: ad.AnnData) -> Vocabulary:
    """The genes of the packaged programs that these cells express and, to `N_GENES`, those found in most cells.

    Medians are those of the non-zero counts per 10,000.
    """
    x = sparse.csc_matrix(cells.X, dtype=np.float64)
    total = np.asarray(x.sum(axis=1)).ravel()
    detected = np.diff(x.indptr)
    table = pd.DataFrame({"symbol": cells.var["symbol"].to_numpy(), "ensembl_id": cells.var_names})
    known = GeneNames(table).resolve(sorted(packaged_programs().universe)).row
    rank = detected.astype(float)
    rank[known[known >= 0]] += np.where(detected[known[known >= 0]] >= MIN_CELLS, cells.n_obs, 0)
    rank[cells.var["symbol"].duplicated(keep=False).to_numpy()] = -1  # a symbol must name one gene
    chosen = np.sort(np.argsort(-rank, kind="stable")[:N_GENES])
    scaled = sparse.csc_matrix(sparse.diags(1e4 / total) @ x)
    medians = [float(np.median(scaled.data[scaled.indptr[j] : scaled.indptr[j + 1]])) for j in chosen]
    genes = pd.DataFrame({"ensembl_id": cells.var_names[chosen], "symbol": cells.var["symbol"].to_numpy()[chosen]})
    special = {"<pad>": 0, "<mask>": 1, "<cls>": 2, "<eos>": 3}
    genes["token"] = np.arange(len(special), len(special) + len(genes))
    return Vocabulary(genes, special, np.round(medians, 6))


def gene_factors(cells: ad.AnnData, vocabulary: Vocabulary, d: int) -> Tensor:
    """Starting embeddings: leading gene factors of the standardised log expression, rows of unit variance."""
    x = sparse.csr_matrix(cells[:, vocabulary.genes["ensembl_id"]].X, dtype=np.float64)
    x = np.log1p(x.toarray() / np.asarray(x.sum(axis=1)) * 1e4)
    x = (x - x.mean(axis=0)) / x.std(axis=0).clip(min=0.1)
    torch.manual_seed(SEED)
    _, s, v = torch.svd_lowrank(torch.from_numpy(x).float(), q=d, niter=4)
    factors = v * s.sqrt()
    return factors / factors.std()


def write_scgpt_vocabulary(folder: Path, vocabulary: Vocabulary) -> Vocabulary:
    """The same genes in scGPT's flat form, specials last as in the published file."""
    symbols = vocabulary.genes["symbol"].tolist()
    content = {name: i for i, name in enumerate([*symbols, "<pad>", "<cls>", "<eoc>"])}
    write_json(folder / "vocab.json", content)
    vocabulary.genes[["ensembl_id", "symbol"]].to_csv(folder / "genes.tsv", sep="\t", index=False)
    return from_scgpt(folder / "vocab.json", folder / "genes.tsv")


def build(kind: str, folder: Path, cells: ad.AnnData) -> Geneformer | ScGPT:
    """A freshly initialised model whose embeddings start from the gene factors."""
    vocabulary = make_vocabulary(cells)
    torch.manual_seed(SEED)
    if kind == "geneformer":
        # Medians are rounded on the way through the file; train on exactly what users will read.
        write_vocabulary(folder / "vocabulary.json", vocabulary)
        vocabulary = read_vocabulary(folder / "vocabulary.json")
        config = {**GENEFORMER, "vocab_size": vocabulary.size}
        write_json(folder / "config.json", config)
        model = Geneformer(config, RankValueTokenizer(vocabulary, 512), folder.name)
        table = model.word
    else:
        vocabulary = write_scgpt_vocabulary(folder, vocabulary)
        write_json(folder / "args.json", SCGPT)
        model = ScGPT(SCGPT, BinningTokenizer(vocabulary, 512), vocabulary.size, folder.name)
        table = model.gene
    for name, p in model.named_parameters():
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=0.02 if "value" not in name else 0.3)
    with torch.no_grad():
        factors = gene_factors(cells, vocabulary, table.embedding_dim)
        table.weight[torch.as_tensor(vocabulary.genes["token"].to_numpy())] = 0.05 * factors
    return model


def hide(kind: str, model: Geneformer | ScGPT, batch: TokenBatch, g: torch.Generator) -> tuple:
    """Masked batch, positions and targets for training; Geneformer mixes 80/10/10 as BERT does."""
    masked = model.mask(batch, 0.15 if kind == "geneformer" else 0.4, g)
    if kind == "geneformer":
        rows, columns = masked.positions.T.numpy()
        draw = torch.rand(len(rows), generator=g).numpy()
        tokens = masked.batch.tokens
        keep, swap = draw < 0.1, (draw >= 0.1) & (draw < 0.2)
        tokens[rows[keep], columns[keep]] = masked.targets.numpy()[keep]
        n = model.tokenizer.vocabulary.size
        tokens[rows[swap], columns[swap]] = torch.randint(4, n, (int(swap.sum()),), generator=g).numpy()
    return masked


def thin(batch: TokenBatch, width: int, rng: np.random.Generator) -> TokenBatch:
    """Keep a random subset of each cell's genes in order, so that shallow cells and panels are seen too."""
    arrays = {n: [] for n in ("tokens", "role", "gene", "values")}
    for i, length in enumerate(batch.lengths):
        special = np.flatnonzero((batch.role[i] != 1) & (batch.role[i] != 0))
        genes = np.flatnonzero(batch.is_gene[i, :length])
        room = min(width - len(special), len(genes))
        keep = np.sort(np.concatenate([special, rng.choice(genes, room, replace=False)]))
        keep = np.concatenate([keep, np.full(width - len(keep), -1)])
        pad = keep < 0
        fill = {"tokens": 0, "role": 0, "gene": -1, "values": -2}
        for n in arrays:
            source = getattr(batch, n)
            if source is not None:
                row = source[i, keep].copy()
                row[pad] = fill[n]
                arrays[n].append(row)
    tokens = np.stack(arrays["tokens"])
    values = np.stack(arrays["values"]) if arrays["values"] else None
    return TokenBatch(tokens, np.stack(arrays["role"]), np.stack(arrays["gene"]), batch.cell, values)


@torch.no_grad()
def held_out_loss(model: Geneformer | ScGPT, store: TokenStore, cells: np.ndarray) -> float:
    """Mean masked loss over the held-out cells with one fixed mask."""
    g = torch.Generator().manual_seed(SEED)
    total, n = 0.0, 0
    for batch in store.batches(16, cells=cells):
        masked = model.mask(batch, 0.15, g)
        h = model.embed(masked.batch)
        for i in range(model.n_layers):
            h = model.layer(i, h, masked.batch)
        total += float(model.masked_loss(h, masked)) * len(masked.targets)
        n += len(masked.targets)
    return total / n


def baseline(kind: str, train: TokenStore, held: TokenStore, n_genes: int) -> float:
    """What frequencies alone reach: token frequency (nats), or each gene's mean bin (squared error)."""
    (gene, values), (held_gene, held_values) = (
        (s.gene[s.role == 1], None if s.values is None else s.values[s.role == 1]) for s in (train, held)
    )
    counts = np.bincount(gene, minlength=n_genes) + 1.0
    if kind == "geneformer":
        return float(-np.log(counts / counts.sum())[held_gene].mean())
    mean = (np.bincount(gene, weights=values, minlength=n_genes) + values.mean()) / counts
    return float(((held_values - mean[held_gene]) ** 2).mean())


def published_names(kind: str, model: Geneformer | ScGPT) -> dict[str, Tensor]:
    """Our parameters under the names of the published files."""
    out = {}
    if kind == "geneformer":
        top = {"word": "bert.embeddings.word_embeddings", "position": "bert.embeddings.position_embeddings",
               "segment": "bert.embeddings.token_type_embeddings", "norm": "bert.embeddings.LayerNorm",
               "head": "cls.predictions.transform.dense",
               "head_norm": "cls.predictions.transform.LayerNorm"}  # fmt: skip
        block = {"out": "attention.output.dense", "norm1": "attention.output.LayerNorm", "up": "intermediate.dense",
                 "down": "output.dense", "norm2": "output.LayerNorm"}  # fmt: skip
        prefix = "bert.encoder.layer"
    else:
        top = {"gene": "encoder.embedding", "gene_norm": "encoder.enc_norm", "value1": "value_encoder.linear1",
               "value2": "value_encoder.linear2", "value_norm": "value_encoder.norm", "decoder.0": "decoder.fc.0",
               "decoder.1": "decoder.fc.2", "decoder.2": "decoder.fc.4"}  # fmt: skip
        block = {"qkv": "self_attn.Wqkv", "out": "self_attn.out_proj", "norm1": "norm1", "up": "linear1",
                 "down": "linear2", "norm2": "norm2"}  # fmt: skip
        prefix = "transformer_encoder.layers"
    for name, p in model.state_dict().items():
        stem, _, leaf = name.rpartition(".")
        if name == "head_bias":
            out["cls.predictions.bias"] = p
        elif stem in top:
            out[f"{top[stem]}.{leaf}"] = p
        else:
            _, i, part = stem.split(".")
            if kind == "geneformer" and part == "qkv":
                for x, piece in zip(("query", "key", "value"), p.chunk(3), strict=True):
                    out[f"{prefix}.{i}.attention.self.{x}.{leaf}"] = piece.contiguous()
            else:
                out[f"{prefix}.{i}.{block[part]}.{leaf}"] = p
    return out


def split(n: int, order: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Held-out cells and the others, as rows."""
    held = np.sort(order.choice(n, round(HELD_OUT * n), replace=False))
    return held, np.setdiff1d(np.arange(n), held)


def measure_tissue(kind: str, folder: Path, cells: ad.AnnData, tissue: Path) -> None:
    """Add the loss on a tissue that was not trained on, and its baseline, to `training.json`."""
    model = load_model(folder, device="cpu")
    trained = tokenize(cells, model.tokenizer)
    store = tokenize(ad.read_h5ad(tissue), model.tokenizer)
    _, rest = split(len(trained), np.random.default_rng(SEED))
    log = read_json(folder / "training.json")
    log["tissue"] = {
        "file": tissue.name,
        "n_cells": len(store),
        "loss": round(held_out_loss(model, store, np.arange(len(store))), 4),
        "baseline": round(baseline(kind, trained.subset(rest), store, len(model.genes)), 4),
    }
    write_json(folder / "training.json", log)
    print(json.dumps(log["tissue"]), flush=True)


def train(kind: str, model: Geneformer | ScGPT, store: TokenStore, steps: int, folder: Path) -> None:
    """One-cycle AdamW; writes the weights and `training.json` every 500 steps and at the end."""
    order = np.random.default_rng(SEED)
    held, rest = split(len(store), order)
    g = torch.Generator().manual_seed(SEED)
    decay = [p for p in model.parameters() if p.ndim == 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}], lr=1e-3, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps, pct_start=0.1)
    log = {"steps": steps, "seed": SEED, "n_train_cells": len(rest), "n_held_out_cells": len(held),
           "unit": "nats per masked gene" if kind == "geneformer" else "squared bins per masked value",
           "baseline_held_out": baseline(kind, store.subset(rest), store.subset(held), len(model.genes)),
           "curve": []}  # fmt: skip
    started, recent = time.monotonic(), []
    for step in range(1, steps + 1):
        batch = store.batch(order.choice(rest, 10, replace=False))
        if step % 3:
            batch = thin(batch, int(order.integers(96, 320)), order)
        masked = hide(kind, model, batch, g)
        h = model.embed(masked.batch)
        for i in range(model.n_layers):
            h = model.layer(i, h, masked.batch)
        loss = model.masked_loss(h, masked)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        recent.append(loss.item())
        if step % 500 == 0 or step == steps:
            log["curve"].append({"step": step, "train": round(float(np.mean(recent)), 4),
                                 "held_out": round(held_out_loss(model, store, held), 4)})  # fmt: skip
            recent = []
            log["minutes"] = round((time.monotonic() - started) / 60, 1)
            weights = {n: t.detach().float().contiguous() for n, t in published_names(kind, model).items()}
            save_file(weights, folder / "model.safetensors")
            write_json(folder / "training.json", log)
            print(json.dumps(log["curve"][-1]), log["minutes"], "min", flush=True)


def main() -> None:
    """Train one of the two models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("geneformer", "scgpt"))
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--tissue", type=Path)
    parser.add_argument("--tissue-only", action="store_true")
    options = parser.parse_args()
    folder = options.out / f"{options.kind}-mini"
    folder.mkdir(parents=True, exist_ok=True)
    cells = read_cells(options.cells)
    if not options.tissue_only:
        model = build(options.kind, folder, cells)
        train(options.kind, model, tokenize(cells, model.tokenizer), options.steps, folder)
    if options.tissue:
        measure_tissue(options.kind, folder, cells, options.tissue)


if __name__ == "__main__":
    main()
