"""`scircuit positive-control`: paths of known dose planted in the run's own model, and traced by the run's own rule."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from scircuit._io import read_json
from scircuit._sealed import write_sealed
from scircuit._tables import read_parquet, write_parquet
from scircuit.circuits.build import build_circuit
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.rule import DEFAULT
from scircuit.circuits.schema import ENDS
from scircuit.config import RunConfig
from scircuit.errors import ScircuitError
from scircuit.runs.run import Run
from scircuit.runs.trace import traced
from scircuit.tracing.planting import PlantedPaths, adjusted, draw_paths, survey
from scircuit.tracing.setup import Setup
from scircuit.tracing.tracer import trace_setup

log = logging.getLogger(__name__)
DOSES = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)
"""In clean SD of the target; at dose 0 nothing is planted, which shows how often such a pair is an edge anyway."""
CELLS = 25
"""Cells in which the gain of a path is sought."""
FOUND = ["effect_sd", "cohens_d", "q_value", "specificity", "q_specific", "grade"]
"""What is kept of the edge that a planted path became."""


def positive_control(config: RunConfig, *, doses: Sequence[float] = DOSES, turns: int = 3) -> Path:
    """Plant a path at every source of a finished run, `turns` times, and trace each; writes `positive_control/`.

    Every turn costs as much as the run's trace did by the exact engine. Each source gets one later latent that fires
    with it and is no edge of it yet, drawn at random, and another dose in each turn. What was interrupted goes on at
    its turn.

    Returns `positive_control/paths.parquet`, a row per path: the ends, `turn, dose, clean_sd, gain, offset`, `realised`
    (the dose that it gives where its gain was sought), `strictest` (the strictest grade that the run tells), and
    `FOUND` of the edge that it became; `grade` is empty where it became none.

    Raises
    ------
    ScircuitError
        Where the run has no circuit, no source fires with a later latent, or doses or turns are none.
    """
    if turns < 1 or not doses or min(doses) < 0:
        raise ScircuitError(f"doses {list(doses)} in {turns} turns: give doses of at least 0, and at least one turn.")
    run = Run.open(config)
    provenance = run.provenance()
    setup = traced(config, run.setup(), run.table("features"))
    setup = Setup.of(
        setup.model, setup.saes, setup.cells, setup.sources, replace(setup.settings, engine="exact", groups=())
    )
    rule = run.rule() or DEFAULT
    surveys = {layer: survey(setup, layer) for layer in setup.sources}
    known, few = (
        run.circuit().edges[ENDS],
        replace(setup, cells=setup.cells.subset(np.arange(len(setup.cells))[:CELLS])),
    )
    folder, parts = run.path("positive_control").parent, []
    for turn in range(turns):
        rng = np.random.default_rng([config.seed, 11, turn])
        paths = adjusted(few, draw_paths(surveys, doses, turn, max(rule.min_nonzero, 2), rng, known))
        log.info("positive control, turn %d of %d: %d paths", turn + 1, turns, int((paths["dose"] > 0).sum()))
        model = PlantedPaths(setup.model, paths, setup)
        out = trace_setup(_with_model(setup, model), folder / f"turn-{turn}")
        circuit = _circuit(run, out)
        found = circuit.edges[[*ENDS, *(c for c in FOUND if c in circuit.edges)]].astype({"grade": str})
        table = paths.merge(found, on=ENDS, how="left").assign(turn=turn, strictest=provenance["grade"])
        parts.append(table.assign(grade=table["grade"].fillna("")))
    path = run.path("positive_control")
    write_parquet(path, pd.concat(parts, ignore_index=True))
    content = {"run_id": run.run_id, "doses": list(doses), "turns": turns, "seed": config.seed}
    write_sealed(path.with_suffix(".json"), content, [path.name])
    for turn in range(turns):
        shutil.rmtree(folder / f"turn-{turn}")
    return path


def _with_model(setup: Setup, model: PlantedPaths) -> Setup:
    return Setup.of(model, setup.saes, setup.cells, setup.sources, setup.settings)


def _circuit(run: Run, trace: Path) -> Circuit:
    """The circuit of a turn by the run's own rule, every grade of it."""
    effects, tests = (read_parquet(trace / f"{name}.parquet") for name in ("effects", "tests"))
    file = trace / "scales.parquet"
    own, kept = run.circuit(), read_json(trace / "trace.json")
    known = {name: kept[name] for name in ("retention", "kept_abs_d")}
    scales = read_parquet(file) if file.is_file() else None
    return build_circuit(effects, tests, own.nodes, own.terms, run.rule() or DEFAULT, known, scales)
