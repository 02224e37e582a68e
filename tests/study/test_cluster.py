"""Dask workers trace the very bytes that one process traces."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def traced(folder: Path, *options: str) -> dict[str, str]:
    """sha256 of every table of the traces, after a run in a process of its own."""
    command = [sys.executable, "-m", "scircuit.cli.app", "-q", "study", "run", str(folder / "study.toml"), *options]
    done = subprocess.run(
        [*command, "--until", "trace"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    tables = sorted(folder.glob("out/conditions/*/[ct]*/*.parquet"))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in tables}


def test_the_same_bytes_as_from_one_machine(study_folder):
    pytest.importorskip("distributed")
    folder = study_folder()
    alone = traced(folder)
    assert any("trace/effects.parquet" in name for name in alone)
    assert any("confirmation/edges.parquet" in name for name in alone)
    shutil.rmtree(folder / "out")
    together = traced(folder, "--cluster", "local:2")
    assert alone == together
