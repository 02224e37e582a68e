"""The page in a real browser, where there is one: loaded, searched, filtered, pinned, saved, by mouse and by keys.

`make test-browser` runs these and leaves pictures of every screen in `build/screenshots`.
"""

import json
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.export.neuronpedia import read_neuronpedia
from scircuit.report import write_report
from scircuit.report.blocks import slug

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENS = ("answer", "explore", "feature", "edge", "evidence")
HOSTILE = "<img src=x onerror=alert(1)></script>=1+1"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright in this environment")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """`open_page(path, hash, **context)` opens a page whose console must have stayed silent at the end of the test."""
    contexts, said = [], []

    def opened(path: Path, place: str = "", **options: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        tab = context.new_page()
        for event in ("console", "pageerror", "dialog", "requestfailed"):
            tab.on(event, lambda what: said.append(str(getattr(what, "text", what))))
        tab.goto(f"{path.as_uri()}#{place}")
        tab.wait_for_selector("html[data-ready]")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture(scope="module")
def page(rich_run: Artefacts, build_run: Callable[..., Artefacts], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    return write_report(folder / "report", [rich_run, build_run(folder / "empty", "empty", n=0)])


@pytest.fixture(scope="module")
def edges(rich_run: Artefacts) -> pd.DataFrame:
    return rich_run.circuit(grade="reproducible").edges


def go(tab: Any, screen: str) -> None:
    tab.click(f".top nav a[data-screen={screen}]")
    tab.locator(f"#{screen}").wait_for()


def status(tab: Any) -> str:
    return tab.locator("[data-part=status]").inner_text()


def in_circuit(tab: Any) -> str:
    return tab.locator("[data-part=ranked] caption").inner_text()


def test_each_screen_opens_and_the_first_is_the_answer(page: Path, open_page: Callable[..., Any]) -> None:
    tab = open_page(page)
    for screen in SCREENS:
        go(tab, screen)
        assert [name for name in SCREENS if tab.locator(f"#{name}").is_visible()] == [screen]
        assert tab.locator(".top nav a[aria-current]").inner_text().lower() == screen
    tab.go_back()
    tab.locator("#edge").wait_for()
    tab.goto(f"{page.as_uri()}#hubs")
    tab.reload()
    tab.wait_for_selector("html[data-ready]")
    assert tab.locator("#hubs h2").is_visible()


def test_search_filter_and_order_give_the_edges_of_the_table(
    page: Path, edges: pd.DataFrame, rich_run: Artefacts, open_page: Callable[..., Any]
) -> None:
    tab = open_page(page, "explore")
    specific = edges[edges["grade"] == "specific"]
    assert f"of {len(edges):,} edges" in status(tab)
    assert in_circuit(tab).endswith(f"of {len(specific)}")
    tab.select_option("#ask-grade", "reproducible")
    assert in_circuit(tab).endswith(f"of {len(edges)}")
    tab.select_option("#ask-sign", "supporting")
    tab.select_option("#ask-to", "3")
    some = edges[(edges["cohens_d"] < 0) & (edges["target_layer"] == 3)]
    assert in_circuit(tab).endswith(f"of {len(some)}")
    tab.fill("#search", "cd3d")
    nodes = rich_run.circuit().nodes
    known = nodes[[any(g.lower().startswith("cd3d") for g in genes) for genes in nodes["top_genes"]]]
    hits = set(zip(known["layer"], known["feature"], strict=True))
    ends = [
        {(row[0], row[1]), (row[2], row[3])}
        for row in some[["source_layer", "source_feature", "target_layer", "target_feature"]].to_numpy()
    ]
    assert in_circuit(tab).endswith(f"of {sum(bool(both & hits) for both in ends)}")
    tab.click("button.sort >> text=q")
    shown = tab.locator("[data-part=ranked] tbody tr td:nth-last-child(2)").all_inner_texts()
    first = [float(text.replace("×10", "e").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))) for text in shown]
    assert first == sorted(first)
    tab.wait_for_url("**q=cd3d**")
    tab.reload()
    tab.wait_for_selector("html[data-ready]")
    assert tab.input_value("#search") == "cd3d"
    tab.click("text=Reset")
    assert in_circuit(tab).endswith(f"of {len(specific)}")


def test_two_pins_a_group_and_the_paths_between(page: Path, edges: pd.DataFrame, open_page: Callable[..., Any]) -> None:
    both = edges.merge(edges, left_on=["target_layer", "target_feature"], right_on=["source_layer", "source_feature"])
    row = both.iloc[0]
    ends = (("source", "_x"), ("target", "_y"))
    keys = [f"{row[f'{end}_layer{side}']}.{row[f'{end}_feature{side}']}" for end, side in ends]
    tab = open_page(page, f"explore?grade=reproducible&pins={','.join(keys)}")
    for kind in ("shortest", "strongest"):
        tab.click(f"aside >> text={kind}")
        steps = tab.locator("ol.path li a").all()
        ends = [step.get_attribute("href").split("edge=")[1].split("&")[0].split("-") for step in steps]
        assert ends[0][0] == keys[0]
        assert ends[-1][1] == keys[1]
        assert all(a[1] == b[0] for a, b in pairwise(ends))
        assert kind == "strongest" or len(ends) <= 2
    tab.fill("input[name=group]", "T cells: a+b;c")
    tab.press("input[name=group]", "Enter")
    tab.click("aside .pins .chip")
    tab.wait_for_url("**only=**")
    tab.reload()
    tab.wait_for_selector("html[data-ready]")
    assert tab.locator("aside .pins .chip").inner_text() == "T cells: a+b;c (2)"
    tab.click("aside [aria-label^=unpin] >> nth=0")
    assert tab.locator("aside a").count() == 1


def test_what_is_saved_opens_elsewhere(
    page: Path, edges: pd.DataFrame, tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    tab = open_page(page, "explore?grade=sizeable&most=40")
    passing = edges[edges["grade"] >= "sizeable"]

    def saved(kind: str) -> Path:
        with tab.expect_download() as waiting:
            tab.click(f"[data-save={kind}]")
        path = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path

    table = pd.read_csv(saved("CSV"))
    assert len(table) == len(passing)
    assert table["cohens_d"].abs().iloc[0] == pytest.approx(passing["cohens_d"].abs().max(), rel=1e-4)
    content = json.loads(saved("JSON").read_text())
    assert len(content["edges"]) == len(passing)
    assert content["run"] == "rich"
    graph = read_neuronpedia(saved("Neuronpedia"))
    assert len(graph.edges) == 40
    drawn = ET.parse(saved("SVG")).getroot()
    assert len(drawn.findall("{*}path")) == 40
    assert saved("PNG").read_bytes().startswith(b"\x89PNG")


def test_latents_and_edges_have_their_own_screens(
    page: Path, edges: pd.DataFrame, open_page: Callable[..., Any]
) -> None:
    tab = open_page(page, "explore?grade=reproducible")
    tab.click("[data-part=ranked] tbody a >> nth=0")
    tab.locator("#edge h2").wait_for()
    strongest = edges.loc[edges["cohens_d"].abs().idxmax()]
    shown = tab.locator("#edge").inner_text()
    assert f"d\t{strongest['cohens_d']:.3f}".replace("-", "−") in shown
    for words in (
        "15 cells",
        "through context",
        "donor: A",
        "activation, active: scale",
        "12 decoys that push as hard",
    ):
        assert words in shown
    assert tab.locator("#edge circle.cell").count() == 15
    tab.click("#edge a.latent >> nth=0")
    tab.locator("#feature h2").wait_for()
    shown = tab.locator("#feature").inner_text()
    assert tab.locator("#feature rect.bar").count() == 8
    for words in ("Ribosome", "CELL0 (T cell)", "kind: T cell", "95%", "silenced as a source"):
        assert words in shown
    tab.click("#feature >> text=☆ Pin")
    tab.locator("#feature >> text=★ Pinned").wait_for()
    tab.wait_for_url("**pins=**")


def test_keys_reach_latents_edges_and_the_search(page: Path, open_page: Callable[..., Any]) -> None:
    tab = open_page(page)
    tab.keyboard.press("/")
    tab.wait_for_function("document.activeElement.id === 'search'")
    tab.select_option("#ask-grade", "reproducible")
    tab.focus("canvas[tabindex]")
    tab.keyboard.press("ArrowRight")
    first = tab.inner_text("#said")
    assert "edges shown" in first
    tab.keyboard.press("ArrowDown")
    assert tab.inner_text("#said") != first
    tab.keyboard.press("p")
    tab.wait_for_url("**pins=**")
    tab.focus("canvas[tabindex]")
    tab.keyboard.press("ArrowUp")
    tab.keyboard.press(".")
    assert "→" in tab.inner_text("#said")
    tab.keyboard.press("Enter")
    tab.locator("#edge h2").wait_for()
    assert "edge=" in tab.url


def test_an_empty_run_and_a_narrow_grade_say_what_else_there_is(page: Path, open_page: Callable[..., Any]) -> None:
    tab = open_page(page, f"explore?run={slug('empty')}")
    assert "No edge of this run is reproducible" in tab.inner_text("[data-part=empty]")
    tab.select_option("#run-choice select", slug("rich"))
    tab.locator("[data-part=empty]").wait_for(state="hidden")
    for screen in ("feature", "edge"):
        tab.goto(f"{page.as_uri()}#{screen}?run={slug('empty')}")
        tab.wait_for_selector(f"#{screen} h2")
        assert "no edges" in tab.inner_text(f"#{screen}")


def test_hostile_names_are_text_on_every_screen(
    make_run: Callable[..., Artefacts], tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    run = make_run(n=40)
    path = run.root / "circuit" / "nodes.parquet"
    nodes = pd.read_parquet(path)
    nodes.assign(label=HOSTILE, n_terms=1, top_genes=[[HOSTILE]] * len(nodes)).to_parquet(path, index=False)
    tab = open_page(write_report(tmp_path / "page", [run.called(HOSTILE)]), "explore")
    assert HOSTILE in tab.inner_text("[data-part=ranked]")
    with tab.expect_download() as waiting:
        tab.click("[data-save=SVG]")
    assert HOSTILE in "".join(ET.parse(waiting.value.path()).getroot().itertext())
    with tab.expect_download() as waiting:
        tab.click("[data-save=CSV]")
    assert HOSTILE in Path(waiting.value.path()).read_text()
    tab.click("[data-part=ranked] tbody a >> nth=0")
    tab.locator("#edge h2").wait_for()
    assert HOSTILE in tab.inner_text("#edge")
    tab.click("#edge a.latent >> nth=0")
    tab.locator("#feature h2").wait_for()
    assert HOSTILE in tab.inner_text("#feature")
    assert tab.locator("img").count() == 0


@pytest.mark.parametrize(
    ("look", "options"),
    [
        ("light", {}),
        ("dark", {"color_scheme": "dark"}),
        ("phone", {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}),
    ],
)
def test_every_screen_is_seen_in_light_in_dark_and_on_a_phone(
    page: Path, edges: pd.DataFrame, tmp_path: Path, open_page: Callable[..., Any], look: str, options: dict[str, Any]
) -> None:
    folder = Path(os.environ.get("SCIRCUIT_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    row = edges.loc[edges["cohens_d"].abs().idxmax()]
    ends = [f"{row[f'{end}_layer']}.{row[f'{end}_feature']}" for end in ("source", "target")]
    tab = open_page(page, f"answer?grade=sizeable&node={ends[0]}&edge={'-'.join(ends)}", **options)
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(13, 17, 23)" if look == "dark" else "rgb(255, 255, 255)")
    for screen in SCREENS:
        go(tab, screen)
        tab.wait_for_timeout(300)
        tab.screenshot(path=folder / f"{screen}-{look}.png")
        spare = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert tab.evaluate(spare) <= 0, f"{screen} is wider than the window"
    tab.click("#theme")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != ground
