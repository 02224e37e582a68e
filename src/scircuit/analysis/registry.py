"""Every question by name, with the tables it needs: what `scircuit analyze QUESTION` offers."""

from collections.abc import Mapping
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

from scircuit._discover import discover
from scircuit.analysis.given import GIVEN, WITHOUT_DEFAULT, Sources
from scircuit.analysis.question import Question
from scircuit.analysis.result import Result
from scircuit.analysis.seed_stability import match_dictionaries
from scircuit.circuits.artefacts import CIRCUIT, Artefacts
from scircuit.errors import ScircuitError

MOST_RESPONSES = 50_000_000
"""Per-cell responses of a run that are read at once (1.2 GB)."""


ORDER = (
    "sign_balance", "effect_sizes", "coherence", "attenuation", "hubs", "coactivation", "replication", "stability",
    "group_stability", "threshold_sweep", "robustness", "ablation_words", "positive_control", "controls", "selection",
    "coexpression", "mediation", "interactions", "self_repair", "faithfulness", "circuit_curve", "circuit_tests",
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


def answerable(run: Artefacts) -> list[str]:
    """Names of the questions that a run answers by what it holds: without a second run, or anything given."""
    return [q.name for q in questions().values() if not q.needs_second and all(_is_there(run, n) for n in q.needs)]


def _is_there(run: Artefacts, need: str) -> bool:
    return need not in WITHOUT_DEFAULT if need in GIVEN else run.has(need)


def analyze(
    name: str,
    run: str | Path | Artefacts,
    second: str | Path | Artefacts | None = None,
    sources: Sources | None = None,
    grade: str | None = None,
    **options: Any,
) -> Result:
    """Ask one question of a run, beside a second one where it compares two, with what is given beside them.

    A circuit is taken at `grade` (`Circuit.read`). `options` are keywords of the question's function; a `rule` is by
    default the one that the run's circuit was built with.
    """
    asked, run = question(name), Artefacts.of(run)
    options = _checked_options(asked, run, options)
    options |= _of_second(asked, run, None if second is None else Artefacts.of(second))
    given = sources or Sources()
    return asked.function(
        *(GIVEN[n](run, given) if n in GIVEN else _load(run, n, asked, grade) for n in asked.needs), **options
    )


def _checked_options(asked: Question, run: Artefacts, options: dict[str, Any]) -> dict[str, Any]:
    """The options, with the rule of the run's circuit where the function takes one; unknown ones are refused."""
    own = {asked.second, "cells", "matches", "tests"}
    allowed = [keyword for keyword in [*signature(asked.function).parameters][len(asked.needs) :] if keyword not in own]
    for option in options:
        if option not in allowed:
            raise ScircuitError(f"{asked.name} has no option {option!r}; it takes {', '.join(allowed)}.")
    return _own_rule(run, allowed) | options


def _own_rule(run: Artefacts, keywords: list[str]) -> dict[str, Any]:
    """The rule of the run's circuit and the retention of its trace, for functions that take them."""
    if not run.has(CIRCUIT):
        return {}
    known = {"rule": run.rule(), "retention": run.provenance().get("retention")}
    return {keyword: value for keyword, value in known.items() if keyword in keywords and value is not None}


def _of_second(asked: Question, run: Artefacts, second: Artefacts | None) -> dict[str, Any]:
    """What the function takes of a second run, by keyword."""
    if second is None:
        if asked.needs_second:
            raise ScircuitError(f"{asked.name} compares two runs; name the other one (`--with RUN`).")
        return {}
    if asked.second is None:
        known = [name for name, q in questions().items() if q.second]
        raise ScircuitError(f"{asked.name} is asked of one run; a second one serves {', '.join(known)}.")
    found: dict[str, Any] = {asked.second: _load(second, CIRCUIT, asked)}
    if asked.matched:
        found["matches"] = match_dictionaries(run.root / "saes", second.root / "saes")
    if asked.per_cell and all(_few_responses(other) for other in (run, second)):
        names = ("cell_effects", "source_cells")
        found["cells"] = tuple(tuple(_load(other, name, asked) for name in names) for other in (run, second))
    return found


def _few_responses(run: Artefacts) -> bool:
    """Whether responses were kept cell by cell, and not too many to be read at once."""
    import pyarrow.parquet as pq

    names = ("cell_effects", "source_cells")
    return all(map(run.has, names)) and pq.read_metadata(run.path(names[0])).num_rows <= MOST_RESPONSES


def _load(run: Artefacts, need: str, asked: Question, grade: str | None = None) -> Any:
    if need == CIRCUIT:
        return run.circuit(grade=grade, columns=asked.edge_columns)
    return run.table(need, asked.table_columns.get(need))
