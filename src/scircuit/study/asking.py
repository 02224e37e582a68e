"""How long questions, comparisons and the report take: timed on a planted run, scaled by edges and redraws."""

import tempfile
from collections.abc import Callable, Mapping
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
    from scircuit.analysis.hierarchy import hierarchy

    with tempfile.TemporaryDirectory(prefix="scircuit_plan_") as folder:
        runs = [_planted_run(Path(folder) / str(i), i) for i in range(2)]
        run, draws = runs[0], study.compare.draws / _DRAWS
        circuit = Artefacts(run).circuit()
        ask_run(runs[1])  # the first questions of a process also import what they need
        base = {
            "analysis": _seconds(lambda: ask_run(run)),
            "paper-analysis": _seconds(lambda: ask(run, questions_of(run, "all", "paper"), "paper"))
            + _seconds(lambda: write_numbers(Artefacts(run))),
            "knowledge": _seconds(lambda: Artefacts(run).circuit(PAPER))
            + 2 * draws * _seconds(lambda: hierarchy(circuit, draws=_DRAWS)),
        }  # fmt: skip
        together = _seconds(
            lambda: compare(runs, Path(folder) / "compare", names=["a", "b"], models=["a", "b"], profile="paper",
                            draws=_DRAWS, report=False)
        )  # fmt: skip
        pages = [Artefacts(each, name) for each, name in zip(runs, "ab", strict=True)]
        first = _seconds(lambda: write_report(Path(folder) / "report", pages[:1]))
        page = _seconds(lambda: write_report(Path(folder) / "report", pages[:1]))
        both = _seconds(lambda: write_report(Path(folder) / "report", pages, Path(folder) / "compare"))
    out: dict[str, float] = {}
    scales = [max(1.0, n_tests[c.name] * EDGE_SHARE / max(1, len(circuit.edges))) for c in study.conditions]
    for condition, scale in zip(study.conditions, scales, strict=True):
        out |= {f"{kind}:{condition.name}": seconds * scale for kind, seconds in base.items()}
    n = len(study.conditions)
    pairs = n * (n - 1) // 2
    out["compare"] = draws * together * sum(scales) / n * max(1, pairs)
    # The first page of a process also imports what draws it.
    out["report"] = max(first - page, 0.0) + page * n + max(both - 2 * page, 0.0) * pairs
    return out


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
