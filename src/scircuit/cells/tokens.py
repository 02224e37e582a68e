"""`TokenStore`: tokenised cells as ragged arrays, in memory or as the `tokens/` artefact of a run."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from scircuit._io import atomic, read_json, sha256_of
from scircuit._progress import progress
from scircuit._sealed import FILES, check, write_sealed
from scircuit._tables import read_parquet
from scircuit.cells.batch import Role, TokenBatch
from scircuit.cells.breadth import narrowness
from scircuit.cells.expression import Expression
from scircuit.cells.growing import Growing, map_arrays, write_arrays
from scircuit.cells.rank_value import CellTokens
from scircuit.cells.vocabulary import Vocabulary
from scircuit.errors import ScircuitError

log = logging.getLogger(__name__)


class Tokenizer(Protocol):
    """What turns one cell's counts into a sequence; see `rank_value` and `binning`."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Genes and special tokens."""
        ...

    @property
    def protocol(self) -> str:
        """`official` or `paper`."""
        ...

    @property
    def fingerprint(self) -> str:
        """sha256 of every rule and table that decides the sequence."""
        ...

    @property
    def pad(self) -> tuple[int, float | None]:
        """Token id and value of padding."""
        ...

    def cell(self, gene: np.ndarray, counts: np.ndarray, total: float, name: str) -> CellTokens:
        """Encode one cell."""
        ...


@dataclass(frozen=True)
class Batches:
    """Batches of a store: made as they are asked for, their number known before (so that time left can be told)."""

    store: "TokenStore"
    rows: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[TokenBatch]:
        return map(self.store.batch, self.rows)


