"""What a study will take on this device, before any of it runs: files, forwards, memory, disk, time."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from scircuit._io import write_json
from scircuit._tables import records
from scircuit._wording import amount, duration
from scircuit.cells.sampling import draw_sample
from scircuit.cells.tokens import TokenStore, tokenize
from scircuit.config import DataSection, RunConfig
from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.models.load import load_model
from scircuit.models.registry import Shape
from scircuit.models.stack import choose_device
from scircuit.runs.controls import CONTROLS, control_configs
from scircuit.runs.facts import hardware
from scircuit.runs.tokens import open_data, reading, rule_of
from scircuit.study import amounts
from scircuit.study.amounts import Load, Outlook, Sizes
from scircuit.study.asking import asking
from scircuit.study.calibration import calibrate, shallow, trace_pace
from scircuit.study.config import StudyConfig
from scircuit.study.needs import Need, model_needs, study_needs
from scircuit.study.shapes import RandomModel, random_cells, random_model, random_saes, shape_of
from scircuit.study.stages import PLAN, StudyFolder, description, stages
from scircuit.tracing.plan import Plan, clock, expect_trace
from scircuit.tracing.setup import Setup

T = TypeVar("T")
ASSUMED_CELLS = 2000
"""Cells of a data set that is not here and whose `n` is not given."""
ASSUMED_LENGTH = {"geneformer": 2028, "scgpt": 1187}
"""Mean gene positions per cell where cells or token dictionaries are not here: those published (arXiv 2603.01752)."""
_LOOKED_AT = 48
_OF_MODEL = ("tokens", "features", "trace")
_UNKNOWN = (Load(seconds=math.nan),) * len(_OF_MODEL)
BASE = 700_000_000
"""Bytes of the process itself with its libraries."""


@dataclass(frozen=True)
class StudyPlan:
    """What a study needs and takes."""

    needs: list[Need]
    stages: pd.DataFrame
    """One row per stage: `stage, seconds, clean, ablated, random` (forward passes; `random` those of random
    directions), `madds, memory, disk` (bytes)."""
    device: str
    """What was timed."""
    calibration_seconds: float
    assumptions: tuple[str, ...] = ()
    """What is taken for granted because a file is not here."""
    traces: Mapping[str, Plan] = field(default_factory=dict)
    """The tracer's own plan of each condition whose model can be timed."""

    def lines(self) -> list[str]:
        """For the terminal."""
        missing = [need for need in self.needs if not need.present]
        out = ["What it reads:", *_needs_lines(self.needs), ""]
        if missing:
            out += ["What is missing, and what brings it:"]
            out += [f"  {need.kind} {need.name}: {need.how}" for need in missing] + [""]
        width = max(len(str(name)) for name in self.stages["stage"])
        out += [
            f"What it takes on {self.device} (timed in {self.calibration_seconds:.0f} s):",
            f"  {'stage':<{width}} {'clean':>9} {'ablated':>9} {'random':>9} {'TFLOP':>9} {'memory':>8} {'disk':>8} "
            f"{'time':>9}",
        ]
        for row in records(self.stages):
            out.append("  " + _stage_line(row, width))
        total = self.stages[["seconds", "clean", "ablated", "random", "madds", "disk"]].sum()
        whole: dict[str, Any] = {str(name): value for name, value in total.items()}
        whole |= {"stage": "total", "memory": self.stages["memory"].max()}
        out += ["  " + _stage_line(whole, width)]
        out += [f"trace:{name} by the {plan.engine} engine" for name, plan in self.traces.items()]
        out += [f"assumed: {text}" for text in self.assumptions]
        return out

    def to_json(self) -> dict[str, Any]:
        """What `plan.json` holds."""
        rows = [{str(k): (v if v == v else None) for k, v in row.items()} for row in records(self.stages)]
        return {
            "format_version": 1,
            "device": self.device,
            "calibration_seconds": round(self.calibration_seconds, 2),
            "assumptions": list(self.assumptions),
            "needs": [asdict(need) for need in self.needs],
            "stages": rows,
        }


def plan_study(study: StudyConfig) -> StudyPlan:
    """Plan a study and keep the plan in its folder.

    Files that are not here are not needed: models of their shape with random weights are timed in their place.

    A model of the user's own (`FILE.py:FUNCTION`) has no shape to look up: its stages are left unknown.

    Raises
    ------
    ScircuitError
        When the study's folder holds something else.
    """
    folder = StudyFolder.open(study.out)
    planner = _Planner(study)
    started = time.perf_counter()
    with _quiet():
        table = planner.table()
    needs = study_needs(study)
    device = choose_device(study.conditions[0].run.model.device)
    facts = hardware(device)
    name = str(facts.get("device", f"{facts['cpu']}, {facts['cores']} cores"))
    assumptions = tuple(dict.fromkeys(planner.assumptions))
    plan = StudyPlan(needs, table, name, time.perf_counter() - started, assumptions, planner.traces)
    folder.record(description(study))
    write_json(folder.root / PLAN, plan.to_json())
    return plan


