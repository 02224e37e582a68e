"""A study from its file to its report: stages, resuming, numbers, the page."""

import os
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from scircuit._io import read_json
from scircuit._lock import locked
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS, SOURCE
from scircuit.cli.app import app
from scircuit.errors import ScircuitError
from scircuit.published import definitions as paper
from scircuit.published.counts import _coactive, disease_categories, gene_pair_numbers
from scircuit.published.definitions import PAPER
from scircuit.published.numbers import published_numbers
from scircuit.published.screen import PublishedScreen
from scircuit.runs.stages import run
from scircuit.study.config import load_study
from scircuit.study.page import cost_table, stages_section
from scircuit.study.run import run_study
from scircuit.study.stages import keys, stages, status

pytestmark = pytest.mark.slow


def study_of(folder: Path):
    return load_study(folder / "study.toml")


def test_every_stage_is_done_once_and_in_order(finished_study: Path):
    study = study_of(finished_study)
    found = status(study)
    assert set(found["state"]) == {"done"}
    assert (found["calls"] == 1).all()
    assert (found["seconds"] >= 0).all()
    todo = stages(study)
    places = {stage.name: i for i, stage in enumerate(todo)}
    assert all(places[need] < places[stage.name] for stage in todo for need in stage.needs)
    markers = sorted((finished_study / "out" / "stages").iterdir())
    before = {path: path.stat().st_mtime_ns for path in markers}
    run_study(study)
    assert {path: path.stat().st_mtime_ns for path in markers} == before, "nothing is done again"


def test_conditions_share_the_dictionaries_and_no_cells_with_them(finished_study: Path):
    out = finished_study / "out"
    one, two = (read_json(out / "conditions" / name / "saes" / "manifest.json") for name in ("all", "some"))
    trained = read_json(out / "dictionaries" / "gf" / "saes" / "manifest.json")
    for layer, entry in trained["layers"].items():
        hashes = {k: v for k, v in entry["files"].items() if "weights" in k} if "files" in entry else None
        if hashes:
            assert hashes == {k: v for k, v in one["layers"][layer]["files"].items() if "weights" in k}
    assert list(one["layers"]) == list(two["layers"])
    split = pd.read_parquet(out / "conditions" / "all" / "tokens" / "cells.parquet").set_index("_row")["_split"]
    taught = pd.read_parquet(out / "dictionaries" / "gf" / "tokens" / "cells.parquet").set_index("_row")["_split"]
    assert set(taught.index[taught == "train"]).isdisjoint(split.index[split != "train"])


def test_other_values_make_a_stage_waiting_again(finished_study: Path):
    study = study_of(finished_study)
    text = (finished_study / "study.toml").read_text()
    (finished_study / "other.toml").write_text(text.replace("paper_draws = 20", "paper_draws = 21"))
    other = load_study(finished_study / "other.toml")
    changed = {name for name, key in keys(stages(study)).items() if keys(stages(other))[name] != key}
    assert changed == {"compare", "report"}
    state = status(other).set_index("stage")["state"]
    assert state["compare"] == state["report"] == "waiting"
    assert state["trace:all"] == "done"


def test_a_part_alone(finished_study: Path, tmp_path: Path):
    shutil.copytree(finished_study, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "out")
    study = load_study(tmp_path / "copy" / "study.toml")
    run_study(study, until="dictionary:gf")
    state = status(study).set_index("stage")["state"]
    assert state["dictionary:gf"] == "done"
    assert (state.drop("dictionary:gf") == "waiting").all()
    with pytest.raises(ScircuitError, match="no stage 'tracing'"):
        run_study(study, until="tracing")


