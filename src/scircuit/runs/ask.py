"""Stage `analysis`: what a traced run answers, and the summary of its answers. No torch."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._io import atomic, read_json
from scircuit._progress import progress
from scircuit.analysis.registry import QUESTIONS, TABLES, answerable, question
from scircuit.analysis.result import GLOSSARY, Measure, Result
from scircuit.circuits.circuit import Circuit
from scircuit.errors import ScircuitError
from scircuit.published.annotation_rule import annotate_run_as_published
from scircuit.published.profiles import profile
from scircuit.published.side_by_side import compare_profiles

log = logging.getLogger(__name__)
ANSWERS = "answers.parquet"
LONG = ("coherence", "stability", "group_stability")
"""Questions whose nulls or bootstraps redraw every edge."""
BRIEF: Mapping[str, Mapping[str, Any]] = {"stability": {"n_draws": 10}}
"""Options with which a run asks by itself, so that answers take seconds; `scircuit analyze` uses the full ones."""
LONG_EDGES = 200_000
"""Edges up to which a run asks those by itself; beyond, `scircuit analyze` does when told to."""


def ask_run(run: str | Path) -> pd.DataFrame:
    """Every question the run answers in little time and has not been asked; writes `analysis/`, returns the summary."""
    run = Path(run)
    known = answers_of(run / "analysis")
    names = [name for name in answerable(run) if name not in set(known["question"])]
    left_out = [name for name in names if name in LONG and _n_edges(run) > LONG_EDGES]
    for name in left_out:
        log.info("%s takes long on %s edges; ask `scircuit analyze %s %s`", name, f"{_n_edges(run):,}", name, run)
    todo = [name for name in names if name not in left_out]
    if not todo:
        return known
    summary = ask(run, todo, options=BRIEF)
    _log(summary)
    return summary


def answers_of(folder: str | Path) -> pd.DataFrame:
    """The summary in a folder of answers; empty where there is none yet."""
    file = Path(folder) / ANSWERS
    return pd.read_parquet(file) if file.is_file() else pd.DataFrame({"question": pd.Series(dtype=object)})


def ask(
    run: str | Path,
    names: Sequence[str],
    profile_name: str = "default",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    second: str | Path | None = None,
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

    Returns
    -------
    DataFrame
        Also written as `answers.parquet`: one row per measure, `question, measure, estimate, low, high, null,
        p_value, n, unit_of_n, definition, null_model, glossary, run_id, refused`; a refused question has one row with
        the reason. Answers to other questions that were there stay.
    """
    run = Path(run)
    if not (run / "circuit" / "run.json").is_file():
        raise ScircuitError(f"{run} holds no circuit; give the folder of a run that `scircuit trace` has finished.")
    names = [question(name).name for name in names]
    chosen = profile(profile_name)
    folder = run / "analysis" / chosen.folder
    facts = _facts(run, second)
    rows = []
    for name in progress(names, desc="analysis", unit="question"):
        try:
            result = chosen.analyze(name, run, second, **(options or {}).get(name, {}))
        except ScircuitError as error:
            if len(names) == 1:
                raise
            rows.append(refused(name, str(error)))
            continue
        result.write(folder, facts)
        rows.append(_measures(result, facts["run_id"]))
    return _summarise(folder, rows)


def record(run: str | Path, answers: Sequence[Result | pd.DataFrame]) -> pd.DataFrame:
    """Write answers got elsewhere (or what `refused` made of a refusal) beside those of `ask`; the whole summary."""
    folder, facts = Path(run) / "analysis", _facts(Path(run), None)
    rows = []
    for answer in answers:
        if isinstance(answer, Result):
            answer.write(folder, facts)
            rows.append(_measures(answer, facts["run_id"]))
        else:
            rows.append(answer)
    return _summarise(folder, rows)


