"""Every question by name, with the tables it needs: what `scircuit analyze QUESTION` offers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._io import read_json
from scircuit.analysis.attenuation import attenuation
from scircuit.analysis.coactivation import coactivation
from scircuit.analysis.coexpression import coexpression
from scircuit.analysis.coherence import coherence
from scircuit.analysis.dictionaries import match_dictionaries
from scircuit.analysis.effect_comparison import compare_effect_sizes
from scircuit.analysis.effect_sizes import effect_sizes
from scircuit.analysis.group_stability import COLUMNS as GROUP_COLUMNS
from scircuit.analysis.group_stability import group_stability
from scircuit.analysis.hubs import hubs
from scircuit.analysis.interactions import interactions
from scircuit.analysis.mediation import mediation
from scircuit.analysis.replication import replication
from scircuit.analysis.result import Result
from scircuit.analysis.seed_stability import seed_stability
from scircuit.analysis.selection import selection
from scircuit.analysis.sign_balance import sign_balance
from scircuit.analysis.stability import stability
from scircuit.analysis.thresholds import COLUMNS as EFFECT_COLUMNS
from scircuit.analysis.thresholds import threshold_sweep
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.rule import EdgeRule
from scircuit.circuits.schema import ENDS
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
    "correlations": ("features/correlations.parquet", "run with `pair_cells` above 0 under [features]"),
}
"""Tables beside the circuit: where they lie in a run folder, and how they come about."""


MOST_RESPONSES = 50_000_000
"""Per-cell responses of a run that are read at once (1.2 GB)."""


@dataclass(frozen=True)
class Question:
    """A question a run can be asked.

    Attributes
    ----------
    name : str
    asks : str
        The question in words.
    function : callable
        Takes the tables of `needs` in order, then options by keyword; returns a `Result`.
    needs : tuple of str
        `circuit` or names of `TABLES`.
    edge_columns : tuple of str
        Edge columns it reads beside the ends, so that no more is loaded.
    table_columns : mapping
        The same for tables of `needs` that are long; of others every column is loaded.
    second : str or None
        Keyword under which the function takes the circuit of a second run, where it compares two.
    needs_second : bool
        Whether there is no answer without one.
    matched : bool
        Whether it needs to know which latents of the two runs' dictionaries are the same (keyword `matches`).
    per_cell : bool
        Whether it uses the responses that both runs kept cell by cell, where they did (keyword `cells`).
    """

    name: str
    asks: str
    function: Callable[..., Result]
    needs: tuple[str, ...] = ("circuit",)
    edge_columns: tuple[str, ...] = ()
    table_columns: Mapping[str, list[str]] = field(default_factory=dict)
    second: str | None = None
    needs_second: bool = False
    matched: bool = False
    per_cell: bool = False


_EVERY = (
    Question(
        "sign_balance",
        "How many edges support their target?",
        sign_balance,
        edge_columns=("mean_delta", "weight_effect"),
    ),
    Question(
        "effect_sizes",
        "How large are the effects?",
        effect_sizes,
        edge_columns=("mean_delta", "cohens_d", "clean_mean", "clean_sd"),
    ),
    Question(
        "coherence",
        "Do the ends of an edge share gene sets beyond chance?",
        coherence,
    ),
    Question("attenuation", "How do edges thin out with depth?", attenuation),
    Question(
        "hubs",
        "Which latents hold most edges, and why?",
        hubs,
        edge_columns=("cohens_d",),
    ),
    Question(
        "coactivation",
        "Does co-activation tell which pairs are causal?",
        coactivation,
        ("circuit", "coactivation"),
        table_columns={"coactivation": [*ENDS, "pmi"]},
    ),
    Question("replication", "Are the edges there again in other cells?", replication, ("confirmation",)),
    Question(
        "stability", "Would other cells give the same edges?", stability, ("cell_effects", "source_cells", "tests")
    ),
    Question(
        "group_stability",
        "Do cell types or donors give the same edges?",
        group_stability,
        ("groups", "tests"),
        table_columns={"groups": GROUP_COLUMNS},
    ),
    Question(
        "threshold_sweep",
        "What if the thresholds were others?",
        threshold_sweep,
        ("effects", "tests"),
        table_columns={"effects": EFFECT_COLUMNS},
    ),
    Question(
        "selection",
        "How much is due to the choice of sources?",
        selection,
        edge_columns=("mean_delta", "cohens_d"),
        second="random",
    ),
    Question(
        "coexpression",
        "How much of an effect is correlation?",
        coexpression,
        ("circuit", "correlations"),
        ("cohens_d",),
    ),
    Question("mediation", "Which latents carry an edge?", mediation, ("mediation",)),
    Question(
        "interactions",
        "Do sources add up, or interact?",
        interactions,
        ("interactions", "interaction_sets"),
    ),
    Question(
        "compare_effect_sizes",
        "Are the effects of another run as large, like for like?",
        compare_effect_sizes,
        edge_columns=("cohens_d", "n_cells"),
        second="second",
        needs_second=True,
        per_cell=True,
    ),
    Question(
        "seed_stability",
        "Do dictionaries of another seed give the same edges?",
        seed_stability,
        edge_columns=("cohens_d",),
        second="second",
        needs_second=True,
        matched=True,
    ),
)

QUESTIONS: Mapping[str, Question] = {question.name: question for question in _EVERY}


def question(name: str) -> Question:
    """The question of that name; an unknown one is refused with the list."""
    if name not in QUESTIONS:
        raise ScircuitError(f"there is no question {name!r}; choose one of {', '.join(QUESTIONS)}.")
    return QUESTIONS[name]


def has_table(run: str | Path, need: str) -> bool:
    """Whether a run folder holds the circuit, or a table of `TABLES`."""
    return _path(Path(run), need).exists()


def answerable(run: str | Path) -> list[str]:
    """Names of the questions whose tables a run folder holds, and that need no second run."""
    found = [q for q in QUESTIONS.values() if all(has_table(run, need) for need in q.needs)]
    return [q.name for q in found if not q.needs_second]


def load(
    run: Path, need: str, question: str, edge_columns: Sequence[str] | None = None, columns: list[str] | None = None
) -> Any:
    """The circuit of a run folder, or a table of `TABLES`, with the named columns or all; refused where it is missing.

    `question` is what needs it.
    """
    path = _path(run, need)
    if not path.exists():
        how = "run `scircuit trace` first" if need == "circuit" else TABLES[need][1]
        raise ScircuitError(f"{question} needs {path}, which is not there; {how}.")
    return Circuit.read(path.parent, edge_columns) if need == "circuit" else pd.read_parquet(path, columns=columns)


def analyze(name: str, run: str | Path, second: str | Path | None = None, **options: Any) -> Result:
    """Ask one question of a run folder (`circuit/`, `trace/`, `features/` of docs/architecture.md).

    Parameters
    ----------
    name : str
        A key of `QUESTIONS`.
    run : folder
    second : folder, optional
        Another run, for the questions that compare two.
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
    return asked.function(*(_load(run, need, asked) for need in asked.needs), **options)


def _checked_options(asked: Question, run: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The options, with the rule of the run's circuit where the function takes one; unknown ones are refused."""
    keywords = [p.name for p in signature(asked.function).parameters.values() if p.default is not Parameter.empty]
    own = {asked.second, "cells", "matches", "tests"}
    allowed = [keyword for keyword in keywords if keyword not in own]
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
        known = [name for name, q in QUESTIONS.items() if q.second]
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


def _load(run: Path, need: str, asked: Question) -> Any:
    return load(run, need, asked.name, asked.edge_columns, asked.table_columns.get(need))
