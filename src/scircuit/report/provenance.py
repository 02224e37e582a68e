"""What was run: the facts of each run's record, side by side, and the headline numbers."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from scircuit.analysis.answers import Answer
from scircuit.analysis.result import Measure
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.specificity import n_made, of_family
from scircuit.report import numbers
from scircuit.report.blocks import Column, Fact, Table
from scircuit.report.reading import notebook

HASH = re.compile("[0-9a-f]{64}")

RECORDED = {
    "model": "model.name",
    "model (hash)": "model.fingerprint",
    "tokenisation protocol": "model.protocol",
    "SAEs (hash)": "saes",
    "data": "config.cells.path",
    "cells traced": "n_cells",
    "cells (hash)": "cells",
    "share of features that a gene set names": "annotation.annotated",
    "the same share, their genes drawn at random": "annotation.control",
    "rule that chose the sources": "sources.rule",
    "forward passes without a change": "n_clean_forwards",
    "forward passes with an ablation": "n_ablated_forwards",
    "profile": "config.profile",
    "seed": "seed",
    "precision": "precision",
    "device": "device",
    "seconds to the circuit": "seconds",
    "scircuit": "versions.scircuit",
    "torch": "versions.torch",
}
"""Rows of the overview and the entries of `run.json` that fill them; what no run recorded is left out."""


def _tests(run: Artefacts, kind: str) -> str:
    return numbers.count(n_made(run.circuit().tests, kind))


COUNTED: dict[str, Callable[[Artefacts], str]] = {
    "features in the catalogue": lambda run: numbers.count(len(run.circuit().nodes)),
    "features that a gene set names": lambda run: numbers.count((run.circuit().nodes["n_terms"] > 0).sum()),
    "tests of ablated latents": lambda run: _tests(run, "latent"),
    "tests of random directions": lambda run: _tests(run, "random"),
    "edges": lambda run: numbers.count(len(run.circuit().edges)),
    "edges of random directions": lambda run: numbers.count(len(run.circuit().controls)),
}
"""Rows of the overview that are counted in the tables."""


def headline(run: Artefacts) -> list[Fact]:
    """The handful of numbers that say how big the circuit is and how it was cut out of the tests."""
    edges, tests = run.circuit().edges, run.circuit().tests
    latent, random = (tests[of_family(tests, kind)] for kind in ("latent", "random"))
    n_tests, n_random = int(latent["n_tests"].sum()), int(random["n_tests"].sum())
    sources = latent[["source_layer", "source_feature"]].drop_duplicates()
    rate = 1000 * len(edges) / n_tests if n_tests else None
    chance = 1000 * len(run.circuit().controls) / n_random if n_random else None
    asked = notebook(run)
    supporting = _measure(asked.get("sign_balance"), "supporting_share")
    strength = _measure(asked.get("effect_sizes"), "mean_abs_d")
    return [
        Fact("edges", numbers.count(len(edges)), f"of {n_tests:,} tests", rule(run)),
        Fact(
            "per 1,000 tests",
            numbers.decimal(rate),
            f"random directions: {numbers.decimal(chance)}",
            "edges / tests with a non-zero response; beside it the same for norm-matched random directions",
        ),
        Fact(
            "supporting",
            numbers.percent(supporting.estimate),
            _beside(supporting, numbers.percent),
            "share of edges whose target falls when the source is silenced, with its 95% interval",
        ),
        Fact(
            "mean |d|",
            numbers.decimal(strength.estimate),
            _beside(strength, numbers.decimal),
            "d = mean change of the target over cells / its standard deviation, mean over edges with its 95% interval",
        ),
        Fact(
            "sources",
            numbers.count(len(sources)),
            f"in {sources['source_layer'].nunique()} layers",
            "latents that were silenced, one at a time",
        ),
    ]


def _beside(measure: Measure, write: Callable[[Any], str]) -> str:
    if not measure.n:
        return "not asked, or no edges"
    ends = f"{write(measure.low)} to {write(measure.high)}"
    return f"{ends}; random directions: {write(measure.null)}; n = {measure.n:,}"


def _measure(answer: Answer | None, name: str) -> Measure:
    return Measure(name, float("nan")) if answer is None or answer.result is None else answer.result[name]


def rule(run: Artefacts) -> str:
    """The rule that made a test an edge, in words."""
    limits = run.circuit().provenance.get("thresholds") or {}
    parts = [
        f"{name} {sign} {limits[key]:g}"
        for key, name, sign in (
            ("min_abs_d", "|d|", ">"),
            ("min_consistency", "consistency", ">"),
            ("max_q", "q", "<"),
            ("min_nonzero", "cells with a response", "≥"),
        )
        if isinstance(limits.get(key), int | float)
    ]
    return "tests with " + ", ".join(parts) if parts else "by a rule that was not recorded"


def overview_table(runs: Sequence[Artefacts]) -> Table:
    """What a reader asks first: how many cells, forwards, tests, nodes and edges, and how long it took."""
    flat = [flatten(run.circuit().provenance) for run in runs]
    rows = [
        [title, *(_short(name, record.get(name, numbers.MISSING)) for record in flat)]
        for title, name in RECORDED.items()
        if any(name in record for record in flat)
    ]
    rows += [[title, *(counted(run) for run in runs)] for title, counted in COUNTED.items()]
    columns = [Column("", numeric=False), *(Column(run.name, numeric=False) for run in runs)]
    return Table(columns, rows, len(rows))


def _short(name: str, value: str) -> str:
    if name.startswith("annotation.") and value != numbers.MISSING:
        return numbers.percent(float(value))
    return f"{value[:16]}…" if HASH.fullmatch(value) else value


def record_table(runs: Sequence[Artefacts], folded: bool = True) -> Table:
    """Everything the runs recorded about themselves, one column per run."""
    flat = [flatten(run.circuit().provenance) for run in runs]
    keys = list(dict.fromkeys(key for record in flat for key in record))
    columns = [Column("recorded", numeric=False), *(Column(run.name, numeric=False) for run in runs)]
    rows = [[key, *(record.get(key, numbers.MISSING) for record in flat)] for key in keys]
    return Table(columns, rows, len(rows), "Everything recorded in run.json", folded)


def flatten(record: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested records as dotted names; lists are written out."""
    flat: dict[str, str] = {}
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flatten(value, f"{name}.")
        elif isinstance(value, list):
            flat[name] = ", ".join(str(item) for item in value)
        elif isinstance(value, float):
            flat[name] = f"{value:.6g}"
        elif isinstance(value, int) and not isinstance(value, bool) and "seed" not in key:
            flat[name] = f"{value:,}"
        else:
            flat[name] = "not set" if value is None else str(value)
    return flat
