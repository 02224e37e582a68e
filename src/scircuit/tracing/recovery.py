"""What a trace finds of circuits that were planted: precision of each grade, recall of drives that are large enough."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from scircuit._tables import read_parquet
from scircuit.circuits.build import build_circuit
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.grades import at_least
from scircuit.circuits.rule import DEFAULT, EdgeRule
from scircuit.circuits.schema import ENDS, GRADES, TERMS
from scircuit.tracing.planted import N_LATENTS, N_LAYERS, Planted
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.tracer import trace

DOSE = 0.3
"""Clean SD of the target from which a drive counts as large enough to be found."""


@dataclass(frozen=True)
class Recovery:
    """What was found."""

    table: pd.DataFrame
    """One row per grade: `grade, n_edges, precision` (share of the edges that were planted), `recall` (share of the
    planted pairs whose mean response is at least `DOSE` clean SD), `n_by_decoys` (held-out decoys, brought to the
    number of tests of the latents)."""
    by_dose: pd.DataFrame
    """The same recall of the strictest grade in bins of the dose: `dose_low, dose_high, n_planted, recall`."""
    circuit: Circuit
    """What was found, every grade of it."""


def recover(
    truth: Planted, n_cells: int, settings: TraceSettings | None = None, rule: EdgeRule = DEFAULT, seed: int = 0
) -> Recovery:
    """Trace every source latent of a planted model and compare its edges with what was planted."""
    sources = {layer: list(range(N_LATENTS // 2)) for layer in range(N_LAYERS - 1)}
    settings = settings or TraceSettings(engine="exact")
    with TemporaryDirectory() as folder:
        out = trace(truth.model, truth.saes, truth.cells(n_cells, seed), sources, folder, settings=settings)
        circuit, effects = bare_circuit(out, _nodes(), settings, rule), read_parquet(Path(out) / "effects.parquet")
    return compared(circuit, effects, truth)


def bare_circuit(folder: str | Path, nodes: pd.DataFrame, settings: TraceSettings, rule: EdgeRule = DEFAULT) -> Circuit:
    """The circuit of a trace without a catalogue of features: `nodes` say no more than `layer, feature, label`."""
    effects, tests, scales = (read_parquet(Path(folder) / f"{name}.parquet") for name in ("effects", "tests", "scales"))
    no_genes = pd.Series([()] * len(nodes), index=nodes.index, dtype=object).map(list)
    nodes = nodes.assign(frequency=0.1, mean_activation=1.0, top_genes=no_genes, n_terms=0, n_firings=10)
    kept = {"retention": settings.retention, "kept_abs_d": settings.kept_abs_d}
    return build_circuit(effects, tests, nodes, pd.DataFrame(columns=list(TERMS)), rule, kept, scales)


def compared(circuit: Circuit, effects: pd.DataFrame, truth: Planted) -> Recovery:
    """Edges of a circuit of a planted model beside the planted ones; `effects` as its trace kept them."""
    own = effects[effects["kind"] == "latent"]
    own = own.assign(
        planted=_planted(own, truth), dose=(own["mean_delta"].abs() / own["clean_sd"].where(own["clean_sd"] > 0))
    )
    known: Mapping[str, float | None] = {row["grade"]: row["n_by_decoys"] for row in circuit.provenance["grades"]}
    large = own[own["planted"] & (own["dose"] >= DOSE)]
    rows, hit = [], np.zeros(len(large), dtype=bool)
    for grade in GRADES[: GRADES.index(circuit.provenance["grade"]) + 1]:
        edges = circuit.edges[at_least(circuit.edges, grade)]
        hit = pd.MultiIndex.from_frame(large[ENDS]).isin(pd.MultiIndex.from_frame(edges[ENDS]))
        rows.append(
            {
                "grade": grade,
                "n_edges": len(edges),
                "precision": float(_planted(edges, truth).mean()) if len(edges) else np.nan,
                "recall": float(hit.mean()) if len(large) else np.nan,
                "n_by_decoys": known[grade],
            }
        )
    return Recovery(pd.DataFrame(rows), _by_dose(own[own["planted"]], edges[ENDS]), circuit)


def _planted(pairs: pd.DataFrame, truth: Planted) -> np.ndarray:
    found = np.zeros(len(pairs), dtype=bool)
    ends = pairs[["source_layer", "target_layer"]].to_numpy(np.int64)
    for source, target in np.unique(ends, axis=0).tolist():
        rows = np.flatnonzero((ends == [source, target]).all(axis=1))
        part = pairs.iloc[rows]
        reached = truth.drives_between(source, target)
        found[rows] = reached[part["source_feature"].to_numpy(np.int64), part["target_feature"].to_numpy(np.int64)]
    return found


def _by_dose(planted: pd.DataFrame, edges: pd.DataFrame) -> pd.DataFrame:
    limits = np.array([0, 0.1, 0.2, 0.3, 0.5, 1.0, np.inf])
    hit = pd.MultiIndex.from_frame(planted[list(edges.columns)]).isin(pd.MultiIndex.from_frame(edges))
    place = np.digitize(planted["dose"].to_numpy(), limits) - 1
    rows = []
    for i in range(len(limits) - 1):
        mine = place == i
        share = float(hit[mine].mean()) if mine.any() else np.nan
        rows.append({"dose_low": limits[i], "dose_high": limits[i + 1], "n_planted": int(mine.sum()), "recall": share})
    return pd.DataFrame(rows)


def _nodes() -> pd.DataFrame:
    layer, feature = np.divmod(np.arange(N_LAYERS * N_LATENTS), N_LATENTS)
    label = [f"source {i}" if i < N_LATENTS // 2 else f"target {i}" for i in feature]
    return pd.DataFrame({"layer": layer, "feature": feature, "label": label})
