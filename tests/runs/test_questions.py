"""`scircuit analyze` and `compare-profiles`: answers beside the circuit and in the report."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from scircuit._io import read_json
from scircuit.analysis.registry import answerable, question, questions
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.synthetic import planted_circuit
from scircuit.cli.app import app
from scircuit.errors import ScircuitError
from scircuit.runs.ask import ask, ask_run


@pytest.fixture
def traced(finished: dict[str, Path], tmp_path: Path) -> Path:
    """A traced run without answers."""
    shutil.copytree(finished["geneformer"] / "out", tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "analysis")
    return tmp_path / "out"


def test_a_run_answers_and_reports(finished: dict[str, Path]) -> None:
    out = finished["geneformer"] / "out"
    summary = pd.read_parquet(out / "analysis" / "answers.parquet")
    assert set(summary["question"]) == {name for name in answerable(Artefacts(out)) if question(name).by_itself}
    answered = summary[summary["refused"].isna()]
    assert {"sign_balance", "effect_sizes", "attenuation", "hubs", "threshold_sweep"} <= set(answered["question"])
    for name in answered["question"].unique():
        assert read_json(out / "analysis" / f"{name}.json")["question"] == name
    edges = Circuit.read(out / "circuit").edges
    row = answered[answered["measure"] == "supporting_share"].iloc[0]
    assert row["estimate"] == pytest.approx((edges["mean_delta"] < 0).mean())
    page = (out / "report" / "index.html").read_text(encoding="utf-8")
    assert "threshold" in page.lower()


def test_one_question_keeps_the_other_answers(traced: Path) -> None:
    ask(traced, ["hubs"])
    summary = ask(traced, ["sign_balance"])
    assert list(summary["question"].unique()) == ["sign_balance", "hubs"]
    again = ask(traced, ["hubs"])
    pd.testing.assert_frame_equal(again, summary)


def test_a_run_asks_what_was_not_asked(traced: Path) -> None:
    ask(traced, ["hubs"])
    before = (traced / "analysis" / "hubs.json").stat().st_mtime_ns
    assert set(ask_run(traced)["question"]) == {
        name for name in answerable(Artefacts(traced)) if question(name).by_itself
    }
    assert (traced / "analysis" / "hubs.json").stat().st_mtime_ns == before


def test_a_single_question_that_cannot_be_answered_raises(traced: Path) -> None:
    with pytest.raises(ScircuitError, match=r"mediation\.parquet is not there; run `scircuit mediate CONFIG`"):
        ask(traced, ["mediation"])
    assert not (traced / "analysis").exists()


def test_long_questions_wait_to_be_asked(traced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scircuit.runs.ask.LONG_EDGES", 0)
    told = ask_run(traced).set_index("question")["refused"]
    assert told["coherence"].startswith("it takes long on ")
    assert f"scircuit analyze coherence {traced}" in told["coherence"]
    assert told["hubs"].iloc[0] is None


def test_command_analyze(traced: Path) -> None:
    shown = CliRunner().invoke(app, ["analyze", "all", str(traced)])
    assert shown.exit_code == 0, shown.output
    assert "sign_balance: supporting_share" in shown.output
    assert "the target falls when the source is ablated" in shown.output
    assert (traced / "analysis" / "answers.parquet").is_file()


def test_command_analyze_as_published(traced: Path) -> None:
    shown = CliRunner().invoke(app, ["analyze", "all", str(traced), "--profile", "paper"])
    assert shown.exit_code == 0, shown.output
    assert "sign_balance: inhibitory_share" in shown.output
    assert (traced / "analysis" / "paper" / "sign_balance.json").is_file()
    labels = pd.read_parquet(traced / "features" / "published_annotations.parquet")
    assert {"layer", "feature", "library", "term"} <= set(labels)
    assert "coherence: coherence" in shown.output
    assert not (traced / "analysis" / "sign_balance.json").exists()


def test_every_answer_carries_its_words(traced: Path) -> None:
    """Definition, null, glossary and the run's id, in the summary, the JSON and the Parquet file alike."""
    summary = ask(traced, ["sign_balance", "hubs"])
    record = read_json(traced / "circuit" / "run.json")
    for name, rows in summary.groupby("question"):
        answer = read_json(traced / "analysis" / f"{name}.json")
        words = json.loads(pq.read_schema(traced / "analysis" / f"{name}.parquet").metadata[b"scircuit"])
        for field in ("definition", "null_model", "glossary", "run_id"):
            assert set(rows[field]) == {answer[field]} == {words[field]}
        assert answer["run_id"] == record["run_id"]
        assert answer["thresholds"] == record["thresholds"]
    assert "supporting" in summary.loc[summary["question"] == "sign_balance", "glossary"].iloc[0]


def test_two_runs_and_options(traced: Path, tmp_path: Path) -> None:
    shutil.copytree(traced, tmp_path / "second")
    asked = ["analyze", "seed_stability", str(traced), "--with", str(tmp_path / "second"), "--option", "draws=20"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "seed_stability: jaccard 1" in shown.output
    answer = read_json(traced / "analysis" / "seed_stability.json")
    assert answer["second_run_id"] == answer["run_id"]
    assert answer["measures"][0]["p_value"] >= 1 / 21
    asked = ["analyze", "compare_effect_sizes", str(traced), "--with", str(tmp_path / "second")]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output


def test_command_analyze_list() -> None:
    shown = CliRunner().invoke(app, ["analyze", "list"]).output
    assert all(name in shown for name in questions())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["analyze", "sign", "RUN"], "choose one of sign_balance"),
        (["analyze", "hubs", "RUN", "--profile", "nature"], "choose one of default, paper"),
        (["analyze", "hubs", "elsewhere"], "holds no circuit"),
        (["analyze", "hubs"], "RUN is missing"),
        (["analyze", "hubs", "RUN", "--option", "draws"], "is not NAME=VALUE"),
        (["analyze", "hubs", "RUN", "--option", "drawn=3"], "no option 'drawn'"),
        (["analyze", "all", "RUN", "--option", "draws=3"], "one question at a time"),
        (["analyze", "seed_stability", "RUN"], "name the other one (`--with RUN`)"),
        (["compare-profiles", "elsewhere"], "elsewhere holds no circuit"),
    ],
)
def test_wrong_questions(traced: Path, arguments: list[str], says: str) -> None:
    arguments = [str(traced) if a == "RUN" else a for a in arguments]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ScircuitError)
    assert says in str(result.exception)


def test_command_compare_profiles(tmp_path: Path) -> None:
    traced, planted = tmp_path / "run", planted_circuit(seed=0)
    planted.circuit.write(traced / "circuit")
    (traced / "trace").mkdir()
    planted.effects.to_parquet(traced / "trace" / "effects.parquet")
    planted.tests.to_parquet(traced / "trace" / "tests.parquet")
    shown = CliRunner().invoke(app, ["compare-profiles", str(traced)])
    assert shown.exit_code == 0, shown.output
    assert "supporting share:" in shown.output
    table = pd.read_parquet(traced / "analysis" / "profiles.parquet")
    assert table.set_index("number").loc["edges", "default"] == len(planted.circuit.edges)
