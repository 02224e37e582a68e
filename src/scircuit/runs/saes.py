"""Stage `saes`: dictionaries trained on one or several data sets, or read; measured on cells they never saw."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scircuit._packaged import sae_folder
from scircuit._settings import values_of
from scircuit.cells.batch import TokenBatch
from scircuit.cells.sampling import split_of
from scircuit.cells.tokens import TokenStore
from scircuit.errors import ScircuitError
from scircuit.features.detectors import one_gene_shares
from scircuit.features.quality import measure_quality
from scircuit.models.base import FoundationModel
from scircuit.models.stream import check_layers, gene_rows
from scircuit.runs.inputs import check_belonging, is_ours, open_saes
from scircuit.runs.run import Run
from scircuit.runs.tokens import batch_size, drawn_cells, identity_of, mixed_stores, split_cells
from scircuit.sae.base import LinearSAE
from scircuit.sae.buffer import Stream
from scircuit.sae.checkpoint import read_manifest, save_saes
from scircuit.sae.mixing import mix
from scircuit.sae.settings import SaeTraining
from scircuit.sae.stability import stability
from scircuit.sae.training import train_saes

_CHECKPOINT = "training-{seed}.safetensors"


def run_saes(run: Run, model: FoundationModel, store: TokenStore) -> dict[int, LinearSAE]:
    """Stage `saes`: train the dictionaries (or take those of `sae.path`) and measure them on held-out cells.

    Training that was stopped goes on from its last checkpoint, to the same bytes.
    """
    s = run.config.sae
    folder = run.stage("saes")
    if run.done("saes"):
        _sweep(folder)
        return open_saes(folder, model)
    layers = check_layers(model, s.layers or range(model.n_layers))
    if s.path:
        theirs = read_manifest(sae_folder(s.path)).get("metadata", {}) if is_ours(s.path) else {}
        metadata = {"source": s.path, **theirs}
        check_apart(store, metadata.get("data", []))
        saes = open_saes(s.path, model, s.layers or None)
    else:
        stores = mixed_stores(run) or {"cells": store}
        saes = _train(run, model, stores, layers, run.config.seed)
        data = _data(run, stores)
        n_train = sum(entry["n_train_cells"] for entry in data)
        training = values_of(s, SaeTraining)
        metadata = {"training": training, "n_train_cells": n_train, "data": data}
    held = drawn_cells(store, run.config, "catalogue", s.quality_cells, 5)
    metrics, sparsity = measure_quality(model, saes, store.batches(batch_size(store), cells=held), seed=run.config.seed)
    if s.path:
        check_belonging(s.path, metrics)
    for layer, share in one_gene_shares(model, saes, store.batches(batch_size(store), cells=held)).items():
        metrics[layer] |= {"one_gene_share": share} if share == share else {}
    if s.stability_seeds and not s.path:
        for layer, found in _seed_stability(run, model, stores, saes).items():
            metrics[layer] |= found
    save_saes(
        folder, saes, model=model.name, model_fingerprint=model.fingerprint, protocol=model.protocol,
        metadata={**metadata, "n_quality_cells": len(held), "cells": store.fingerprint}, metrics=metrics,
        log_sparsity=sparsity,
    )  # fmt: skip
    _sweep(folder)
    return open_saes(folder, model)


def _sweep(folder: Path) -> None:
    """Remove what only an unfinished training needs, and what a killed process left half written."""
    for stale in [*folder.glob(_CHECKPOINT.format(seed="*")), *folder.rglob(".*.tmp")]:
        stale.unlink()


def _data(run: Run, stores: Mapping[str, TokenStore]) -> list[dict[str, Any]]:
    """What the dictionaries learnt from, for the manifest."""
    weights = {part.name: part.weight for part in run.config.sae.mix} or {"cells": 1.0}
    total = sum(weights.values())
    return [
        {
            "name": name,
            "weight": round(weights[name] / total, 6),
            "n_train_cells": len(split_cells(store, "train")),
            "cells": store.fingerprint,
            "seed": run.config.seed,
            "shares": store.info["shares"],
            **store.info["data"],
        }
        for name, store in stores.items()
    ]


def check_apart(store: TokenStore, data: list[dict[str, Any]]) -> None:
    """Refuse dictionaries that learnt from cells which this run describes, traces or confirms in.

    `data` is what their manifest says of the data sets they learnt from. Whether a row was among their training cells
    follows from their seed and shares.
    """
    used = store.cells["_split"].to_numpy() != "train"
    for entry in data:
        if entry.get("fingerprint") != store.info["data"]["fingerprint"]:
            continue
        n_cells = store.info["data"].get("n_cells", len(store))
        taught = split_of(identity_of(store), entry["seed"], entry["shares"], n_cells) == "train"
        both = int((taught & used).sum())
        if both:
            raise ScircuitError(
                f"{both} of the {int(used.sum())} cells outside the train split may have taught the dictionaries of "
                f"sae.path, which learnt from the same data set with seed = {entry['seed']} and cells.shares = "
                f"{entry['shares']}; use that seed and those shares."
            )


class _Chunk(Mapping[int, Tensor]):
    """Activations of one batch of cells, computed when first looked at: a resumed stream skips chunks for nothing."""

    def __init__(self, model: FoundationModel, batch: TokenBatch, layers: tuple[int, ...]) -> None:
        self._model, self._batch, self._layers = model, batch, layers
        self._rows: dict[int, Tensor] | None = None
        self.n_rows = int(batch.is_gene.sum())

    def __getitem__(self, layer: int) -> Tensor:
        if self._rows is None:
            self._rows = next(gene_rows(self._model, [self._batch], self._layers))[0]
        return self._rows[layer]

    def __iter__(self) -> Iterator[int]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


def _stream(model: FoundationModel, store: TokenStore, layers: tuple[int, ...], seed: int) -> Stream:
    train = split_cells(store, "train")

    def stream(epoch: int) -> Iterator[Mapping[int, Tensor]]:
        order = np.random.default_rng([seed, 2, epoch]).permutation(train)
        for batch in store.batches(batch_size(store), cells=order, by_length=False):
            yield _Chunk(model, batch, layers)

    return stream


def _train(
    run: Run, model: FoundationModel, stores: Mapping[str, TokenStore], layers: tuple[int, ...], seed: int
) -> dict[int, LinearSAE]:
    """Dictionaries of all layers, from one stream over the training cells of every data set."""
    streams = {name: _stream(model, store, layers, seed) for name, store in stores.items()}
    weights = {part.name: part.weight for part in run.config.sae.mix}
    stream = mix(streams, weights) if weights else streams["cells"]
    checkpoint = run.stage("saes") / _CHECKPOINT.format(seed=seed)
    return train_saes(
        stream, model.d_model, layers, replace(run.config.sae, seed=seed), model.device, checkpoint=checkpoint,
        checkpoint_every=run.config.sae.checkpoint_every,
    )  # fmt: skip


def _seed_stability(
    run: Run, model: FoundationModel, stores: Mapping[str, TokenStore], saes: Mapping[int, LinearSAE]
) -> dict[int, dict[str, float]]:
    """Per layer, how well latents are found again under other seeds, beside the same for random directions."""
    seeds = [run.config.seed + 1 + i for i in range(run.config.sae.stability_seeds)]
    others = [_train(run, model, stores, tuple(saes), seed) for seed in seeds]
    out = {}
    for layer, sae in saes.items():
        # A stream of its own: dictionaries start from directions drawn by the run's seed, and keep a trace of them.
        draw = np.random.default_rng([run.config.seed, 3, layer]).standard_normal(tuple(sae.W_dec.shape))
        random = torch.from_numpy(draw).to(sae.W_dec.device)
        out[layer] = {
            "seed_stability": float(np.mean([stability(sae.W_dec, other[layer].W_dec).mean for other in others])),
            "seed_stability_random": stability(sae.W_dec, random).mean,
        }
    return out
