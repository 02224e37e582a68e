"""The whole recipe on the packaged models, from `study init` to the finished report, as a user types it."""

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from scircuit.cli.app import app
from scircuit.study.config import load_study
from scircuit.study.stages import status

pytestmark = pytest.mark.slow


def command(*words: str) -> str:
    result = CliRunner().invoke(app, ["-q", "study", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_recipe_runs_out_of_the_box(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("scanpy")
    file = str(tmp_path / "study.toml")
    command("init", file)
    # Small models have no specific edge: the study is asked of the reproducible ones.
    text = Path(file).read_text()
    assert "\n[defaults.edges]" not in text
    Path(file).write_text(text + '\n[defaults.edges]\nmin_effect_sd = "null"\nmax_q_specific = "null"\n')
    planned = command("plan", file)
    assert "missing" not in planned
    page = Path(command("run", file).strip())
    assert page == tmp_path / "study" / "report" / "index.html"
    said = command("status", file)
    with capsys.disabled():
        sentence = said.splitlines()[-1]
        print(f"\n{sentence}")  # noqa: T201  the comparison of plan and measurement is what one runs this for
    found = status(load_study(file))
    assert (found["state"] == "done").all()
    # The bound is wide because machines are shared; the sentence above says how close it came.
    assert 0.5 < found["planned_seconds"].sum() / found["cpu_seconds"].sum() < 2
    numbers = pd.read_parquet(page.parent / "numbers.parquet").set_index(["number", "scope"])
    for name in ("consensus_pairs", "consensus_fold", "consensus_p", "label_pairs", "both_labelled_edges"):
        assert numbers.loc[(name, "study"), ["published", "paper", "default"]].notna().all(), name
    for condition in ("lymphoid-lymphoid", "lymphoid-blood", "blood-blood", "blood-scgpt"):
        for name in ("edges", "mean_abs_d", "supporting_share", "coherence", "coverage", "passes", "novel_share"):
            assert numbers.loc[(name, condition), ["paper", "default"]].notna().all(), (name, condition)
    # Renaming labels finds consensus where exchanging targets finds none: the published null is not one.
    fold = numbers.loc[("consensus_fold", "study")]
    assert fold["paper"] > 1.5 > fold["default"]
    assert 100_000 < page.stat().st_size < 30_000_000
