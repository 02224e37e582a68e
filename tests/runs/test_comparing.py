"""`scircuit compare`: several runs, every refusal, both profiles, and the report."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from builders import write_circuit_record
from scircuit._io import read_json
from scircuit._sealed import write_sealed
from scircuit.analysis.answers import read_answers, sentence
from scircuit.analysis.given import Sources
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.synthetic import planted_circuit
from scircuit.cli.app import app
from scircuit.errors import ScircuitError
from scircuit.runs.ask import ask
from scircuit.runs.compare import compare, open_conditions

Refusal = Callable[..., str]


@pytest.fixture(scope="module")
def runs(finished: dict[str, Path]) -> list[Path]:
    return [finished["geneformer"] / "out", finished["scgpt"] / "out"]


@pytest.fixture(scope="module")
def diseases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sets") / "diseases.gmt"
    rows = ["\t".join([f"disease{i}", "mine", *(f"GENE{g}" for g in range(10 * i, 10 * i + 10))]) for i in range(6)]
    path.write_text("\n".join(rows) + "\n")
    return path


def edited(run: Path, folder: Path, change: Callable[[dict], None]) -> Path:
    """A copy of a run whose circuit's record was changed."""
    shutil.copytree(run, folder)
    record = read_json(folder / "circuit" / "run.json")
    change(record)
    write_circuit_record(folder / "circuit" / "run.json", record)
    return folder


def test_two_models_are_compared_and_reported(runs: list[Path], diseases: Path, tmp_path: Path) -> None:
    out = compare(runs, tmp_path / "cmp", profile="paper", disease=[diseases], draws=50)
    table = read_answers(out)
    assert set(table["question"]) == {
        "consensus", "feature_consensus", "compare_effect_sizes", "disease_conservation", "disease_paper",
    }  # fmt: skip
    assert set(table.loc[table["question"] == "consensus", "folder"]) == {"", "paper"}
    answered = table[table["refused"].isna()]
    for question, folder in answered[["question", "folder"]].drop_duplicates().itertuples(index=False):
        assert (out / folder / f"{question}.parquet").is_file()
        assert read_json(out / folder / f"{question}.json")["question"] == question
    record = read_json(out / "compare.json")
    assert [run["model"] for run in record["runs"]] == [c.model_name for c in open_conditions(runs)]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "Consensus without labels" in page
    assert "published rule" in page
    # 60 genes leave no latent a profile of 50: the reason stands in the table and on the page.
    refused = table.loc[table["question"] == "disease_conservation", "refused"].iloc[0]
    assert "profile_size" in refused
    assert refused in page
    assert all(sentence(row) for row in table.to_dict("records"))


def test_the_same_comparison_is_left_alone_and_another_refused(runs: list[Path], tmp_path: Path) -> None:
    out = compare(runs, tmp_path / "cmp", draws=20, report=False)
    stamp = (out / "answers.parquet").stat().st_mtime_ns
    compare(runs, out, draws=20, report=False)
    assert (out / "answers.parquet").stat().st_mtime_ns == stamp
    with pytest.raises(ScircuitError, match="holds another comparison"):
        compare(runs, out, draws=30, report=False)
    with pytest.raises(ScircuitError, match="holds a run"):
        compare(runs, runs[0], draws=20)


def test_an_interrupted_comparison_goes_again(runs: list[Path], tmp_path: Path, monkeypatch) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("scircuit.runs.compare.compare_effect_sizes", stop)
        with pytest.raises(KeyboardInterrupt):
            compare(runs, tmp_path / "cmp", draws=20, report=False)
    assert not (tmp_path / "cmp" / "compare.json").exists()
    assert (compare(runs, tmp_path / "cmp", draws=20, report=False) / "compare.json").is_file()


def test_runs_of_one_model_are_conditions_of_it(runs: list[Path], tmp_path: Path) -> None:
    out = compare([runs[0], runs[0]], tmp_path / "cmp", names=["once", "again"], draws=20, report=False)
    table = read_answers(out).set_index("measure")
    assert "2 models are needed" in table.loc["", "refused"]
    # The dictionaries are the same, and so are their latents: they are no finding, and there is nothing to test.
    assert table.loc["matched_share", "estimate"] == 1.0
    assert table.loc["matched_share", ["null", "p_value"]].isna().all()
    assert table.loc["same_sign", "estimate"] == 1.0
    assert table.loc["rank_correlation", "estimate"] == pytest.approx(1.0)


