"""A study that is killed at six random moments ends in the tables of one that was left alone."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.slow

TABLES = (
    "conditions/*/tokens/cells.parquet", "conditions/*/features/*.parquet", "conditions/*/trace/*.parquet",
    "conditions/*/circuit/*.parquet", "conditions/*/confirmation/*.parquet", "conditions/*/analysis/**/*.parquet",
    "compare/**/*.parquet", "labels/**/*.parquet", "knowledge/**/*.parquet", "report/numbers.parquet",
)  # fmt: skip


def start(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "scircuit.cli.app", "-q", "study", "run", str(folder / "study.toml")]
    with open(folder / "errors.txt", "a") as errors:
        return subprocess.Popen(command, stderr=errors, stdout=subprocess.DEVNULL)


def found(out: Path) -> dict[str, Path]:
    return {str(p.relative_to(out)): p for pattern in TABLES for p in sorted(out.glob(pattern))}


def n_done(out: Path) -> int:
    return sum('"done": true' in p.read_text() for p in out.glob("stages/*.json"))


def test_killed_at_six_moments_and_resumed(study_folder):
    folder = study_folder()
    started = time.monotonic()
    whole = start(folder)
    assert whole.wait(900) == 0, (folder / "errors.txt").read_text()
    took = time.monotonic() - started
    alone, killed = folder / "alone", folder / "out"
    killed.rename(alone)  # and again in the same place, which is part of a run's identity
    rng = random.Random("six moments")
    moments = sorted(rng.random() for _ in range(6))
    done = []
    for before, moment in zip([0.0, *moments], moments, strict=False):
        process = start(folder)
        # Each call first loads its libraries: kills are spread over what comes after.
        deadline = time.monotonic() + 0.15 * took + (moment - before) * took * rng.uniform(0.5, 1.0)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            assert process.wait(60) == -signal.SIGKILL
        else:
            assert process.returncode == 0, (folder / "errors.txt").read_text()
        done.append(n_done(killed))
    assert done == sorted(done), "what was done stays done"
    assert max(done) > min(done), "the kills fell on different stages"
    last = start(folder)
    assert last.wait(900) == 0, (folder / "errors.txt").read_text()
    one, other = found(alone), found(killed)
    assert list(one) == list(other)
    assert len(one) > 60
    for name, path in one.items():
        pd.testing.assert_frame_equal(pd.read_parquet(path), pd.read_parquet(other[name]), check_exact=True, obj=name)
