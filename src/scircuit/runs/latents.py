"""Latents as the variables of an AnnData, with what a run knows of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scircuit.circuits.artefacts import Artefacts

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy import sparse

    from scircuit.runs.run import Run

KEY = "scircuit"
"""In `uns`: `features` (a row per latent), of a run also `edges`, `grade` and `run`."""


def as_anndata(run: "Run") -> "AnnData":
    """Every cell of a run by every latent; see `Run.to_anndata`."""
    from scircuit.features.activations import cell_activations

    store, model = run.cells(), run.model()
    saes = run.saes(model)
    known = described(run, {layer: sae.n_latents for layer, sae in saes.items()})
    return of_latents(cell_activations(model, store, saes), known, store.cells.drop(columns="_row"))


def of_latents(
    activations: "Mapping[int, sparse.csr_matrix]", known: Mapping[str, Any], obs: pd.DataFrame
) -> "AnnData":
    """An AnnData of the activations by layer; `known` as `described` gives. Variables are called `L02_F0017`."""
    from anndata import AnnData
    from scipy import sparse

    x = sparse.hstack([activations[layer] for layer in sorted(activations)], format="csr")
    var = known["features"]
    ends = zip(var["layer"].astype(int), var["feature"].astype(int), strict=True)
    names = [f"L{layer:02d}_F{feature:04d}" for layer, feature in ends]
    return AnnData(x, obs=obs.copy(), var=var.set_index(pd.Index(names)), uns={KEY: dict(known)})


def described(run: Artefacts | None, widths: Mapping[int, int]) -> dict[str, Any]:
    """What goes into `uns`: tables that h5ad takes, gene lists joined."""
    rows = [(layer, f) for layer, n in sorted(widths.items()) for f in range(n)]
    table = pd.DataFrame(rows, columns=["layer", "feature"])
    if run is None:
        return {"features": _plain(table)}
    if run.has("features"):
        known = run.table("features").drop_duplicates(["layer", "feature"])
        table = table.merge(known, on=["layer", "feature"], how="left")
    content: dict[str, Any] = {"features": _plain(table), "run": str(run.root)}
    if run.has("circuit"):
        circuit = run.circuit()
        content |= {"edges": _plain(circuit.edges), "grade": circuit.widest}
    return content


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """As h5ad takes it: lists joined, categories and missing words as text, rows called by text."""
    found = {}
    for name, column in table.items():
        if column.dtype == object or isinstance(column.dtype, pd.CategoricalDtype | pd.StringDtype):
            column = column.map(_text, na_action=None).astype(object)
        found[name] = column.to_numpy()
    return pd.DataFrame(found, index=pd.RangeIndex(len(table)).astype(str))


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple, np.ndarray)):
        return ", ".join(map(str, value))
    return "" if value is None or value != value else str(value)


def _names(var: pd.DataFrame) -> list[str]:
    ends = zip(var["layer"].astype(int), var["feature"].astype(int), strict=True)
    return [f"L{layer:02d}_F{feature:04d}" for layer, feature in ends]