def test_other_thresholds_are_refused_and_the_fix_works(runs: list[Path], tmp_path: Path, refusal: Refusal) -> None:
    other = edited(runs[1], tmp_path / "other", lambda record: record["thresholds"].update(min_abs_d=2.0))
    said = refusal("compare", runs[0], other, "--out", tmp_path / "cmp")
    assert "one rule (`scircuit compare --rule default`)" in said
    assert not (tmp_path / "cmp").exists()
    shown = CliRunner().invoke(app, ["compare", str(runs[0]), str(other), "--out", str(tmp_path / "cmp"),
                                     "--rule", "paper", "--draws", "20", "--no-report"])  # fmt: skip
    assert shown.exit_code == 0, repr(shown.exception)
    assert read_json(tmp_path / "cmp" / "compare.json")["thresholds"]["top_k"] == 50


def test_other_cells_are_refused_and_the_fix_works(runs: list[Path], tmp_path: Path, refusal: Refusal) -> None:
    n = read_json(runs[0] / "circuit" / "run.json")["n_cells"]
    other = edited(runs[1], tmp_path / "other", lambda record: record.update(n_cells=n - 2))
    said = refusal("compare", runs[0], other, "--out", tmp_path / "cmp")
    assert f"--cells {n - 2}" in said
    shown = CliRunner().invoke(app, ["compare", str(runs[0]), str(other), "--out", str(tmp_path / "cmp"),
                                     "--cells", "10", "--draws", "20", "--no-report"])  # fmt: skip
    assert shown.exit_code == 0, repr(shown.exception)
    assert read_json(tmp_path / "cmp" / "compare.json")["n_cells"] == 10


