"""Stage `tokens`: the run's cells, and those of other data sets that dictionaries learn from; draws from the splits."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scircuit.cells.census import PREFIX, CensusQuery, census_file
from scircuit.cells.files import data_identity
from scircuit.cells.sampling import (
    SPLITS,
    Rule,
    Sample,
    check_shares,
    draw_sample,
    draw_stratified,
    require_columns,
    require_values,
    strata_counts,
)
from scircuit.cells.tokens import TokenStore, tokenize
from scircuit.config import CellsSection, DataSection, RunConfig
from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.runs.inputs import read_cells
from scircuit.runs.run import Run

log = logging.getLogger(__name__)

_BATCH_TOKENS = 8192
_JOINID = "soma_joinid"


class Data(NamedTuple):
    """An opened data set: the cells, what names each of them for good (int64), and what names the whole."""

    adata: Any
    identity: np.ndarray
    facts: dict[str, Any]


def open_data(section: DataSection, seed: int) -> Data:
    """Open the cells of a section; of the Census, the drawn cells are fetched into the cache first.

    `facts` are JSON-able: `source`, `fingerprint` (equal iff rows, or join ids, are the same cells), and where known
    `n_cells` (of the file) and `licence`.
    """
    if section.path.startswith(PREFIX):
        version = section.path.removeprefix(PREFIX)
        query = CensusQuery(version, section.where, section.n, rule_of(section), section.shares, seed)
        adata = read_cells(str(census_file(query)))
        facts: dict[str, Any] = {
            "source": section.path,
            "fingerprint": section.path,
            "licence": "CC BY 4.0 (CELLxGENE Census)",
        }
        return Data(adata, adata.obs[_JOINID].to_numpy(np.int64), facts)
    adata = read_cells(section.path)
    source = section.path if section.path.startswith("scanpy:") else Path(section.path).name
    facts = {"source": source, "fingerprint": data_identity(adata), "n_cells": int(adata.n_obs)}
    return Data(adata, np.arange(adata.n_obs), facts)


def rule_of(section: DataSection) -> Rule:
    """How the section's cells are drawn."""
    return Rule(section.stratify, section.equal, section.n_per)


def reading(section: DataSection) -> dict[str, Any]:
    """How counts and genes of the section's data are read, as `tokenize` takes it."""
    return {
        "counts": section.counts, "scale": section.scale, "counts_kind": section.counts_kind,
        "gene_column": section.gene_column, "min_rate": section.min_match,
    }  # fmt: skip


def check_cells(config: RunConfig) -> None:
    """Refuse shares and rules that can be seen to be wrong without cells."""
    needed = {"catalogue": "features are described", "discovery": "effects are traced"}
    if config.sae.path is None and not config.sae.mix:
        needed["train"] = "dictionaries learn"
    if config.confirmation.n_cells != 0:
        needed["confirmation"] = "edges are confirmed"
    check_section(config.cells, "cells", needed)
    names = [part.name for part in config.sae.mix]
    if config.sae.mix and config.sae.path:
        raise ScircuitError("sae.path and sae.mix exclude each other; read dictionaries or train them, not both.")
    for name, part in zip(names, config.sae.mix, strict=True):
        if not name.replace("-", "").replace("_", "").isalnum() or names.count(name) > 1:
            raise ScircuitError(f"sae.mix: name = {name!r}; give each data set a name of its own.")
        if not 0 < part.weight < float("inf"):
            raise ScircuitError(f"sae.mix: the weight of {name} is {part.weight}; it must be positive.")
        check_section(part, f"sae.mix {name}", {"train": "dictionaries learn"})


def check_section(section: DataSection, where: str, needed: dict[str, str]) -> None:
    """Refuse a section whose shares leave out a split that is needed, or whose rule contradicts itself."""
    check_shares(section.shares, f"{where}.shares")
    for split, use in needed.items():
        if not section.shares.get(split):
            raise ScircuitError(f"{where}.shares gives nothing to {split}, where {use}; give it a share above 0.")
    rule_of(section).check(section.n, where)


