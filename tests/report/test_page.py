"""The page as a reader meets it: whole, self-contained, honest about emptiness, safe with hostile labels."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from unpacked import carried

from scircuit._tables import records
from scircuit.analysis.answers import Answers
from scircuit.analysis.result import Result
from scircuit.analysis.thresholds import threshold_sweep
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.rule import DEFAULT
from scircuit.circuits.schema import GRADES
from scircuit.circuits.synthetic import planted_circuit
from scircuit.errors import ScircuitError
from scircuit.report import write_report
from scircuit.report.blocks import slug
from scircuit.report.packing import real
from scircuit.report.picture import has_label, node_name
from scircuit.report.planted import RECOVERED
from scircuit.runs.ask import ask_run
from scircuit.runs.report import report

MakeRun = Callable[..., Artefacts]
VOID = {"meta", "input", "link", "br", "hr", "img", "path", "use", "rect", "circle", "line", "stop"}


class Reader(HTMLParser):
    """Collects what a browser would: ids, text, scripts, and tags left open."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        self.ids += [str(values["id"])] if "id" in values else []
        self.links += [str(values[key]) for key in ("href", "src", "xlink:href") if key in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open[-1] != tag:
            self.wrong.append(tag)
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open and self.open[-1] == "script" else self.text).append(data)


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    return reader


def words(path: Path) -> str:
    return " ".join(" ".join(read(path).text).split())


def n_tests(run: Artefacts) -> int:
    tests = pd.read_parquet(run.root / "circuit" / "tests.parquet")
    return int(tests.loc[tests["kind"] == "latent", "n_tests"].sum())


def manifest_of(run: Artefacts) -> Path:
    return run.root / "saes" / "manifest.json"


class Page(NamedTuple):
    path: Path
    runs: list[Artefacts]


