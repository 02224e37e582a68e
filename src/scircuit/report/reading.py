"""What a report reads of a run beside its circuit and tables: answers, dictionaries, knock-down screens."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._io import read_json
from scircuit._tables import read_parquet
from scircuit.analysis.answers import Answer, Answers, read_answers
from scircuit.circuits.artefacts import Artefacts
from scircuit.errors import ScircuitError

RECORD = "validation.json"
"""What `scircuit validate` writes last into its folder."""


@dataclass(frozen=True)
class ScreenTables:
    """One validation.

    `record` holds the screen's facts, the settings and the sentences; `summary` has one row per (definition, stratum,
    method, metric).
    """

    name: str
    record: dict[str, Any]
    summary: pd.DataFrame


def named(runs: Sequence[str | Path | Artefacts]) -> list[Artefacts]:
    """The runs of a report; they must be given, have circuits, and names that differ."""
    opened = [Artefacts.of(run) for run in runs]
    if not opened:
        raise ScircuitError("A report needs at least one run; give its folder.")
    for run in opened:
        run.circuit()
    names = [run.name for run in opened]
    if len(set(names)) < len(names) or not all(names):
        raise ScircuitError(f"The runs of a report need names that differ, got {names}; rename one of them.")
    return opened


def notebook(run: Artefacts) -> dict[str, Answer]:
    """What the run was asked under the default profile, by question: answered or refused."""
    folder = run.root / "analysis"
    return {answer.question: answer for answer in Answers(folder, table=read_answers(folder)).read()}


def screens(run: Artefacts) -> list[ScreenTables]:
    """The whole validations of a run, in the order of their names."""
    folders = sorted(path.parent for path in (run.root / "validation").glob(f"*/{RECORD}"))
    return [
        ScreenTables(folder.name, read_json(folder / RECORD), read_parquet(folder / "summary.parquet"))
        for folder in folders
    ]


def sae_layers(run: Artefacts) -> pd.DataFrame:
    """One row per SAE: `layer`, every number recorded for it under its own name; empty without a manifest.

    With a feature catalogue there is also `n_labelled`, the latents that a gene set names.
    """
    manifest = run.root / "saes" / "manifest.json"
    if not manifest.is_file():
        return pd.DataFrame({"layer": []})
    content = read_json(manifest)
    entries = content.get("layers") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise ScircuitError(f"{manifest} has no 'layers'; it is no manifest of a folder of SAEs.")
    found = []
    for layer, entry in entries.items():
        numbers = {**entry, **entry.get("metrics", {})}
        found.append({"layer": int(layer), **{key: value for key, value in numbers.items() if _is_number(value)}})
    layers = pd.DataFrame(found, columns=None if found else ["layer"]).sort_values("layer", ignore_index=True)
    if not run.has("features"):
        return layers
    catalogue = run.table("features", ["layer", "n_terms"])
    labelled = (catalogue["n_terms"] > 0).groupby(catalogue["layer"]).sum().rename("n_labelled")
    return layers.merge(labelled.reset_index(), how="left", on="layer")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
