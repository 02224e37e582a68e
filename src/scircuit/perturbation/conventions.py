"""How public CRISPR screens name their columns, and what their numbers are.

Phases: find the perturbation column and its control label, find lines and batches, find gene symbols, find the
scale of the matrix. Each is detected only where exactly one reading is possible; the rest is refused by name.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from scircuit.errors import ScircuitError

PERTURBATION_COLUMNS = ("perturbation", "gene", "gene_target", "target_gene", "target", "condition", "guide_target")
LINE_COLUMNS = ("cell_line", "cellline", "cell_type", "celltype")
BATCH_COLUMNS = ("gem_group", "batch", "bio_rep", "replicate", "donor", "sample", "lane", "library")
SYMBOL_COLUMNS = ("gene_name_index", "feature_name", "gene_name", "gene_symbol", "gene_symbols", "symbol")
SCALES = ("counts", "normalised", "log1p")
_CONTROLS = {
    "nontargeting", "nontarget", "nt", "ntc", "control", "controls", "ctrl", "negctrl", "negativecontrol",
    "unperturbed", "scramble", "scrambled", "safetargeting", "aavs1",
}  # fmt: skip
_LOG1P_CEILING = 30.0  # log1p of a cell's total stays below this; counts per ten thousand do not


def is_control_label(label: str) -> bool:
    """Whether a label is a usual name of unperturbed cells, whatever its case and punctuation."""
    return re.sub(r"[^a-z0-9]", "", str(label).lower()) in _CONTROLS


def find_perturbation(
    obs: pd.DataFrame, column: str | None, control: str | Sequence[str] | None
) -> tuple[str, list[str]]:
    """The perturbation column and its control labels, named or detected.

    Known conventions: `gene` with `non-targeting` (Replogle 2022), `perturbation` with `control` (scPerturb),
    `perturbation` or `gene_target` with `NT` (pertpy).
    """
    if column is None:
        column = _one_column(
            obs,
            [name for name in PERTURBATION_COLUMNS if name in obs and _controls_in(obs[name])],
            "perturbation",
            f"a column named one of {', '.join(PERTURBATION_COLUMNS)} that holds a control label",
        )
        if column is None:
            raise ScircuitError(
                f"the screen has no perturbation column with a control label (obs has {_listed(obs.columns)}); "
                "name both with perturbation=... and control=..."
            )
    require_column(obs, column, "perturbation")
    if control is None:
        controls = _controls_in(obs[column])
        if len(controls) > 1:
            raise ScircuitError(
                f"column {column!r} holds several control labels ({', '.join(controls)}); "
                "name the ones to use with control=..."
            )
    else:
        controls = [control] if isinstance(control, str) else list(control)
        controls = [label for label in controls if (obs[column].astype(str) == label).any()]
    if not controls:
        asked = "no usual control label" if control is None else f"no control label {control!r}"
        raise ScircuitError(
            f"column {column!r} holds {asked} (it has {_listed(obs[column].dropna().unique())}); effects are "
            "measured against unperturbed cells, so name their label with control=..."
        )
    return column, controls


def find_factor(obs: pd.DataFrame, column: str | None, names: Sequence[str], role: str) -> str | None:
    """A batch or line column: named, or the only known one with more than one level; None if there is none."""
    if column != "detect":
        if column is not None:
            require_column(obs, column, role)
        return column
    present = [name for name in names if name in obs and obs[name].nunique() > 1]
    return _one_column(obs, present, role, "one column")


def find_symbols(var: pd.DataFrame, column: str | None) -> pd.Index:
    """Gene symbols of the columns of X; Ensembl ids are replaced through a known or named `var` column."""
    if column is not None:
        if column not in var:
            raise ScircuitError(
                f"var has no column {column!r} (it has {_listed(var.columns)}); name the column of gene symbols."
            )
        return pd.Index(var[column].astype(str))
    names = pd.Index(var.index.astype(str))
    known = next((name for name in SYMBOL_COLUMNS if name in var), None)
    ensembl = np.mean(names.str.match(r"ENS[A-Z]*G\d")) >= 0.5
    numbered = np.mean(names.str.fullmatch(r"\d+")) > 0.5
    if known is not None and (ensembl or numbered):
        return pd.Index(var[known].astype(str))
    if ensembl:
        raise ScircuitError(
            "the genes of the screen are Ensembl ids and no var column of symbols is known "
            f"(var has {_listed(var.columns)}); name it with genes=..."
        )
    return names


def find_scale(values: np.ndarray, log1p_recorded: bool, scale: str | None) -> str:
    """Whether a sample of X holds `counts`, `normalised` (not logged) or `log1p` values."""
    if scale is not None and scale not in SCALES:
        raise ScircuitError(f"scale {scale!r} is unknown; choose one of {', '.join(SCALES)}.")
    refuse_negative(values)
    whole = bool(np.all(values == np.rint(values)))
    if scale == "counts" and not whole:
        raise ScircuitError(
            "the matrix is said to hold counts but has fractions; point layer=... to the raw counts or say "
            "scale='log1p'."
        )
    if scale is not None:
        return scale
    if whole:
        return "counts"
    return "log1p" if log1p_recorded or values.max(initial=0.0) < _LOG1P_CEILING else "normalised"


def refuse_negative(values: np.ndarray) -> None:
    """Raise if any value is negative or not finite: means of scaled data have no fold change."""
    if values.size and not values.min() >= 0:
        raise ScircuitError(
            "the matrix holds negative or missing values, so it was scaled or regressed; point layer=... to "
            "counts or log-normalised values."
        )


def require_column(obs: pd.DataFrame, column: str, role: str) -> None:
    """Raise unless `obs` has the column."""
    if column not in obs:
        raise ScircuitError(
            f"obs has no column {column!r} for the {role} (it has {_listed(obs.columns)}); name one of them."
        )


def _controls_in(column: pd.Series) -> list[str]:
    return sorted(str(label) for label in column.dropna().unique() if is_control_label(label))


def _one_column(obs: pd.DataFrame, names: list[str], role: str, wanted: str) -> str | None:
    if len(names) > 1:
        first = obs[names[0]].astype(str).to_numpy()
        differing = [name for name in names if not np.array_equal(obs[name].astype(str).to_numpy(), first)]
        if differing:
            raise ScircuitError(
                f"{len(differing) + 1} columns could be the {role} ({', '.join([names[0], *differing])}); "
                f"this needs {wanted}: name it with {role}=..."
            )
    return names[0] if names else None


def _listed(values: Any, limit: int = 8) -> str:
    names = [str(value) for value in values]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
