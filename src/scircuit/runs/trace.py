"""Stages `trace` and `circuit`: which latents are ablated in which cells, and what becomes of the effects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._io import atomic, read_json, sha256_of
from scircuit.cells.tokens import TokenStore
from scircuit.circuits.build import build_circuit
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.rule import EdgeRule
from scircuit.circuits.schema import GRADES, SOURCE
from scircuit.circuits.sources import source_counts
from scircuit.config import RunConfig
from scircuit.features.catalogue import Catalogue
from scircuit.features.sources import Sources, select_sources
from scircuit.models.base import FoundationModel
from scircuit.models.origin import Origin
from scircuit.published.annotation_rule import label_ends
from scircuit.runs.facts import hardware, versions
from scircuit.runs.inputs import trace_settings
from scircuit.runs.probe import extra_interventions
from scircuit.runs.run import RunFolder, settings
from scircuit.runs.tokens import traced_cells
from scircuit.sae import LinearSAE
from scircuit.tracing.tracer import trace


def chosen_sources(config: RunConfig, features: pd.DataFrame, layers: list[int]) -> Sources:
    """The latents to ablate: by the run's rule, in every dictionary's layer but the last unless layers are named."""
    r = config.sources
    rule = [(layer, latent) for layer, latent in r.latents] if r.rule == "list" else r.rule
    return select_sources(
        features, rule, n=r.n, layers=list(r.layers) or layers[:-1], seed=config.seed,
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
    """Stage `trace`: choose sources, ablate them in the cells of the `discovery` split.

    `client` is a `distributed.Client` whose workers do it; None for this process.
    """
    chosen = chosen_sources(run.config, catalogue.features, sorted(saes))
    sources = source_latents(run.config, catalogue.features, sorted(saes))
    cells = traced_cells(store, run.config)
    provenance = {
        "sources": chosen.rule,
        "n_cells": len(cells),
        "cells": cells.fingerprint,
        "device": str(model.device),
    }
    return trace(
        model, saes, cells, sources, run.stage("trace"), settings=trace_settings(run.config), provenance=provenance,
        client=client,
        extra=extra_interventions(run.config, model, saes, cells, catalogue.features, sources),
    )  # fmt: skip


def run_circuit(run: RunFolder, model: FoundationModel, catalogue: Catalogue, terms: pd.DataFrame) -> Circuit:
    """Stage `circuit`: all tests corrected together, thresholds applied, provenance attached."""
    folder = run.stage("circuit")
    if run.done("circuit"):
        return Circuit.read(folder, grade=GRADES[0])
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
    tests = pd.read_parquet(source / "tests.parquet")
    sources = tests.loc[tests["kind"] == "latent", SOURCE].set_axis(["layer", "feature"], axis=1)
    circuit = build_circuit(
        pd.read_parquet(source / "effects.parquet"), tests, label_ends(catalogue.features, sources), terms,
        EdgeRule(**vars(c.edges)), provenance, pd.read_parquet(source / "scales.parquet"),
    )  # fmt: skip
    with atomic(folder / "sources.parquet") as path:
        source_counts(circuit).to_parquet(path, index=False)
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
