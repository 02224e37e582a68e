"""`scircuit validate`: a screen, a table, every baseline, and each input that cannot judge."""

import sys
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1]))
from builders import write_circuit_record
from perturbation.simulate import planted_effects, screen_from
from scircuit._io import read_json
from scircuit.cli.app import app
from scircuit.errors import ScircuitError
from scircuit.runs.outputs import run_logits
from scircuit.runs.run import Run
from scircuit.runs.screen import score_table, validate
from scircuit.runs.screen_options import ScreenOptions

Refusal = Callable[..., str]


def knock_downs(seed: int = 0) -> ad.AnnData:
    """12 knock-downs of the genes that the tiny models read, in two batches."""
    rng = np.random.default_rng(seed)
    screen = screen_from(planted_effects(rng), rng)
    screen.var.index = [f"GENE{i}" for i in range(screen.n_vars)]
    screen.obs["perturbation"] = screen.obs["perturbation"].str.replace(r"^G(\d+)$", r"GENE\1", regex=True)
    return screen


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("screen") / "planted.h5ad"
    knock_downs().write_h5ad(path)
    return path


def written(tmp_path: Path, change: Callable[[ad.AnnData], None]) -> Path:
    adata = knock_downs()
    change(adata)
    path = tmp_path / f"{change.__name__}.h5ad"
    adata.write_h5ad(path)
    return path


def test_a_screen_judges_a_run_beside_every_baseline(finished, screen: Path, tmp_path: Path) -> None:
    run = finished["geneformer"] / "out"
    out = validate(run, screen, tmp_path / "judged", draws=100, model_cells=10)
    record = read_json(out / "validation.json")
    said = record["definitions"]["loadings"]
    assert set(said["baselines"]) == {
        "always down", "gene-wise majority", "mean expression", "co-expression", "absolute co-expression",
        "in-silico deletion", "permuted sources",
    }  # fmt: skip
    assert record["n_knockdowns"] == 12
    assert said["n_knockdowns"] + said["n_unpredicted"] <= 12
    assert said["conclusion"].startswith(("No skill", "Skill beyond", "Too few"))
    comparison = pd.read_parquet(out / "comparison.parquet")
    assert len(said["sentences"]) == len(comparison)
    predictions = pd.read_parquet(out / "predictions.parquet")
    assert set(predictions["target"]) <= {f"GENE{i}" for i in range(12)}
    assert (out / "on_target.parquet").is_file()


def test_the_same_validation_is_not_made_twice(finished, screen: Path, tmp_path: Path) -> None:
    arguments = (finished["scgpt"] / "out", screen, tmp_path / "judged")
    validate(*arguments, draws=50, model_cells=5)
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "judged").iterdir()}
    validate(*arguments, draws=50, model_cells=5)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "judged").iterdir()} == stamps
    validate(*arguments, draws=60, model_cells=5)
    again = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "judged").iterdir()}
    unchanged = {name for name in stamps if again[name] == stamps[name]}
    assert any(name.startswith("effects-") for name in unchanged), "differential expression is cached by content"
    assert any(name.startswith("deletion-") for name in unchanged)
    assert again["validation.json"] != stamps["validation.json"]


def test_measured_outputs_and_the_published_weighting_are_judged_too(finished_copy, screen: Path) -> None:
    run = finished_copy
    assert run_logits(run, n_cells=6) == run / "trace" / "logits.parquet"
    table = pd.read_parquet(run / "trace" / "logits.parquet")
    assert list(table) == ["source_layer", "source_feature", "gene", "mean_delta", "n_cells"]
    assert not table.duplicated(["source_layer", "source_feature", "gene"]).any()
    assert table["n_cells"].between(1, 6).all()
    out = validate(run, screen, profile="paper", deletion=False, draws=50)
    assert out == run / "validation" / "planted"
    said = read_json(out / "validation.json")["definitions"]
    assert set(said) == {"loadings", "logits", "paper"}
    pooled = pd.read_parquet(out / "pooled.parquet").set_index("method")
    assert list(pooled.index) == ["circuit", "always down", "sign bias"]
    assert pooled["n_pairs"].min() > 0
    assert said["paper"]["sentences"][-1].startswith("Pooled sign accuracy as published")
    shown = score_table(out)
    assert shown.loc[shown["stratum"] == "pooled pairs", "method"].tolist() == list(pooled.index)
    validate(run, screen, deletion=False, draws=50)
    assert not (out / "pooled.parquet").exists()


