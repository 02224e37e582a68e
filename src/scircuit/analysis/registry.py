"""Every question by name, with the tables it needs: what `scircuit analyze QUESTION` offers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit.analysis.attenuation import attenuation
from scircuit.analysis.coactivation import coactivation
from scircuit.analysis.coexpression import coexpression
from scircuit.analysis.coherence import coherence
from scircuit.analysis.effect_sizes import effect_sizes
from scircuit.analysis.group_stability import group_stability
from scircuit.analysis.hubs import hubs
from scircuit.analysis.interactions import interactions
from scircuit.analysis.mediation import mediation
from scircuit.analysis.profiles import profile as named_profile
from scircuit.analysis.profiles import published_numbers
from scircuit.analysis.replication import replication
from scircuit.analysis.result import Result
from scircuit.analysis.selection import selection
from scircuit.analysis.sign_balance import sign_balance
from scircuit.analysis.stability import stability
from scircuit.analysis.thresholds import threshold_sweep
from scircuit.circuits.circuit import Circuit
from scircuit.errors import ScircuitError

TABLES: Mapping[str, tuple[str, str]] = {
    "effects": ("trace/effects.parquet", "run `scircuit trace`"),
    "tests": ("trace/tests.parquet", "run `scircuit trace`"),
    "groups": ("trace/groups.parquet", "trace with the obs columns to group by"),
    "cell_effects": ("trace/cell_effects.parquet", "trace with per-cell effects kept"),
    "source_cells": ("trace/source_cells.parquet", "trace with per-cell effects kept"),
    "mediation": ("trace/mediation.parquet", "trace with mediators"),
    "interactions": ("trace/interactions.parquet", "trace with sets of sources"),
    "interaction_sets": ("trace/interaction_sets.parquet", "trace with sets of sources"),
    "confirmation": ("confirmation/edges.parquet", "run `scircuit trace` with confirmation.n_cells above 0"),
    "coactivation": ("features/coactivation_across.parquet", "describe features with co-activation across layers"),
    "correlations": ("features/correlations.parquet", "write the table of `pair_correlations` there"),
}
"""Tables beside the circuit: where they lie in a run folder, and how they come about."""


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
    published : tuple of str
        The measures of `paper_numbers` that answer it under the published definitions.
    """

    name: str
    asks: str
    function: Callable[..., Result]
    needs: tuple[str, ...] = ("circuit",)
    edge_columns: tuple[str, ...] = ()
    published: tuple[str, ...] = ()


_EVERY = (
    Question(
        "sign_balance",
        "How many edges support their target?",
        sign_balance,
        edge_columns=("mean_delta", "weight_effect"),
        published=("inhibitory_share",),
    ),
    Question(
        "effect_sizes",
        "How large are the effects?",
        effect_sizes,
        edge_columns=("mean_delta", "cohens_d", "clean_mean", "clean_sd"),
        published=("mean_abs_d", "share_abs_d_above_1"),
    ),
    Question("coherence", "Do the ends of an edge share gene sets beyond chance?", coherence, published=("coherence",)),
    Question("attenuation", "How do edges thin out with depth?", attenuation, published=("mean_edges_per_source",)),
    Question(
        "hubs",
        "Which latents hold most edges, and why?",
        hubs,
        edge_columns=("cohens_d",),
        published=("largest_out_degree", "n_targets"),
    ),
    Question(
        "coactivation",
        "Does co-activation tell which pairs are causal?",
        coactivation,
        ("circuit", "coactivation"),
    ),
    Question("replication", "Are the edges there again in other cells?", replication, ("confirmation",)),
    Question("stability", "Would other cells give the same edges?", stability, ("cell_effects", "source_cells")),
    Question("group_stability", "Do cell types or donors give the same edges?", group_stability, ("groups",)),
    Question("threshold_sweep", "What if the thresholds were others?", threshold_sweep, ("effects", "tests")),
    Question(
        "selection",
        "How much is due to the choice of sources?",
        selection,
        edge_columns=("mean_delta", "cohens_d"),
    ),
    Question(
        "coexpression",
        "How much of an effect is correlation?",
        coexpression,
        ("circuit", "correlations"),
        ("cohens_d",),
    ),
    Question("mediation", "Which latents carry an edge?", mediation, ("mediation",)),
    Question("interactions", "Do sources add up, or interact?", interactions, ("interactions", "interaction_sets")),
)

QUESTIONS: Mapping[str, Question] = {question.name: question for question in _EVERY}


def question(name: str) -> Question:
    """The question of that name; an unknown one is refused with the list."""
    if name not in QUESTIONS:
        raise ScircuitError(f"there is no question {name!r}; choose one of {', '.join(QUESTIONS)}.")
    return QUESTIONS[name]


def answerable(run: str | Path) -> list[str]:
    """Names of the questions whose tables a run folder holds."""
    return [name for name, q in QUESTIONS.items() if all(_path(Path(run), need).exists() for need in q.needs)]


def analyze(name: str, run: str | Path, profile: str = "default", **options: Any) -> Result:
    """Ask one question of a run folder (`circuit/`, `trace/`, `features/` of docs/architecture.md).

    Parameters
    ----------
    name : str
        A key of `QUESTIONS`.
    run : folder
    profile : str
        `default`, or `paper` for the published definition computed from the same trace.
    options
        Keywords of the question's function (default profile only).

    Raises
    ------
    ScircuitError
        On an unknown question or profile, a question without a published definition, or a table that the run
        does not hold, with how to make it.
    """
    asked = question(name)
    run = Path(run)
    if named_profile(profile).name == "paper":
        return _analyze_as_published(asked, run)
    return asked.function(*(_load(run, need, asked) for need in asked.needs), **options)


def _analyze_as_published(asked: Question, run: Path) -> Result:
    if not asked.published:
        known = [name for name, q in QUESTIONS.items() if q.published]
        raise ScircuitError(f"{asked.name} has no published definition; the paper profile answers {', '.join(known)}.")
    circuit = _load(run, "circuit", asked)
    effects, tests = (_load(run, name, asked) for name in ("effects", "tests"))
    numbers = published_numbers(effects, tests, circuit.nodes, circuit.terms, circuit.provenance)
    kept = numbers.measures["measure"].isin(asked.published)
    return replace(numbers, question=asked.name, measures=numbers.measures[kept].reset_index(drop=True))


def _path(run: Path, need: str) -> Path:
    return run / ("circuit/run.json" if need == "circuit" else TABLES[need][0])


def _load(run: Path, need: str, asked: Question) -> Any:
    path = _path(run, need)
    if not path.exists():
        how = "run `scircuit trace` first" if need == "circuit" else TABLES[need][1]
        raise ScircuitError(f"{asked.name} needs {path}, which is not there; {how}.")
    if need == "circuit":
        return Circuit.read(path.parent, asked.edge_columns)
    return pd.read_parquet(path)