def test_numbers_are_those_of_the_artefacts(finished_study: Path):
    out = finished_study / "out"
    table = pd.read_parquet(out / "report" / "numbers.parquet").set_index(["number", "scope"])
    edges = {name: Circuit.read(out / "conditions" / name / "circuit").edges for name in ("all", "some", "gpt")}
    for name, own in edges.items():
        assert table.loc[("edges", name), "default"] == len(own)
        assert table.loc[("max_abs_d", name), "default"] == pytest.approx(own["cohens_d"].abs().max())
        assert table.loc[("median_abs_d", name), "default"] == pytest.approx(own["cohens_d"].abs().median())
        assert table.loc[("supporting_share", name), "default"] == pytest.approx((own["cohens_d"] < 0).mean())
    assert table.loc[("edges", "study"), "default"] == sum(map(len, edges.values()))
    assert table.loc[("edges", "study"), "published"] == 96892
    assert table.loc[("edges", "all"), "published"] == 52116
    assert pd.isna(table.loc[("edges", "some"), "published"])
    trace = read_json(out / "conditions" / "all" / "trace" / "trace.json")
    made = trace["n_clean_forwards"] + trace["n_ablated_forwards"]
    assert table.loc[("passes", "all"), "default"] == made > table.loc[("passes", "all"), "paper"] > 0
    # Random models have no label at both ends, so there is no consensus: the row holds what was published, no more.
    fold = table.loc[("consensus_fold", "study")]
    assert fold[["published", "paper", "default"]].isna().tolist() == [False, True, True]


def test_the_world_outside_is_asked(finished_study: Path):
    out = finished_study / "out"
    table = pd.read_parquet(out / "report" / "numbers.parquet").set_index(["number", "scope"])
    answers = pd.read_parquet(out / "validate" / "some" / "answers.parquet")
    refused = answers.loc[answers["folder"] == "paper", "refused"].tolist()
    assert len(refused) == 1
    assert refused[0].startswith("no pair of genes that the published weighting predicts was measured"), "no gene lists"
    comparison = pd.read_parquet(out / "conditions" / "some" / "validation" / "study" / "comparison.parquet")
    chosen = comparison[(comparison["definition"] == "loadings") & (comparison["stratum"] == "all")]
    auroc = table.loc[("crispri_auroc", "some")]
    expected = chosen.set_index("metric").loc["auroc"]
    assert (auroc["default"], auroc["null"]) == pytest.approx((expected["estimate"], expected["baseline"]))
    assert ("crispri_sign", "all") not in table.index, "only the conditions that were asked for are judged"
    found = pd.read_parquet(out / "disease" / "all" / "answers.parquet")
    assert found["question"].tolist() == ["disease"]
    assert "no latent fires at 50 genes" in found["refused"].iloc[0], "a vocabulary of 60 genes is too small to ask"


def test_the_page_holds_every_number_and_stage(finished_study: Path):
    page = (finished_study / "out" / "report" / "index.html").read_text()
    table = pd.read_parquet(finished_study / "out" / "report" / "numbers.parquet")
    titles = {n.id: n.title for n in published_numbers()}
    for number in table["number"].unique():
        assert titles[number].split("|")[0].strip() in page
    for text in ("Beside the published study", "52,116", "What it took", "trace:gpt", "dictionary:gf", "Planned "):
        assert text in page


def test_the_plan_lies_beside_what_was_measured(finished_study: Path):
    plan = read_json(finished_study / "out" / "plan.json")
    found = status(study_of(finished_study))
    assert [row["stage"] for row in plan["stages"]] == found["stage"].tolist()
    unplanned = found.loc[found["planned_seconds"].isna(), "stage"].tolist()
    assert unplanned == ["disease", "validate"], "what depends on a file of the user's is not guessed"
    rows = {row["stage"]: row for row in plan["stages"]}
    for name in ("all", "gpt"):
        trace = read_json(finished_study / "out" / "conditions" / name / "trace" / "trace.json")
        assert rows[f"trace:{name}"]["random"] > 0
        # One clean pass per cell and source layer, as in the trace; its confirmation and pairs are counted beside.
        assert rows[f"trace:{name}"]["clean"] >= trace["n_clean_forwards"]
    assert all(need["present"] for need in plan["needs"])
    result = CliRunner().invoke(app, ["study", "status", str(finished_study / "study.toml")])
    assert result.exit_code == 0
    assert f"{len(found)} of {len(found)} stages done. Planned" in result.output


