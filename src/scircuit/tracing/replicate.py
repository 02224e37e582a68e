"""`replicate`: the edges of a circuit measured again, exactly, in cells that had no part in finding them.

Only the sources that have an edge are ablated, and of their responses only those of the edges' targets are kept. So
every listed edge gets its row, whatever became of it: an edge that is gone is a result.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from scircuit._io import sha256_of
from scircuit._sealed import write_sealed
from scircuit._tables import write_parquet
from scircuit.circuits.schema import ENDS, P_UNSKEWED, SOURCE
from scircuit.errors import ScircuitError
from scircuit.sae.base import SparseAutoencoder
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.tracing.groups import over_units
from scircuit.tracing.memory import BatchSize, fit
from scircuit.tracing.moments import merge
from scircuit.tracing.parts import CellEffects, Part, Unit, source_blocks
from scircuit.tracing.settings import RESOURCES, TraceSettings
from scircuit.tracing.setup import Setup
from scircuit.tracing.tables import cell_p, effect_rows, skewness_of, weights_of
from scircuit.tracing.tracer import is_whole, remove_parts, run_parts

FORMAT_VERSION = 1
_STATISTICS = [
    "n_cells", "n_nonzero", "n_pos", "n_neg", "mean_delta", "sd_delta", "cohens_d", "hedges_g", "ci_low", "ci_high",
    "consistency", "p_value", "skewness",
]  # fmt: skip
_COUNTS = ["n_cells", "n_nonzero", "n_pos", "n_neg"]


def replicate(
    setup: Setup,
    edges: pd.DataFrame,
    out: str | Path,
    *,
    provenance: Mapping[str, Any] | None = None,
    client: Any = None,
) -> Path:
    """Measure edges (`circuit/edges.parquet` or a part of it) in other cells by the exact engine.

    The setup's cells were not traced; of its settings, random directions, groups and the engine play no part. The
    folder `out` becomes the artefact `confirmation/`, with a row per edge; what was interrupted goes on. `client` as in
    `tracer.trace`.
    """
    settings = replace(setup.settings, engine="exact", n_random=0, groups=())
    model, saes, cells, out = setup.model, setup.saes, setup.cells, Path(out)
    if not len(cells):
        raise ScircuitError("No cell is left to confirm edges in; give the confirmation split a larger share.")
    edges = edges[[*ENDS, "cohens_d", "mean_delta"]].sort_values(ENDS, kind="stable").reset_index(drop=True)
    _check_ends(saes, edges)
    rules = settings.deciding(RESOURCES)
    key = sha256_of(
        FORMAT_VERSION, model.fingerprint, cells.fingerprint, rules, *(edges[c].to_numpy() for c in edges.columns),
        *(saes[layer].W_dec.detach().float().cpu().numpy() for layer in sorted(saes)),
    )  # fmt: skip
    record = out / "confirmation.json"
    if is_whole(record, key):
        return out
    if edges.empty:
        table, counts = edges.iloc[:0].reindex(columns=[*ENDS, *_statistics(settings)]), (0, 0)
    else:
        sources, targets = _ends_of(edges, "source_feature"), _ends_of(edges, "target_layer")
        setup = replace(Setup.of(model, saes, cells, sources, settings), targets=targets)
        table, counts = _measured(fit(setup), edges, out / "parts" / key[:16], client)
    table = _with_discovery(edges, table, settings)
    write_parquet(out / "edges.parquet", table)
    summary = {
        "format_version": FORMAT_VERSION, "key": key, "n_edges": len(edges),
        "n_sources": len(edges[SOURCE].drop_duplicates()), "n_cells": len(cells), "cells": cells.fingerprint,
        "n_clean_forwards": counts[0], "n_ablated_forwards": counts[1],
    }  # fmt: skip
    write_sealed(record, {**summary, **(provenance or {})}, ["edges.parquet"])
    remove_parts(out)
    return out


def _check_ends(saes: Mapping[int, SparseAutoencoder], edges: pd.DataFrame) -> None:
    for end in ("source", "target"):
        for layer, features in edges.groupby(f"{end}_layer")[f"{end}_feature"]:
            number = int(str(layer))
            if number not in saes or not features.between(0, saes[number].n_latents - 1).all():
                raise ScircuitError(
                    f"An edge's {end} is in no dictionary (layer {number}); confirm with the dictionaries of the trace."
                )


def _ends_of(edges: pd.DataFrame, column: str) -> dict[int, list[int]]:
    """Values of a column per source layer."""
    return {int(str(layer)): sorted(set(part.tolist())) for layer, part in edges.groupby("source_layer")[column]}


def _measured(setup: Setup, edges: pd.DataFrame, parts: Path, client: Any) -> tuple[pd.DataFrame, tuple[int, int]]:
    """One row per edge that is found again, and the clean and ablated forwards it took."""
    size = BatchSize(setup.settings.tokens, setup.settings.score_bytes)
    rows, n_clean, n_ablated = [], 0, 0
    for members in source_blocks(run_parts(setup, parts, size, client)):
        read = [Part.read(parts / unit.name) for unit in members]
        n_clean, n_ablated = n_clean + sum(p.n_clean for p in read), n_ablated + sum(p.n_ablated for p in read)
        wanted = edges[edges["source_layer"] == members[0].layer]
        for target, listed in wanted.groupby("target_layer"):
            rows.append(_rows(setup, members[0], int(str(target)), listed, read))
    return pd.concat(rows, ignore_index=True), (n_clean, n_ablated)


def _rows(setup: Setup, unit: Unit, target: int, listed: pd.DataFrame, read: list[Part]) -> pd.DataFrame:
    """Statistics of the listed edges from the sources of one block to one target layer."""
    saes, settings = setup.saes, setup.settings
    row_of = {i.features[0]: row for row, i in enumerate(unit.interventions)}
    mine = listed[listed["source_feature"].isin(row_of)]
    wanted = np.zeros((len(unit.interventions), saes[target].n_latents), dtype=bool)
    wanted[mine["source_feature"].map(row_of).to_numpy(np.int64), mine["target_feature"].to_numpy(np.int64)] = True
    found = CellEffects.concatenate([p.cell_effects[target] for p in read])
    found = found.take(wanted[found.row, found.latent])
    m = merge(p.moments[target] for p in read).arrays()
    m["n_nonzero"] = np.where(wanted, m["n_nonzero"], 0)
    if setup.groupings:
        n_units = len(setup.groupings[0].labels)
        sums = merge(p.groups[target][0] for p in read)
        sums.total *= torch.from_numpy(np.repeat(wanted, n_units, axis=0)).to(sums.total.device)
        whole = over_units(sums, n_units, 1.0, settings.seed)
        p = whole.p
    else:
        whole = None
        p = cell_p(m, found, retention=1.0, seed=settings.seed)  # every row is kept, so every p is the real one
    pushes = np.sum([part.pushes for part in read], axis=0)
    weights = weights_of(unit.interventions, pushes, m["n_cells"], saes[unit.layer], saes[target])
    table = effect_rows(unit.layer, target, unit.interventions, m, p, m["n_nonzero"] > 0, weights, whole)
    table["skewness"] = skewness_of(m["n_nonzero"] > 0, found)
    table = table[[*ENDS, *_statistics(settings)]]
    silent = np.argwhere(wanted & (m["n_nonzero"] == 0))
    if not len(silent):
        return table
    features = np.array([i.features[0] for i in unit.interventions])
    gone = pd.DataFrame(
        {
            "source_layer": unit.layer, "source_feature": features[silent[:, 0]], "target_layer": target,
            "target_feature": silent[:, 1], "n_cells": m["n_cells"][silent[:, 0]], "n_nonzero": 0, "n_pos": 0,
            "n_neg": 0, "mean_delta": 0.0, "sd_delta": 0.0, "cohens_d": 0.0, "p_value": 1.0,
        }
    )  # fmt: skip
    return pd.concat([table, gone], ignore_index=True) if len(table) else gone


def _statistics(settings: TraceSettings) -> list[str]:
    return _STATISTICS if settings.units is None else [*_STATISTICS, P_UNSKEWED]


def _with_discovery(edges: pd.DataFrame, measured: pd.DataFrame, settings: TraceSettings) -> pd.DataFrame:
    """Measured rows in the order of the edges, with what the discovery cells had said; types as in the trace."""
    found = edges.rename(columns={"cohens_d": "discovery_d", "mean_delta": "discovery_delta"})
    table = found.merge(measured, on=ENDS, how="left", validate="one_to_one")
    table["q_value"] = benjamini_hochberg(settings.rule.p_values(table))
    types = dict.fromkeys(_COUNTS, "int32") | {"source_layer": "int16", "target_layer": "int16"}
    types |= {"source_feature": "int32", "target_feature": "int32"}
    table = table.reindex(columns=[*ENDS, *_statistics(settings), "q_value", "discovery_d", "discovery_delta"])
    return table.astype(types | {c: "float64" for c in table.columns if c not in types})
