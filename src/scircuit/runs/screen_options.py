"""`ScreenOptions`: how a screen is read and tested, with what the command line says of each field."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scircuit.errors import ScircuitError

if TYPE_CHECKING:
    from scircuit.perturbation import Screen


def _said(
    default: Any, text: str, metavar: str | None = None, *, flag: str | None = None, least: int | None = None,
    read: Callable[[str], Any] | None = None,
) -> Any:  # fmt: skip
    """A field with its help; as an option it is called `flag`, has a least value, and is read from text by `read`."""
    return field(default=default, metadata={"help": text, "metavar": metavar, "flag": flag, "min": least, "read": read})


def _column(text: str) -> str | None:
    return None if text == "none" else text


def _genes_of_labels(path: str) -> Mapping[str, str]:
    """Label -> gene from a table."""
    from scircuit._packed import read_delimited

    if not Path(path).is_file():
        raise ScircuitError(f"{path} does not exist; give a CSV with the columns label and gene.")
    table = read_delimited(path, dtype=str)
    if not {"label", "gene"} <= set(table):
        raise ScircuitError(f"{path} has the columns {', '.join(map(str, table.columns))}; it needs label and gene.")
    return dict(zip(table["label"], table["gene"], strict=True))


@dataclass(frozen=True)
class ScreenOptions:
    """How a screen is read and tested; names and values as in `scircuit.perturbation.open_screen`.

    `targets` maps labels to genes, `line` and `batch` may be None for none, and a gene responds if besides its q its
    |log2 fold change| reaches `min_abs_log2_fold_change`.
    """

    perturbation: str | None = _said(None, "obs column of perturbations; by default detected.", "COLUMN")
    control: tuple[str, ...] = _said((), "Label of unperturbed cells; by default detected.", "LABEL")
    targets: Mapping[str, str] | None = _said(
        None, "CSV with label, gene, where labels are not gene symbols.", "TABLE", read=_genes_of_labels
    )
    line: str | None = _said("detect", "obs column of cell lines.", "COLUMN", flag="--line-column")
    lines: tuple[str, ...] = _said((), "Cell line to keep, or all to pool on purpose.", "NAME", flag="--line")
    batch: str | None = _said(
        "detect", "obs column of batches, or none.", "COLUMN", flag="--batch-column", read=_column
    )
    batches: tuple[str, ...] = _said((), "Batch to keep; by default all.", "NAME", flag="--batch")
    genes: str | None = _said(None, "var column of gene symbols; by default detected.", "COLUMN")
    layer: str | None = _said(None, "Layer to read instead of X.", "NAME")
    scale: str | None = _said(None, "counts, normalised or log1p; by default detected.")
    min_cells: int = _said(30, "Leave out perturbations with fewer cells.", least=1)
    max_fall: float | None = _said(
        None, "Keep perturbations whose own gene falls to this log2 fold change, as -0.5.", "LFC"
    )
    method: str = _said("wilcoxon", "wilcoxon or pseudobulk (DESeq2).")
    alpha: float = _said(0.05, "A gene responds below this q.")
    min_abs_log2_fold_change: float = 0.0

    def open(self, path: str | Path) -> "Screen":
        """The screen with these columns, lines and batches; perturbations that do not work are left out last."""
        from scircuit.perturbation import effective, open_screen

        lines = "all" if self.lines == ("all",) else list(self.lines) or None
        screen = open_screen(
            path, perturbation=self.perturbation, control=list(self.control) or None, targets=self.targets,
            line=self.line, lines=lines, batch=self.batch, batches=list(self.batches) or None, genes=self.genes,
            layer=self.layer, scale=self.scale, min_cells=self.min_cells,
        )  # fmt: skip
        return screen if self.max_fall is None else effective(screen, self.max_fall)
