"""What a result is worth where the truth is known: grades of edges, tests and intervals, every analysis under its null.

    python benchmarks/calibration.py                  # everything; some twenty minutes on two cores
    python benchmarks/calibration.py donors skewed    # only these parts of calibration.json, the others stay:
                                                      # planted (5 min), donors (1 min), skewed (1 min), nulls (7 min),
                                                      # dictionaries (3 min), profiles (3 min), controls (30 min),
                                                      # paths (3 min)

`planted`: circuits set by hand, per width, norm, decoy and cells. `donors`, `skewed`, `nulls`: the simulations of
tests/simulations, which the slow tests judge. `dictionaries`: the packaged models with their own dictionaries, with
random ones, and with untrained weights, in which nothing was learnt that an edge could be about. `profiles`: the
demonstration under both profiles. `controls`: the demonstration beside `scircuit controls`, with short dictionaries.
`paths`: recall of paths of known dose, planted in models planted by hand.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import hardware
from _models import centred_saes, live_latents

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "simulations"))

from null import drawn
from nulls import NULLS
from responses import SHAPES, donors, mean_of, skewed

from scircuit._packaged import PACKAGED
from scircuit.analysis.positive_control import positive_control as recall
from scircuit.cells.tokens import TokenStore
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import DECOYS, ENDS
from scircuit.config import RunConfig
from scircuit.models.stack import BlockStack
from scircuit.models.untrained import untrain
from scircuit.runs.ask import both_profiles
from scircuit.runs.controls import controls as run_controls
from scircuit.runs.demo import demo_config
from scircuit.runs.inputs import open_model, open_saes
from scircuit.runs.positive_control import DOSES
from scircuit.runs.stages import run
from scircuit.runs.trace import traced_cells
from scircuit.sae.base import LinearSAE
from scircuit.tracing.engines.clean import clean_batch
from scircuit.tracing.planted import N_LATENTS, N_LAYERS, Planted, planted
from scircuit.tracing.planting import PlantedPaths, adjusted, draw_paths, survey
from scircuit.tracing.recovery import bare_circuit, recover
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.setup import Setup
from scircuit.tracing.tracer import trace

OUT = Path(__file__).parent / "calibration.json"
WIDTHS, CELLS = (64, 128, 512), (20, 50, 100)
DEFAULT_DECOY = TraceSettings().decoy
FRESH = (11, 12, 13)
"""Worlds that had no part in choosing the score or the number of decoys; world 0 had."""
DRAWS = 10
"""Draws of 2,000 targets each, for donors and skewed responses."""

Rows = Iterator[dict[str, Any]]


def worlds() -> Iterator[tuple[int, str, str, int, int]]:
    """Every width and norm by every decoy, and by the default decoy in other numbers of cells and in fresh worlds."""
    for width in WIDTHS:
        for norm in ("post", "pre"):
            yield from ((width, norm, decoy, 50, 0) for decoy in DECOYS)
            yield from ((width, norm, DEFAULT_DECOY, n, 0) for n in CELLS if n != 50)
            yield from ((width, norm, DEFAULT_DECOY, 50, seed) for seed in FRESH)


def planted_circuits() -> Rows:
    """Precision and recall of every grade."""
    for width, norm, decoy, n_cells, seed in worlds():
        settings = TraceSettings(engine="exact", decoy=decoy, seed=seed)
        found = recover(planted(width, norm, seed), n_cells, settings, seed=seed)
        for row in found.table.to_dict("records"):
            yield {"width": width, "norm": norm, "decoy": decoy, "n_cells": n_cells, "world": seed, **row}


def cells_of_donors() -> Rows:
    """20 cells of each donor, by cells and by donors."""
    for n_donors in (6, 8, 12, 20):
        for icc in (0.0, 0.1, 0.3):
            rng = np.random.default_rng([n_donors, int(100 * icc)])
            found = mean_of([donors(rng, n_donors, icc) for _ in range(DRAWS)])
            for units, row in found.iterrows():
                yield {"n_donors": n_donors, "icc": icc, "units": units, **row}


def skewed_responses() -> Rows:
    """Responses of each shape, by the default rule and by the one that allows for skewness."""
    for shape in SHAPES:
        for n_cells in (20, 50, 200):
            rng = np.random.default_rng([n_cells, len(shape)])
            found = mean_of([skewed(rng, shape, n_cells) for _ in range(DRAWS)])
            for rule, row in found.iterrows():
                yield {"shape": shape, "n_cells": n_cells, "rule": rule, **row}


def nulls() -> Rows:
    """Share of draws with p <= .05 (or an interval that misses the truth) in every analysis."""
    for null in NULLS:
        p = drawn(null, seed=1)  # not the draws that the slow tests judge
        share = float((p <= 0.05).mean())
        yield {"question": null.question, "number": null.number, "data": null.data, "n_draws": null.n_draws,
               "share": share, "error": float(np.sqrt(0.05 * 0.95 / null.n_draws))}  # fmt: skip


def dictionaries(n_cells: int = 24, n_sources: int = 6) -> Rows:
    """Edges of each grade in the packaged models, beside those of held-out decoys; and where edges can mean little.

    The dictionaries that ship with a model, on it and on an untrained copy of it, and random directions on the model.
    """
    for name in PACKAGED:
        with tempfile.TemporaryDirectory() as folder:
            config = demo_config(name, Path(folder))
            config = replace(config, trace=replace(config.trace, n_cells=n_cells))
            done, model = run(config, until="tokenize"), open_model(config)
            assert isinstance(model, BlockStack)
            store = traced_cells(TokenStore.read(done.stage("tokens")), config)
            shipped = open_saes(name, model)
            random = centred_saes(model, store.batch(np.arange(16)), 16)
            for of_model, of_saes, saes in (
                ("trained", "shipped", shipped), ("trained", "random", random), ("untrained", "shipped", shipped),
            ):  # fmt: skip
                if of_model == "untrained":
                    untrain(model, "redrawn")
                circuit = traced_circuit(model, saes, store, n_sources, Path(folder) / f"{of_model}-{of_saes}")
                facts = {"model": name, "weights": of_model, "dictionaries": of_saes, "n_cells": len(store)}
                for row in circuit.provenance["grades"]:
                    yield {**facts, "n_tests": circuit.provenance["n_tests"], **row}


def traced_circuit(
    model: BlockStack, saes: Mapping[int, LinearSAE], store: TokenStore, n_sources: int, folder: Path
) -> Circuit:
    """The circuit of some sources per layer, drawn among the latents that fire in the first cell."""
    sources = {}
    for layer in range(model.n_layers - 1):
        live = live_latents(clean_batch(model, saes[layer], store.batch(np.arange(1)), layer))
        sources[layer] = np.random.default_rng(layer).permutation(live)[:n_sources].tolist()
    settings = TraceSettings(engine="exact")
    out = trace(model, saes, store, sources, folder, settings=settings)
    return bare_circuit(out, every_latent(saes), settings)


def profiles() -> Rows:
    """The demonstration's own runs, the numbers of the default profile beside the published ones."""
    for name in PACKAGED:
        with tempfile.TemporaryDirectory() as folder:
            done = run(demo_config(name, Path(folder)), until="circuit")
            for row in both_profiles(done).to_dict("records"):
                yield {"model": name, **row}


