"""The page in a real browser, where there is one: the script runs, and nothing is complained about."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from scircuit.circuits.artefacts import Artefacts
from scircuit.report import write_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=2000",
]  # fmt: skip


def opened(path: Path, profile: Path) -> tuple[str, str]:
    """The page after its script ran, and what the browser said."""
    command = [str(BROWSER), *QUIET, f"--user-data-dir={profile}", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
def test_the_picture_is_drawn_and_the_console_is_silent(make_run: Callable[..., Artefacts], tmp_path: Path) -> None:
    run, empty = make_run("full"), make_run("empty", n=0)
    n_edges = len(pd.read_parquet(run.root / "circuit" / "edges.parquet"))
    page, said = opened(write_report(tmp_path / "report", [run, empty]), tmp_path / "profile")
    assert f"Showing 120 of {n_edges} edges; the strongest of {n_edges} that pass the filters." in page
    assert len(re.findall(r'<g class="edge (?:up|down)">', page)) == 120
    assert "CONSOLE" not in said
