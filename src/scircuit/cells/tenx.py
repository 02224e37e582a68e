"""What 10x's Cell Ranger and its kin write: `.h5` of any version, and the folder with matrix.mtx; read by cells."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scircuit._io import sha256_of
from scircuit._packed import most_bytes, open_packed, read_delimited
from scircuit.cells.by_rows import Entries, in_rows
from scircuit.cells.opened import CompressedCells, Opened
from scircuit.errors import ScircuitError

_LINES = 1 << 22
"""Entries of a matrix.mtx parsed at once."""
_LEAST = 6
"""Bytes of the shortest entry, `1 1 1` and its end of line."""


def open_tenx(path: Path, file: Any) -> Opened:
    """A 10x `.h5`: `matrix` since Cell Ranger 3, a group per genome before (the human one is taken)."""
    group = file["matrix"] if "matrix" in file else file[_genome(path, _genomes(file))]
    features = group.get("features", group)
    names = {"gene_names": "name", "gene_ids": "id", "feature_types": "feature_type", "genome": "genome"}
    if "features" not in group:
        names = {"gene_names": "gene_names", "gene_ids": "genes"}
    var = pd.DataFrame({ours: features[theirs].asstr()[:] for ours, theirs in names.items() if theirs in features})
    obs = pd.DataFrame(index=pd.Index(group["barcodes"].asstr()[:]))
    shape = (int(group["shape"][1]), int(group["shape"][0]))
    counts = CompressedCells(group, shape, np.asarray(group["indptr"][:], dtype=np.int64))
    return Opened(path, obs, var.set_index("gene_names"), counts)


def is_tenx(file: Any) -> bool:
    """Whether an HDF5 file is one of 10x's."""
    return bool(_genomes(file))


def _genomes(file: Any) -> list[str]:
    return [name for name in file if all(f"{name}/{part}" in file for part in ("barcodes", "indptr", "data"))]


def _genome(path: Path, genomes: list[str]) -> str:
    human = [name for name in genomes if re.match(r"GRCh3[78]|hg(19|38)", name)]
    if len(genomes) == 1 or len(human) == 1:
        return (human or genomes)[0]
    raise ScircuitError(
        f"{path} holds the genomes {', '.join(genomes)}, none or several of them human; write the one you mean with "
        "scanpy.read_10x_h5(path, genome=NAME).write_h5ad."
    )


def is_mtx_folder(folder: Path) -> bool:
    """Whether a folder holds a matrix.mtx, gzipped or not, under any prefix."""
    return bool(_found(folder, "matrix.mtx"))


def open_mtx_folder(folder: Path) -> Opened:
    """A folder with `matrix.mtx`, `features.tsv` (or `genes.tsv`) and `barcodes.tsv`, `.gz` or not, prefix or not.

    Raises
    ------
    ScircuitError
        When a file is missing or comes twice, the matrix is no coordinate matrix, or the sizes disagree.
    """
    matrix = _one(folder, "matrix.mtx")
    genes = _table(_one(folder, "features.tsv" if _found(folder, "features.tsv") else "genes.tsv"))
    cells = _table(_one(folder, "barcodes.tsv"))
    names = ["gene_ids", "gene_names", "feature_types"][: genes.shape[1]]
    var = pd.DataFrame({name: genes[i].to_numpy() for i, name in enumerate(names)})
    var.index = pd.Index(genes[min(1, genes.shape[1] - 1)].to_numpy())
    obs = pd.DataFrame(index=pd.Index(cells[0].to_numpy()))
    header, rows, columns, number = _header(matrix)
    if (rows, columns) not in ((len(var), len(obs)), (len(obs), len(var))):
        raise ScircuitError(
            f"{matrix} is {rows:,} x {columns:,}, but there are {len(var):,} features and {len(obs):,} barcodes in "
            f"{folder}; take the three files of one output."
        )
    swapped = (rows, columns) != (len(var), len(obs))
    parts = _entries(matrix, header, swapped)
    stat = matrix.stat()
    identity = sha256_of(str(matrix.resolve()), stat.st_size, stat.st_mtime_ns)
    return Opened(folder, obs, var, in_rows(Entries((len(obs), len(var)), number, parts, identity), str(matrix)))


def _found(folder: Path, name: str) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name.endswith((name, f"{name}.gz")))


def _one(folder: Path, name: str) -> Path:
    found = _found(folder, name)
    if len(found) > 1:
        raise ScircuitError(
            f"{folder} holds {found[0].name} and {found[1].name}; put the three files of one sample into a folder."
        )
    if not found:
        needed = "matrix.mtx, features.tsv (or genes.tsv) and barcodes.tsv, gzipped or not"
        raise ScircuitError(f"{folder} has no {name}; a folder of counts holds {needed}.")
    return found[0]


def _table(path: Path) -> pd.DataFrame:
    return read_delimited(path, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=3)


def _header(path: Path) -> tuple[int, int, int, int]:
    """Lines before the entries; rows, columns and entries."""
    try:
        with io.TextIOWrapper(open_packed(path), encoding="utf-8") as file:
            for i, line in enumerate(file):
                if i == 0 and not re.match(r"%%MatrixMarket matrix coordinate (integer|real) general", line):
                    began = line.strip()[:60]
                    raise ScircuitError(f"{path} is no coordinate matrix of numbers; it begins with {began!r}.")
                if not line.startswith("%") and line.strip():
                    rows, columns, number = map(int, line.split())
                    if number > most_bytes(path) // _LEAST:
                        raise ScircuitError(f"{path} cannot hold the {number:,} entries that it says; copy it again.")
                    return i + 1, rows, columns, number
    except ScircuitError:
        raise
    except ValueError as error:
        raise ScircuitError(f"{path} is damaged ({error}); copy it again.") from None
    raise ScircuitError(f"{path} is cut off before its first entry; copy it again.")


def _entries(path: Path, header: int, swapped: bool) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    kinds = {0: np.int64, 1: np.int64, 2: np.float64}
    try:
        with open_packed(path) as file:
            for part in pd.read_csv(file, sep=" ", header=None, skiprows=header, dtype=kinds, chunksize=_LINES):
                gene, cell = (part[1], part[0]) if swapped else (part[0], part[1])
                yield cell.to_numpy() - 1, gene.to_numpy() - 1, part[2].to_numpy()
    except pd.errors.EmptyDataError:
        return
    except ScircuitError:
        raise
    except (ValueError, OSError) as error:
        raise ScircuitError(f"{path} is damaged ({error}); copy it again.") from None
