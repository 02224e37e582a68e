"""Everything that a config names: model, dictionaries, cells, gene sets, SAEs, the folder to write to.

The file is walked table by table, and a table is known by its name (`model`, `cells`, `sae`, `features`, ...) at any
depth, alone or in a list: a run and a file of many runs are checked alike. What the same file says twice is checked
once.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from scircuit.config import RunConfig
from scircuit.config_file import load_config, place
from scircuit.errors import ScircuitError
from scircuit.health.finding import Finding, fail, ok, tried, warn
from scircuit.health.machine import disk, main_memory, unwritable


class Table(NamedTuple):
    """One table of the file: where it stands (`conditions[1].model`), its name, and its values."""

    where: str
    name: str
    values: Mapping[str, Any]


def tables(content: Mapping[str, Any], where: str = "", name: str = "") -> Iterator[Table]:
    """The table itself and every table inside it, depth first."""
    yield Table(where, name, content)
    for key, value in content.items():
        inner = f"{where}.{key}" if where else key
        if isinstance(value, Mapping):
            yield from tables(value, inner, key)
        elif isinstance(value, (list, tuple)):
            for i, entry in enumerate(value):
                if isinstance(entry, Mapping):
                    yield from tables(entry, f"{inner}[{i}]", key)


def check_config(path: Path) -> list[Finding]:
    """Read the file, validate it if it is a run, and check everything that it names; nothing is written."""
    if not path.is_file():
        return [fail("config", f"{path} does not exist", f"scircuit init {path}")]
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return [fail("config", f"{path} is not valid TOML: {error}", "mend that line")]
    found, run = _validated(path, content)
    # A run is walked with its defaults and its profile, other files as they stand.
    walked = content if run is None else run.to_dict()
    seen: dict[str, Table] = {}
    models = Models()
    # Models first: the other tables are held to the model beside them.
    for table in sorted(tables(walked), key=lambda table: table.name != "model"):
        key = repr((table.name, models.beside(table), sorted(table.values.items(), key=str)))
        if key in seen:
            models.repeat(table, seen[key])
        elif table.name in _CHECKS:
            seen[key] = table
            found += tried(table.where, _CHECKS[table.name], table, path.parent, models)
    if run is not None:
        known = {finding.detail for finding in found}
        found += [f for f in tried("run", _whole_run, run, models) if f.detail not in known]
    elif "out" in content:
        found += tried("out", _out, path.parent / str(content["out"]))
    return found


def _around(table: Table) -> str:
    return table.where[: len(table.where) - len(table.name)]


class Models:
    """The models that were opened, by the table that they stand in."""

    def __init__(self) -> None:
        self._opened: dict[str, Any] = {}

    def add(self, table: Table, model: Any) -> None:
        """Note a model by the table around its own."""
        self._opened[_around(table)] = model

    def repeat(self, table: Table, first: Table) -> None:
        """Note that a table says what `first` said, so that a model named twice is opened once."""
        if table.name == "model" and _around(first) in self._opened:
            self._opened[_around(table)] = self._opened[_around(first)]

    def beside(self, table: Table) -> str:
        """Fingerprint of the model that a table is held to; empty for none, and for the models themselves."""
        model = None if table.name == "model" else self.of(table)
        return "" if model is None else str(model.fingerprint)

    def of(self, table: Table) -> Any:
        """The model that stands beside a table, else the only one of the file, else None."""
        beside = self._opened.get(_around(table))
        alike = {model.fingerprint: model for model in self._opened.values()}
        return beside if beside is not None else next(iter(alike.values())) if len(alike) == 1 else None


def _validated(path: Path, content: Mapping[str, Any]) -> tuple[list[Finding], RunConfig | None]:
    """As a run's config, unless the file has tables that only a file of several runs has."""
    if any(isinstance(value, list) and value and isinstance(value[0], Mapping) for value in content.values()):
        return [ok("config", f"{path} is a file of several runs; its tables are checked one by one")], None
    try:
        return [ok("config", f"{path} is a valid run")], load_config(path)
    except ScircuitError as error:
        return [fail("config", str(error))], None


