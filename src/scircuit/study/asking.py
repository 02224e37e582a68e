"""How long questions, comparisons and the report take: timed on a planted run, scaled by edges and redraws."""

import functools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scircuit._io import write_json
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.synthetic import planted_circuit
from scircuit.published.counts import write_numbers
from scircuit.published.definitions import PAPER
from scircuit.report import write_report
from scircuit.runs.ask import ask, ask_run, questions_of
from scircuit.runs.compare import compare
from scircuit.study.config import StudyConfig
from scircuit.tracing.plan import clock

EDGE_SHARE = 0.05
"""Share of tests taken to be edges; the only thing about a result that a plan has to guess."""
_DRAWS = 100


def asking(study: StudyConfig, n_tests: Mapping[str, float]) -> dict[str, float]:
    """Seconds of the stages after the traces, by name; `n_tests` are the tests expected of each condition."""
    one = _planted()
    draws = study.compare.draws / _DRAWS
    out: dict[str, float] = {}
    scales = [max(1.0, n_tests[c.name] * EDGE_SHARE / max(1, one.n_edges)) for c in study.conditions]
    for condition, scale in zip(study.conditions, scales, strict=True):
        base = {
            "analysis": one.analysis,
            "paper-analysis": one.paper_analysis,
            "knowledge": one.circuit + 2 * draws * one.hierarchy,
        }
        out |= {f"{kind}:{condition.name}": seconds * scale for kind, seconds in base.items()}
    n = len(study.conditions)
    pairs = n * (n - 1) // 2
    out["compare"] = draws * one.comparison * sum(scales) / n * max(1, pairs)
    # The first page of a process also imports what draws it.
    out["report"] = max(one.first_page - one.page, 0.0) + one.page * n + max(one.both_pages - 2 * one.page, 0.0) * pairs
    return out


@dataclass(frozen=True)
class _Planted:
    """Seconds on planted runs of `n_edges` edges, with `_DRAWS` redraws."""

    n_edges: int
    analysis: float
    paper_analysis: float
    circuit: float
    hierarchy: float
    comparison: float
    first_page: float
    page: float
    both_pages: float


@functools.cache
def _planted() -> _Planted:
    """Timed once in a process: it is this machine that is measured, not the study."""
    from scircuit.analysis.hierarchy import hierarchy

    with tempfile.TemporaryDirectory(prefix="scircuit_plan_") as folder:
        runs = [_planted_run(Path(folder) / str(i), i) for i in range(2)]
        run, target = runs[0], Path(folder) / "report"
        circuit = Artefacts(run).circuit()
        pages = [Artefacts(each, name) for each, name in zip(runs, "ab", strict=True)]
        ask_run(runs[1])  # the first questions of a process also import what they need
        return _Planted(
            n_edges=len(circuit.edges),
            analysis=_seconds(lambda: ask_run(run)),
            paper_analysis=_seconds(lambda: ask(run, questions_of(run, "all", "paper"), "paper"))
            + _seconds(lambda: write_numbers(Artefacts(run))),
            circuit=_seconds(lambda: Artefacts(run).circuit(PAPER)),
            hierarchy=_seconds(lambda: hierarchy(circuit, draws=_DRAWS)),
            comparison=_seconds(
                lambda: compare(runs, Path(folder) / "compare", names=["a", "b"], models=["a", "b"], profile="paper",
                                draws=_DRAWS, report=False)
            ),
            first_page=_seconds(lambda: write_report(target, pages[:1])),
            page=_seconds(lambda: write_report(target, pages[:1])),
            both_pages=_seconds(lambda: write_report(target, pages, Path(folder) / "compare")),
        )  # fmt: skip


def _planted_run(run: Path, seed: int) -> Path:
    """A run folder as a trace leaves it, with a planted circuit."""
    planted = planted_circuit(n_layers=4, n_latents=128, n_sources=6, n_cells=20, seed=seed)
    provenance = {**planted.circuit.provenance, "n_cells": 20, "name": f"planted {seed}"}
    circuit = Circuit(**{**vars(planted.circuit), "provenance": provenance})
    circuit.write(run / "circuit")
    (run / "trace").mkdir()
    planted.effects.to_parquet(run / "trace" / "effects.parquet", index=False)
    planted.tests.to_parquet(run / "trace" / "tests.parquet", index=False)
    write_json(run / "trace" / "trace.json", {"n_clean_forwards": 0, "n_ablated_forwards": 0})
    return run


def _seconds(work: Callable[[], Any]) -> float:
    started = clock()
    work()
    return clock() - started