def _summarise(folder: Path, rows: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The summary with new rows in the place of those of the same questions, in the order of the registry."""
    before = answers_of(folder)
    names = [name for part in rows for name in part["question"].unique()]
    kept = before[~before["question"].isin(names)]
    summary = pd.concat([part for part in (kept, *rows) if len(part)], ignore_index=True)
    place = {name: i for i, name in enumerate(QUESTIONS)}
    order = summary["question"].map(lambda name: place.get(name, len(place)))
    summary = summary.iloc[order.argsort(kind="stable")].reset_index(drop=True)
    with atomic(folder / ANSWERS) as path:
        summary.to_parquet(path, index=False)
    return summary


def questions_of(run: str | Path, name: str, profile_name: str = "default") -> list[str]:
    """`all` as the questions that the run's tables answer under a profile; any other name as itself."""
    return profile(profile_name).answerable(Path(run)) if name == "all" else [question(name).name]


def both_profiles(run: str | Path) -> pd.DataFrame:
    """The corrected and the published numbers of one run side by side; see `scircuit.published.side_by_side`."""
    run = Path(run)
    circuit = Circuit.read(run / "circuit")
    effects, tests = (pd.read_parquet(run / "trace" / f"{name}.parquet") for name in ("effects", "tests"))
    more = {name: run / TABLES[name][0] for name in ("coactivation", "interactions", "interaction_sets")}
    known = {name: pd.read_parquet(path) for name, path in more.items() if path.is_file()}
    table = compare_profiles(
        effects, tests, circuit.nodes, circuit.terms, circuit.provenance,
        annotations=annotate_run_as_published(run), pairs=known.get("coactivation"),
        sets=(known["interactions"], known["interaction_sets"]) if "interactions" in known else None,
    )  # fmt: skip
    with atomic(run / "analysis" / "profiles.parquet") as path:
        table.to_parquet(path, index=False)
    return table


def glossary(summary: pd.DataFrame) -> list[str]:
    """The terms that the answers use, each explained once."""
    known = summary["glossary"].dropna().unique()
    terms = [sentence for sentence in GLOSSARY.values() if any(sentence in text for text in known)]
    return terms + [text for text in known if not any(sentence in text for sentence in terms)]


def sentences(summary: pd.DataFrame) -> list[str]:
    """One line per question: its headline number with interval and null, or why there is none."""
    lines = []
    for name, rows in summary.groupby("question", sort=False):
        first = rows.iloc[0]
        if isinstance(first["refused"], str):
            lines.append(f"{name}: not answered; {first['refused']}")
            continue
        around = beside(first["low"], first["high"], first["null"])
        lines.append(f"{name}: {first['measure']} {first['estimate']:.3g}{around}, n = {first['n']:,}")
    return lines


def beside(low: float, high: float, null: float) -> str:
    """Interval and null of a number in brackets, as far as it has them."""
    around = [f"{low:.3g} to {high:.3g}"] if pd.notna(low) else []
    around += [f"null {null:.3g}"] if pd.notna(null) else []
    return f" ({', '.join(around)})" if around else ""


def _log(summary: pd.DataFrame) -> None:
    for line in sentences(summary):
        log.info(line)


def _n_edges(run: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(run / "circuit" / "edges.parquet").num_rows)


def _facts(run: Path, second: str | Path | None) -> dict[str, Any]:
    """Which circuit the numbers are of, and under which rule its edges were called."""
    record = read_json(run / "circuit" / "run.json")
    facts = {"run_id": record.get("run_id"), "thresholds": record.get("thresholds")}
    if second is not None:
        facts["second_run_id"] = read_json(Path(second) / "circuit" / "run.json").get("run_id")
    return facts


def _measures(result: Result, run_id: str | None) -> pd.DataFrame:
    words = {"definition": result.definition, "null_model": result.null_model, "glossary": result.glossary}
    table = result.measures.assign(**words, run_id=run_id, refused=None)
    table.insert(0, "question", result.question)
    return table


def refused(name: str, why: str) -> pd.DataFrame:
    """The row of the summary for a question that has no answer."""
    table = pd.DataFrame([Measure("", float("nan"))])
    table = table.assign(definition=None, null_model=None, glossary=None, run_id=None, refused=why)
    table.insert(0, "question", name)
    return table