def test_a_subsampled_run_is_what_its_cells_say(runs: list[Path]) -> None:
    (whole,) = open_conditions(runs[:1])
    cells = pd.read_parquet(runs[0] / "trace" / "source_cells.parquet")["cell"].nunique()
    (same,) = open_conditions(runs[:1], n_cells=cells)
    ends = ["source_layer", "source_feature", "target_layer", "target_feature"]
    both = whole.circuit().edges.merge(
        same.circuit().edges, on=ends, how="outer", suffixes=("", "_again"), indicator=True
    )
    assert (both["_merge"] == "both").mean() > 0.95, "p is the t form here, exact there"
    both = both[both["_merge"] == "both"]
    finite = np.isfinite(both["cohens_d"])
    np.testing.assert_allclose(both["cohens_d"][finite], both["cohens_d_again"][finite], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(both["clean_sd"], both["clean_sd_again"])
    (few,) = open_conditions(runs[:1], n_cells=cells // 2)
    assert few.circuit().tests["n_cells"].max() <= cells // 2
    assert few.circuit().controls.empty


def test_what_cannot_be_compared(runs: list[Path], tmp_path: Path, refusal: Refusal) -> None:
    out = ("--out", tmp_path / "cmp")
    assert "at least two" in refusal("compare", runs[0], *out)
    assert "2 runs are called" in refusal("compare", runs[0], runs[0], *out)
    assert "1 names were given" in refusal("compare", *runs, "--names", "one", *out)
    assert "holds no circuit" in refusal("compare", runs[0], tmp_path, *out)
    assert "choose one of default, paper" in refusal("compare", *runs, "--rule", "strict", *out)
    assert "cannot be drawn" in refusal("compare", *runs, "--cells", 10_000, *out)
    assert "no source called 'mendel'" in refusal("compare", *runs, "--disease", "mendel", *out)
    bare = tmp_path / "bare"
    shutil.copytree(runs[0] / "circuit", bare / "circuit")
    assert "effects.parquet is not there" in refusal("compare", runs[1], bare, "--cells", 5, *out)
    assert not (tmp_path / "cmp").exists()


@pytest.fixture
def deeper_copy(finished_copy: Path) -> Path:
    """A finished run whose groups count as if they had ten times the cells: the tiny run has too few for a test."""
    path = finished_copy / "trace" / "groups.parquet"
    groups = pd.read_parquet(path)
    groups.assign(n_cells=10 * groups["n_cells"]).to_parquet(path)
    record = read_json(path.with_name("trace.json"))
    write_sealed(path.with_name("trace.json"), record, record["files"])
    return finished_copy


def test_too_few_cells_of_a_group_are_said(finished_copy: Path) -> None:
    with pytest.raises(ScircuitError, match="no test has 10 cells inside and outside"):
        ask(finished_copy, ["tissue"])


def test_questions_with_knowledge(deeper_copy: Path, diseases: Path) -> None:
    summary = ask(deeper_copy, ["tissue"])
    assert summary.loc[summary["question"] == "tissue", "refused"].isna().all()
    assert (deeper_copy / "analysis" / "tissue.json").is_file()
    assert "sign_balance" in set(summary["question"]), "other answers stay"
    with pytest.raises(ScircuitError, match="--sets"):
        ask(deeper_copy, ["disease"])
    with pytest.raises(ScircuitError, match=r"profile_size|no latent"):
        ask(deeper_copy, ["disease"], sources=Sources(sets=(str(diseases),)))
    with pytest.raises(ScircuitError, match="choose one of sign_balance"):
        ask(deeper_copy, ["history"])


def test_labels_are_asked_for_order_novelty_and_disease(tmp_path: Path) -> None:
    """A circuit whose latents carry the names of sets, as a run writes it."""
    rng = np.random.default_rng(0)
    circuit = planted_circuit(seed=0).circuit
    sets = {f"set {i} (GO:000000{i})": [f"G{g}" for g in range(12 * i, 12 * i + 20)] for i in range(8)}
    (tmp_path / "sets.gmt").write_text("\n".join("\t".join([name, "", *genes]) for name, genes in sets.items()) + "\n")
    nodes = circuit.nodes.assign(label=[f"set {i}" for i in rng.integers(8, size=len(circuit.nodes))])
    record = circuit.provenance | {"config": {"features": {"gene_sets": [str(tmp_path / "sets.gmt")]}}}
    replace(circuit, nodes=nodes, provenance=record).write(tmp_path / "circuit")
    loadings = nodes[["layer", "feature"]].merge(pd.DataFrame({"gene": [f"G{g}" for g in range(120)]}), how="cross")
    loadings = loadings.assign(n_firings=10, mean_activation=rng.gamma(1, 1, len(loadings)))
    ill = loadings["feature"] % 4 == 0
    loadings.loc[ill & loadings["gene"].isin(sets["set 0 (GO:0000000)"]), "mean_activation"] += 9
    (tmp_path / "features").mkdir()
    loadings.to_parquet(tmp_path / "features" / "genes.parquet")
    summary = ask(tmp_path, ["hierarchy", "novelty"], options={n: {"draws": 50} for n in ("hierarchy", "novelty")})
    assert summary["refused"].isna().all()
    assert set(summary["question"]) == {"hierarchy", "novelty"}
    ask(tmp_path, ["disease"], sources=Sources(sets=(str(tmp_path / "sets.gmt"),)))
    table = pd.read_parquet(tmp_path / "analysis" / "disease.parquet")
    planted = table["feature"] % 4 == 0
    assert table.loc[planted, "is_disease"].all()
    assert table.loc[~planted, "is_disease"].mean() < 0.05
    assert (table.loc[planted].groupby(["layer", "feature"])["disease"].first() == "set 0 (GO:0000000)").all()
    assert set(read_answers(tmp_path / "analysis")["question"]) == {"hierarchy", "novelty", "disease"}


def test_command_analyze_with_knowledge(deeper_copy: Path, refusal: Refusal) -> None:
    from scircuit.report import write_report

    assert "no published definition" in refusal("analyze", "tissue", deeper_copy, "--profile", "paper")
    shown = CliRunner().invoke(app, ["analyze", "tissue", str(deeper_copy), "--group", "kind"])
    assert shown.exit_code == 0, repr(shown.exception)
    assert "a_specific_share" in shown.output
    assert "grouped by 'donor'" in refusal("analyze", "tissue", deeper_copy, "--group", "donor")
    assert "terms need an ontology" in refusal("analyze", "tissue", deeper_copy, "--term", "CL:0000084")
    listed = CliRunner().invoke(app, ["analyze", "list"]).output
    assert all(name in listed for name in ("hierarchy", "novelty", "tissue", "disease"))
    page = write_report(deeper_copy / "report", [Artefacts(deeper_copy, "one")]).read_text(encoding="utf-8")
    assert "Cell types and tissues" in page


def test_circuits_alone_are_compared(runs: list[Path], tmp_path: Path) -> None:
    """An edge table that was handed on: no trace, no dictionaries, no loadings."""
    bare = []
    for run in runs:
        shutil.copytree(run / "circuit", tmp_path / run.parent.name / "circuit")
        bare.append(tmp_path / run.parent.name)
    table = read_answers(compare(bare, tmp_path / "cmp", draws=20, report=False))
    refused = table[table["refused"].notna()].set_index("question")["refused"]
    assert "gene loadings" in refused["feature_consensus"]
    assert Circuit.read(bare[0] / "circuit").edges.shape[0]