def plan_controls(config: RunConfig, n_steps: int | None = None) -> list[str]:
    """What `scircuit controls` takes on this device, for the terminal; nothing is written."""
    planner = _Planner(StudyConfig())
    with _quiet():
        load = planner.of_controls(config, n_steps)
    row = {"stage": "controls", **asdict(replace(load, memory=load.memory + BASE))}
    return [
        f"{len(CONTROLS)} controls ({', '.join(CONTROLS)}), each with dictionaries, features, trace and confirmation:",
        f"  {'':8} {'clean':>9} {'ablated':>9} {'random':>9} {'TFLOP':>9} {'memory':>8} {'disk':>8} {'time':>9}",
        "  " + _stage_line(row, 8),
        *(f"assumed: {text}" for text in dict.fromkeys(planner.assumptions)),
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """What random models say of themselves is of no interest to anybody."""
    logger = logging.getLogger("scircuit")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class _Planner:
    """Looks at each run once, times each shape once."""

    def __init__(self, study: StudyConfig) -> None:
        self.study = study
        self.assumptions: list[str] = []
        self.traces: dict[str, Plan] = {}
        self.models: dict[Any, FoundationModel] = {}
        self.measured: dict[Any, Any] = {}
        self.load_seconds = self.open_seconds = 0.0

    def once(self, measure: Callable[..., T], key: Any, *given: Any) -> T:
        """What is measured, the first time that it is asked for this key."""
        if (measure, key) not in self.measured:
            self.measured[measure, key] = measure(*given)
        return self.measured[measure, key]

    def table(self) -> pd.DataFrame:
        loads: dict[str, Load] = {}
        for dictionary in self.study.dictionaries:
            seen = self.look(dictionary.run)
            loads[f"dictionary:{dictionary.name}"] = amounts.training(seen) if seen else Load(seconds=math.nan)
        expected: dict[str, float] = {}
        for condition in self.study.conditions:
            trained = next(d.run for d in self.study.dictionaries if d.name == condition.dictionaries)
            own = replace(condition.run, sae=replace(trained.sae, path=None, mix=()))
            seen = self.look(own)
            found, expected[condition.name] = self.of_model(seen, condition.name) if seen else (_UNKNOWN, 0.0)
            loads |= {f"{kind}:{condition.name}": load for kind, load in zip(_OF_MODEL, found, strict=True)}
            if condition.name in self.study.controls.conditions:
                loads[f"controls:{condition.name}"] = self.of_controls(own)
        loads |= {name: Load(seconds=seconds) for name, seconds in asking(self.study, expected).items()}
        loads |= {name: Load(seconds=math.nan) for name in ("disease", "validate")}  # depend on what they read
        opening = {name: self.opening(name) for name in loads}
        opening[next(iter(loads))] += self.open_seconds
        rows = []
        for stage in stages(self.study):
            load = loads.get(stage.name, Load())
            seconds = round(load.seconds + opening.get(stage.name, 0.0), 3)
            rows.append({"stage": stage.name, **asdict(replace(load, seconds=seconds, memory=load.memory + BASE))})
        return pd.DataFrame(rows)

    def of_model(self, seen: Outlook, name: str) -> tuple[tuple[Load, ...], float]:
        """Loads of a condition's stages that compute with its model, and the tests expected of it."""
        run = seen.run
        reading = amounts.tokenizing(seen) if seen.sizes.counted else math.nan
        setup = amounts.traced(seen)
        plan = self.trace(seen, setup, seen.cells("discovery", run.trace.n_cells))
        self.traces[name] = plan
        self.assumptions += [f"{name}: {text}" for text in plan.left_out()]
        load = amounts.tracing(setup, plan) + amounts.pairs(seen)
        n_again = seen.cells("confirmation", run.confirmation.n_cells)
        if n_again:
            again = amounts.confirmed(seen, setup)
            load += replace(amounts.tracing(again, self.trace(seen, again, n_again)), disk=0)
        return (Load(seconds=reading), amounts.describing(seen), load), amounts.expected_tests(setup)

    def of_controls(self, config: RunConfig, n_steps: int | None = None) -> Load:
        """All controls of a run: dictionaries, features and trace of each."""
        whole = Load()
        for run in control_configs(config, n_steps).values():
            seen = self.look(run)
            if seen is None:
                return Load(seconds=math.nan)
            parts, _ = self.of_model(seen, run.name)
            whole += sum(parts[1:], amounts.training(seen))
        return whole

    def trace(self, seen: Outlook, setup: Setup, n_cells: int) -> Plan:
        """The tracer's plan, at the pace of its engine on few layers of the same width."""
        settings = replace(setup.settings, engine=setup.engine)
        pace = self.once(trace_pace, (id(seen.timed), setup.engine, settings.tokens), seen.timed, settings)
        return expect_trace(setup, n_cells, seen.firing_rate, pace)

    def look(self, run: RunConfig) -> Outlook | None:
        """A run as far as it is known; None where it cannot be timed, which the plan then says."""
        try:
            shape = shape_of(run.model)
        except ScircuitError as error:
            self.assumptions.append(f"nothing of {run.name}: {error}")
            return None
        model = random_model(shape, run.model, shape.n_layers, "meta")
        sizes = self.sizes(run, shape, model)
        key = (shape, run.model.device, run.model.dtype, sizes.length, run.sae.expansion, run.sae.k)
        timed = self.once(shallow, key, run, shape, model, sizes.length)
        paced = (key, run.sae.batch_rows, run.sae.architecture, run.features.coactivation)
        pace = self.once(calibrate, paced, run, timed, sizes.length)
        (sae,) = random_saes(model, [0], run.sae.expansion, run.sae.k).values()
        return Outlook(run, model, sae, sizes, timed, pace)

    def sizes(self, run: RunConfig, shape: Shape, made_up: RandomModel) -> Sizes:
        """Cells of a run and their lengths: looked at where files are here, assumed where not."""
        model = self.model(run)
        n_cells, own, seconds = self.section(run.cells, run, model)
        others = {part.name: self.section(part, run, model) for part in run.sae.mix}
        seen = [store for store in (own, *(store for _, store, _ in others.values())) if store is not None]
        if seen:
            length = round(float(np.mean([(store.gene >= 0).sum() / len(store) for store in seen])))
        else:
            length = min(ASSUMED_LENGTH[shape.kind], shape.max_length)
            self.assumptions.append(
                f"{length:,} gene positions per cell of {run.cells.path}, since cells or model are not here"
            )
        length, t = max(length, 8), run.trace
        cells = own or random_cells(made_up, 1, length, [*t.groups, *([t.units] if t.units else [])])
        return Sizes(n_cells, length, seconds, bool(seen), cells, {name: n for name, (n, _, _) in others.items()})

    def model(self, run: RunConfig) -> FoundationModel | None:
        """The model, for its tokenizer, where all of it is here."""
        if not all(need.present for need in model_needs(run)):
            return None
        m = run.model
        key = (m.source, m.protocol, m.dictionaries, str(m.options))
        if key not in self.models:
            started = clock()
            self.models[key] = load_model(
                m.source, protocol=m.protocol, dictionaries=m.dictionaries, device="cpu", options=m.options
            )
            self.load_seconds = clock() - started
        return self.models[key]

    def opening(self, stage: str) -> float:
        """Seconds to open the model and read what came before, for the stages that compute with it."""
        return self.load_seconds if stage.partition(":")[0] in ("dictionary", *_OF_MODEL) else 0.0

    def section(
        self, data: DataSection, run: RunConfig, model: FoundationModel | None
    ) -> tuple[int, TokenStore | None, float]:
        """Cells drawn of a data set, some of them as tokens (None without file or model), seconds to tokenise one."""
        here = data.path.startswith("scanpy:") or (data.path != "" and Path(data.path).exists())
        if not here:
            n = data.n if data.n is not None else sum(data.n_per.values()) or ASSUMED_CELLS
            if data.n is None and not data.n_per:
                self.assumptions.append(f"{ASSUMED_CELLS:,} cells of {data.path}, which is not here and has no n")
            return n, None, 0.0
        started = clock()
        opened = open_data(data, run.seed)
        # The first stage of a process also imports what reads the cells.
        self.open_seconds = max(self.open_seconds, clock() - started)
        sample = draw_sample(
            opened.adata.obs, opened.identity, where=data.where, n=data.n, rule=rule_of(data), shares=data.shares,
            seed=run.seed,
        )  # fmt: skip
        if model is None:
            return len(sample.rows), None, 0.0
        rows = np.sort(np.random.default_rng(0).choice(sample.rows, min(_LOOKED_AT, len(sample.rows)), replace=False))
        started = clock()
        store = tokenize(opened.adata, model.tokenizer, rows=rows, **reading(data))
        return len(sample.rows), store, (clock() - started) / len(rows)


def _needs_lines(needs: list[Need]) -> list[str]:
    rows = [
        (n.kind, n.name, "" if n.bytes is None else amount(n.bytes), "here" if n.present else "missing", n.licence)
        for n in needs
    ]
    text = pd.DataFrame(rows).to_string(index=False, header=False, justify="left")
    return ["  " + line.rstrip() for line in text.splitlines()]


def _stage_line(row: Mapping[str, Any], width: int) -> str:
    return (
        f"{row['stage']:<{width}} {int(row['clean']):>9,} {int(row['ablated']):>9,} {int(row['random']):>9,} "
        f"{2e-12 * row['madds']:>9,.3g} {amount(row['memory']):>8} {amount(row['disk']):>8} "
        f"{duration(row['seconds']):>9}"
    )
