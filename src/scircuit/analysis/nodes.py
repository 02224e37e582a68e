"""Latents as rows of the node table: fast counting over millions of edges."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from scircuit.circuits.circuit import Circuit
from scircuit.circuits.grades import SEEN
from scircuit.circuits.schema import GRADES, SOURCE
from scircuit.errors import ScircuitError


class NodeIndex(NamedTuple):
    """Row of the node table of a (layer, feature): `row[base[layer] + feature]`, -1 where there is none."""

    base: np.ndarray
    row: np.ndarray
    n_nodes: int

    @classmethod
    def of(cls, nodes: pd.DataFrame) -> "NodeIndex":
        """Index a node table (`layer, feature`)."""
        layer, feature = nodes["layer"].to_numpy(np.int64), nodes["feature"].to_numpy(np.int64)
        width = np.zeros(layer.max(initial=-1) + 1, dtype=np.int64)
        np.maximum.at(width, layer, feature + 1)
        base = np.concatenate([[0], np.cumsum(width)])
        row = np.full(base[-1] + 1, -1, dtype=np.int64)
        row[base[layer] + feature] = np.arange(len(nodes))
        return cls(base, row, len(nodes))

    def rows(self, layer: pd.Series, feature: pd.Series) -> np.ndarray:
        """Node rows of latents, int64 `[latent]`; a latent that the node table lacks is refused."""
        layers, features = layer.to_numpy(np.int64), feature.to_numpy(np.int64)
        known = (layers >= 0) & (layers < len(self.base) - 1) & (features >= 0)
        safe = np.where(known, layers, 0)
        position = self.base[safe] + features
        known &= position < self.base[safe + 1]
        row = np.where(known, self.row[np.where(known, position, -1)], -1)
        if (row < 0).any():
            first = int(np.argmax(row < 0))
            raise ScircuitError(
                f"latent {features[first]} of layer {layers[first]} is not in the node table; "
                "edges and nodes must come from one run."
            )
        return row

    def sources(self, edges: pd.DataFrame) -> np.ndarray:
        """Node row of each edge's source."""
        return self.rows(edges["source_layer"], edges["source_feature"])

    def targets(self, edges: pd.DataFrame) -> np.ndarray:
        """Node row of each edge's target."""
        return self.rows(edges["target_layer"], edges["target_feature"])


def traced_sources(circuit: Circuit) -> pd.DataFrame:
    """The sources that were ablated, with or without edges: `source_layer, source_feature` sorted, unique."""
    tests = circuit.tests
    chosen = tests.loc[tests["kind"] == "latent", SOURCE]
    return chosen.drop_duplicates().sort_values(SOURCE, ignore_index=True)


def n_layers(circuit: Circuit) -> int:
    """Layers of the model, from the provenance where it says so, else the deepest node."""
    model = circuit.provenance.get("model")
    recorded = model.get("n_layers") if isinstance(model, dict) else None
    return int(recorded or circuit.nodes["layer"].max() + 1)


def sizes(edges: pd.DataFrame) -> np.ndarray:
    """|d| of each edge, float64 `[edge]`; NaN where d is infinite, all cells having responded alike."""
    size = np.abs(edges["cohens_d"].to_numpy(np.float64))
    return np.where(np.isfinite(size), size, np.nan)


def need_columns(name: str, table: pd.DataFrame, columns: Sequence[str], how: str = "") -> None:
    """Refuse a table that lacks columns, with those that it needs, or with how it is made."""
    missing = [column for column in columns if column not in table]
    if missing:
        raise ScircuitError(f"the {name} lacks {', '.join(missing)}; {how or 'it needs ' + ', '.join(columns)}.")


def need_edges(circuit: Circuit, where: str = "") -> None:
    """Refuse a circuit without edges: there is nothing to ask."""
    if circuit.edges.empty:
        wider = f", or ask a wider circuit (--option grade={GRADES[0]})" if circuit.widest != GRADES[0] else ""
        raise ScircuitError(
            f"no edge is {circuit.widest}{where}; lower the thresholds, or trace more cells or sources{wider}. {SEEN}"
        )
