"""Stages `trace`, `circuit`, `confirmation`: what is ablated where, what becomes of the effects, in other cells too."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scircuit._io import read_json
from scircuit._sealed import FILES
from scircuit._tables import write_parquet
from scircuit.cells.independence import unit_columns
from scircuit.circuits.build import build_circuit
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.confirmation import grades_found_again
from scircuit.circuits.grades import sentences
from scircuit.circuits.schema import GRADES, SOURCE
from scircuit.circuits.sources import source_counts
from scircuit.config import RunConfig
from scircuit.errors import ScircuitError
from scircuit.features.catalogue import Catalogue
from scircuit.features.sources import Sources, select_sources
from scircuit.models.base import FoundationModel
from scircuit.models.origin import Origin
from scircuit.published.annotation_rule import label_ends
from scircuit.runs.attribution import source_cells, with_attribution
from scircuit.runs.facts import hardware, versions
from scircuit.runs.identity import settings
from scircuit.runs.inputs import check_inputs
from scircuit.runs.run import Run
from scircuit.runs.tokens import check_cells, drawn_cells, traced_cells
from scircuit.sae.checkpoint import dictionaries_hash
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.menu import build, parse_words
from scircuit.tracing.plan import Plan, plan_trace
from scircuit.tracing.replicate import replicate
from scircuit.tracing.setup import Setup
from scircuit.tracing.tracer import trace_setup

log = logging.getLogger(__name__)


def source_layers(config: RunConfig, layers: list[int]) -> list[int]:
    """Layers whose latents are ablated: every dictionary's but the last unless they are named."""
    return list(config.sources.layers) or layers[:-1]


def chosen_sources(config: RunConfig, features: pd.DataFrame, layers: list[int]) -> Sources:
    """The latents to ablate, by the run's rule."""
    r = config.sources
    rule = [(layer, latent) for layer, latent in r.latents] if r.rule == "list" else r.rule
    return select_sources(
        features, rule, n=r.n, layers=source_layers(config, layers), seed=config.seed,
        min_frequency=r.min_frequency, min_top_genes=r.min_top_genes,
    )  # fmt: skip


def described(config: RunConfig, setup: Setup, features: pd.DataFrame) -> pd.DataFrame:
    """The latents with what the rule of sources chooses them by: their attributions, in catalogue cells."""
    if config.sources.rule != "attribution":
        return features
    cells = setup.cells.subset(source_cells(setup.cells, config))
    return with_attribution(features, config.sources.of, setup, cells, config.seed)


def traced(config: RunConfig, setup: Setup, features: pd.DataFrame) -> Setup:
    """The run's trace: the chosen sources, in the traced cells, and what is done to them beside the ablation."""
    sources: dict[int, list[int]] = {}
    chosen = chosen_sources(config, features, sorted(setup.saes)).table
    for layer, feature in chosen[["layer", "feature"]].itertuples(index=False):
        sources.setdefault(int(layer), []).append(int(feature))
    setup = replace(setup, cells=traced_cells(setup.cells, config))
    extra = _extra_interventions(config, setup, features, sources)
    return Setup.of(setup.model, setup.saes, setup.cells, sources, setup.settings, extra)


def _extra_interventions(
    config: RunConfig, setup: Setup, features: pd.DataFrame, sources: Mapping[int, list[int]]
) -> dict[int, list[Intervention]]:
    """`trace.interventions` for every source, per layer; empty without any."""
    words = parse_words(config.trace.interventions)
    wrong = [w.action for w in words if w.action in ("zero", "random")]
    if wrong:
        raise ScircuitError(
            f"trace.interventions names {wrong[0]!r}, which is traced anyway (random: trace.n_random); leave it out."
        )
    if not words:
        return {}
    return {layer: build(words, [(f,) for f in mine], setup, layer, features) for layer, mine in sources.items()}


def run_trace(run: Run, setup: Setup, catalogue: Catalogue, client: Any = None) -> Path:
    """Stage `trace`: choose sources, ablate them in the cells of the `discovery` split.

    `client` is a `distributed.Client` whose workers do it; None for this process.
    """
    features = described(run.config, setup, catalogue.features)
    rule = chosen_sources(run.config, features, sorted(setup.saes)).rule
    setup = traced(run.config, setup, features)
    _warn_of_units(setup)
    cells, device = setup.cells, str(setup.model.device)
    provenance = {"sources": rule, "n_cells": len(cells), "cells": cells.fingerprint, "device": device}
    return trace_setup(setup, run.stage("trace"), provenance=provenance, client=client)


