"""What the page of a large circuit takes: 100,000 edges between 8,000 latents, opened and searched in Chromium.

    python benchmarks/report.py        # two minutes on two cores; needs chromium and playwright

A synthetic circuit (`scircuit.circuits.synthetic`) with its edges measured again, and the responses of 40 cells each.
Loading is from the click to the first screen with its data unpacked; a search from the key to the edges ranked and
their picture drawn; both in headless Chromium without a graphics card, the median of five.
"""

import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
from _common import Row, write_rows

from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.schema import ENDS
from scircuit.circuits.synthetic import planted_circuit
from scircuit.report import write_report

N_EDGES, N_CELLS, REPEATS = 100_000, 40, 5
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SEARCHES = ("GENE1", "GENE27", "process 0", "process 21", "L3_F17")
SEARCH = """text => new Promise(done => {
  const box = document.getElementById("search");
  const begun = performance.now();
  box.value = text;
  box.dispatchEvent(new Event("input"));
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - begun)));
})"""
DRAWN = """() => new Promise(done => {
  const begun = performance.now();
  const stage = document.querySelector("[data-part=stage]");
  const slider = document.getElementById("ask-most");
  slider.value = slider.max;
  slider.dispatchEvent(new Event("input"));
  const wait = () => Number(stage.dataset.drawn) >= COUNT ? done(performance.now() - begun) : setTimeout(wait, 20);
  wait();
})"""


def large_run(folder: Path) -> Artefacts:
    """A run with `N_EDGES` edges, each measured again, with the responses of `N_CELLS` cells."""
    rng = np.random.default_rng(0)
    made = planted_circuit(n_layers=10, n_latents=800, n_sources=27, n_cells=N_CELLS, edge_share=0.16, n_directions=1)
    circuit = made.circuit
    if len(circuit.edges) < N_EDGES:
        raise SystemExit(f"the synthetic circuit has {len(circuit.edges):,} edges; plant more")
    circuit.edges.drop(circuit.edges.index[N_EDGES:], inplace=True)
    circuit.write(folder / "circuit")
    edges = circuit.edges
    (folder / "confirmation").mkdir()
    d = edges["cohens_d"] * rng.uniform(0.6, 1.1, N_EDGES)
    again = edges.assign(
        cohens_d=d, mean_delta=d * edges["sd_delta"], discovery_d=edges["cohens_d"], ci_low=d, ci_high=d
    )
    again.to_parquet(folder / "confirmation" / "edges.parquet", index=False)
    (folder / "trace").mkdir()
    rows = edges.loc[edges.index.repeat(N_CELLS), ENDS].assign(cell=np.tile(np.arange(N_CELLS), N_EDGES))
    noise = rng.standard_normal(len(rows)).astype(np.float32)
    delta = np.repeat(edges["mean_delta"].to_numpy(), N_CELLS) + noise * np.repeat(
        edges["sd_delta"].to_numpy(), N_CELLS
    )
    rows.assign(delta=delta).to_parquet(folder / "trace" / "cell_effects.parquet", index=False)
    return Artefacts(folder, "large")


def measure(page: Path) -> list[Row]:
    """Open the page `REPEATS` times and search it; one browser each."""
    from playwright.sync_api import sync_playwright

    loads, searches, drawn = [], [], []
    with sync_playwright() as driver:
        for _ in range(REPEATS):
            browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-ready]")
            loads.append(tab.evaluate("performance.getEntriesByName('ready')[0].startTime"))
            tab.click(".top nav a[data-screen=explore]")
            tab.locator("[data-part=ranked] tbody tr").first.wait_for()
            searches += [tab.evaluate(SEARCH, text) for text in SEARCHES]
            tab.evaluate(SEARCH, "")
            drawn.append(tab.evaluate(DRAWN.replace("COUNT", str(N_EDGES))))
            browser.close()
    print(f"  loads {loads}\n  searches {searches}\n  drawn {drawn}")
    unit = f"{N_EDGES:,} edges, headless Chromium"
    return [
        Row("report_page_mb", page.stat().st_size / 1e6, f"MB, {N_EDGES:,} edges, {N_CELLS} cells each"),
        Row("report_load_seconds", statistics.median(loads) / 1000, f"s, {unit}"),
        Row("report_search_ms", statistics.median(searches), f"ms, {unit}"),
        Row("report_draw_seconds", statistics.median(drawn) / 1000, f"s, {unit}"),
    ]


def main() -> None:
    """Write the page and measure it, where there is a browser."""
    if BROWSER is None:
        print("no chromium on this machine: the report is not measured")
        return
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(Path(folder) / "report", [large_run(Path(folder) / "run")])
        write_rows("report", measure(page))


if __name__ == "__main__":
    main()
