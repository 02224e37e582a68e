"""Cells of the CELLxGENE Census: drawn by their metadata first, then fetched in chunks into a local h5ad, once.

The Census is the corpus of CZ CELLxGENE Discover as one TileDB-SOMA store (CZI Cell Science Program et al. 2025,
Nucleic Acids Research 53: D886). Its data sets are under CC BY 4.0; `dataset_id` of each cell says whom to cite.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit._io import atomic, cache_folder, sha256_of, write_json
from scircuit._progress import progress
from scircuit.cells.sampling import Rule, draw_sample
from scircuit.errors import ScircuitError

log = logging.getLogger(__name__)

PREFIX = "census:"
LICENCE = "CC BY 4.0; cite the CELLxGENE Census and the data sets named in obs['dataset_id']"
_ORGANISM = "homo_sapiens"
_CHUNK = 2000
"""Cells fetched at once."""
_JOINID = "soma_joinid"


class CensusQuery(NamedTuple):
    """Which cells of which release: `version` is its date, the rest as in `sampling.draw_sample`."""

    version: str
    where: Mapping[str, Any]
    n: int | None
    rule: Rule
    shares: Mapping[str, float]
    seed: int

    @property
    def name(self) -> str:
        """File name in the cache: release and hash of everything that decides the cells."""
        rule = [list(self.rule.stratify), self.rule.equal, dict(self.rule.n_per)]
        return f"{self.version}-{sha256_of(dict(self.where), self.n, rule, dict(self.shares), self.seed)[:16]}.h5ad"


def census_file(query: CensusQuery, folder: str | Path | None = None) -> Path:
    """The drawn cells as an h5ad file in the cache (or `folder`), fetched if they are not there yet.

    obs holds every column of the Census and `soma_joinid`; X is the raw counts, CSR; var has `feature_id` (Ensembl)
    as its index and `feature_name`. A JSON file beside it says release, query, licence and number of cells. Memory:
    the columns asked for of all matching cells, then one chunk of cells at a time.

    Raises
    ------
    ScircuitError
        Without the package, on a release that is no date or unknown, unknown columns or values, or a query that
        bounds nothing.
    """
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", query.version):
        raise ScircuitError(
            f"{PREFIX}{query.version} names no release; give its date, for example {PREFIX}2025-01-30, so that the "
            "same cells come again."
        )
    if query.n is None and not query.rule.n_per:
        raise ScircuitError("The Census holds tens of millions of cells; set cells.n, or cells.n_per with stratify.")
    path = (Path(folder) if folder else cache_folder() / "census") / query.name
    if path.is_file():
        return path
    package = _package()
    with _opened(package, query.version) as census:
        joinids = _drawn(package, census, query)
        with atomic(path) as temporary:
            _fetch(package, census, joinids, temporary)
    write_json(
        path.with_suffix(".json"),
        {
            "source": f"{PREFIX}{query.version}", "licence": LICENCE, "n_cells": len(joinids),
            "where": dict(query.where), "n": query.n, "stratify": list(query.rule.stratify),
            "equal": query.rule.equal, "n_per": dict(query.rule.n_per), "seed": query.seed,
        },
    )  # fmt: skip
    log.info("%d cells of the Census %s: %s", len(joinids), query.version, LICENCE)
    return path


def _package() -> Any:
    try:
        import cellxgene_census
    except ModuleNotFoundError:
        raise ScircuitError(
            "Cells of the Census need the package cellxgene-census, which is not installed: pip install "
            "'scircuit[census]'."
        ) from None
    return cellxgene_census


@contextmanager
def _opened(package: Any, version: str) -> Iterator[Any]:
    try:
        census = package.open_soma(census_version=version)
    except ValueError as error:
        raise ScircuitError(
            f"The Census has no release {version} ({error}); list them with "
            "cellxgene_census.get_census_version_directory()."
        ) from None
    except OSError as error:
        raise ScircuitError(f"The Census cannot be reached ({error}); the first fetch needs the network.") from None
    with census as opened:
        yield opened


def _drawn(package: Any, census: Any, query: CensusQuery) -> np.ndarray:
    """Join ids of the cells, ascending: only the columns that decide it are read."""
    known = set(census["census_data"][_ORGANISM].obs.keys())
    columns = list(dict.fromkeys([*query.where, *query.rule.stratify]))
    for column in columns:
        if column not in known:
            raise ScircuitError(f"The Census has no obs column {column!r}; it has {', '.join(sorted(known))}.")
    wanted = value_filter(query.where)
    try:
        obs = package.get_obs(census, _ORGANISM, value_filter=wanted, column_names=[_JOINID, *columns])
    except Exception as error:  # a value of the wrong type: SOMAError, which needs tiledbsoma to be named
        reason = str(error).strip().partition("\n")[0]
        raise ScircuitError(f"The Census cannot be filtered by {wanted} ({reason}); check cells.where.") from error
    if obs.empty:
        raise ScircuitError(f"No cell of the Census meets cells.where ({dict(query.where)}); loosen a condition.")
    sample = draw_sample(
        obs, obs[_JOINID].to_numpy(np.int64), where=query.where, n=query.n, rule=query.rule, shares=query.shares,
        seed=query.seed,
    )  # fmt: skip
    return np.sort(obs[_JOINID].to_numpy(np.int64)[sample.rows])


def value_filter(where: Mapping[str, Any]) -> str | None:
    """Conditions in SOMA's filter syntax, so that only matching cells are listed; None without any."""
    parts = []
    for column, value in where.items():
        values = list(value) if isinstance(value, list | tuple) else [value]
        if isinstance(values[0], str):
            parts.append(f"{column} in [{', '.join(json.dumps(v, ensure_ascii=False) for v in values)}]")
        else:
            parts.append("(" + " or ".join(f"{column} == {v!r}" for v in values) + ")")
    return " and ".join(parts) or None


def _fetch(package: Any, census: Any, joinids: np.ndarray, path: Path) -> None:
    """Counts and metadata of the cells, chunk by chunk, appended to one h5ad file."""
    import h5py
    from anndata.io import sparse_dataset, write_elem

    tables = []
    with h5py.File(path, "w") as file, progress(total=len(joinids), desc="census", unit="cell") as bar:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for start in range(0, len(joinids), _CHUNK):
            chunk = joinids[start : start + _CHUNK]
            part = package.get_anndata(census, _ORGANISM, obs_coords=chunk.tolist())
            if part.n_obs != len(chunk):
                raise ScircuitError(f"The Census gave {part.n_obs} of {len(chunk)} cells asked for; fetch again.")
            counts = sparse.csr_matrix(part.X, dtype=np.float32)
            if start == 0:
                var = part.var.set_index("feature_id") if "feature_id" in part.var else part.var
                write_elem(file, "var", var)
                write_elem(file, "X", counts)
            else:
                sparse_dataset(file["X"]).append(counts)
            tables.append(part.obs.assign(**{_JOINID: chunk}) if _JOINID not in part.obs else part.obs)
            bar.update(len(chunk))
        obs = pd.concat([t.astype({c: object for c in t if t[c].dtype == "category"}) for t in tables])
        obs = obs.astype({c: "category" for c in obs if obs[c].dtype == object})
        obs.index = pd.Index(obs[_JOINID].astype(str).to_numpy())
        write_elem(file, "obs", obs)
