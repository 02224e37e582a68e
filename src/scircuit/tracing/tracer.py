"""`trace`: plan the units, run those that are missing, and turn their sums into the `trace/` artefact."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from scircuit._io import read_json, sha256_of, write_json
from scircuit._progress import Watched
from scircuit.cells.tokens import TokenStore
from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.models.stack import BlockStack
from scircuit.sae.adapter import as_saes, sae_fingerprint
from scircuit.sae.base import SparseAutoencoder, require_traceable
from scircuit.tracing.assemble import Assembly, Tables
from scircuit.tracing.confirm import borderline, replace_rows
from scircuit.tracing.distributed import run_units
from scircuit.tracing.draws import decoys_of, is_exhaustive, with_decoys
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.fidelity import choose_context
from scircuit.tracing.groups import Grouping, groupings
from scircuit.tracing.memory import BatchSize, fit
from scircuit.tracing.parts import Part, Unit, plan_units
from scircuit.tracing.precision import is_reduced, precision_report, uses_tf32
from scircuit.tracing.settings import PERMISSIONS, RESOURCES, TraceSettings
from scircuit.tracing.units import run_unit

log = logging.getLogger(__name__)
FORMAT_VERSION = 1


def trace(
    model: FoundationModel,
    saes: Mapping[int, Any],
    cells: TokenStore,
    sources: Mapping[int, Sequence[int]],
    out: str | Path,
    *,
    settings: TraceSettings | None = None,
    provenance: Mapping[str, Any] | None = None,
    client: Any = None,
    extra: Mapping[int, Sequence[Intervention]] | None = None,
) -> Path:
    """Ablate every source in every cell and record what all downstream latents do.

    Parameters
    ----------
    saes
        Dictionary per layer, ours or another library's (`scircuit.sae.as_sae`).
    sources
        Latents to ablate per source layer.
    out
        Folder of the artefact (`effects.parquet`, `tests.parquet`, `cell_effects.parquet`,
        `source_cells.parquet`, `trace.json`; with `settings.groups` also `groups.parquet`). An
        interrupted trace with the same inputs goes on where it stopped; a finished one is returned as it is.
    provenance
        JSON-able facts to be kept in `trace.json`.
    client
        A `distributed.Client` whose workers run the units (see `tracing.distributed`); None runs them here.
    extra
        Further interventions per source layer (means, doses, matched controls, groups of latents), traced beside
        the ablations; each is found again by (first latent, `kind`, `draw`).

    Raises
    ------
    ScircuitError
        When a layer has no SAE or no later layer, an SAE's latents are no directions of the residual stream, a source
        is not in its dictionary, or `out` holds the trace of other inputs.
    """
    settings = settings or TraceSettings()
    out = Path(out)
    saes = as_saes(saes)
    for sae in saes.values():
        require_traceable(sae)
    targets = check_targets(model, saes, sources, settings)
    columns = groupings(cells, _columns(settings))
    if any(g.name == settings.units and len(g.labels) < 2 for g in columns):
        raise ScircuitError(f"obs column {settings.units!r} has one value; p over units needs at least two of them.")
    key = _key(model, saes, cells, sources, settings, extra or {}, columns)
    if (out / "trace.json").is_file():
        if read_json(out / "trace.json").get("key") == key:
            return out
        raise ScircuitError(f"{out} holds the trace of other inputs; choose another folder or delete it.")

    engine = choose_engine(model, saes, sources, settings)
    settings = fit(
        model, saes, settings, engine=engine, length=int(cells.lengths.max()), sources=sources, targets=targets
    )
    size = BatchSize(settings.tokens, settings.score_bytes)
    parts = out / "parts" / sha256_of(key, {name: getattr(settings, name) for name in RESOURCES})[:16]
    todo = _todo(model, saes, cells, sources, settings, extra or {})
    report: dict[str, Any] = {"engine": engine}
    if is_reduced(model):
        report["precision_report"] = size.halving(
            lambda: precision_report(model, saes, cells, sources, targets, replace(settings, tokens=size.tokens))
        )
    if engine == "exact":
        tables = _run(model, saes, cells, todo, targets, settings, parts / "main", None, size, client)
    else:
        fidelity = size.halving(
            lambda: choose_context(model, saes, cells, sources, targets, replace(settings, tokens=size.tokens))
        )
        context = fidelity.context_rows
        tables = _run(model, saes, cells, todo, targets, settings, parts / "main", context, size, client)
        near = borderline(tables, fidelity, settings)
        report |= {
            "fidelity": fidelity.to_json(),
            "n_sources_confirmed": sum(k == "latent" for some in near.values() for _, k, _ in some),
        }
        if near:
            log.info(
                "%d of %d ablations and decoys have an edge that the approximation could flip; they are measured again "
                "exactly",
                sum(map(len, near.values())), sum(map(len, todo.values())),
            )  # fmt: skip
            own = {
                layer: [i for i in todo[layer] if (i.features[0], i.kind, i.draw) in set(some)]
                for layer, some in near.items()
            }
            again = _run(model, saes, cells, own, targets, settings, parts / "confirm", None, size, client)
            tables = replace_rows(tables, again)
    tables.write(out)
    summary = {
        "format_version": FORMAT_VERSION,
        "key": key,
        "settings": asdict(settings),
        "retention": settings.retention,
        "kept_abs_d": settings.kept_abs_d,
        "n_clean_forwards": tables.n_clean,
        "n_ablated_forwards": tables.n_ablated,
        "n_tests": int(tables.tests.loc[tables.tests["kind"] == "latent", "n_tests"].sum()),
        **report,
    }
    write_json(out / "trace.json", {**summary, **(provenance or {})})
    shutil.rmtree(out / "parts")
    for stale in out.glob(".*.tmp"):  # left by a process that was killed while it wrote
        stale.unlink()
    return out


def choose_engine(
    model: FoundationModel,
    saes: Mapping[int, SparseAutoencoder],
    sources: Mapping[int, Sequence[int]],
    settings: TraceSettings,
) -> str:
    """`exact` or `local`; `auto` is local where at least half of a dictionary is traced and the model allows it."""
    if settings.engine != "auto":
        return settings.engine
    exhaustive = any(is_exhaustive(len(features), saes[layer].n_latents) for layer, features in sources.items())
    return "local" if exhaustive and isinstance(model, BlockStack) else "exact"


def _run(
    model: FoundationModel,
    saes: Mapping[int, SparseAutoencoder],
    cells: TokenStore,
    todo: Mapping[int, list[Intervention]],
    targets: Mapping[int, list[int]],
    settings: TraceSettings,
    parts: Path,
    context_rows: float | None,
    size: BatchSize,
    client: Any,
) -> Tables:
    """Run every unit whose part is missing and sum them; `context_rows` None is the exact engine."""
    engine = "exact" if context_rows is None else "local"
    columns = groupings(cells, _columns(settings))
    units = _units(cells, todo, settings)
    assembly = Assembly(parts, units, saes, targets, settings, engine, columns)

    def watch(unit: Unit) -> str | None:
        return f"{assembly.n_edges():,} edges so far" if assembly.add(unit) else None

    run_parts(model, saes, cells, todo, targets, settings, parts, context_rows, size, client, watch)
    return assembly.tables()


def run_parts(
    model: FoundationModel,
    saes: Mapping[int, SparseAutoencoder],
    cells: TokenStore,
    todo: Mapping[int, list[Intervention]],
    targets: Mapping[int, list[int]],
    settings: TraceSettings,
    parts: Path,
    context_rows: float | None,
    size: BatchSize,
    client: Any,
    watch: Callable[[Unit], str | None] = lambda unit: None,
) -> list[Unit]:
    """Run every unit whose part is missing in the folder `parts`; returns all units in the order of their sums.

    `watch` is called with each unit whose part is whole, those found at the start included; what it says stands
    beside the progress.
    """
    columns = groupings(cells, _columns(settings))

    def run(unit: Unit) -> Part:
        return size.halving(
            lambda: run_unit(
                unit, model, saes, cells, targets[unit.layer], context_rows=context_rows, tokens=size.tokens,
                score_bytes=size.score_bytes, groupings=columns,
            )
        )  # fmt: skip

    units = _units(cells, todo, settings)
    missing = [unit for unit in units if not (parts / unit.name).is_file()]
    there = [unit for unit in units if (parts / unit.name).is_file()]
    with Watched(len(units), f"trace ({parts.name})", len(there)) as bar:
        for unit in there:
            bar.say(watch(unit))
        for unit in _run_here(missing, run, parts) if client is None else run_units(missing, run, parts, client):
            bar.step(watch(unit))
    return units


def _units(cells: TokenStore, todo: Mapping[int, list[Intervention]], settings: TraceSettings) -> list[Unit]:
    return plan_units(todo, np.arange(len(cells)), block_size(cells, settings), settings.cells_per_block)


def _run_here(units: Sequence[Unit], run: Callable[[Unit], Part], parts: Path) -> Iterator[Unit]:
    for unit in units:
        run(unit).write(parts / unit.name)
        yield unit


def block_size(cells: TokenStore, settings: TraceSettings) -> int:
    """Interventions per unit: a group of cells holds sums like the whole, so with groups there are fewer."""
    n_groups = sum(len(g.labels) for g in groupings(cells, _columns(settings)))
    return max(1, settings.sources_per_block // (1 + n_groups))


def _columns(settings: TraceSettings) -> list[str]:
    """The obs columns to sum by: the groups, and the units of the p-values."""
    return list(dict.fromkeys([*settings.groups, *([settings.units] if settings.units else [])]))


def _todo(
    model: FoundationModel,
    saes: Mapping[int, SparseAutoencoder],
    cells: TokenStore,
    sources: Mapping[int, Sequence[int]],
    settings: TraceSettings,
    extra: Mapping[int, Sequence[Intervention]],
) -> dict[int, list[Intervention]]:
    """Interventions per source layer, none of them twice."""
    decoys = decoys_of(model, saes, cells, sources, settings)
    todo = {layer: with_decoys(features, decoys[layer]) for layer, features in sources.items()}
    for layer, more in extra.items():
        if layer not in todo:
            raise ScircuitError(f"Layer {layer} has further interventions but no source; name a source of it.")
        wrong = [f for i in more for f in (*i.features, *i.instead) if not 0 <= f < saes[layer].n_latents]
        if wrong:
            raise ScircuitError(
                f"Layer {layer} has no latent {wrong[0]}; its latents are 0 to {saes[layer].n_latents - 1}."
            )
        todo[layer] += more
        known: set[tuple[int, str, int]] = set()
        for i in todo[layer]:
            name = (i.features[0], i.kind, i.draw)
            if name in known:
                raise ScircuitError(
                    f"Latent {i.features[0]} of layer {layer} has two interventions of kind {i.kind} and draw "
                    f"{i.draw}; number them by draw."
                )
            known.add(name)
    return todo


def check_targets(
    model: FoundationModel,
    saes: Mapping[int, SparseAutoencoder],
    sources: Mapping[int, Sequence[int]],
    settings: TraceSettings,
) -> dict[int, list[int]]:
    """Target layers of each source layer, checked."""
    out = {}
    for layer, features in sources.items():
        if layer not in saes:
            raise ScircuitError(f"Layer {layer} has no SAE; source layers may be {', '.join(map(str, sorted(saes)))}.")
        wrong = [f for f in features if not 0 <= f < saes[layer].n_latents]
        if wrong:
            raise ScircuitError(
                f"Layer {layer} has no latent {wrong[0]}; its latents are 0 to {saes[layer].n_latents - 1}."
            )
        asked = settings.targets or tuple(range(model.n_layers))
        out[layer] = [t for t in asked if t > layer and t in saes]
        if not out[layer]:
            raise ScircuitError(f"No SAE lies above source layer {layer}; trace from an earlier layer.")
    if not out:
        raise ScircuitError("No source was given; name at least one latent of one layer.")
    return out


def _key(
    model: FoundationModel,
    saes: Mapping[int, SparseAutoencoder],
    cells: TokenStore,
    sources: Mapping[int, Sequence[int]],
    settings: TraceSettings,
    extra: Mapping[int, Sequence[Intervention]],
    columns: Sequence[Grouping],
) -> str:
    """Hash of everything that a result depends on beyond its last bits."""
    dictionaries = [[layer, sae_fingerprint(saes[layer])] for layer in sorted(saes)]
    todo = [[layer, [int(f) for f in sources[layer]]] for layer in sorted(sources)]
    more = [[layer, [asdict(i) for i in extra[layer]]] for layer in sorted(extra)]
    groups = [part for g in columns for part in (g.labels, g.code)]
    rules = {name: value for name, value in asdict(settings).items() if name not in (*RESOURCES, *PERMISSIONS)}
    tf32 = uses_tf32(model.device)
    return sha256_of(
        FORMAT_VERSION, model.fingerprint, tf32, dictionaries, cells.fingerprint, todo, rules, more, *groups
    )
