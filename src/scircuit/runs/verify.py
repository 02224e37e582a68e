"""`scircuit verify`: whether every file of a run is the one that was written, and all are of one run."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from scircuit._io import read_json, sha256_file, sha256_of, within
from scircuit._sealed import sealed
from scircuit.analysis.answers import read_answers
from scircuit.errors import ScircuitError
from scircuit.runs.run import Run
from scircuit.sae.checkpoint import MANIFEST, dictionaries_hash, read_manifest

GOOD, UNLISTED = "whole", "not listed"
_DATA = (".parquet", ".safetensors")


def verify(root: str | Path) -> pd.DataFrame:
    """Read every file of a run in full: `file, state`.

    `state` is `whole`; `not listed` for data of which no record keeps a hash (a run of an earlier build, or a table
    that was being written when the process was killed); anything else says what is wrong.
    """
    run = Run(root)
    states: dict[str, str] = {}
    for record in sorted(run.root.rglob("*.json")):
        try:
            for name, listed in sealed(record).items():
                file = within(record.parent, name)
                states[_name(run, file)] = _state(file, str(listed["sha256"]), record)
        except ScircuitError as error:
            states[_name(run, record)] = str(error)
    states |= dict(_dictionaries(run))
    states |= dict(_links(run))
    for file in sorted(run.root.rglob("*")):
        if file.suffix in _DATA and not file.name.startswith("."):
            states.setdefault(_name(run, file), UNLISTED)
    return pd.DataFrame(sorted(states.items()), columns=["file", "state"])


def _name(run: Run, file: Path) -> str:
    return file.relative_to(run.root).as_posix()


def _state(file: Path, expected: str, record: Path) -> str:
    if not file.is_file():
        return f"missing, though {record.name} lists it"
    return GOOD if sha256_file(file) == expected else f"not the file that {record.name} lists"


def _dictionaries(run: Run) -> Iterator[tuple[str, str]]:
    folder = run.stage("saes")
    if not (folder / MANIFEST).is_file():
        return
    try:
        for entry in read_manifest(folder)["layers"].values():
            for name, expected in entry["sha256"].items():
                file = within(within(folder, entry["path"]), name)
                yield _name(run, file), _state(file, str(expected), folder / MANIFEST)
    except ScircuitError as error:
        yield f"saes/{MANIFEST}", str(error)


def _links(run: Run) -> Iterator[tuple[str, str]]:
    """What says of which run it is, and is of another."""
    record = run.path("circuit")
    try:
        if not record.is_file():
            return
        own = read_json(record).get("run_id")
        if own not in (None, run.run_id):
            yield "circuit/run.json", "its run_id is not that of what it records"
        saes = run.stage("saes")
        if (saes / MANIFEST).is_file() and run.provenance().get("saes") not in (None, *_hashes(saes)):
            yield f"saes/{MANIFEST}", "not the dictionaries that circuit/run.json names"
        confirmed = run.stage("confirmation") / "confirmation.json"
        if confirmed.is_file() and read_json(confirmed).get("circuit") not in (None, own):
            yield "confirmation/confirmation.json", "of another circuit than circuit/run.json"
        if set(read_answers(run.stage("analysis"))["run_id"].dropna()) - {own}:
            yield "analysis/answers.parquet", "of another circuit than circuit/run.json"
    except ScircuitError as error:
        yield "circuit/run.json", str(error)


def _hashes(saes: Path) -> tuple[str, str]:
    """The hash by which a circuit names its dictionaries; and that by which earlier builds of 0.1.0 named them."""
    return dictionaries_hash(saes), sha256_of(read_json(saes / MANIFEST))


def lines(found: pd.DataFrame) -> list[str]:
    """What is wrong, file by file, and how many are whole."""
    wrong = found[~found["state"].isin([GOOD, UNLISTED])]
    told = [f"{file}: {state}" for file, state in zip(wrong["file"], wrong["state"], strict=True)]
    counts = found["state"].value_counts()
    return [*told, f"{counts.get(GOOD, 0)} files whole, {counts.get(UNLISTED, 0)} not listed, {len(wrong)} wrong."]