def test_a_stage_that_was_interrupted_is_partial(finished_study: Path, tmp_path: Path, monkeypatch):
    shutil.copytree(finished_study, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "out")
    study = load_study(tmp_path / "copy" / "study.toml")
    monkeypatch.setattr("scircuit.runs.stages.run_saes", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_study(study)
    assert status(study)["state"].tolist()[0] == "partial"


def test_a_study_that_is_moved_stays_itself(finished_study: Path, tmp_path: Path, monkeypatch):
    moved = tmp_path / "elsewhere"
    shutil.copytree(finished_study, moved)
    assert set(status(study_of(moved))["state"]) == {"done"}
    monkeypatch.chdir(moved)
    assert set(status(load_study("study.toml"))["state"]) == {"done"}, "wherever it is called from"
    # The runs inside go on too, though they hold the paths of the place where they began.
    for marker in (moved / "out" / "stages").glob("trace-*.json"):
        marker.unlink()
    before = {p: p.stat().st_mtime_ns for p in moved.glob("out/conditions/*/trace/*.parquet")}
    run_study(load_study("study.toml"), until="trace")
    assert {p: p.stat().st_mtime_ns for p in before} == before
    recorded = read_json(moved / "out" / "conditions" / "some" / "config.json")["config"]
    assert recorded["sae"]["path"] == str(moved / "out" / "dictionaries" / "gf" / "saes")
    text = (moved / "study.toml").read_text().replace('sets = ["sets.gmt"]', 'sets = ["diseases.gmt"]')
    (moved / "other.toml").write_text(text)
    assert status(load_study("other.toml")).set_index("stage").loc["tokens:all", "state"] == "waiting"
    with pytest.raises(ScircuitError, match=r"holds a different run \(features.gene_sets"):
        run_study(load_study("other.toml"))


def test_one_call_at_a_time_writes_a_study(finished_study: Path):
    study = study_of(finished_study)
    with locked(study.out):
        with pytest.raises(ScircuitError, match=f"is being written by process {os.getpid()} on this machine"):
            run_study(study)
        assert set(status(study)["state"]) == {"done"}, "reading takes no lock"
    with locked(study.conditions[0].run.out), pytest.raises(ScircuitError, match="is being written by process"):
        run(study.conditions[0].run, until="tokenize")
    run_study(study)
    assert not list(study.out.rglob(".scircuit.lock"))


def test_each_stage_is_shown_with_what_it_took(finished_study: Path):
    study = study_of(finished_study)
    table = status(study)
    shown = stages_section(table, study).blocks[0].tables[0]
    assert all(len(row) == len(shown.columns) for row in shown.rows)
    first = dict(zip([column.title for column in shown.columns], shown.rows[0], strict=True))
    assert first["calls"] == "1"
    assert float(first["processor"].replace(",", "")) == pytest.approx(table["cpu_seconds"].iloc[0], abs=0.06)
    cost = {row[0]: row[1:] for row in cost_table(study).rows}
    assert cost["all"][:2] == ["7.50", "24,776"]
    seconds = read_json(finished_study / "out" / "conditions" / "all" / "seconds.json")["trace"]
    assert float(cost["all"][2]) == pytest.approx(seconds / 3600, abs=1e-4)


def annotated(run: Path) -> Circuit:
    """The published circuit of a run, as if gene sets named its sources and two of three others; they name none."""
    circuit = Artefacts(run).circuit(PAPER)
    sources = pd.MultiIndex.from_frame(circuit.edges[SOURCE])
    named = pd.MultiIndex.from_frame(circuit.nodes[["layer", "feature"]]).isin(sources)
    named |= np.arange(len(circuit.nodes)) % 3 > 0
    return replace(circuit, nodes=circuit.nodes.assign(n_terms=named.astype(int)))


def genes_of(circuit: Circuit) -> dict[tuple[int, int], list[str]]:
    nodes = circuit.nodes[circuit.nodes["n_terms"] > 0]
    return {(a, b): list(top)[:10] for a, b, top in nodes[["layer", "feature", "top_genes"]].itertuples(index=False)}


def paired(circuit: Circuit) -> list[tuple[str, str, float]]:
    """Each product of genes, an edge at a time."""
    genes, found = genes_of(circuit), []
    for a, b, c, e, d in circuit.edges[[*ENDS, "cohens_d"]].itertuples(index=False):
        if (a, b) in genes and (c, e) in genes:
            found += [(x, y, d) for x, y in product(genes[a, b], genes[c, e])]
    return found


def test_the_published_comparison_with_a_screen(finished_study: Path):
    study = study_of(finished_study)
    run = finished_study / "out" / "conditions" / "some"
    circuit = annotated(run)
    p = study.perturbation
    columns = {"perturbation": p.perturbation, "control": p.control}
    found = PublishedScreen(circuit).as_run(p.screen, bool(p.lines), columns, study.seed)
    measures, pairs = found.measures.set_index("measure"), found.table
    assert len(pairs) == measures.loc["direction", "n"] > 0
    assert (pairs["log2_fold_change"].abs() >= 0.01).all()
    agree = (pairs["mean_d"] < 0) == (pairs["log2_fold_change"] < 0)
    assert measures.loc["direction", "estimate"] == pytest.approx(agree.mean())
    assert measures.loc["direction", "null"] == pytest.approx((pairs["log2_fold_change"] < 0).mean())
    connected = {(x, y) for x, y, _ in paired(circuit)}
    assert set(zip(pairs["source_gene"], pairs["target_gene"], strict=True)) <= connected


def test_gene_pairs_are_counted_over_all_conditions_together(finished_study: Path):
    circuits = [annotated(finished_study / "out" / "conditions" / name) for name in ("all", "some", "gpt")]
    found = gene_pair_numbers(
        [Artefacts.in_memory(circuit, name=name, model="m") for name, circuit in zip("abc", circuits, strict=True)]
    )
    numbers = found.measures.set_index("measure")["estimate"]
    kept: dict[tuple[str, str], list[float]] = {}
    for x, y, d in [row for circuit in circuits for row in paired(circuit)]:
        kept.setdefault((x, y), []).append(abs(d))
    assert numbers["kept"] == sum(x != y and (len(d) > 1 or max(d) > 2) for (x, y), d in kept.items()) > 0
    ends = [(genes_of(c), c.edges[ENDS].itertuples(index=False)) for c in circuits]
    n_edges = sum((a, b) in genes and (c, e) in genes for genes, edges in ends for a, b, c, e in edges)
    assert numbers["edges_with_genes"] == n_edges > 0


def test_co_activation_is_compared_layer_pair_by_layer_pair(finished_study: Path, tmp_path: Path):
    run, by = finished_study / "out" / "conditions" / "all", ["source_layer", "target_layer"]
    pairs = pd.read_parquet(run / "features" / "coactivation_across.parquet")
    pairs["n_both"] *= 100  # as many joint firings as the published rule asks for
    (tmp_path / "features").mkdir()
    pairs.to_parquet(tmp_path / "features" / "coactivation_across.parquet")
    circuit = Artefacts(run).circuit(PAPER)
    found = {number.id: number.estimate for number in _coactive(Artefacts(tmp_path), circuit)}
    saved = dict(list(paper.saved_pmi_edges(pairs).groupby(by)))
    asked = [(pair, edges) for pair, edges in circuit.edges.groupby(by) if pair in saved]
    assert asked
    for (a, b), edges in asked:
        known, causal = set(saved[a, b]["target_feature"]), set(edges["target_feature"])
        assert found[f"pmi_target_overlap_L{a}_L{b}"] == pytest.approx(len(causal & known) / len(causal))
        both = edges.merge(saved[a, b], on=ENDS)
        assert found[f"pmi_exact_pairs_L{a}_L{b}"] == len(both)
    assert len(found) == 2 * len(asked)


def test_disease_categories_join_labels_and_their_pairs(tmp_path: Path):
    (tmp_path / "paper").mkdir()
    ill = {"label": ["x", "y", "z"], "categories": ["apoptosis; metastasis", "apoptosis", ""]}
    pd.DataFrame(ill).to_parquet(tmp_path / "paper" / "disease_paper.parquet")
    rows = [("x", "y", "one", 2, 1.0), ("x", "y", "two", 1, 4.0), ("y", "y", "one", 3, 2.0), ("x", "z", "one", 9, 9.0)]
    table = pd.DataFrame(rows, columns=["source_label", "target_label", "model", "n_edges", "mean_abs_d"])
    found = disease_categories(tmp_path, SimpleNamespace(table=table)).table.set_index("category")
    assert found.loc["apoptosis"].tolist() == [2, 6, 3, pytest.approx((2 + 4 + 6) / 6)]
    assert found.loc["metastasis"].tolist()[:3] == [1, 0, 0]
    with pytest.raises(ScircuitError, match="no published disease labels"):
        disease_categories(tmp_path / "paper", SimpleNamespace(table=table))
