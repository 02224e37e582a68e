"""The stages of a run: each reads what the one before wrote and writes one artefact."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scircuit._io import read_json, sha256_of
from scircuit.cells.tokens import TokenStore, tokenize
from scircuit.circuits.build import EdgeRule, build_circuit
from scircuit.circuits.circuit import Circuit
from scircuit.config import RunConfig
from scircuit.errors import ScircuitError
from scircuit.features.catalogue import Catalogue
from scircuit.features.detectors import one_gene_shares
from scircuit.features.quality import measure_quality
from scircuit.features.sources import Sources, select_sources
from scircuit.models.base import FoundationModel
from scircuit.models.origin import Origin
from scircuit.models.stream import check_layers, gene_rows
from scircuit.pipeline.facts import hardware, versions
from scircuit.pipeline.folder import RunFolder, settings
from scircuit.pipeline.opening import open_saes, read_cells, sae_training, trace_settings
from scircuit.sae import LinearSAE, save_saes, stability, train_saes
from scircuit.tracing.tracer import trace

log = logging.getLogger(__name__)
_BATCH_TOKENS = 8192


def run_tokenize(run: RunFolder, model: FoundationModel) -> TokenStore:
    """Stage `tokens`: filter, sample and tokenise the cells, and split them for training and tracing."""
    folder = run.stage("tokens")
    if run.done("tokens"):
        return TokenStore.read(folder)
    c = run.config.cells
    adata = read_cells(c.path)
    rows = _choose_rows(adata.obs, c.where, c.n, run.config.seed)
    store = tokenize(
        adata, model.tokenizer, counts=c.counts, scale=c.scale, gene_column=c.gene_column, rows=rows,
        min_rate=c.min_match,
    )  # fmt: skip
    store.cells["_split"] = _split(len(store), c.train_share, run.config.seed)
    categories(store, c.obs)
    t = run.config.trace
    obs_columns(store, [*t.groups, *([t.units] if t.units else [])], "trace.groups or trace.units")
    run.record()
    store.write(folder)
    return store


def _choose_rows(obs: pd.DataFrame, where: Mapping[str, Any], n: int | None, seed: int) -> np.ndarray:
    keep = np.ones(len(obs), dtype=bool)
    for column, value in where.items():
        if column not in obs:
            raise ScircuitError(f"cells.where names {column!r}; obs has {', '.join(map(str, obs.columns))}.")
        allowed = value if isinstance(value, list) else [value]
        keep &= obs[column].isin(allowed).to_numpy()
        if not keep.any():
            seen = ", ".join(map(str, obs[column].unique()[:8]))
            raise ScircuitError(f"No cell has {column} = {value!r}; its values are {seen}.")
    rows = np.flatnonzero(keep)
    if n is None or n >= len(rows):
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, n, replace=False))


def _split(n: int, train_share: float, seed: int) -> np.ndarray:
    """`train` or `trace` for each cell: disjoint, so that effects are not measured where sources were chosen."""
    n_train = round(train_share * n)
    if not 0 < n_train < n:
        raise ScircuitError(
            f"cells.train_share = {train_share} leaves {n_train} of {n} cells to train on; use 0.1 to 0.9."
        )
    split = np.full(n, "trace", dtype=object)
    split[np.random.default_rng([seed, 1]).permutation(n)[:n_train]] = "train"
    return split


def split_cells(store: TokenStore, name: str) -> np.ndarray:
    """Rows of the store in one split."""
    return np.flatnonzero((store.cells["_split"] == name).to_numpy())


def batch_size(store: TokenStore) -> int:
    """Cells per forward pass."""
    return max(1, _BATCH_TOKENS // int(store.lengths.max()))


def run_saes(run: RunFolder, model: FoundationModel, store: TokenStore) -> dict[int, LinearSAE]:
    """Stage `saes`: train the dictionaries (or take those of `sae.path`) and measure them on held-out cells."""
    s = run.config.sae
    folder = run.stage("saes")
    if run.done("saes"):
        return open_saes(folder, model)
    layers = check_layers(model, s.layers or range(model.n_layers))
    if s.path:
        saes = open_saes(s.path, model, layers)
        metadata = {"source": s.path, **read_json(Path(s.path) / "manifest.json").get("metadata", {})}
    else:
        saes = _train(run, model, store, layers, run.config.seed)
        n_train = len(split_cells(store, "train"))
        metadata = {"n_steps": s.n_steps, "seed": run.config.seed, "n_train_cells": n_train}
    held = split_cells(store, "trace")[: s.quality_cells]
    metrics, sparsity = measure_quality(model, saes, store.batches(batch_size(store), cells=held), seed=run.config.seed)
    for layer, share in one_gene_shares(model, saes, store.batches(batch_size(store), cells=held)).items():
        metrics[layer] |= {"one_gene_share": share} if share == share else {}
    if s.stability_seeds and not s.path:
        for layer, found in _seed_stability(run, model, store, saes).items():
            metrics[layer] |= found
    save_saes(
        folder, saes, model=model.name, model_fingerprint=model.fingerprint, protocol=model.protocol,
        metadata={**metadata, "n_quality_cells": len(held), "cells": store.fingerprint}, metrics=metrics,
        log_sparsity=sparsity,
    )  # fmt: skip
    return open_saes(folder, model)


def _train(
    run: RunFolder, model: FoundationModel, store: TokenStore, layers: tuple[int, ...], seed: int
) -> dict[int, LinearSAE]:
    """Dictionaries of all layers, from one stream over the training cells."""
    train = split_cells(store, "train")

    def stream(epoch: int) -> Iterator[dict[int, Tensor]]:
        order = np.random.default_rng([seed, 2, epoch]).permutation(train)
        batches = store.batches(batch_size(store), cells=order, by_length=False)
        return (rows for rows, _, _ in gene_rows(model, batches, layers))

    return train_saes(stream, model.d_model, layers, sae_training(run.config, seed), model.device)


def _seed_stability(
    run: RunFolder, model: FoundationModel, store: TokenStore, saes: Mapping[int, LinearSAE]
) -> dict[int, dict[str, float]]:
    """Per layer, how well latents are found again under other seeds, beside the same for random directions."""
    seeds = [run.config.seed + 1 + i for i in range(run.config.sae.stability_seeds)]
    others = [_train(run, model, store, tuple(saes), seed) for seed in seeds]
    out = {}
    for layer, sae in saes.items():
        generator = torch.Generator().manual_seed(run.config.seed)
        random = torch.randn(sae.W_dec.shape, generator=generator).to(sae.W_dec.device)
        out[layer] = {
            "seed_stability": float(np.mean([stability(sae.W_dec, other[layer].W_dec).mean for other in others])),
            "seed_stability_random": stability(sae.W_dec, random).mean,
        }
    return out


def categories(store: TokenStore, columns: tuple[str, ...]) -> pd.DataFrame | None:
    """The obs columns among which top cells are tested, or None without any."""
    obs_columns(store, columns, "cells.obs")
    return store.cells[list(columns)].reset_index(drop=True) if columns else None


def obs_columns(store: TokenStore, columns: Sequence[str], asked: str) -> None:
    """Refuse columns that obs has not, naming the setting that asks for them."""
    missing = [c for c in columns if c not in store.cells]
    if missing:
        allowed = ", ".join(str(c) for c in store.cells if not str(c).startswith("_"))
        raise ScircuitError(f"{asked} names {missing[0]!r}; obs has {allowed}.")


def chosen_sources(config: RunConfig, features: pd.DataFrame, layers: list[int]) -> Sources:
    """The latents to ablate: by the run's rule, in every dictionary's layer but the last unless layers are named."""
    r = config.sources
    return select_sources(
        features, r.rule, n=r.n, layers=list(r.layers) or layers[:-1], seed=config.seed,
        min_frequency=r.min_frequency, min_top_genes=r.min_top_genes,
    )  # fmt: skip


def source_latents(config: RunConfig, features: pd.DataFrame, layers: list[int]) -> dict[int, list[int]]:
    """The chosen sources per layer."""
    sources: dict[int, list[int]] = {}
    for layer, feature in chosen_sources(config, features, layers).table[["layer", "feature"]].itertuples(index=False):
        sources.setdefault(int(layer), []).append(int(feature))
    return sources


def run_trace(
    run: RunFolder,
    model: FoundationModel,
    store: TokenStore,
    saes: Mapping[int, LinearSAE],
    catalogue: Catalogue,
    client: Any = None,
) -> Path:
    """Stage `trace`: choose sources, ablate them in cells that no earlier stage learnt from.

    `client` is a `distributed.Client` whose workers do it; None for this process.
    """
    chosen = chosen_sources(run.config, catalogue.features, sorted(saes))
    sources = source_latents(run.config, catalogue.features, sorted(saes))
    cells = traced_cells(store, run.config.trace.n_cells, run.config.seed)
    provenance = {
        "sources": chosen.rule,
        "n_cells": len(cells),
        "cells": cells.fingerprint,
        "device": str(model.device),
    }
    return trace(
        model, saes, cells, sources, run.stage("trace"), settings=trace_settings(run.config), provenance=provenance,
        client=client,
    )  # fmt: skip


def traced_cells(store: TokenStore, n: int | None, seed: int) -> TokenStore:
    """The cells of the `trace` split, at most `n` of them, drawn with the seed."""
    rows = split_cells(store, "trace")
    if n is not None and n < len(rows):
        rows = np.sort(np.random.default_rng([seed, 3]).choice(rows, n, replace=False))
    return store.subset(rows)


def run_circuit(run: RunFolder, model: FoundationModel, catalogue: Catalogue, terms: pd.DataFrame) -> Circuit:
    """Stage `circuit`: all tests corrected together, thresholds applied, provenance attached."""
    folder = run.stage("circuit")
    if run.done("circuit"):
        return Circuit.read(folder)
    source = run.need("trace")
    info = read_json(source / "trace.json")
    c = run.config
    provenance = {
        "name": c.name,
        "model": {
            "name": model.name,
            "fingerprint": model.fingerprint,
            "protocol": model.protocol,
            "n_layers": model.n_layers,
            **_origin(model),
        },
        "saes": sha256_of(read_json(run.stage("saes") / "manifest.json")),
        "precision": c.model.dtype,
        "seed": c.seed,
        "config": settings(c),
        "versions": versions(),
        "hardware": hardware(model.device),
        "seconds": round(sum(run.seconds().values()), 1),
        "annotation": _annotation(run),
        **{k: v for k, v in info.items() if k not in ("format_version", "key")},
    }
    circuit = build_circuit(
        pd.read_parquet(source / "effects.parquet"), pd.read_parquet(source / "tests.parquet"), catalogue.features,
        terms, EdgeRule(**vars(c.edges)), provenance,
    )  # fmt: skip
    circuit.write(folder)
    return circuit


def _origin(model: FoundationModel) -> dict[str, Any]:
    """The files that a model was read from; nothing for adapters of users that do not say."""
    origin = getattr(model, "origin", None)
    return origin.to_dict() if isinstance(origin, Origin) else {}


def _annotation(run: RunFolder) -> dict[str, Any]:
    """Share of latents that gene sets annotate, beside the share that random genes would."""
    control = read_json(run.stage("features") / "labels.json").get("random_genes") or {}
    return {key: control[key] for key in ("n_annotated", "annotated", "control", "beyond", "p_value") if key in control}
