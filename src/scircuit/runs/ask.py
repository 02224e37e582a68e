"""Stage `analysis`: what a traced run answers, and the summary of its answers. No torch."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._progress import progress
from scircuit._tables import write_parquet
from scircuit.analysis.answers import Answers, headlines, read_answers
from scircuit.analysis.given import Sources
from scircuit.analysis.registry import analyze, answerable, every_question, question
from scircuit.circuits.artefacts import Artefacts
from scircuit.published.annotation_rule import annotate_run_as_published
from scircuit.published.profiles import profile
from scircuit.published.side_by_side import compare_profiles

log = logging.getLogger(__name__)
LONG_EDGES = 200_000
"""Edges up to which a run asks by itself what redraws them; beyond, `scircuit analyze` does when told to."""


def ask_run(run: str | Path | Artefacts) -> pd.DataFrame:
    """Every question the run answers in little time and has not been asked; writes `analysis/`, returns the summary."""
    run = Artefacts.of(run)
    known = read_answers(run.root / "analysis")
    names = [n for n in answerable(run) if question(n).by_itself and n not in set(known["question"])]
    if not names:
        return known
    answers, n_edges = _notebook(run, "", None), run.provenance()["n_edges"]
    for name in progress(names, desc="analysis", unit="question"):
        if question(name).redraws and n_edges > LONG_EDGES:
            answers.refuse(name, f"it takes long on {n_edges:,} edges; ask `scircuit analyze {name} {run.root}`.")
        else:
            answers.ask(name, partial(analyze, name, run, **question(name).brief))
    summary = answers.write(list(every_question()))
    for line in headlines(summary):
        log.info(line)
    return summary


def ask(
    run: str | Path | Artefacts,
    names: Sequence[str],
    profile_name: str = "default",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    second: str | Path | Artefacts | None = None,
    sources: Sources | None = None,
) -> pd.DataFrame:
    """Ask questions of a run and write the answers beside its circuit; returns the summary of all its answers.

    A single question that cannot be answered raises, one of several is recorded as refused. The profile `default`
    writes into `analysis/`, `paper` the published definitions into `analysis/paper/`. `options` are keywords of the
    questions' functions, by question; `second` is the other run of questions that compare two, `sources` what they draw
    on (gene sets, networks and the like).
    """
    run, second = Artefacts.of(run), None if second is None else Artefacts.of(second)
    names = [question(name).name for name in names]
    chosen = profile(profile_name)
    answers = _notebook(run, chosen.folder, second)
    for name in progress(names, desc="analysis", unit="question"):
        answer = partial(chosen.analyze, name, run, second, sources, **(options or {}).get(name, {}))
        answers.add(answer()) if len(names) == 1 else answers.ask(name, answer)
    return answers.write(list(every_question()))


def questions_of(run: str | Path | Artefacts, name: str, profile_name: str = "default") -> list[str]:
    """`all` as the questions that the run's tables answer under a profile; any other name as itself."""
    return profile(profile_name).answerable(Artefacts.of(run)) if name == "all" else [question(name).name]


def both_profiles(run: str | Path | Artefacts) -> pd.DataFrame:
    """The corrected and the published numbers of one run side by side; see `scircuit.published.side_by_side`."""
    run = Artefacts.of(run)
    table = compare_profiles(run, annotate_run_as_published(run))
    write_parquet(run.root / "analysis" / "profiles.parquet", table)
    return table


def _notebook(run: Artefacts, inside: str, second: Artefacts | None) -> Answers:
    """The answers of a run in a folder of it; each says of which circuit it is, and by which rule edges were called."""
    facts = {"run_id": run.run_id, "thresholds": run.provenance().get("thresholds")}
    if second is not None:
        facts["second_run_id"] = second.run_id
    folder = run.root / "analysis" / inside
    return Answers(folder, facts, read_answers(folder))
