"""`TokenStore`: tokenised cells as ragged arrays, in memory or as the `tokens/` artefact of a run."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from scircuit._io import atomic, read_json, sha256_of, write_json
from scircuit._progress import progress
from scircuit.cells.batch import Role, TokenBatch
from scircuit.cells.counts import CountSource
from scircuit.cells.matching import match_genes
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
        from safetensors.numpy import save_file

        folder = Path(folder)
        arrays = {"tokens": self.tokens, "gene": self.gene, "role": self.role, "offsets": self.offsets}
        if self.values is not None:
            arrays["values"] = self.values
        with atomic(folder / "tokens.safetensors") as path:
            save_file(arrays, path)
        with atomic(folder / "cells.parquet") as path:
            self.cells.to_parquet(path)
        write_json(folder / "tokens.json", {"format_version": 1, "pad": list(self.pad), **self.info})

    @classmethod
    def read(cls, folder: str | Path) -> "TokenStore":
        """Read what `write` wrote."""
        from safetensors.numpy import load_file

        folder = Path(folder)
        info = read_json(folder / "tokens.json")
        if info.pop("format_version") != 1:
            raise ScircuitError(f"{folder} was written by another version of scircuit; tokenize again.")
        arrays = load_file(folder / "tokens.safetensors")
        token, value = info.pop("pad")
        return cls(
            tokens=arrays["tokens"], gene=arrays["gene"], role=arrays["role"], values=arrays.get("values"),
            offsets=arrays["offsets"], cells=pd.read_parquet(folder / "cells.parquet"),
            pad=(token, value), info=info,
        )  # fmt: skip


def tokenize(
    adata: Any,
    tokenizer: Tokenizer,
    *,
    counts: str = "X",
    scale: str = "counts",
    gene_column: str | None = None,
    rows: np.ndarray | None = None,
    min_rate: float = 0.2,
) -> TokenStore:
    """Tokenise the cells `rows` (default all) of an AnnData, backed or in memory; nothing of it is changed.

    Cells without any count in the vocabulary are dropped and counted in `info["n_empty"]`.

    Raises
    ------
    ScircuitError
        For anything but raw counts (see `CountSource`), foreign genes (see `match_genes`), no cell left.
    """
    source = CountSource(adata, counts, scale)
    match = match_genes(source.var, tokenizer.vocabulary, gene_column=gene_column, min_rate=min_rate)
    projection = match.projection(len(tokenizer.vocabulary.genes))
    rows = np.arange(adata.n_obs) if rows is None else np.asarray(rows)
    names = adata.obs_names.to_numpy()
    cells: list[CellTokens] = []
    kept: list[int] = []
    in_vocabulary = in_total = 0.0
    with progress(total=len(rows), desc="tokenize", unit="cell") as bar:
        for chosen, block in source.blocks(rows):
            total = np.asarray(block.sum(axis=1)).ravel()
            mapped = (block @ projection).tocsr()
            mapped.sort_indices()
            in_vocabulary, in_total = in_vocabulary + mapped.sum(), in_total + total.sum()
            for i, row in enumerate(chosen):
                span = slice(mapped.indptr[i], mapped.indptr[i + 1])
                if span.start < span.stop:
                    gene = mapped.indices[span]
                    cells.append(tokenizer.cell(gene, mapped.data[span], total[i], str(names[row])))
                    kept.append(int(row))
            bar.update(len(chosen))
    if not cells:
        raise ScircuitError("No cell has a count in the model's vocabulary; check counts= and gene_column=.")
    info = {
        "protocol": tokenizer.protocol,
        "tokenizer": tokenizer.fingerprint,
        "counts": counts,
        "scale": scale,
        "genes": match.describe(),
        "n_genes_matched": match.n_genes,
        "share_of_counts_matched": round(float(in_vocabulary / max(in_total, 1e-12)), 6),
        "n_cells": len(kept),
        "n_empty": len(rows) - len(kept),
    }
    if info["n_empty"]:
        log.warning("%d cells have no count in the vocabulary and were dropped", info["n_empty"])
    obs = adata.obs.iloc[kept].assign(_row=np.asarray(kept, dtype=np.int64))
    return _store(cells, obs, tokenizer.pad, info)


def _store(
    cells: list[CellTokens], obs: pd.DataFrame, pad: tuple[int, float | None], info: dict[str, Any]
) -> TokenStore:
    values = [c.values for c in cells if c.values is not None]
    return TokenStore(
        tokens=np.concatenate([c.tokens for c in cells]),
        gene=np.concatenate([c.gene for c in cells]),
        role=np.concatenate([c.role for c in cells]),
        values=np.concatenate(values) if values else None,
        offsets=np.concatenate([[0], np.cumsum([len(c.tokens) for c in cells])]).astype(np.int64),
        cells=obs,
        pad=pad,
        info=info,
    )
