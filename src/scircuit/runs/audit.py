"""`scircuit audit`: ten questions that reviewers of causal circuits raise, each answered from what a run has left."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._sealed import sealed
from scircuit._tables import read_parquet
from scircuit.analysis.answers import beside, read_answers
from scircuit.analysis.result import Measure
from scircuit.cells.independence import unit_columns
from scircuit.circuits.artefacts import CIRCUIT, Artefacts
from scircuit.errors import ScircuitError

ANSWERED, WEAK, MISSING = "answered", "weak", "missing"


@dataclass(frozen=True)
class Item:
    """One question of a reviewer."""

    topic: str
    asks: str
    verdict: str
    """`answered`, `weak` (something speaks to it, but not enough) or `missing`."""
    said: str
    """What the run's artefacts say, with its number."""
    command: str
    """What would answer it; empty where it is answered."""


class _Seen:
    """A run as far as the questions need it; what is not there is empty."""

    def __init__(self, run: Artefacts) -> None:
        self.run = run

    @cached_property
    def answers(self) -> pd.DataFrame:
        return read_answers(self.run.root / "analysis")

    @cached_property
    def record(self) -> Mapping[str, Any]:
        return self.run.provenance() if self.run.has(CIRCUIT) else {}

    @cached_property
    def grades(self) -> list[dict[str, Any]]:
        return list(self.record.get("grades", []))

    def measure(self, question: str, name: str = "") -> Measure | None:
        """A number of an answer, by default its first; None where there is none."""
        rows = self.answers[(self.answers["question"] == question) & self.answers["refused"].isna()]
        rows = rows[rows["measure"] == name] if name else rows
        return Measure(*rows[list(Measure._fields)].iloc[0]) if len(rows) else None

    def says(self, question: str, name: str = "") -> str:
        """A number of an answer in words; empty where there is none."""
        found = self.measure(question, name)
        if found is None or pd.isna(found.estimate):
            return ""
        number = f"{found.estimate:.3g}{beside(found.low, found.high, found.null, found.p_value)}"
        return f"{question}: {found.measure.replace('_', ' ')} {number}, n = {found.n:,} {found.unit_of_n}"


Found = tuple[str, str]
"""Verdict and what is said."""


def _null(seen: _Seen) -> Found:
    decoys = [row for row in seen.grades if row["n_by_decoys"] is not None]
    told = "; ".join(f"{r['n_edges']:,} {r['grade']} edges, {r['n_by_decoys']:,.0f} by held-out decoys" for r in decoys)
    controls = seen.says("controls")
    if decoys and controls:
        return ANSWERED, f"{told}; {controls}"
    return (WEAK, f"{told}; no untrained copy of the model") if decoys else (MISSING, "no decoy was held out")


def _baseline(seen: _Seen) -> Found:
    judged = sorted((seen.run.root / "validation").glob("*/comparison.parquet"))
    if judged:
        verdicts = pd.concat([read_parquet(path, ["verdict"]) for path in judged])["verdict"]
        return (
            ANSWERED,
            f"better than the best baseline on {(verdicts == 'better').sum()} of {len(verdicts)} comparisons",
        )
    told = "; ".join(filter(None, map(seen.says, ("coexpression", "coactivation"))))
    return (WEAK, told) if told else (MISSING, "no baseline stands beside the circuit")


def _endpoint(seen: _Seen) -> Found:
    told = "; ".join(filter(None, (seen.says("faithfulness"), seen.says("faithfulness", "completeness"))))
    if told:
        return ANSWERED, told
    if seen.run.has("logits"):
        return WEAK, "effects on the model's own outputs were measured, latent by latent, not the circuit's"
    return MISSING, "edges are changes of activations; that they carry what the model does was not asked"


def _units(seen: _Seen) -> Found:
    units = (seen.record.get("settings") or {}).get("units")
    if units:
        return ANSWERED, f"p and intervals over whole values of {units}"
    file = seen.run.root / "tokens" / "cells.parquet"
    if not file.is_file():
        return MISSING, "the cells' columns are not there, so what they share is not known"
    named = unit_columns(read_parquet(file))
    if named:
        return WEAK, f"tested over cells, which share values of {', '.join(named)}"
    return ANSWERED, f"tested over {seen.record.get('n_cells', 0):,} cells, of which no column names donors or batches"


def _selection(seen: _Seen) -> Found:
    told = "; ".join(filter(None, (seen.says("replication"), seen.says("replication", "slope"))))
    if told:
        return ANSWERED, told
    again = seen.run.has("confirmation")
    return (
        (WEAK, "edges were measured again, but too few to tell") if again else (MISSING, "no edge was measured again")
    )


def _positive(seen: _Seen) -> Found:
    found = seen.measure("positive_control")
    if found is None:
        planted = seen.run.has("positive_control")
        return (WEAK, "paths were planted, too few to tell") if planted else (MISSING, "no path was planted")
    told = f"{found.n:,} planted paths"
    if pd.isna(found.estimate):
        return WEAK, f"{told}: at no dose were 80 % found ({found.measure.replace('_', ' ')} undefined)"
    return ANSWERED, seen.says("positive_control")


