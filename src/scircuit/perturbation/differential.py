"""Differential expression of every perturbation against the controls of its own strata, cached by content."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scircuit._io import atomic, sha256_of
from scircuit.errors import ScircuitError
from scircuit.perturbation.pseudobulk import deseq2
from scircuit.perturbation.rank import wilcoxon
from scircuit.perturbation.screen import Screen
from scircuit.perturbation.statistics import PSEUDOCOUNT, fold_change, group_sums, paper_fold_change
from scircuit.stats.multiple import benjamini_hochberg

log = logging.getLogger(__name__)

METHODS = ("wilcoxon", "pseudobulk", "paper")
FORMAT_VERSION = "1"
_COLUMNS = ("log2_fold_change", "standard_error", "p_value", "q_value", "mean_control")


@dataclass(frozen=True)
class Effects:
    """Effects of perturbations on genes."""

    perturbations: pd.DataFrame
    """`label, gene` (the targeted gene), `n_cells, n_controls`, one row per perturbation."""
    genes: pd.Index
    """Index `[gene]`: measured genes."""
    log2_fold_change: np.ndarray
    standard_error: np.ndarray
    """float64 `[perturbation, gene]`: against controls of the same strata; NaN where a method gives none."""
    p_value: np.ndarray
    q_value: np.ndarray
    """float64 `[perturbation, gene]`: two-sided; q by Benjamini-Hochberg over the genes of one perturbation, its own
    gene left out."""
    mean_control: np.ndarray
    """float64 `[perturbation, gene]`: counts per ten thousand in the matched controls."""
    method: str
    """`wilcoxon`, `pseudobulk` or `paper`."""

    def table(self) -> pd.DataFrame:
        """Long table: `label, target, gene` and the five statistics, one row per (perturbation, gene)."""
        n = len(self.genes)
        return pd.DataFrame(
            {
                "label": np.repeat(self.perturbations["label"].to_numpy(), n),
                "target": np.repeat(self.perturbations["gene"].to_numpy(), n),
                "gene": np.tile(self.genes.to_numpy(), len(self.perturbations)),
                **{name: getattr(self, name).ravel() for name in _COLUMNS},
            }
        )

    def write(self, path: str | Path) -> None:
        """Write one Parquet file: a row per perturbation, a list of genes per statistic."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {name: list(self.perturbations[name]) for name in self.perturbations}
        columns |= {name: list(getattr(self, name)) for name in _COLUMNS}
        metadata = {
            "format_version": FORMAT_VERSION,
            "method": self.method,
            "genes": "\n".join(map(str, self.genes)),
        }
        with atomic(path) as temporary:
            pq.write_table(pa.table(columns).replace_schema_metadata(metadata), temporary)

    @classmethod
    def read(cls, path: str | Path) -> "Effects":
        """Read what `write` wrote."""
        import pyarrow.parquet as pq

        if not Path(path).is_file():
            raise ScircuitError(f"{path} does not exist; give a Parquet file written by Effects.write.")
        table = pq.read_table(path)
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        if metadata.get("format_version") != FORMAT_VERSION or "genes" not in metadata:
            raise ScircuitError(f"{path} is no table of effects (format {FORMAT_VERSION}); write it again.")
        frame = table.select(["label", "gene", "n_cells", "n_controls"]).to_pandas()
        arrays = {name: np.stack(table[name].to_numpy()) for name in _COLUMNS}
        return cls(frame, pd.Index(metadata["genes"].split("\n")), **arrays, method=metadata["method"])


def differential_expression(
    screen: Screen,
    method: str = "wilcoxon",
    pseudocount: float = PSEUDOCOUNT,
    cache: str | Path | None = None,
    memory: float = 2e9,
) -> Effects:
    """Test every (perturbation, gene) of a screen.

    `wilcoxon` is the rank-sum test stratified by (line, batch), with the fold change of stratum-matched means, to both
    of which `pseudocount` counts per ten thousand are added; `pseudobulk` is DESeq2 on counts summed per (perturbation,
    stratum); `paper` is log2(mean X + 1) against all controls without a test (arXiv 2603.01752): p and q are NaN.

    Results in the folder `cache` are named by a hash of data, cells and settings, and read where they are there. A
    block of genes takes `memory` bytes.
    """
    if method not in METHODS:
        raise ScircuitError(f"method {method!r} is unknown; choose one of {', '.join(METHODS)}.")
    path = None
    if cache is not None:
        key = sha256_of(screen.key(), method, float(pseudocount), FORMAT_VERSION)
        path = Path(cache) / f"effects-{key[:16]}.parquet"
        if path.is_file():
            log.info("differential expression is read from %s", path)
            return Effects.read(path)
    effects = _compute(screen, method, pseudocount, memory)
    if path is not None:
        effects.write(path)
    return effects


def _compute(screen: Screen, method: str, pseudocount: float, memory: float) -> Effects:
    sums = group_sums(screen, raw=method == "paper")
    change = fold_change(sums, pseudocount)
    nothing = np.full(change.mean.shape, np.nan)
    if method == "wilcoxon":
        lfc, error, p_value = (
            change.log2_fold_change, change.standard_error, wilcoxon(screen, memory).p_value
        )  # fmt: skip
    elif method == "pseudobulk":
        lfc, error, p_value = deseq2(screen)
    else:
        lfc, error, p_value = paper_fold_change(sums), nothing, nothing
    if (empty := sums.treated.n == 0).any():
        log.warning("%d perturbations have no cell in a stratum with controls and get no effect", empty.sum())
    own = screen.genes.get_indexer(pd.Index(screen.labels["gene"]))
    for store in (lfc, error, p_value):
        store[empty] = np.nan
    return Effects(
        perturbations=screen.labels.assign(n_cells=sums.treated.n, n_controls=change.n_controls),
        genes=screen.genes,
        log2_fold_change=lfc,
        standard_error=error,
        p_value=p_value,
        q_value=_q_values(p_value, own),
        mean_control=change.mean_control,
        method=method,
    )


def _q_values(p_value: np.ndarray, own: np.ndarray) -> np.ndarray:
    q_value = np.full_like(p_value, np.nan)
    for row, column in enumerate(own):
        tested = np.isfinite(p_value[row])
        if column >= 0:
            tested[column] = False
        q_value[row, tested] = benjamini_hochberg(p_value[row, tested])
    return q_value
