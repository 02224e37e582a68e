"""`trace`: plan the units, run those that are missing, and turn their sums into the `trace/` artefact."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from scircuit._io import read_json, sha256_of
from scircuit._progress import Watched
from scircuit._sealed import write_sealed
from scircuit._settings import values_of
from scircuit.cells.tokens import TokenStore
from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.sae.adapter import sae_fingerprint
from scircuit.tracing.assemble import Assembly, Tables
from scircuit.tracing.confirm import borderline, replace_rows
from scircuit.tracing.distributed import run_units
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.fidelity import choose_context
from scircuit.tracing.floor import record as floor_record
from scircuit.tracing.floor import uses_tf32
from scircuit.tracing.groups import FEW_UNITS
from scircuit.tracing.memory import BatchSize, fit
from scircuit.tracing.parts import Part, Unit
from scircuit.tracing.precision import is_reduced, precision_report
from scircuit.tracing.settings import PERMISSIONS, RESOURCES, TraceSettings
from scircuit.tracing.setup import Setup
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
        Dictionary per layer, ours or another library's (`scircuit.sae.adapter.as_sae`).
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
        As `Setup.of`, and when `out` holds the trace of other inputs.
    """
    setup = Setup.of(model, saes, cells, sources, settings, extra)
    return trace_setup(setup, out, provenance=provenance, client=client)


def trace_setup(
    setup: Setup, out: str | Path, *, provenance: Mapping[str, Any] | None = None, client: Any = None
) -> Path:
    """`trace` of a setup."""
    out = Path(out)
    if any(g.name == setup.settings.units and len(g.labels) < 2 for g in setup.groupings):
        raise ScircuitError(
            f"obs column {setup.settings.units!r} has one value; p over units needs at least two of them."
        )
    key = _key(setup)
    if is_whole(out / "trace.json", key):
        return out
    setup = fit(setup)
    size = BatchSize(setup.settings.tokens, setup.settings.score_bytes)
    floor = floor_record(setup.model.dtype, setup.model.device)
    # Parts of other batches have other last bits; those of other blocks are other parts.
    blocks = [[unit.name, len(unit.interventions)] for unit in setup.units()]
    resources = {name: getattr(setup.settings, name) for name in RESOURCES}
    parts = out / "parts" / sha256_of(key, floor, resources, blocks)[:16]
    report: dict[str, Any] = {"engine": setup.engine}
    if is_reduced(setup.model):
        report["precision_report"] = size.halving(setup, precision_report)
    if setup.engine == "exact":
        tables = _run(setup, parts / "main", size, client)
    else:
        fidelity = size.halving(setup, choose_context)
        tables = _run(setup.by("local", fidelity.context_rows), parts / "main", size, client)
        near = borderline(tables, fidelity, setup.settings, t_form=not setup.keeps_responses)
        report |= {
            "fidelity": fidelity.to_json(),
            "n_sources_confirmed": sum(k == "latent" for some in near.values() for _, k, _ in some),
        }
        if near:
            log.info(
                "%d of %d ablations and decoys have an edge that the approximation could flip; they are measured again "
                "exactly",
                sum(map(len, near.values())), sum(map(len, setup.todo.values())),
            )  # fmt: skip
            own = {
                layer: [i for i in setup.todo[layer] if (i.features[0], i.kind, i.draw) in set(some)]
                for layer, some in near.items()
            }
            again = _run(replace(setup.by("exact"), todo=own), parts / "confirm", size, client)
            tables = replace_rows(tables, again)
    tables.write(out)
    summary = {
        "format_version": FORMAT_VERSION,
        "key": key,
        "settings": values_of(setup.settings, TraceSettings),
        "retention": setup.settings.retention,
        "kept_abs_d": setup.kept_abs_d,
        "floor": floor,
        "p_value": _kind_of_p(setup),
        "n_clean_forwards": tables.n_clean,
        "n_ablated_forwards": tables.n_ablated,
        "n_tests": int(tables.tests.loc[tables.tests["kind"] == "latent", "n_tests"].sum()),
        **report,
    }
    write_sealed(out / "trace.json", {**summary, **(provenance or {})}, tables.files())
    remove_parts(out)
    return out


def _kind_of_p(setup: Setup) -> str:
    for grouping in setup.groupings:
        if grouping.name == setup.settings.units:
            n = len(grouping.labels)
            of = f"{n} values of {grouping.name}"
            return f"t of the means of {of}" if n < FEW_UNITS else f"sign-flip of {of}, at least {2.0 ** (1 - n):.2g}"
    return "sign-flip" if setup.keeps_responses else "t form of the sign-flip"


def is_whole(record: Path, key: str) -> bool:
    """Whether the artefact that `record` completes is there; refused where it is that of other inputs."""
    if not record.is_file():
        return False
    if read_json(record).get("key") != key:
        raise ScircuitError(
            f"{record.parent} holds the {record.stem} of other inputs; choose another folder or delete it."
        )
    return True


def remove_parts(out: Path) -> None:
    """Leave the artefact alone in its folder."""
    shutil.rmtree(out / "parts", ignore_errors=True)
    for stale in out.glob(".*.tmp"):  # left by a process that was killed while it wrote
        stale.unlink()


def _run(setup: Setup, parts: Path, size: BatchSize, client: Any) -> Tables:
    """Run every unit whose part is missing and sum them."""
    assembly = Assembly(setup, parts)

    def watch(unit: Unit) -> str | None:
        return f"{assembly.n_edges():,} edges so far" if assembly.add(unit) else None

    run_parts(setup, parts, size, client, watch)
    return assembly.tables()


def run_parts(
    setup: Setup, parts: Path, size: BatchSize, client: Any, watch: Callable[[Unit], str | None] = lambda unit: None
) -> list[Unit]:
    """Run every unit whose part is missing in the folder `parts`; returns all units in the order of their sums.

    `watch` is called with each unit whose part is whole, those found at the start included; what it says stands
    beside the progress.
    """

    def run(unit: Unit) -> Part:
        return size.halving(setup, lambda sized: run_unit(sized, unit))

    units = setup.units()
    missing = [unit for unit in units if not (parts / unit.name).is_file()]
    there = [unit for unit in units if (parts / unit.name).is_file()]
    with Watched(len(units), f"trace ({parts.name})", len(there)) as bar:
        for unit in there:
            bar.say(watch(unit))
        for unit in _run_here(missing, run, parts) if client is None else run_units(missing, run, parts, client):
            bar.step(watch(unit))
    return units


def _run_here(units: Sequence[Unit], run: Callable[[Unit], Part], parts: Path) -> Iterator[Unit]:
    for unit in units:
        run(unit).write(parts / unit.name)
        yield unit


def _key(setup: Setup) -> str:
    """Hash of everything that a result depends on beyond its last bits."""
    saes, sources, extra = setup.saes, setup.sources, setup.extra
    dictionaries = [[layer, sae_fingerprint(saes[layer])] for layer in sorted(saes)]
    todo = [[layer, [int(f) for f in sources[layer]]] for layer in sorted(sources)]
    more = [[layer, [asdict(i) for i in extra[layer]]] for layer in sorted(extra)]
    groups = [part for g in setup.groupings for part in (g.labels, g.code)]
    rules = setup.settings.deciding((*RESOURCES, *PERMISSIONS))
    model, tf32 = setup.model, uses_tf32(setup.model.device)
    return sha256_of(
        FORMAT_VERSION, model.fingerprint, tf32, dictionaries, setup.cells.fingerprint, todo, rules, more, *groups
    )