def _conditions(seen: _Seen) -> Found:
    other = "; ".join(filter(None, (seen.says("seed_stability"), seen.says("robustness", "in_second"))))
    if other:
        return ANSWERED, other
    within = "; ".join(filter(None, map(seen.says, ("group_stability", "stability"))))
    return (WEAK, f"within this run alone: {within}") if within else (MISSING, "one model, dictionary and sample")


def _sweep(seen: _Seen) -> Found:
    numbers = seen.answers[seen.answers["refused"].isna()]
    covered = f"{int(numbers['low'].notna().sum())} of {len(numbers)} numbers have an interval"
    swept = [q for q in ("threshold_sweep", "robustness") if seen.measure(q)]
    if len(swept) == 2:
        return ANSWERED, f"{covered}; {seen.says('robustness')}"
    return (WEAK, f"{covered}; {', '.join(swept) or 'no threshold was swept'}") if len(numbers) else (MISSING, covered)


def _causal(seen: _Seen) -> Found:
    if not seen.grades:
        return MISSING, "there is no circuit with graded edges"
    last = seen.grades[-1]
    told = f"{last['n_edges']:,} {last['grade']} edges of {seen.record['n_tests']:,} tests"
    how = seen.says("mediation") or ("paths of the edges were measured" if seen.run.has("path_shares") else "")
    if last["grade"] != "specific" or last["n_edges"] <= (last["n_by_decoys"] or 0):
        return WEAK, f"{told}: a target depends on the direction, not more than on others of its size"
    return (ANSWERED, f"{told}; {how}") if how else (WEAK, f"{told}; by which paths was not asked")


def _reproducible(seen: _Seen) -> Found:
    if not seen.record:
        return MISSING, "there is no record of a circuit"
    files = [f for r in seen.run.root.glob("*/*.json") for f in sealed(r)]
    absent = [name for name in ("seed", "versions", "saes", "cells") if seen.record.get(name) is None]
    known = bool(seen.record.get("model", {}).get("files"))
    told = f"{len(files)} files listed with their hashes; seed, versions, dictionaries, cells and model recorded"
    if absent or not files:
        return WEAK, f"{len(files)} files listed with their hashes; not recorded: {', '.join(absent) or 'files'}"
    return (ANSWERED, told) if known else (WEAK, f"{told}, but not the model's files")


QUESTIONS: tuple[tuple[str, str, Callable[[_Seen], Found], str], ...] = (
    ("null", "Beside which null does the number stand?", _null, "scircuit controls {run}"),
    ("baseline", "Would something trivial do as well?", _baseline, "scircuit validate {run} --screen FILE.h5ad"),
    ("endpoint", "Is what was measured what is claimed?", _endpoint, "scircuit faithfulness {run}"),
    ("unit", "Are the units of inference independent?", _units, "trace.units = COLUMN, then scircuit trace CONFIG"),
    (
        "selection",
        "Do effects hold where they were not chosen?",
        _selection,
        "scircuit analyze replication {run}",
    ),
    ("positive control", "Could an effect have been seen?", _positive, "scircuit positive-control {run} --turns 6"),
    (
        "condition",
        "Does it hold beyond one condition?",
        _conditions,
        "scircuit analyze seed_stability {run} --with RUN",
    ),
    ("interval and sweep", "How far do numbers and thresholds carry?", _sweep, "scircuit analyze robustness {run}"),
    ("causal language", "Is more said than was intervened on?", _causal, "scircuit mediate {run}"),
    ("reproducibility", "Can someone else make it again?", _reproducible, "scircuit verify {run}"),
)
"""Topic, question, how it is answered, and the command that would."""


def audit(run: str | Path | Artefacts) -> list[Item]:
    """The ten questions of a run, in their order.

    Nothing is computed and nothing refused: what cannot be read is missing, with the reason.
    """
    run = Artefacts.of(run)
    seen, items = _Seen(run), []
    for topic, asks, answer, command in QUESTIONS:
        try:
            verdict, said = answer(seen)
        except (ScircuitError, KeyError, OSError) as error:
            verdict, said = MISSING, f"its artefacts cannot be read ({error})"
        items.append(Item(topic, asks, verdict, said, "" if verdict == ANSWERED else command.format(run=run.root)))
    return items


def lines(items: list[Item]) -> list[str]:
    """For the terminal, one page."""
    out = []
    for number, item in enumerate(items, start=1):
        out.append(f"{number:>2}  {item.verdict:<8}  {item.topic}: {item.asks}")
        out.append(f"              {item.said}")
        out += [f"              -> {item.command}"] if item.command else []
    counts = [f"{sum(item.verdict == word for item in items)} {word}" for word in (ANSWERED, WEAK, MISSING)]
    return [*out, f"Of {len(items)} questions: {', '.join(counts)}."]


def to_json(items: list[Item]) -> dict[str, Any]:
    """The same for programs."""
    return {"format_version": 1, "questions": [asdict(item) for item in items]}
