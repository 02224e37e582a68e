"""What was run: the facts of each run's record, side by side, and the headline numbers."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from scircuit._tables import iterate
from scircuit.analysis.answers import read_answers
from scircuit.analysis.result import Measure
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.confirmation import grades_found_again
from scircuit.circuits.schema import SOURCE
from scircuit.circuits.specificity import n_made, of_family
from scircuit.report import numbers
from scircuit.report.blocks import Column, Fact, Table

NOT_ASKED = "not asked, or no edges"
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
    tests = run.circuit().tests
    sources = tests.loc[of_family(tests, "latent"), SOURCE].drop_duplicates()
    answers = read_answers(run.root / "analysis")
    supporting = _measure(answers, "sign_balance", "supporting_share")
    strength = _measure(answers, "effect_sizes", "mean_abs_d")
    again = _measure(answers, "replication", "mean_d")
    in_others = (
        f"in other cells {numbers.decimal(again.estimate)}, {_ends(again, numbers.decimal)}; " if again.n else ""
    )
    return [
        *_edges(run),
        Fact(
            "supporting",
            numbers.percent(supporting.estimate),
            _beside(supporting, numbers.percent),
            "share of edges whose target falls when the source is silenced, with its 95% interval",
        ),
        Fact(
            "mean |d|",
            numbers.decimal(strength.estimate),
            in_others + _beside(strength, numbers.decimal),
            "d = mean change of the target over cells / its standard deviation, mean over edges with its 95% interval; "
            "larger than it is, for the edges were chosen by it, but not in other cells",
        ),
        Fact(
            "sources",
            numbers.count(len(sources)),
            f"in {sources['source_layer'].nunique()} layers",
            "latents that were silenced, one at a time",
        ),
    ]


_CLAIMS = {
    "reproducible": "{rule}",
    "sizeable": "reproducible, and the near end of the interval of the mean response exceeds {min_effect_sd:g} clean "
    "SD of the target",
    "specific": "sizeable, and larger than pushes of the same size without meaning (decoys), at a target-decoy q below "
    "{max_q_specific:g}",
}


def _edges(run: Artefacts) -> list[Fact]:
    """The tests made, and of a run that told no grades its edges."""
    circuit = run.circuit()
    made = Fact(
        "tests", numbers.count(n_made(circuit.tests, "latent")), "with a response",
        "ablated latent and later latent that changed",
    )  # fmt: skip
    if run.provenance().get("grades"):
        return [made]
    again = _again(grades_found_again(run)[:1])
    return [made, Fact("edges", numbers.count(len(circuit.edges)), again, rule(run))]


def grade_rows(run: Artefacts) -> list[dict[str, str]]:
    """Edges of each grade, the widest first, beside held-out decoys, and how many were found again in other cells."""
    told, again, record = run.provenance().get("grades", []), grades_found_again(run), run.circuit().provenance
    limits, skewed = {"rule": rule(run), **(record.get("thresholds") or {})}, record.get("n_skewed")
    rows = []
    for place, row in enumerate(told):
        found = again[place] if place < len(again) and again[place]["n_measured"] else None
        tails = f"; {skewed:,} rest on skewed responses" if skewed and not place else ""
        rows.append(
            {
                "grade": row["grade"],
                "claim": _CLAIMS[row["grade"]].format(**limits) + tails,
                "edges": numbers.count(row["n_edges"]),
                "by_decoys": numbers.MISSING if row["n_by_decoys"] is None else f"{row['n_by_decoys']:,.0f}",
                "again": numbers.MISSING if found is None else numbers.percent(found["n_found"] / found["n_measured"]),
                "of": "" if found is None else f"{found['n_found']:,} of {found['n_measured']:,}",
            }
        )
    return rows


def tested(run: Artefacts) -> list[str]:
    """What was tested and over which units, in sentences."""
    record, tests = run.circuit().provenance, run.circuit().tests
    sources = tests.loc[of_family(tests, "latent"), SOURCE].drop_duplicates()
    cells = f" in {record['n_cells']:,} cells" if isinstance(record.get("n_cells"), int) else ""
    made, decoys = n_made(tests, "latent"), n_made(tests, "random")
    units = (record.get("settings") or {}).get("units")
    said = [
        f"{len(sources):,} latents of {sources['source_layer'].nunique()} layers of {run.model_name} were silenced, "
        f"one at a time,{cells}; {made:,} times a later latent changed in at least one cell: each of these is a test."
    ]
    if decoys:
        said[0] += f" In their place decoys were pushed along directions that mean nothing: {decoys:,} tests."
    said.append(
        f"The units of the tests are whole groups of cells ({units})."
        if units
        else "The units of the tests are single cells: they speak of this model in such cells, not of people or donors."
    )
    return said


def _again(found: Sequence[Mapping[str, int]]) -> str:
    """Edges found again in the confirmation cells, in words; nothing where none was measured."""
    return "".join(f"{row['n_found']:,} of {row['n_measured']:,} found again" for row in found if row["n_measured"])


def _ends(measure: Measure, write: Callable[[Any], str]) -> str:
    return f"{write(measure.low)} to {write(measure.high)}"


def _beside(measure: Measure, write: Callable[[Any], str]) -> str:
    if not measure.n:
        return NOT_ASKED
    return f"{_ends(measure, write)}; random directions: {write(measure.null)}; n = {measure.n:,}"


def _measure(answers: pd.DataFrame, question: str, name: str) -> Measure:
    """One number of the summary of answers; not a number where it was not asked, or refused."""
    rows = answers.loc[(answers["question"] == question) & (answers["measure"] == name), list(Measure._fields)]
    return Measure(*next(iterate(rows))) if len(rows) else Measure(name, float("nan"))


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


def record_table(runs: Sequence[Artefacts]) -> Table:
    """Everything the runs recorded about themselves, one column per run."""
    flat = [flatten(run.circuit().provenance) for run in runs]
    keys = list(dict.fromkeys(key for record in flat for key in record))
    columns = [Column("recorded", numeric=False), *(Column(run.name, numeric=False) for run in runs)]
    rows = [[key, *(record.get(key, numbers.MISSING) for record in flat)] for key in keys]
    return Table(columns, rows, len(rows), "Everything recorded in run.json", folded=True)


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
