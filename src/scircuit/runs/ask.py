"""Stage `analysis`: what a traced run answers, and the summary of its answers. No torch."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._io import atomic, read_json
from scircuit._progress import progress
from scircuit.analysis.answers import Answers, headlines, read_answers
from scircuit.analysis.given import Sources
from scircuit.analysis.registry import TABLES, answerable, every_question, question, questions
from scircuit.circuits.circuit import Circuit
from scircuit.errors import ScircuitError
from scircuit.published.annotation_rule import annotate_run_as_published
from scircuit.published.profiles import profile
from scircuit.published.side_by_side import compare_profiles

log = logging.getLogger(__name__)
LONG_EDGES = 200_000
"""Edges up to which a run asks by itself what redraws them; beyond, `scircuit analyze` does when told to."""


def ask_run(run: str | Path) -> pd.DataFrame:
    """Every question the run answers in little time and has not been asked; writes `analysis/`, returns the summary."""
    run = Path(run)
    known = read_answers(run / "analysis")
    names = [n for n in answerable(run) if question(n).by_itself and n not in set(known["question"])]
    left_out = [name for name in names if question(name).redraws and _n_edges(run) > LONG_EDGES]
    for name in left_out:
        log.info("%s takes long on %s edges; ask `scircuit analyze %s %s`", name, f"{_n_edges(run):,}", name, run)
    todo = [name for name in names if name not in left_out]
    if not todo:
        return known
    summary = ask(run, todo, options={name: q.brief for name, q in questions().items()})
    _log(summary)
    return summary


def ask(
    run: str | Path,
    names: Sequence[str],
    profile_name: str = "default",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    second: str | Path | None = None,
    sources: Sources | None = None,
) -> pd.DataFrame:
    """Ask questions of a run folder and write the answers beside its circuit.

    Parameters
    ----------
    run : folder
    names : list of str
        Questions; a single one that cannot be answered raises, one of several is recorded as refused.
    profile_name : str
        `default` writes `analysis/<question>.json` and `.parquet`; `paper` the published definitions, under
        `analysis/paper/`.
    options : mapping, optional
        Keywords of a question's function, by question.
    second : folder, optional
        Another run, for the questions that compare two.
    sources : Sources, optional
        Gene sets, networks and the like, for the questions that draw on them.

    Returns
    -------
    DataFrame
        The summary (`scircuit.analysis.answers`), also written as `answers.parquet`. Answers to other questions that
        were there stay.
    """
    run = Path(run)
    if not (run / "circuit" / "run.json").is_file():
        raise ScircuitError(f"{run} holds no circuit; give the folder of a run that `scircuit trace` has finished.")
    names = [question(name).name for name in names]
    chosen = profile(profile_name)
    answers = _notebook(run, run / "analysis" / chosen.folder, second)
    for name in progress(names, desc="analysis", unit="question"):
        answer = partial(chosen.analyze, name, run, second, sources, **(options or {}).get(name, {}))
        answers.add(answer()) if len(names) == 1 else answers.ask(name, answer)
    return answers.write(list(every_question()))


def questions_of(run: str | Path, name: str, profile_name: str = "default") -> list[str]:
    """`all` as the questions that the run's tables answer under a profile; any other name as itself."""
    return profile(profile_name).answerable(Path(run)) if name == "all" else [question(name).name]


def both_profiles(run: str | Path) -> pd.DataFrame:
    """The corrected and the published numbers of one run side by side; see `scircuit.published.side_by_side`."""
    run = Path(run)
    circuit = Circuit.read(run / "circuit")
    effects, tests = (pd.read_parquet(run / "trace" / f"{name}.parquet") for name in ("effects", "tests"))
    more = {name: run / TABLES[name][0] for name in ("coactivation", "interactions", "interaction_sets")}
    more["scales"] = run / "trace" / "scales.parquet"
    known = {name: pd.read_parquet(path) for name, path in more.items() if path.is_file()}
    table = compare_profiles(
        effects, tests, circuit.nodes, circuit.terms, circuit.provenance,
        annotations=annotate_run_as_published(run), pairs=known.get("coactivation"),
        sets=(known["interactions"], known["interaction_sets"]) if "interactions" in known else None,
        scales=known.get("scales"),
    )  # fmt: skip
    with atomic(run / "analysis" / "profiles.parquet") as path:
        table.to_parquet(path, index=False)
    return table


def _log(summary: pd.DataFrame) -> None:
    for line in headlines(summary):
        log.info(line)


def _n_edges(run: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(run / "circuit" / "edges.parquet").num_rows)


def _notebook(run: Path, folder: Path, second: str | Path | None) -> Answers:
    """The answers of a run in a folder of it; each says of which circuit it is, and by which rule edges were called."""
    record = read_json(run / "circuit" / "run.json")
    facts = {"run_id": record.get("run_id"), "thresholds": record.get("thresholds")}
    if second is not None:
        facts["second_run_id"] = read_json(Path(second) / "circuit" / "run.json").get("run_id")
    return Answers(folder, facts, read_answers(folder))