def _warn_of_units(setup: Setup) -> None:
    """Say what cells have in common where they are tested as if they had nothing in common."""
    obs = setup.cells.cells
    named = [] if setup.settings.units else unit_columns(obs)
    if named:
        log.warning(
            "the traced cells come from %d values of obs column %r and are tested one by one: cells of one value are "
            "not independent, so too many edges may be called; set trace.units = %r to test over them",
            obs[named[0]].nunique(), named[0], named[0],
        )  # fmt: skip


def run_circuit(run: Run, model: FoundationModel, catalogue: Catalogue, terms: pd.DataFrame) -> Circuit:
    """Stage `circuit`: all tests corrected together, thresholds applied, provenance attached."""
    folder = run.stage("circuit")
    if run.done("circuit"):
        return run.circuit(grade=GRADES[0])
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
        "saes": dictionaries_hash(run.stage("saes")),
        "precision": c.model.dtype,
        "seed": c.seed,
        "config": settings(c),
        "versions": versions(),
        "hardware": hardware(model.device),
        "seconds": round(sum(run.seconds().values()), 1),
        "annotation": _annotation(run),
        **{k: v for k, v in info.items() if k not in ("format_version", "key", FILES)},
    }
    tests = run.table("tests")
    sources = tests.loc[tests["kind"] == "latent", SOURCE].set_axis(["layer", "feature"], axis=1)
    circuit = build_circuit(
        run.table("effects"), tests, label_ends(catalogue.features, sources), terms, c.edges, provenance,
        run.table("scales"),
    )  # fmt: skip
    write_parquet(folder / "sources.parquet", source_counts(circuit.at(circuit.provenance["grade"])))
    circuit.write(folder)
    for sentence in sentences(circuit.provenance):
        log.info(sentence)
    return circuit


def _origin(model: FoundationModel) -> dict[str, Any]:
    """The files that a model was read from; nothing for adapters of users that do not say."""
    origin = getattr(model, "origin", None)
    return origin.to_dict() if isinstance(origin, Origin) else {}


def _annotation(run: Run) -> dict[str, Any]:
    """Share of latents that gene sets annotate, beside the share that random genes would."""
    control = read_json(run.stage("features") / "labels.json").get("random_genes") or {}
    return {key: control[key] for key in ("n_annotated", "annotated", "control", "beyond", "p_value") if key in control}


def run_confirmation(run: Run, setup: Setup, circuit: Circuit, client: Any = None) -> None:
    """Write `confirmation/`: the edges of at most `max_sources` sources per layer, in the `confirmation` cells.

    Nothing is written with `confirmation.n_cells = 0`. `client` as in `run_trace`.
    """
    c = run.config.confirmation
    if c.n_cells == 0 or run.done("confirmation"):
        return
    cells = setup.cells.subset(drawn_cells(setup.cells, run.config, "confirmation", c.n_cells, 6))
    edges = some_sources(circuit.edges, c.max_sources, run.config.seed)
    if len(edges) < len(circuit.edges):
        log.info("%d of %d edges are measured again (confirmation.max_sources)", len(edges), len(circuit.edges))
    replicate(
        replace(setup, cells=cells), edges, run.stage("confirmation"),
        provenance={"n_circuit_edges": len(circuit.edges), "circuit": circuit.run_id}, client=client,
    )  # fmt: skip
    told = zip(circuit.provenance["grades"], grades_found_again(run), strict=True)
    again = [
        f"{row['n_found']:,} of {row['n_measured']:,} {grade['grade']}" for grade, row in told if row["n_measured"]
    ]
    if again:
        log.info("Found again in other cells: %s.", ", ".join(again))


def some_sources(edges: pd.DataFrame, n: int | None, seed: int) -> pd.DataFrame:
    """The edges of at most `n` sources per layer, drawn at random among those that have one."""
    if n is None:
        return edges
    rng = np.random.default_rng([seed, 7])
    sources = edges[SOURCE].drop_duplicates().sort_values(SOURCE)
    kept = [part.iloc[np.sort(rng.permutation(len(part))[:n])] for _, part in sources.groupby("source_layer")]
    return edges.merge(pd.concat(kept), on=SOURCE) if kept else edges


def plan(config: RunConfig) -> Plan:
    """Forwards, multiply-adds, memory, disk and time of the run's trace; nothing is written."""
    folder = Run.open(config)
    for name in ("tokens", "saes", "features"):
        folder.need(name)
    setup = folder.setup()
    check_cells(config)
    check_inputs(config, setup.model)
    features = Catalogue.read(folder.stage("features")).features
    return plan_trace(traced(config, setup, described(config, setup, features)))
