"""What an answer comes to: holds, does not, cannot tell; and the first screen on which it stands."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from scircuit.analysis.answers import Answer
from scircuit.analysis.registry import questions
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.artefacts import Artefacts
from scircuit.report import provenance, write_report
from scircuit.report.verdicts import HOLDS, NOT, NUMBER, OPEN, against_decoys, verdict


def answered(question: str, **numbers: float) -> Answer:
    measure = Measure("fold", n=40, **numbers)
    return Answer(question, "", "", Result.of(question, "x/1", [measure], pd.DataFrame(), "a null"), "")


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ({"estimate": 1.4, "low": 1.2, "high": 1.6, "null": 1.0}, HOLDS),
        ({"estimate": 1.1, "low": 0.9, "high": 1.3, "null": 1.0}, OPEN),
        ({"estimate": 0.7, "low": 0.6, "high": 0.8, "null": 1.0}, NOT),
        ({"estimate": 1.4, "low": 1.2, "high": 1.6, "null": 1.0, "p_value": 0.3}, OPEN),
        ({"estimate": 1.4, "null": 1.0, "p_value": 0.01}, HOLDS),
        ({"estimate": 0.4, "null": 1.0, "p_value": 0.01}, NOT),
        ({"estimate": 1.4, "null": 1.0}, OPEN),
        ({"estimate": 1.4, "low": 1.2, "high": 1.6}, NUMBER),
    ],
)
def test_a_claim_is_held_against_its_null(numbers: dict[str, float], word: str) -> None:
    found = verdict(questions()["coherence"], answered("coherence", **numbers))
    assert found.word == word
    assert found.place == "coherence"
    assert f"{numbers['estimate']:.2f}" in found.said
    assert "n = 40 edges" in found.said


def test_without_a_claimed_side_a_number_that_differs_holds() -> None:
    question = questions()["interactions"]
    found = verdict(question, answered("interactions", estimate=0.7, low=0.6, high=0.8, null=1.0))
    assert (found.word, found.claim) == (HOLDS, "Interactions: the number differs from its null.")
    assert verdict(question, answered("interactions", estimate=0.7)).claim == question.asks


def test_a_refusal_cannot_be_told() -> None:
    found = verdict(questions()["hubs"], Answer("hubs", "", "", None, "no edges"))
    assert (found.word, found.said, found.refused) == (OPEN, "no edges", True)


def test_decoys_are_asked_first(rich_run: Artefacts, make_run: Callable[..., Artefacts]) -> None:
    assert against_decoys(rich_run).word == HOLDS
    assert against_decoys(make_run("bare", n=40)).word == OPEN
    circuit = rich_run.circuit(grade="reproducible")
    told = [dict(row, n_edges=0) if row["grade"] == "specific" else row for row in circuit.provenance["grades"]]
    circuit.provenance["grades"] = told
    assert against_decoys(rich_run.holding(circuit=circuit)).word == NOT


def test_grades_stand_large_beside_decoys_and_other_cells(rich_run: Artefacts, tmp_path: Path) -> None:
    rows = provenance.grade_rows(rich_run)
    edges = rich_run.circuit(grade="reproducible").edges
    assert [row["grade"] for row in rows] == ["reproducible", "sizeable", "specific"]
    assert rows[0]["edges"] == f"{len(edges):,}"
    assert all(row["by_decoys"] == "3" for row in rows)
    measured = rich_run.table("confirmation")
    found = (measured["q_value"] < 0.05).sum()
    assert rows[0]["of"] == f"{found:,} of {len(measured):,}"
    page = write_report(tmp_path, [rich_run]).read_text()
    assert page.index("found again</th>") < page.index("What was run</h2>") < page.index('id="explore"')


def test_what_was_tested_is_said_with_its_units(rich_run: Artefacts) -> None:
    first, units = provenance.tested(rich_run)
    assert "in 200 cells" in first
    assert "decoys" in first
    assert "single cells" in units
    circuit = rich_run.circuit(grade="reproducible")
    circuit.provenance["settings"] = {"units": "donor"}
    assert "(donor)" in provenance.tested(rich_run.holding(circuit=circuit))[1]