@pytest.fixture(scope="module")
def page(build_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("page")
    runs = [
        build_run(folder / "a", "geneformer-mini"),
        build_run(folder / "b", "scgpt-mini", n=150, n_layers=4, seed=1),
    ]
    return Page(report(runs, folder / "report"), runs)


def test_two_runs_stand_side_by_side_in_one_wellformed_file(page: Page) -> None:
    assert page.path.name == "index.html"
    reader = read(page.path)
    assert not reader.wrong
    assert not reader.open
    assert len(reader.ids) == len(set(reader.ids))
    text = words(page.path)
    for run in page.runs:
        assert f"tests {n_tests(run):,} with a response" in text
    assert set(carried(page.path)) == {slug(run.name) for run in page.runs}


def test_nothing_is_fetched_from_anywhere(page: Page) -> None:
    assert all(link.startswith("#") for link in read(page.path).links)
    source = page.path.read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", source))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "default-src 'none'" in source


def test_features_without_a_gene_set_go_by_their_genes(page: Page) -> None:
    run = carried(page.path)[slug(page.runs[0].name)]
    bare = [i for i, label in enumerate(run.words("n.label")) if not label]
    assert bare
    assert all(len(run.genes(i)) >= 2 for i in bare)
    nodes = records(page.runs[0].circuit().nodes)
    assert all(node_name(n) == ", ".join(n["top_genes"][:2]) for n in nodes if not has_label(n))
    assert "unlabelled" not in words(page.path)


def test_links_within_the_page_arrive(page: Page) -> None:
    reader = read(page.path)
    assert {link[1:] for link in reader.links} <= set(reader.ids)


def test_headline_numbers_are_those_of_the_tables(page: Page) -> None:
    text = words(page.path)
    for run in page.runs:
        edges = pd.read_parquet(run.root / "circuit" / "edges.parquet")
        assert f"{(edges['mean_delta'] < 0).mean():.1%}" in text
        assert f"mean |d| {edges['cohens_d'].abs().mean():.2f}" in text


@pytest.fixture(scope="module")
def bare(build_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """One run without dictionaries, catalogue or gene sets."""
    folder = tmp_path_factory.mktemp("bare")
    circuit = build_run(folder / "a", "bare", n=40).root / "circuit"
    terms = circuit / "terms.parquet"
    pd.read_parquet(terms).iloc[:0].to_parquet(terms, index=False)
    for part in ("saes", "features", "analysis"):
        shutil.rmtree(folder / "a" / part)
    ask_run(folder / "a")
    runs = [Artefacts(circuit.parent, "bare")]
    return Page(write_report(folder / "report", runs), runs)


def test_same_artefacts_give_the_same_bytes(bare: Page, tmp_path: Path) -> None:
    assert write_report(tmp_path / "again", bare.runs).read_bytes() == bare.path.read_bytes()


def test_an_empty_circuit_gives_an_honest_page(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(n=0)
    path = write_report(tmp_path / "report", [run])
    text = words(path)
    assert "No edge is reproducible, so there is none to draw" in text
    held = carried(path)[slug(run.name)]
    assert held.ends() == []
    assert held.facts["n_edges"] == 0
    assert f"tests {n_tests(run):,} with a response" in text
    assert "nan" not in text.lower().split()


HOSTILE = ["</script><script>alert(1)</script>", '<img src=x onerror="alert(1)">', "a & b", "$x^$", "q\u2028r", "'\"`"]


def test_labels_are_text_wherever_they_appear(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(n=40)
    nodes = pd.read_parquet(run.root / "circuit" / "nodes.parquet")
    nodes["label"] = [HOSTILE[i % len(HOSTILE)] for i in range(len(nodes))]
    nodes["n_terms"] = 1
    nodes["top_genes"] = [[HOSTILE[i % len(HOSTILE)], "CD3D"] for i in range(len(nodes))]
    nodes.to_parquet(run.root / "circuit" / "nodes.parquet", index=False)
    path = write_report(tmp_path / "report", [run.called(" ".join(HOSTILE))])
    reader = read(path)
    assert not reader.wrong
    assert len(reader.scripts) == 2
    assert "alert(1)" not in reader.scripts[1]
    assert "img" not in reader.tags
    assert set(carried(path)[slug(" ".join(HOSTILE))].words("n.label")) == set(HOSTILE)
    for label in HOSTILE:
        assert " ".join(label.split()) in words(path)


def test_the_picture_holds_every_edge_of_a_small_circuit(page: Page) -> None:
    edges = pd.read_parquet(page.runs[0].root / "circuit" / "edges.parquet")
    held = carried(page.path)[slug(page.runs[0].name)]
    d = held.columns["e.cohens_d"]
    found = {(*ends, f"{value:.4g}") for ends, value in zip(held.ends(), d, strict=True)}
    columns = ["source_layer", "source_feature", "target_layer", "target_feature", "cohens_d"]
    rounded = edges[columns].assign(cohens_d=real(edges["cohens_d"]))
    assert found == {(*row[:4], f"{row[4]:.4g}") for row in rounded.itertuples(index=False, name=None)}
    np.testing.assert_allclose(rounded["cohens_d"], edges["cohens_d"], rtol=2e-5)
    assert (np.diff(np.abs(d)) <= 0).all()


def test_planted_circuits_stand_first_where_they_were_traced(make_run: MakeRun, tmp_path: Path) -> None:
    rows = [("reproducible", 2031, 0.061, 1.0, 2193.1), ("specific", 109, 1.0, 0.924, 8.2)]
    table = pd.DataFrame(rows, columns=["grade", "n_edges", "precision", "recall", "n_by_decoys"])
    table.to_parquet(tmp_path / RECOVERED)
    run = make_run("one")
    run.circuit().write(tmp_path / "circuit")
    reader = read(report([run], tmp_path / "page", recovered=tmp_path))
    words = " ".join(reader.text)
    assert words.index("Where every edge is known") < words.index("Strongest labelled edges")
    for shown in ("2,031", "6.1%", "2,193.1", "109", "100.0%", "92.4%", "8.2"):
        assert shown in reader.text


def test_where_nothing_is_specific_the_page_says_so_and_shows_wider_edges_when_asked(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("one")
    whole = run.circuit()
    n = len(whole.edges)
    told = [{"grade": g, "n_edges": m, "n_by_decoys": None} for g, m in zip(GRADES, (n, 90, 0), strict=True)]
    grade = pd.Categorical(["sizeable"] * 90 + ["reproducible"] * (n - 90), categories=GRADES, ordered=True)
    facts = whole.provenance | {"grade": "specific", "grades": told, "thresholds": asdict(DEFAULT)}
    wide = replace(whole, edges=whole.edges.assign(grade=grade), provenance=facts)
    text = words(write_report(tmp_path / "a", [run.holding(circuit=wide.at("specific"))]))
    assert "No edge is specific: pushes of the same size" in text
    assert "No edge is specific, so there is none to draw" in text
    text = words(write_report(tmp_path / "b", [run.holding(circuit=wide)], grade="sizeable"))
    assert "No edge is specific: pushes of the same size" in text
    assert "strongest of 90 sizeable edges" in text


def test_what_is_missing_is_said(bare: Page) -> None:
    text = words(bare.path)
    assert "This run has no saes/manifest.json." in text
    assert "No answer: no edge" in text


def test_sae_measures_are_shown_under_their_names(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(n=40)
    manifest = json.loads(manifest_of(run).read_text())
    del manifest["layers"]["0"]["metrics"]["loss_recovered"]
    for entry in manifest["layers"].values():
        entry["metrics"].pop("l0")
        entry["metrics"]["fvu"] = 0.123
    manifest_of(run).write_text(json.dumps(manifest))
    text = words(write_report(tmp_path / "report", [run]))
    assert "FVU" in text
    assert "0.123" in text
    assert "L0" not in text.split("Quality of the sparse autoencoders")[-1].replace("L0 ·", "")


def test_wrong_input_is_refused_in_a_sentence(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(n=40)
    with pytest.raises(ScircuitError, match="at least one run"):
        write_report(tmp_path / "report", [])
    with pytest.raises(ScircuitError, match="differ"):
        write_report(tmp_path / "report", [run, run])
    with pytest.raises(ScircuitError, match="holds no circuit"):
        write_report(tmp_path / "report", [Artefacts(tmp_path / "nowhere", "gone")])
    manifest_of(run).write_text("{}")
    with pytest.raises(ScircuitError, match="no 'layers'"):
        write_report(tmp_path / "report", [run])
    assert not (tmp_path / "report").exists()


def test_answers_of_the_analysis_become_sections(make_run: MakeRun, tmp_path: Path) -> None:
    made = planted_circuit(n_layers=3, n_latents=24, n_sources=6, seed=4)
    made.circuit.write(tmp_path / "circuit")
    swept = threshold_sweep(made.effects, made.tests)
    notebook = Answers(tmp_path / "analysis")
    notebook.add(swept)
    notebook.refuse("hubs", "no one asked nicely")
    notebook.write()
    run = Artefacts(tmp_path, "planted")
    text = words(write_report(tmp_path / "report", [run]))
    assert "Choice of thresholds" in text
    assert "No answer: no one asked nicely" in text
    assert f"n = {swept.headline.n:,} edges. Null: {swept.null_model}. Definition {swept.definition}." in text
    (tmp_path / "analysis" / "threshold_sweep.parquet").unlink()
    with pytest.raises(ScircuitError, match="does not exist beside"):
        write_report(tmp_path / "report", [run])


def test_answers_come_back_as_they_were_written(tmp_path: Path) -> None:
    made = planted_circuit(n_layers=3, n_latents=24, n_sources=6, seed=4)
    result = threshold_sweep(made.effects, made.tests)
    result.write(tmp_path)
    back = Result.read(tmp_path / "threshold_sweep.json")
    pd.testing.assert_frame_equal(back.measures, result.measures, check_dtype=False)
    pd.testing.assert_frame_equal(back.table, result.table)
    assert (back.definition, back.glossary) == (result.definition, result.glossary)


def test_two_circuits_are_compared_like_for_like_and_one_is_not(page: Page, bare: Page) -> None:
    assert "Effect sizes, like for like" in words(page.path)
    assert "Effect sizes, like for like" not in words(bare.path)