def _model(table: Table, folder: Path, models: Models) -> Iterator[Finding]:
    """Load it on the CPU: its files are hashed and read, and nothing is downloaded."""
    from scircuit.models.load import find_source, load_model
    from scircuit.models.plugin import is_function

    given, what = table.values, table.where
    if "source" not in given:
        return  # a table that only changes the device or the dtype of a model named elsewhere
    source = place(str(given["source"]), folder)
    dictionaries = given.get("dictionaries")
    if isinstance(dictionaries, str):
        dictionaries = place(dictionaries, folder)
        if not Path(dictionaries).is_dir():
            yield fail(f"{what}.dictionaries", f"{dictionaries} is no folder", "name the folder of the .pkl files")
            return
    if not is_function(source):
        find_source(source, dictionaries, download=False)
    dtype = given.get("dtype", "float32")
    model = load_model(
        source, protocol=given.get("protocol", "official"), dictionaries=dictionaries, device="cpu",
        dtype="float32" if dtype == "tf32" else dtype, options=given.get("options"),
    )  # fmt: skip
    models.add(table, model)
    detail = f"{model.name}, {model.n_layers} layers of width {model.d_model}, {len(model.genes):,} genes"
    yield ok(f"{what}.source", f"{detail}, protocol {model.protocol}, fingerprint {model.fingerprint[:12]}")
    yield _device(what, str(given.get("device", "auto")), model)


def _device(what: str, device: str, model: Any) -> Finding:
    """Whether the named device is there and has room for the weights."""
    import torch

    from scircuit.models.stack import choose_device

    what = f"{what}.device"
    try:
        chosen = choose_device(device)
    except ScircuitError as error:
        return fail(what, str(error))
    module = getattr(model, "module", model)
    size = sum(p.numel() * p.element_size() for p in module.parameters()) if hasattr(module, "parameters") else 0
    free = torch.cuda.mem_get_info(chosen)[0] if chosen.type == "cuda" else main_memory()[1]
    detail = f"{chosen}: the weights take {size / 2**30:.2f} GiB"
    if free is not None and size > free:
        return fail(what, f"{detail}, {free / 2**30:.2f} GiB are free", 'use a smaller model or dtype = "bfloat16"')
    return ok(what, detail)


def _cells(table: Table, folder: Path, models: Models) -> Iterator[Finding]:
    """Open the file backed, read some rows, find the genes of the model and the columns that are named."""
    from scircuit.runs.inputs import read_cells

    given, what = table.values, f"{table.where}.path"
    if "path" not in given:
        return
    path = str(given["path"])
    if path.startswith("census:"):
        yield warn(what, f"{path} is read over the network when it is tokenised; not opened here")
        return
    adata = read_cells(place(path, folder))
    yield ok(what, f"{adata.n_obs:,} cells of {adata.n_vars:,} genes")
    yield from _columns(table, adata)
    yield from tried(table.where, _counts, table, adata, models)


def _columns(table: Table, adata: Any) -> Iterator[Finding]:
    given = table.values
    where = given.get("where", {})
    named = [*where, *given.get("obs", ()), *given.get("stratify", ())]
    absent = [column for column in named if column not in adata.obs]
    if absent:
        has = ", ".join(map(str, adata.obs.columns)) or "no column"
        yield fail(f"{table.where}.where", f"obs has no column {absent[0]!r}", f"name one of: {has}")
        return
    keep = adata.obs_names == adata.obs_names
    for column, value in where.items():
        keep &= adata.obs[column].isin(value if isinstance(value, list) else [value]).to_numpy()
    if not keep.any():
        yield fail(f"{table.where}.where", f"no cell has {dict(where)}", "name values that the columns hold")
    elif where:
        yield ok(f"{table.where}.where", f"{keep.sum():,} cells")


