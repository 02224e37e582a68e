"""What a report is made of: one run's artefacts, read and checked."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from scircuit._io import read_json
from scircuit.analysis.coherence import coherence
from scircuit.analysis.result import Result
from scircuit.analysis.summary import summarise
from scircuit.circuits.circuit import Circuit
from scircuit.errors import ScircuitError
from scircuit.report.screens import ScreenTables, read_screen, screens_of

COHERENCE_EDGES = 200_000
"""Edges up to which coherence, whose null redraws every target a thousand times, is asked while reporting."""


@dataclass(frozen=True)
class ReportRun:
    """Where the artefacts of one run lie.

    Attributes
    ----------
    name
        What the run is called on the page; unique among the runs of a report.
    circuit
        Folder of a circuit (`edges.parquet`, `nodes.parquet`, ..., `run.json`).
    saes
        `manifest.json` of the run's sparse autoencoders; None leaves their section out.
    features
        `features.parquet` of the run's catalogue; None leaves its counts out.
    analysis
        Folder of answers as `Result.write` leaves them (`<question>.json` beside `<question>.parquet`). They stand
        beside, or in the place of, the answers that need nothing but the circuit.
    validations
        Folders that `scircuit validate` wrote: what knock-down screens say of the circuit.
    """

    name: str
    circuit: Path
    saes: Path | None = None
    features: Path | None = None
    analysis: Path | None = None
    validations: tuple[Path, ...] = ()


@dataclass(frozen=True)
class RunTables:
    """The artefacts of one run in memory.

    Attributes
    ----------
    name, slug
        The run's name, and a form of it that is safe inside an HTML id.
    circuit
        Edges, nodes, tests, controls, terms and provenance.
    layers
        One row per SAE: `layer`, every number found for it in the manifest, and `n_labelled` from the feature
        catalogue, which is missing without one; empty without a manifest.
    results, refusals
        Answers of the analysis by question, and why a question that was put has none.
    validations
        What knock-down screens say of the circuit.
    """

    name: str
    slug: str
    circuit: Circuit
    layers: pd.DataFrame
    results: dict[str, Result]
    refusals: dict[str, str]
    validations: list[ScreenTables]


def run_of_folder(run: str | Path, name: str) -> ReportRun:
    """The artefacts of a run folder that are there, under a name."""
    run = Path(run)

    def there(path: str) -> Path | None:
        return run / path if (run / path).exists() else None

    analysis = run / "analysis" if (run / "analysis" / "answers.parquet").exists() else None
    return ReportRun(
        name,
        run / "circuit",
        there("saes/manifest.json"),
        there("features/features.parquet"),
        analysis,
        screens_of(run),
    )


def load(runs: list[ReportRun]) -> list[RunTables]:
    """Read every run; names must be given and differ."""
    if not runs:
        raise ScircuitError("A report needs at least one run; pass a list of ReportRun.")
    names = [run.name for run in runs]
    if len(set(names)) < len(names) or not all(names):
        raise ScircuitError(f"The runs of a report need names that differ, got {names}; rename one of them.")
    return [_load(run, f"run{position}") for position, run in enumerate(runs)]


def _load(run: ReportRun, slug: str) -> RunTables:
    circuit = Circuit.read(run.circuit)
    results, refusals = _answers(circuit)
    if run.analysis is not None:
        results |= {path.stem: Result.read(path) for path in sorted(Path(run.analysis).glob("*.json"))}
    return RunTables(
        name=run.name,
        slug=slug,
        circuit=circuit,
        layers=_layers(run),
        results=results,
        refusals=refusals,
        validations=[read_screen(folder) for folder in run.validations],
    )


def _answers(circuit: Circuit) -> tuple[dict[str, Result], dict[str, str]]:
    results = {result.question: result for result in summarise(circuit).results}
    if len(circuit.edges) > COHERENCE_EDGES:
        why = f"more than {COHERENCE_EDGES:,} edges take long; ask the analysis and give its folder to the report."
        return results, {"coherence": why}
    try:
        return results | {"coherence": coherence(circuit)}, {}
    except ScircuitError as error:
        return results, {"coherence": str(error)}


def _layers(run: ReportRun) -> pd.DataFrame:
    layers = sae_layers(run.saes) if run.saes is not None else pd.DataFrame({"layer": []})
    if run.features is None:
        return layers
    if not Path(run.features).exists():
        raise ScircuitError(f"{run.features} does not exist; pass the features.parquet of the run, or None.")
    catalogue = pd.read_parquet(run.features, columns=["layer", "n_terms"])
    labelled = (catalogue["n_terms"] > 0).groupby(catalogue["layer"]).sum().rename("n_labelled")
    return layers.merge(labelled.reset_index(), how="left", on="layer")


def sae_layers(manifest: Path) -> pd.DataFrame:
    """One row per SAE of a manifest: `layer`, and every number recorded for it under its own name."""
    content = read_json(manifest)
    entries = content.get("layers") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise ScircuitError(f"{manifest} has no 'layers'; pass the manifest.json of a folder of SAEs.")
    found = []
    for layer, entry in entries.items():
        numbers = {**entry, **entry.get("metrics", {})}
        found.append({"layer": int(layer), **{key: value for key, value in numbers.items() if _is_number(value)}})
    return pd.DataFrame(found, columns=None if found else ["layer"]).sort_values("layer", ignore_index=True)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
