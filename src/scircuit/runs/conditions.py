"""Run folders as conditions that can be compared: under one rule, in one number of cells. No torch."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from scircuit._io import sha256_of
from scircuit.analysis.conditions import Condition
from scircuit.analysis.subsample import subsample
from scircuit.circuits.build import build_circuit
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.rule import EdgeRule
from scircuit.errors import ScircuitError


def open_conditions(
    runs: Sequence[str | Path],
    names: Sequence[str] | None = None,
    rule: EdgeRule | None = None,
    n_cells: int | None = None,
    seed: int = 0,
    models: Sequence[str] | None = None,
) -> list[Condition]:
    """The circuits of finished runs, each with its name, its model and its gene loadings.

    Parameters
    ----------
    runs : folders
    names : list of str, optional
        One per run; by default the names that the runs gave themselves.
    rule : EdgeRule, optional
        Build every circuit again from its trace under this rule; by default they stay as they are.
    n_cells : int, optional
        Build every circuit again as if it had been traced in so many of its cells, from the stored per-cell responses.
    seed : int
        Of the draw of cells.
    models : list of str, optional
        One per run: conditions of one name are taken together; by default the model that a run was traced in.

    Raises
    ------
    ScircuitError
        A folder holds no circuit or not the tables that are asked for, or names are missing or repeated.
    """
    folders = [Path(run) for run in runs]
    if names is not None and len(names) != len(folders):
        raise ScircuitError(f"{len(names)} names were given for {len(folders)} runs; give one for each.")
    if models is not None and len(models) != len(folders):
        raise ScircuitError(f"{len(models)} models were given for {len(folders)} runs; give one for each.")
    circuits = [_circuit(folder, rule, n_cells, seed) for folder in folders]
    named = list(names) if names is not None else [_name(c, f) for c, f in zip(circuits, folders, strict=True)]
    repeated = sorted({name for name in named if named.count(name) > 1})
    if repeated:
        raise ScircuitError(
            f"{named.count(repeated[0])} runs are called {repeated[0]!r}; give each its own name (--names)."
        )
    of = list(models) if models is not None else [model_of(circuit) for circuit in circuits]
    return [
        Condition(name, model, circuit, _genes(folder))
        for name, model, circuit, folder in zip(named, of, circuits, folders, strict=True)
    ]


def model_of(circuit: Circuit) -> str:
    """The model a circuit was traced in, `unknown` where its provenance does not say."""
    model = circuit.provenance.get("model", {})
    return str(model.get("name", "unknown"))


def identity(conditions: Sequence[Condition]) -> str:
    """Hash of what is compared: names, circuits, rules and cells."""
    return sha256_of([[c.name, c.model, c.circuit.run_id] for c in conditions])


def read_table(run: Path, name: str, how: str) -> pd.DataFrame:
    """A Parquet table of a run folder; refused with how to make it where it is not there."""
    path = run / name
    if not path.is_file():
        raise ScircuitError(f"{path} is not there; {how}.")
    return pd.read_parquet(path)


def need_circuit(run: Path) -> None:
    """Refuse a folder that holds no finished circuit."""
    if not (run / "circuit" / "run.json").is_file():
        raise ScircuitError(f"{run} holds no circuit; give the folder of a run that `scircuit trace` has finished.")


def _circuit(run: Path, rule: EdgeRule | None, n_cells: int | None, seed: int) -> Circuit:
    need_circuit(run)
    circuit = Circuit.read(run / "circuit")
    if rule is None and n_cells is None:
        return circuit
    effects, tests = (read_table(run, f"trace/{name}.parquet", "run `scircuit trace`") for name in ("effects", "tests"))
    scales = run / "trace" / "scales.parquet"
    provenance = dict(circuit.provenance)
    if n_cells is not None:
        if circuit.provenance.get("config", {}).get("trace", {}).get("units"):
            raise ScircuitError(
                f"{run} was tested over whole donors or batches (trace.units), which a draw of cells would break; "
                "trace it again in fewer cells."
            )
        how = "trace again: this trace kept no per-cell responses"
        cell_effects, source_cells = (
            read_table(run, f"trace/{name}.parquet", how) for name in ("cell_effects", "source_cells")
        )
        effects, tests = subsample(effects, tests, cell_effects, source_cells, n_cells, seed)
        provenance |= {"n_cells": n_cells, "subsampled_from": circuit.provenance.get("n_cells"), "subsample_seed": seed}
    if rule is None:
        rule = EdgeRule.recorded(circuit.provenance["thresholds"])
    # Scales were measured in all cells: in a draw of them nothing is told specific.
    known = pd.read_parquet(scales) if scales.is_file() and n_cells is None else None
    built = build_circuit(effects, tests, circuit.nodes, circuit.terms, rule, provenance, known)
    return built.at(built.provenance["grade"])


def _name(circuit: Circuit, folder: Path) -> str:
    return str(circuit.provenance.get("name") or folder.resolve().name)


def _genes(run: Path) -> pd.DataFrame | None:
    path = run / "features" / "genes.parquet"
    return pd.read_parquet(path) if path.is_file() else None