def _counts(table: Table, adata: Any, models: Models) -> Iterator[Finding]:
    import numpy as np

    from scircuit.cells.counts import CountSource
    from scircuit.cells.matching import ENOUGH, match_genes

    given = table.values
    counts = CountSource(
        adata, given.get("counts", "X"), given.get("scale", "counts"), given.get("counts_kind", "whole")
    )
    rows = np.unique(np.linspace(0, adata.n_obs - 1, min(adata.n_obs, 64)).astype(np.int64))
    for _ in counts.blocks(rows):
        pass
    yield ok(f"{table.where}.counts", f"{counts.counts} holds {counts.scale} in the {len(rows)} cells looked at")
    model = models.of(table)
    if model is not None:
        match = match_genes(
            counts.var, model.tokenizer.vocabulary, gene_column=given.get("gene_column"),
            min_rate=given.get("min_match", 0.2),
        )  # fmt: skip
        found = f"{match.describe()}, for {model.name}"
        few = warn(f"{table.where}.genes", found, "check gene_column and the gene annotation of the data")
        yield few if match.rate < ENOUGH else ok(f"{table.where}.genes", found)


def _sae(table: Table, folder: Path, models: Models) -> Iterator[Finding]:
    from scircuit.runs.inputs import open_saes

    if not table.values.get("path"):
        return
    path, what = place(str(table.values["path"]), folder), f"{table.where}.path"
    model = models.of(table)
    if model is None:
        there = (Path(path) / "manifest.json").is_file()
        missing = fail(what, f"{path} has no manifest.json", "name a folder that `scircuit train-sae` wrote")
        yield ok(what, f"{path} is there; its model could not be opened to compare") if there else missing
        return
    saes = open_saes(path, model, table.values.get("layers") or None)
    yield ok(what, f"{len(saes)} dictionaries of {model.name}, layers {', '.join(map(str, saes))}")


def _library(what: str, name: str) -> Finding:
    from scircuit.knowledge.registry import load_gene_sets

    return ok(what, f"{name}: {len(load_gene_sets(name)):,} sets")


def _features(table: Table, folder: Path, models: Models) -> Iterator[Finding]:
    what = f"{table.where}.gene_sets"
    for name in table.values.get("gene_sets", ()):
        yield from tried(what, _library, what, place(str(name), folder))


def _disease(table: Table, folder: Path, models: Models) -> Iterator[Finding]:
    for name in table.values.get("sources", ()):
        yield from tried(f"{table.where}.sources", _source, f"{table.where}.sources", str(name), folder)


def _source(what: str, name: str, folder: Path) -> Finding:
    from scircuit.knowledge.registry import show

    if Path(place(name, folder)).is_file():
        return ok(what, f"{name} is there")
    about = show(name)
    if about["state"] in ("cached", "packaged"):
        return ok(what, f"{name} is in the cache")
    fix = f"scircuit knowledge fetch {name}" if about["state"] == "to fetch" else str(about["note"])
    return fail(what, f"{name} is not in the cache", fix)


def _perturbation(table: Table, folder: Path, models: Models) -> Iterator[Finding]:
    from scircuit.runs.inputs import read_cells

    if table.values.get("screen"):
        adata = read_cells(place(str(table.values["screen"]), folder))
        yield ok(f"{table.where}.screen", f"{adata.n_obs:,} cells of {adata.n_vars:,} genes")


def _whole_run(run: RunConfig, models: Models) -> Iterator[Finding]:
    """What only the whole config tells: settings against the model, and the folder of the run."""
    from scircuit.runs.identity import refuse_another
    from scircuit.runs.inputs import check_inputs

    if (model := models.of(Table("", "", {}))) is not None:
        check_inputs(run, model)
        yield ok("settings", "layers, sources, trace and edges fit the model")
    refuse_another(run)
    yield from _out(Path(run.out))


def _out(folder: Path) -> Iterator[Finding]:
    if blocked := unwritable(folder):
        yield fail("out", f"{folder}: {blocked}", "set out to a folder that you may write")
    else:
        yield ok("out", f"{folder} {'is there and goes on' if folder.exists() else 'will be made'}")
        yield disk(folder, "out: disk")


_CHECKS: Mapping[str, Callable[[Table, Path, Models], Iterator[Finding]]] = {
    "model": _model, "cells": _cells, "mix": _cells, "sae": _sae, "features": _features, "disease": _disease,
    "perturbation": _perturbation,
}  # fmt: skip
"""By the name of a table; a table of another name is only walked."""
