"""`scircuit audit`: ten questions, told by what is there and never by an exit code."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from scircuit._io import read_json, write_json
from scircuit.analysis.answers import Answers, read_answers
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.artefacts import TABLES
from scircuit.cli.app import app
from scircuit.runs.audit import ANSWERED, MISSING, QUESTIONS, WEAK, audit, lines


def verdicts(run: Path) -> dict[str, str]:
    return {item.topic: item.verdict for item in audit(run)}


def answer(run: Path, question: str, *measures: Measure) -> None:
    answers = Answers(run / "analysis", {"run_id": "r"}, read_answers(run / "analysis"))
    answers.add(Result.of(question, f"{question}/1", measures, pd.DataFrame({"a": [1]}), "none"))
    answers.write()


def test_every_question_has_a_verdict_a_number_and_a_way_on(finished_copy: Path) -> None:
    items = audit(finished_copy)
    assert len(items) == len(QUESTIONS) == 10
    for item in items:
        assert item.verdict in (ANSWERED, WEAK, MISSING)
        assert item.said
        assert bool(item.command) == (item.verdict != ANSWERED)
    page = lines(items)
    assert len(page) <= 31
    assert page[-1].startswith("Of 10 questions: ")


def test_a_finished_run_says_what_it_did_and_did_not(finished_copy: Path) -> None:
    told = verdicts(finished_copy)
    assert told["selection"] == ANSWERED
    assert told["positive control"] == told["endpoint"] == MISSING
    assert told["condition"] == WEAK
    assert told["causal language"] == WEAK  # nothing stricter than reproducible was asked


@pytest.mark.parametrize(
    ("topic", "question", "measures"),
    [
        ("positive control", "positive_control", [Measure("smallest_specific", 0.5, n=30, unit_of_n="paths")]),
        ("endpoint", "faithfulness", [Measure("faithfulness", 0.9, n=100, unit_of_n="cells")]),
        ("condition", "seed_stability", [Measure("jaccard", 0.4, null=0.1)]),
    ],
)
def test_what_is_asked_is_answered(finished_copy: Path, topic: str, question: str, measures: list[Measure]) -> None:
    assert verdicts(finished_copy)[topic] != ANSWERED
    answer(finished_copy, question, *measures)
    assert verdicts(finished_copy)[topic] == ANSWERED


def test_paths_that_were_not_found_are_weak(finished_copy: Path) -> None:
    answer(finished_copy, "positive_control", Measure("smallest_specific", float("nan"), n=30, unit_of_n="paths"))
    assert verdicts(finished_copy)["positive control"] == WEAK


def test_cells_that_share_a_donor_are_told(finished_copy: Path) -> None:
    before = verdicts(finished_copy)["unit"]
    file = finished_copy / "tokens" / "cells.parquet"
    cells = pd.read_parquet(file)
    cells.assign(donor=["a", "b"] * (len(cells) // 2)).to_parquet(file)
    (finished_copy / "tokens" / "tokens.json").unlink()
    assert before == ANSWERED
    assert verdicts(finished_copy)["unit"] == WEAK


def test_screens_and_paths_count(finished_copy: Path) -> None:
    folder = finished_copy / "validation" / "screen"
    folder.mkdir(parents=True)
    pd.DataFrame({"verdict": ["better", "worse"]}).to_parquet(folder / "comparison.parquet")
    (item,) = [item for item in audit(finished_copy) if item.topic == "baseline"]
    assert (item.verdict, item.said) == (ANSWERED, "better than the best baseline on 1 of 2 comparisons")
    record = read_json(finished_copy / "circuit" / "run.json")
    grades = [{"grade": grade, "n_edges": 9, "n_by_decoys": 1.0} for grade in ("reproducible", "sizeable", "specific")]
    write_json(finished_copy / "circuit" / "run.json", {**record, "grades": grades, "grade": "specific"})
    assert verdicts(finished_copy)["causal language"] == WEAK
    path = finished_copy / TABLES["path_shares"][0]
    pd.DataFrame({"a": [1]}).to_parquet(path)
    assert verdicts(finished_copy)["causal language"] == ANSWERED


def test_the_exit_code_is_0_whatever_is_missing(finished_copy: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["audit", str(finished_copy), "--json"])
    assert shown.exit_code == 0, shown.output
    assert [q["topic"] for q in json.loads(shown.output)["questions"]] == [topic for topic, *_ in QUESTIONS]
    shutil.rmtree(finished_copy / "circuit")
    for folder in (finished_copy, tmp_path / "nowhere"):
        shown = CliRunner().invoke(app, ["audit", str(folder)])
        assert shown.exit_code == 0, shown.output
    assert shown.output.count("missing") >= 10
