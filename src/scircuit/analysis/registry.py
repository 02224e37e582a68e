"""Every question by name, with the tables it needs: what `scircuit analyze QUESTION` offers."""

from collections.abc import Mapping, Sequence
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._discover import discover
from scircuit._io import read_json
from scircuit.analysis.given import GIVEN, WITHOUT_DEFAULT, Sources
from scircuit.analysis.question import Question
from scircuit.analysis.result import Result
from scircuit.analysis.seed_stability import match_dictionaries
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.rule import EdgeRule
from scircuit.errors import ScircuitError

TABLES: Mapping[str, tuple[str, str]] = {
    "effects": ("trace/effects.parquet", "run `scircuit trace`"),
    "tests": ("trace/tests.parquet", "run `scircuit trace`"),
    "groups": ("trace/groups.parquet", "trace with the obs columns to group by (`groups` under [trace])"),
    "cell_effects": ("trace/cell_effects.parquet", "run `scircuit trace`, which keeps per-cell effects"),
    "source_cells": ("trace/source_cells.parquet", "run `scircuit trace`, which keeps per-cell effects"),
    "mediation": ("trace/mediation.parquet", "run `scircuit mediate CONFIG`"),
    "interactions": ("trace/interactions.parquet", "run `scircuit combine CONFIG`"),
    "interaction_sets": ("trace/interaction_sets.parquet", "run `scircuit combine CONFIG`"),
    "confirmation": ("confirmation/edges.parquet", "run `scircuit trace` with confirmation.n_cells above 0"),
    "coactivation": ("features/coactivation_across.parquet", "run with `pair_cells` above 0 under [features]"),
    "genes": ("features/genes.parquet", "run `scircuit features`"),
    "correlations": ("features/correlations.parquet", "run with `pair_cells` above 0 under [features]"),
}
"""Tables beside the circuit: where they lie in a run folder, and how they come about."""


MOST_RESPONSES = 50_000_000
"""Per-cell responses of a run that are read at once (1.2 GB)."""


ORDER = (
    "sign_balance", "effect_sizes", "coherence", "attenuation", "hubs", "coactivation", "replication", "stability",
    "group_stability", "threshold_sweep", "selection", "coexpression", "mediation", "interactions",
    "compare_effect_sizes", "seed_stability", "hierarchy", "novelty", "tissue", "disease", "consensus",
    "feature_consensus", "disease_conservation",
)  # fmt: skip
"""In which questions are asked and shown; one that is not named here comes last."""


@cache
def every_question() -> Mapping[str, Question]:
    """All that the modules of this room offer, of one run or of several, in `ORDER`."""
    found = discover("scircuit.analysis", Question)
    known = [name for name in ORDER if name in found]
    return {name: found[name] for name in [*known, *sorted(set(found) - set(known))]}


def questions() -> Mapping[str, Question]:
    """Questions that one run is asked, by name."""
    return {name: q for name, q in every_question().items() if not q.of_runs}


def question(name: str) -> Question:
    """The question of that name; an unknown one is refused with the list."""
    if name not in questions():
        raise ScircuitError(f"there is no question {name!r}; choose one of {', '.join(questions())}.")
    return questions()[name]


def has_table(run: str | Path, need: str) -> bool:
    """Whether a run folder holds the circuit, or a table of `TABLES`."""
    return _path(Path(run), need).exists()


def answerable(run: str | Path) -> list[str]:
    """Names of the questions that a run folder answers by what it holds: without a second run, or anything given."""
    return [q.name for q in questions().values() if not q.needs_second and all(_is_there(run, n) for n in q.needs)]


def _is_there(run: str | Path, need: str) -> bool:
    return need not in WITHOUT_DEFAULT if need in GIVEN else has_table(run, need)


def load(
    run: Path,
    need: str,
    question: str,
    edge_columns: Sequence[str] | None = None,
    columns: list[str] | None = None,
    grade: str | None = None,
) -> Any:
    """The circuit of a run folder, or a table of `TABLES`, with the named columns or all; refused where it is missing.

    `question` is what needs it; `grade` as in `Circuit.read`.
    """
    path = _path(run, need)
    if not path.exists():
        how = "run `scircuit trace` first" if need == "circuit" else TABLES[need][1]
        raise ScircuitError(f"{question} needs {path}, which is not there; {how}.")
    if need == "circuit":
        return Circuit.read(path.parent, edge_columns, grade)
    return pd.read_parquet(path, columns=columns)