def test_a_table_of_truths(finished, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = [(f"GENE{t}", f"GENE{g}") for t in range(12) for g in range(60) if t != g]
    table = pd.DataFrame(pairs, columns=["target", "gene"]).assign(sign=rng.integers(-1, 2, len(pairs)))
    table.to_csv(tmp_path / "mine.csv", index=False)
    out = validate(finished["scgpt"] / "out", truth=tmp_path / "mine.csv", out=tmp_path / "o", deletion=False, draws=50)
    record = read_json(out / "validation.json")
    assert (record["truth"], record["screen"]) == ("mine.csv", None)
    assert "co-expression" not in record["definitions"]["loadings"]["baselines"]


def test_direct_targets_are_apart(finished, screen: Path, tmp_path: Path) -> None:
    links = pd.DataFrame([(f"GENE{t}", f"GENE{g}", 1) for t in range(12) for g in range(20, 40)])
    links.set_axis(["source", "target", "weight"], axis=1).to_csv(tmp_path / "net.csv", index=False)
    run = finished["scgpt"] / "out"
    out = validate(run, screen, tmp_path / "o", network=[tmp_path / "net.csv"], deletion=False, draws=50)
    assert {"all", "direct", "indirect"} == set(pd.read_parquet(out / "summary.parquet")["stratum"])


def test_command_and_report(finished_copy, screen: Path, tmp_path: Path) -> None:
    from scircuit.runs.report import report

    shown = CliRunner().invoke(app, ["validate", str(finished_copy), "--screen", str(screen), "--no-deletion",
                                     "--draws", "50", "--line", "all"])  # fmt: skip
    assert isinstance(shown.exception, ScircuitError)
    assert "no column of lines" in str(shown.exception)
    shown = CliRunner().invoke(app, ["validate", str(finished_copy), "--screen", str(screen), "--no-deletion",
                                     "--draws", "50", "--batch", "b0", "--max-fall", "-1"])  # fmt: skip
    assert shown.exit_code == 0, repr(shown.exception)
    assert "Through loadings:" in shown.output
    assert "gene-wise majority" in shown.output
    page = report([Run(finished_copy)], tmp_path).read_text(encoding="utf-8")
    conclusion = read_json(finished_copy / "validation" / "planted" / "validation.json")["definitions"]["loadings"][
        "conclusion"
    ]
    assert "Against knock-down screens" in page
    assert conclusion in page


def test_screens_that_cannot_judge(finished, screen: Path, tmp_path: Path, refusal: Refusal) -> None:
    run = finished["geneformer"] / "out"

    def said(change: Callable[[ad.AnnData], None], *more: str) -> str:
        return refusal("validate", run, "--screen", written(tmp_path, change), "--out", tmp_path / "o", *more)

    def without_controls(adata: ad.AnnData) -> None:
        adata.obs["perturbation"] = adata.obs["perturbation"].replace("control", "GENE50")

    def other_genes(adata: ad.AnnData) -> None:
        adata.var.index = [f"OTHER{i}" for i in range(adata.n_vars)]
        adata.obs["perturbation"] = adata.obs["perturbation"].str.replace("GENE", "OTHER")

    def one_cell(adata: ad.AnnData) -> None:
        adata.obs["perturbation"] = [
            "control" if name == "control" else f"X{i}" for i, name in enumerate(adata.obs["perturbation"])
        ]

    def scaled(adata: ad.AnnData) -> None:
        dense = adata.X.toarray()
        adata.X = (dense - dense.mean(axis=0)) / dense.std(axis=0)

    def logged(adata: ad.AnnData) -> None:
        adata.X = adata.X.log1p()

    assert "control" in said(without_controls)
    assert "loads on a source latent" in said(other_genes)
    assert "no perturbation has 30 cells" in said(one_cell)
    assert "was scaled or regressed" in said(scaled)
    assert "pseudobulk needs counts" in said(logged, "--method", "pseudobulk")
    assert not (tmp_path / "o" / "validation.json").exists()


def test_arguments_that_cannot_be(finished, screen: Path, tmp_path: Path, refusal: Refusal) -> None:
    run = finished["geneformer"] / "out"
    assert "give a screen" in refusal("validate", run)
    assert "holds no circuit" in refusal("validate", tmp_path, "--screen", screen)
    assert "does not exist" in refusal("validate", run, "--screen", tmp_path / "none.h5ad")
    assert "no table of truths" in refusal("validate", run, "--truth", screen)
    assert "choose one of" in refusal("validate", run, "--screen", screen, "--profile", "nature")
    assert "choose one of" in refusal("validate", run, "--screen", screen, "--method", "t-test", "--no-deletion")
    assert "needs label and gene" in refusal("validate", run, "--screen", screen, "--targets", _csv(tmp_path))


def _csv(folder: Path) -> Path:
    (folder / "t.csv").write_text("a,b\n1,2\n")
    return folder / "t.csv"


def test_a_run_whose_model_is_gone_says_how_to_go_on(finished_copy, screen: Path) -> None:
    import json

    record = json.loads((finished_copy / "config.json").read_text())
    record["config"]["model"]["source"] = "gone"
    (finished_copy / "config.json").write_text(json.dumps(record))
    assert Run(finished_copy).config.model.source == "gone"
    with pytest.raises(ScircuitError, match="--no-deletion"):
        validate(finished_copy, screen, draws=50)
    assert validate(finished_copy, screen, deletion=False, draws=50).is_dir()


def test_another_model_under_the_same_name_is_refused(finished_copy, screen: Path) -> None:
    import json

    path = finished_copy / "circuit" / "run.json"
    record = json.loads(path.read_text())
    record["model"]["fingerprint"] = "0" * 64
    write_circuit_record(path, record)
    with pytest.raises(ScircuitError, match="traced in another"):
        validate(finished_copy, screen, draws=50)


def test_options_open_a_screen_as_asked(screen: Path) -> None:
    assert len(ScreenOptions().open(screen).strata) == 2
    assert len(ScreenOptions(batches=("b0",)).open(screen).strata) == 1
    assert len(ScreenOptions(batch=None).open(screen).strata) == 1
    falling = ScreenOptions(max_fall=-1.0).open(screen)
    assert 0 < len(falling.labels) <= 12
