"""Whoever waits sees how fast it goes and how long it still takes, at every stage that can be long."""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tqdm.auto

from scircuit._progress import progress
from scircuit.runs.stages import run

LONG = {
    "tokenize", "activations", "SAEs", "SAE quality", "one-gene latents", "features", "enrichment", "random genes",
    "layer matches", "pairs", "trace (main)", "check (layer 0)", "trace (confirm)", "analysis",
}  # fmt: skip


def test_every_long_stage_has_a_bar_that_knows_its_end(
    project: Callable[..., Path], scgpt_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scircuit.config_file import load_config

    seen: dict[str, Any] = {}

    class Recorded(tqdm.auto.tqdm):  # type: ignore[type-arg, misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            seen[options["desc"]] = self.total

    monkeypatch.setattr(tqdm.auto, "tqdm", Recorded)
    local = 'engine = "local"\naccept_approximation = true\nconfirm = "all"\ncheck_sources = 8\nmin_r = 0.1'
    folder = project(
        scgpt_folder,
        edit=lambda text: text.replace("[trace]", f"[trace]\n{local}").replace("n = 4", "n = 8"),
    )
    run(load_config(folder / "run.toml"), until="analysis")
    assert set(seen) >= LONG
    assert [name for name, total in seen.items() if total is None] == []


def test_a_bar_shows_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for _ in progress(range(4), desc="wait", unit="cell", delay=0, mininterval=0):
        time.sleep(0.02)
    last = capsys.readouterr().err.split("\r")[-1]
    assert re.search(r"wait: 100%.* 4/4 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+cell/s\]", last)


def test_a_log_file_gets_no_bar(capsys: pytest.CaptureFixture) -> None:
    assert list(progress(range(3), desc="wait", delay=0)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