def analyze(
    name: str,
    run: str | Path,
    second: str | Path | None = None,
    sources: Sources | None = None,
    grade: str | None = None,
    **options: Any,
) -> Result:
    """Ask one question of a run folder (`circuit/`, `trace/`, `features/` of docs/architecture.md).

    Parameters
    ----------
    name : str
        A key of `questions()`.
    run : folder
    second : folder, optional
        Another run, for the questions that compare two.
    sources : Sources, optional
        Gene sets, networks and the like, for the questions that draw on them.
    grade : str, optional
        Of the edges that are asked; as in `Circuit.read`, by default the strictest of the run's rule.
    options
        Keywords of the question's function. A `rule` is by default the one that the run's circuit was built with.

    Raises
    ------
    ScircuitError
        On an unknown question or option, or a table or second run that is missing, with how to make it.
    """
    asked = question(name)
    run = Path(run)
    options = _checked_options(asked, run, options)
    options |= _of_second(asked, run, None if second is None else Path(second))
    given = sources or Sources()
    return asked.function(
        *(GIVEN[n](run, given) if n in GIVEN else _load(run, n, asked, grade) for n in asked.needs), **options
    )


def _checked_options(asked: Question, run: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The options, with the rule of the run's circuit where the function takes one; unknown ones are refused."""
    own = {asked.second, "cells", "matches", "tests"}
    allowed = [keyword for keyword in [*signature(asked.function).parameters][len(asked.needs) :] if keyword not in own]
    for option in options:
        if option not in allowed:
            raise ScircuitError(f"{asked.name} has no option {option!r}; it takes {', '.join(allowed)}.")
    return _own_rule(run, allowed) | options


def _own_rule(run: Path, keywords: list[str]) -> dict[str, Any]:
    """The rule of the run's circuit and the retention of its trace, for functions that take them."""
    record = run / "circuit" / "run.json"
    found = read_json(record) if record.exists() else {}
    known: dict[str, Any] = {"rule": EdgeRule.recorded(found["thresholds"])} if "thresholds" in found else {}
    known |= {"retention": found["retention"]} if "retention" in found else {}
    return {keyword: value for keyword, value in known.items() if keyword in keywords}


def _of_second(asked: Question, run: Path, second: Path | None) -> dict[str, Any]:
    """What the function takes of a second run, by keyword."""
    if second is None:
        if asked.needs_second:
            raise ScircuitError(f"{asked.name} compares two runs; name the other one (`--with RUN`).")
        return {}
    if asked.second is None:
        known = [name for name, q in questions().items() if q.second]
        raise ScircuitError(f"{asked.name} is asked of one run; a second one serves {', '.join(known)}.")
    found: dict[str, Any] = {asked.second: _load(second, "circuit", asked)}
    if asked.matched:
        found["matches"] = match_dictionaries(run / "saes", second / "saes")
    if asked.per_cell and all(_few_responses(folder) for folder in (run, second)):
        names = ("cell_effects", "source_cells")
        found["cells"] = tuple(tuple(_load(folder, name, asked) for name in names) for folder in (run, second))
    return found


def _few_responses(run: Path) -> bool:
    """Whether responses were kept cell by cell, and not too many to be read at once."""
    import pyarrow.parquet as pq

    paths = [_path(run, name) for name in ("cell_effects", "source_cells")]
    return all(path.exists() for path in paths) and pq.read_metadata(paths[0]).num_rows <= MOST_RESPONSES


def _path(run: Path, need: str) -> Path:
    return run / ("circuit/run.json" if need == "circuit" else TABLES[need][0])


def _load(run: Path, need: str, asked: Question, grade: str | None = None) -> Any:
    return load(run, need, asked.name, asked.edge_columns, asked.table_columns.get(need), grade)