def run_tokenize(run: Run, model: FoundationModel) -> TokenStore:
    """Stage `tokens`: filter, sample, split and tokenise the cells, and those of every data set of `sae.mix`."""
    folder = run.stage("tokens")
    if run.done("tokens"):
        return TokenStore.read(folder)
    config = run.config
    others = {part.name: _drawn(part, config.seed) for part in config.sae.mix}
    store = _tokenized(config.cells, *_drawn(config.cells, config.seed), model)
    categories(store, config.cells.obs)
    t = config.trace
    require_values(store.cells, [*t.groups, *([t.units] if t.units else [])], "trace.groups or trace.units")
    run.record()
    for part in config.sae.mix:
        if not (folder / "mix" / part.name / "tokens.json").is_file():
            _tokenized(part, *others[part.name], model).write(folder / "mix" / part.name)
    store.write(folder)
    return store


def _drawn(section: DataSection, seed: int) -> tuple[Data, Sample]:
    data = open_data(section, seed)
    sample = draw_sample(
        data.adata.obs, data.identity, where=section.where, n=section.n, rule=rule_of(section), shares=section.shares,
        seed=seed,
    )  # fmt: skip
    if not isinstance(section, CellsSection):  # another data set is here to learn from, nothing else
        keep = sample.split == "train"
        sample = Sample(sample.rows[keep], sample.split[keep])
    return data, sample


def _tokenized(section: DataSection, data: Data, sample: Sample, model: FoundationModel) -> TokenStore:
    store = tokenize(data.adata, model.tokenizer, rows=sample.rows, **reading(section))
    of_row = pd.Series(sample.split, index=sample.rows)
    store.cells["_split"] = of_row.loc[store.cells["_row"]].to_numpy()
    if section.path.startswith(PREFIX):
        store.cells["_id"] = data.identity[store.cells["_row"]]
    splits = store.cells["_split"].value_counts()
    store.info.update(
        data=data.facts,
        splits={name: int(splits.get(name, 0)) for name in SPLITS},
        shares=dict(section.shares),
        stratify=list(section.stratify),
        strata=strata_counts(store.cells, store.cells["_split"].to_numpy(), section.stratify),
    )
    return store


def mixed_stores(run: Run) -> dict[str, TokenStore]:
    """Tokens of the data sets of `sae.mix` by name, as stage `tokens` wrote them."""
    return {part.name: TokenStore.read(run.stage("tokens") / "mix" / part.name) for part in run.config.sae.mix}


def identity_of(store: TokenStore) -> np.ndarray:
    """What names each cell for good, int64: its join id in the Census, its row elsewhere."""
    return store.cells["_id" if "_id" in store.cells else "_row"].to_numpy(np.int64)


def split_cells(store: TokenStore, name: str) -> np.ndarray:
    """Rows of the store in one split."""
    return np.flatnonzero((store.cells["_split"] == name).to_numpy())


def drawn_cells(store: TokenStore, config: RunConfig, split: str, n: int | None, draw: int) -> np.ndarray:
    """At most `n` rows of the store in one split, drawn with (seed, draw) by the rule of the sample; ascending."""
    rows = split_cells(store, split)
    if n is not None and n > len(rows):
        log.info("%d cells were asked for, the %s split holds %d: all of them are taken", n, split, len(rows))
    chosen = draw_stratified(store.cells.iloc[rows], n, rule_of(config.cells), [config.seed, draw])
    return rows[chosen]


def traced_cells(store: TokenStore, config: RunConfig) -> TokenStore:
    """The cells of the `discovery` split that are traced."""
    return store.subset(drawn_cells(store, config, "discovery", config.trace.n_cells, 3))


def batch_size(store: TokenStore) -> int:
    """Cells per forward pass."""
    return max(1, _BATCH_TOKENS // int(store.lengths.max()))


def categories(store: TokenStore, columns: Sequence[str]) -> pd.DataFrame | None:
    """The obs columns among which top cells are tested, or None without any."""
    require_columns(store.cells, columns, "cells.obs")
    return store.cells[list(columns)].reset_index(drop=True) if columns else None