@contextmanager
def finished(name: str) -> Iterator[RunConfig]:
    """A packaged model's demonstration, run to its answers."""
    with tempfile.TemporaryDirectory() as folder:
        config = demo_config(name, Path(folder))
        run(config, until="analysis")
        yield config


def controls() -> Rows:
    """Headlines of the demonstration beside those of untrained copies and frozen dictionaries."""
    for name in PACKAGED:
        with finished(name) as config:
            table = pd.read_parquet(run_controls(config, n_steps=200))
        yield from ({"model": name, **row} for row in table[table["number"] != ""].to_dict("records"))


def paths() -> Rows:
    """Recall of planted paths by dose and grade, in models planted by hand."""
    for norm in ("post", "pre"):
        found = recall(planted_paths(planted(128, norm))).table
        yield from ({"norm": norm, **row} for row in found.to_dict("records"))


def planted_paths(truth: Planted, n_turns: int = 3) -> pd.DataFrame:
    """What `scircuit positive-control` writes, of a planted model: pairs that are specific already are left out."""
    settings, sources = TraceSettings(engine="exact"), {i: list(range(N_LATENTS // 2)) for i in range(N_LAYERS - 1)}
    setup = Setup.of(truth.model, truth.saes, truth.cells(50), sources, settings)
    surveys = {layer: survey(setup, layer) for layer in sources}
    known, turns = recover(truth, 50).circuit.at("specific").edges[ENDS], []
    for turn in range(n_turns):
        drawn = adjusted(setup, draw_paths(surveys, DOSES, turn, 10, np.random.default_rng(turn), known))
        model = PlantedPaths(setup.model, drawn, setup)
        with tempfile.TemporaryDirectory() as folder:
            out = trace(model, truth.saes, setup.cells, sources, folder, settings=settings)
            edges = bare_circuit(out, every_latent(truth.saes), settings).edges[[*ENDS, "grade", "effect_sd"]]
        found = drawn.merge(edges.astype({"grade": str}), on=ENDS, how="left").assign(strictest="specific")
        turns.append(found.assign(grade=found["grade"].fillna("")))
    return pd.concat(turns, ignore_index=True)


def every_latent(saes: Mapping[int, LinearSAE]) -> pd.DataFrame:
    """Nodes of a bare circuit."""
    parts = [pd.DataFrame({"layer": i, "feature": range(sae.n_latents), "label": ""}) for i, sae in saes.items()]
    return pd.concat(parts, ignore_index=True)


PARTS = {
    "planted": planted_circuits, "donors": cells_of_donors, "skewed": skewed_responses, "nulls": nulls,
    "dictionaries": dictionaries, "profiles": profiles,
    "controls": controls, "paths": paths,
}  # fmt: skip


def main(parts: list[str]) -> None:
    """Run the parts named, or all; each is written when it is done."""
    for name in parts or PARTS:
        rows = []
        for row in PARTS[name]():
            rows.append(row)
            print(row, flush=True)
        known = json.loads(OUT.read_text()) if OUT.is_file() else {}
        known |= {"hardware": hardware(), name: rows}
        OUT.write_text(json.dumps(known, indent=1).replace("NaN", "null") + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
