"""Opening a screen: which cells are kept, what perturbs them, and with which controls they are compared."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit._io import sha256_of
from scircuit.cells.counts import CountSource
from scircuit.cells.files import open_cells
from scircuit.errors import ScircuitError
from scircuit.perturbation import conventions
from scircuit.perturbation.screen import Screen

log = logging.getLogger(__name__)


def open_screen(
    data: Any,
    *,
    perturbation: str | None = None,
    control: str | Sequence[str] | None = None,
    targets: Mapping[str, str] | None = None,
    line: str | None = "detect",
    lines: str | Sequence[str] | None = None,
    batch: str | None = "detect",
    batches: Sequence[str] | None = None,
    genes: str | None = None,
    layer: str | None = None,
    scale: str | None = None,
    min_cells: int = 30,
) -> Screen:
    """Open a screen: an AnnData, or the path of a file of any format that `open_cells` reads, of any size.

    Parameters
    ----------
    data : AnnData or path
        Cells x genes; X dense or CSR, in memory, backed, or on disk.
    perturbation, control : str, optional
        Column of `obs` and label(s) of unperturbed cells; detected where only one reading is possible.
    targets : mapping, optional
        Label -> symbol of the gene it targets, where the labels are not gene symbols (guides, enhancers).
    line, lines : str, optional
        Column of cell lines and the line(s) to keep; `lines="all"` pools lines on purpose.
    batch, batches : str, optional
        Column of batches and the batches to keep; None takes the screen for one batch.
    genes : str, optional
        Column of `var` with gene symbols.
    layer, scale : str, optional
        Layer to read instead of X; `counts`, `normalised` or `log1p`, detected from the values.
    min_cells : int
        Perturbations with fewer cells are left out.
    """
    if isinstance(data, str | Path):
        data = open_cells(data)
    matrix, origin = _matrix(data, layer)
    obs = data.obs
    column, controls = conventions.find_perturbation(obs, perturbation, control)
    symbols = conventions.find_symbols(data.var, genes)
    batch = conventions.find_factor(obs, batch, conventions.BATCH_COLUMNS, "batch")
    line = conventions.find_factor(obs, line, [name for name in conventions.LINE_COLUMNS if name != batch], "line")
    keep, line_name = _keep(obs, column, line, lines, batch, batches)

    label_text = obs[column].astype(str).to_numpy()
    table = _label_table(np.unique(label_text[keep]), controls, targets)
    keep &= np.isin(label_text, [*table["label"], *controls])
    cells = np.flatnonzero(keep)
    code = pd.Index(table["label"]).get_indexer(pd.Index(label_text[cells])).astype(np.int32)
    stratum, strata = _strata(obs.iloc[cells], [name for name in (line, batch) if name is not None])
    n_controls = int((code < 0).sum())
    if n_controls < max(min_cells, 2):
        raise ScircuitError(
            f"the screen keeps {n_controls} control cells after filtering; at least {max(min_cells, 2)} are "
            "needed: widen lines or batches, or lower min_cells."
        )
    screen = Screen(
        matrix=matrix,
        genes=_unique(symbols),
        labels=table,
        cells=cells,
        label=code,
        stratum=stratum,
        strata=strata,
        line=line_name,
        scale=conventions.find_scale(_sample(matrix), layer is None and "log1p" in data.uns, scale),
        fingerprint=sha256_of(origin, layer or "", column, controls, list(symbols)),
    )
    return screen.select(min_cells=min_cells)


def _matrix(data: Any, layer: str | None) -> tuple[Any, str]:
    """A matrix that can be sliced by rows, and what identifies its values."""
    if layer is not None and layer not in data.layers:
        raise ScircuitError(f"the screen has no layer {layer!r} (it has {', '.join(data.layers) or 'none'}).")
    matrix = CountSource(data, "X" if layer is None else f"layer:{layer}").matrix
    if sparse.issparse(matrix):
        matrix = matrix.tocsr()
        return matrix, sha256_of(matrix.data, matrix.indices, matrix.indptr)
    if isinstance(matrix, np.ndarray):
        return matrix, sha256_of(np.ascontiguousarray(matrix))
    path = Path(data.filename)
    return matrix, f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}"


def _sample(matrix: Any, n_rows: int = 256) -> np.ndarray:
    """Values of some rows at the start, the middle and the end."""
    total = matrix.shape[0]
    values = []
    for start in sorted({0, max(0, total // 2 - n_rows), max(0, total - n_rows)}):
        rows = matrix[start : min(start + n_rows, total)]
        values.append(rows.data if sparse.issparse(rows) else np.asarray(rows).ravel())
    return np.concatenate(values)


def _keep(
    obs: pd.DataFrame,
    column: str,
    line: str | None,
    lines: str | Sequence[str] | None,
    batch: str | None,
    batches: Sequence[str] | None,
) -> tuple[np.ndarray, str]:
    """Mask of cells with a label in the chosen lines and batches, and the name of the line."""
    keep = obs[column].notna().to_numpy()
    name = ""
    if line is not None:
        present = sorted(obs[line].dropna().astype(str).unique())
        if lines is None and len(present) > 1:
            raise ScircuitError(
                f"the screen mixes {len(present)} lines in {line!r} ({', '.join(present[:6])}); their effects "
                "differ, so choose with lines=..., or pool them on purpose with lines='all'."
            )
        name = "all" if lines == "all" else "+".join(present)
        if lines is not None and lines != "all":
            chosen = [lines] if isinstance(lines, str) else list(lines)
            keep = keep & _levels(obs[line], chosen, line)
            name = "+".join(chosen)
    elif lines is not None:
        raise ScircuitError("lines=... was given but the screen has no column of lines; name it with line=...")
    if batches is not None:
        if batch is None:
            raise ScircuitError("batches=... was given but the screen has no column of batches; name it with batch=...")
        keep = keep & _levels(obs[batch], list(batches), batch)
    return keep, name


def _levels(column: pd.Series, chosen: list[str], name: str) -> np.ndarray:
    text = column.astype(str)
    unknown = sorted(set(chosen) - set(text))
    if unknown:
        raise ScircuitError(f"column {name!r} has no level {unknown[0]!r} (it has {', '.join(sorted(set(text))[:8])}).")
    return text.isin(chosen).to_numpy()


def _label_table(labels: np.ndarray, controls: list[str], targets: Mapping[str, str] | None) -> pd.DataFrame:
    """`label, gene` of single perturbations; combinations (`A+B`) are left out, `A+ctrl` is A."""
    unknown = sorted(set(targets or ()) - set(labels))
    if unknown:
        raise ScircuitError(f"targets names the label {unknown[0]!r}, which no kept cell carries.")
    rows, combinations = [], 0
    for label in labels:
        if label in controls:
            continue
        parts = [part for part in str(label).split("+") if not conventions.is_control_label(part)]
        gene = (targets or {}).get(label, parts[0] if len(parts) == 1 else None)
        combinations += gene is None
        if gene is not None:
            rows.append((label, gene))
    if combinations:
        log.info("%d combinations of perturbations are left out", combinations)
    return pd.DataFrame(rows, columns=["label", "gene"])


def _strata(obs: pd.DataFrame, columns: list[str]) -> tuple[np.ndarray, list[str]]:
    if not columns:
        return np.zeros(len(obs), dtype=np.int32), [""]
    name = obs[columns].astype(str).agg(" / ".join, axis=1)
    codes, names = pd.factorize(name, sort=True)
    return codes.astype(np.int32), [str(level) for level in names]


def _unique(symbols: pd.Index) -> pd.Index:
    """Repeated symbols get a number from the second on, so that each keeps its own column."""
    repeat = symbols.to_series().groupby(symbols.to_numpy()).cumcount().to_numpy()
    return pd.Index([f"{name}-{n}" if n else name for name, n in zip(symbols, repeat, strict=True)])