@dataclass(frozen=True)
class TokenStore:
    """Tokenised cells.

    Attributes
    ----------
    tokens, gene, role, values
        All positions of all cells one after another, `[position]`; `values` None without them.
    offsets : int64 `[cell + 1]`
        Cell i is positions `offsets[i] : offsets[i + 1]`.
    cells : DataFrame
        `obs` of the kept cells (index = cell names) with the added column `_row`, the row in the AnnData.
    pad : tuple
        Token id and value of padding.
    info : dict
        How the tokens came about: protocol, tokenizer fingerprint, match, counts of kept and dropped cells.
    """

    tokens: np.ndarray
    gene: np.ndarray
    role: np.ndarray
    values: np.ndarray | None
    offsets: np.ndarray
    cells: pd.DataFrame
    pad: tuple[int, float | None]
    info: dict[str, Any]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Positions per cell, int64 `[cell]`."""
        return np.diff(self.offsets)

    @property
    def fingerprint(self) -> str:
        """sha256 of the sequences: equal iff a model sees the same input."""
        values = b"" if self.values is None else self.values
        return sha256_of(self.tokens, self.offsets, values)

    def batch(self, cells: np.ndarray) -> TokenBatch:
        """The cells `cells` (rows of this store), padded to the longest; `batch.cell` = those rows."""
        lengths = self.lengths[cells]
        shape = (len(cells), int(lengths.max(initial=1)))
        tokens = np.full(shape, self.pad[0], dtype=np.int64)
        gene = np.full(shape, -1, dtype=np.int32)
        role = np.full(shape, Role.PAD, dtype=np.int8)
        values = None if self.values is None else np.full(shape, self.pad[1], dtype=np.float32)
        for i, (cell, n) in enumerate(zip(cells, lengths, strict=True)):
            span = slice(self.offsets[cell], self.offsets[cell] + n)
            tokens[i, :n], gene[i, :n], role[i, :n] = self.tokens[span], self.gene[span], self.role[span]
            if values is not None and self.values is not None:
                values[i, :n] = self.values[span]
        return TokenBatch(tokens, role, gene, np.asarray(cells, dtype=np.int64), values)

    def batches(self, batch_size: int = 8, *, cells: np.ndarray | None = None, by_length: bool = True) -> Batches:
        """Batches over `cells` (default all); neighbours in length share a batch when `by_length`."""
        chosen = np.arange(len(self)) if cells is None else np.asarray(cells)
        if by_length:
            chosen = chosen[np.argsort(-self.lengths[chosen], kind="stable")]
        return Batches(self, tuple(chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)))

    def subset(self, cells: np.ndarray) -> "TokenStore":
        """Only the cells `cells` (rows of this store), in that order."""
        spans = [np.arange(self.offsets[c], self.offsets[c + 1]) for c in cells]
        at = np.concatenate(spans) if spans else np.zeros(0, dtype=np.int64)
        return replace(
            self, tokens=self.tokens[at], gene=self.gene[at], role=self.role[at],
            values=None if self.values is None else self.values[at],
            offsets=np.concatenate([[0], np.cumsum(self.lengths[cells])]).astype(np.int64),
            cells=self.cells.iloc[cells],
        )  # fmt: skip

    def write(self, folder: str | Path) -> None:
        """Write `tokens.safetensors`, `cells.parquet` and `tokens.json`, each atomically."""
        folder = Path(folder)
        arrays = {"tokens": self.tokens, "gene": self.gene, "role": self.role, "offsets": self.offsets}
        if self.values is not None:
            arrays["values"] = self.values
        with atomic(folder / "tokens.safetensors") as path:
            write_arrays(path, arrays)
        with atomic(folder / "cells.parquet") as path:
            _storable(self.cells).to_parquet(path)
        content = {"format_version": 1, "pad": list(self.pad), **self.info}
        write_sealed(folder / "tokens.json", content, ["tokens.safetensors", "cells.parquet"])

    @classmethod
    def read(cls, folder: str | Path) -> "TokenStore":
        """Read what `write` wrote."""
        folder = Path(folder)
        info = read_json(folder / "tokens.json")
        if info.pop("format_version") != 1:
            raise ScircuitError(f"{folder} was written by another version of scircuit; tokenize again.")
        info.pop(FILES, None)
        arrays = map_arrays(folder / "tokens.safetensors")
        check(folder / "tokens.safetensors")
        token, value = info.pop("pad")
        return cls(
            tokens=arrays["tokens"], gene=arrays["gene"], role=arrays["role"], values=arrays.get("values"),
            offsets=arrays["offsets"], cells=read_parquet(folder / "cells.parquet"),
            pad=(token, value), info=info,
        )  # fmt: skip


def tokenize(
    data: Any,
    tokenizer: Tokenizer,
    *,
    counts: str = "X",
    scale: str = "counts",
    counts_kind: str = "whole",
    gene_column: str | None = None,
    rows: np.ndarray | None = None,
    min_rate: float = 0.2,
) -> TokenStore:
    """Tokenise the cells `rows` (default all) of an AnnData, a DataFrame (cells x genes), or a file of any size.

    Files and folders are those of `cells.files.open_cells`; nothing is changed in what is read. Cells without any count
    in the vocabulary are dropped and counted in `info["n_empty"]`.

    Raises
    ------
    ScircuitError
        For a file that cannot be read; values that are not what `scale` and `counts_kind` say (see `CountSource`);
        foreign genes (see `match_genes`); no cell left.
    """
    expression = Expression.of(
        data, tokenizer.vocabulary, counts=counts, scale=scale, counts_kind=counts_kind, gene_column=gene_column,
        min_rate=min_rate,
    )  # fmt: skip
    adata, match = expression.source.adata, expression.match
    rows = np.arange(adata.n_obs) if rows is None else np.asarray(rows)
    names = adata.obs_names.to_numpy()
    sequences = _Sequences()
    kept: list[int] = []
    in_vocabulary = in_total = 0.0
    with progress(total=len(rows), desc="tokenize", unit="cell") as bar:
        for chosen, total, mapped in expression.blocks(rows):
            in_vocabulary, in_total = in_vocabulary + mapped.sum(), in_total + total.sum()
            for i, row in enumerate(chosen):
                span = slice(mapped.indptr[i], mapped.indptr[i + 1])
                if span.start < span.stop:
                    gene = mapped.indices[span]
                    sequences.add(tokenizer.cell(gene, mapped.data[span], total[i], str(names[row])), len(gene))
                    kept.append(int(row))
            bar.update(len(chosen))
    if not kept:
        raise ScircuitError("No cell has a count in the model's vocabulary; check counts= and gene_column=.")
    narrow = narrowness(int(match.is_gene.sum()), expression.n_vocabulary, np.array(sequences.n_genes))
    info = {
        "protocol": tokenizer.protocol,
        "tokenizer": tokenizer.fingerprint,
        "counts": counts,
        "scale": scale,
        "counts_kind": counts_kind,
        "genes": match.describe(),
        "gene_names": match.table.to_dict("records"),
        "n_genes_matched": match.n_genes,
        "n_columns_summed": match.n_summed,
        "share_of_counts_matched": round(float(in_vocabulary / max(in_total, 1e-12)), 6),
        "narrow": narrow,
        "n_cells": len(kept),
        "n_empty": len(rows) - len(kept),
    }
    if info["n_empty"]:
        log.warning("%d cells have no count in the vocabulary and were dropped", info["n_empty"])
    if narrow:
        log.warning(narrow)
    obs = adata.obs.iloc[kept].assign(_row=np.asarray(kept, dtype=np.int64))
    return sequences.store(obs, tokenizer.pad, info)


class _Sequences:
    """Cells' sequences, one after another, in memory or beyond it."""

    def __init__(self) -> None:
        self.n_genes: list[int] = []
        self._lengths: list[int] = []
        self._arrays = {"tokens": Growing(np.int64), "gene": Growing(np.int32), "role": Growing(np.int8)}
        self._values: Growing | None = None

    def add(self, cell: CellTokens, n_genes: int) -> None:
        """The next cell, with the number of genes it expresses."""
        for name, array in self._arrays.items():
            array.add(getattr(cell, name))
        if cell.values is not None:
            self._values = self._values or Growing(np.float32)
            self._values.add(cell.values)
        self._lengths.append(len(cell.tokens))
        self.n_genes.append(n_genes)

    def store(self, obs: pd.DataFrame, pad: tuple[int, float | None], info: dict[str, Any]) -> TokenStore:
        return TokenStore(
            **{name: array.array() for name, array in self._arrays.items()},
            values=None if self._values is None else self._values.array(),
            offsets=np.concatenate([[0], np.cumsum(self._lengths)]).astype(np.int64),
            cells=obs,
            pad=pad,
            info=info,
        )


def _storable(obs: pd.DataFrame) -> pd.DataFrame:
    """`obs` with columns that Parquet has no type for (words among numbers, lists) as text."""
    kinds = {name: pd.api.types.infer_dtype(obs[name], skipna=True) for name in obs if obs[name].dtype == object}
    odd = [name for name, kind in kinds.items() if kind not in ("string", "empty", "boolean", "integer", "floating")]
    obs = obs.copy(deep=False)
    for name in odd:
        obs[name] = obs[name].astype(str).where(obs[name].notna())
    return obs
