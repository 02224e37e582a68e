"""A run proves itself: every file that is changed, cut, deleted or swapped is found, by reading and by `verify`."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from scircuit.cells.tokens import TokenStore
from scircuit.cli.app import app
from scircuit.errors import ScircuitError
from scircuit.features.catalogue import Catalogue
from scircuit.runs.run import Run
from scircuit.runs.verify import GOOD, UNLISTED, verify

OLD = Path(__file__).parents[1] / "data" / "run-0.1.0" / "out"


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return shutil.copytree(finished["geneformer"] / "out", tmp_path / "copy")


def read_all(root: Path) -> None:
    """Everything that stages, questions and the report read."""
    run = Run(root)
    run.cells()
    Catalogue.read(root / "features")
    run.circuit()
    for name in ("effects", "tests", "cell_effects", "source_cells", "terms", "confirmation"):
        if run.has(name):
            run.table(name)


def test_a_finished_run_is_whole(run) -> None:
    found = verify(run).set_index("file")["state"]
    assert set(found) <= {GOOD, UNLISTED}
    assert set(found.index[found == UNLISTED]) <= {"analysis/answers.parquet", "analysis/profiles.parquet"}
    read_all(run)


def test_every_data_file_is_held_to_its_hash(run) -> None:
    found = verify(run)
    for file in found.loc[found["state"] == GOOD, "file"]:
        path = run / file
        data = path.read_bytes()
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        for damaged in (flipped, data[:middle], b"", None):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            states = verify(run).set_index("file")["state"]
            assert states[file] not in (GOOD, UNLISTED), file
        path.write_bytes(data)
    assert set(verify(run)["state"]) <= {GOOD, UNLISTED}


def test_tokens_that_were_overwritten_are_refused(run) -> None:
    path = run / "tokens" / "tokens.safetensors"
    arrays = {name: array.copy() for name, array in load_file(path).items()}
    arrays["tokens"][:20] = arrays["tokens"][20:40]
    save_file(arrays, path)
    with pytest.raises(ScircuitError, match=r"tokens\.safetensors is not the file that tokens\.json"):
        TokenStore.read(run / "tokens")


def test_signs_that_were_turned_are_refused(run) -> None:
    path = run / "circuit" / "edges.parquet"
    edges = pd.read_parquet(path)
    edges.assign(cohens_d=-edges["cohens_d"], mean_delta=-edges["mean_delta"]).to_parquet(path, index=False)
    with pytest.raises(ScircuitError, match=r"edges\.parquet is not the file that run\.json"):
        Run(run).circuit()


def test_files_of_another_run_are_refused(run) -> None:
    """Whole, and in the same format, but of another run."""
    shutil.copytree(OLD / "saes", run / "saes", dirs_exist_ok=True)
    assert "saes/manifest.json" in _wrong(run)
    record = run / "confirmation" / "confirmation.json"
    if record.is_file():
        record.write_text(json.dumps(json.loads(record.read_text()) | {"circuit": "0" * 64}))
        assert "confirmation/confirmation.json" in _wrong(run)
    told = CliRunner().invoke(app, ["verify", str(run)])
    assert told.exit_code == 1
    assert "saes/manifest.json: not the dictionaries that circuit/run.json names" in told.output


def test_a_run_of_an_earlier_build_opens_and_says_what_it_cannot_prove() -> None:
    found = verify(OLD).set_index("file")["state"]
    assert set(found) == {GOOD, UNLISTED}
    assert (found[found.index.str.startswith("saes/")] == GOOD).all()
    assert np.all(found[["circuit/edges.parquet", "tokens/tokens.safetensors"]] == UNLISTED)
    read_all(OLD)


def _wrong(root: Path) -> set[str]:
    found = verify(root)
    return set(found.loc[~found["state"].isin([GOOD, UNLISTED]), "file"])
