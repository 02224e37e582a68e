"""What every export says about an edge and a node: one weight, one name, no missing values."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS, GRADES, SOURCE, TARGET, gene_list
from scircuit.errors import ScircuitError

Key = tuple[int, int]

STATISTICS = [
    "cohens_d",
    "mean_delta",
    "sd_delta",
    "consistency",
    "p_value",
    "q_value",
    "n_cells",
    "n_nonzero",
    "n_pos",
    "n_neg",
]
"""Columns of the edge table that travel with every exported edge."""


class Graph(NamedTuple):
    """A foreign graph as tables.

    `edges` has the four columns of an edge's ends (`source_layer, source_feature, target_layer, target_feature`)
    and whatever statistics its file held; `nodes` has `layer, feature, label` and the rest; `metadata` is what
    the file says about itself.
    """

    edges: pd.DataFrame
    nodes: pd.DataFrame
    metadata: dict[str, Any]


def strongest(circuit: Circuit, max_edges: int | None) -> pd.DataFrame:
    """The edges of largest |d|, all when `max_edges` is None."""
    edges = circuit.edges
    if edges.empty:
        narrow = circuit.widest != GRADES[0]
        wider = f"take a wider grade (--grade {GRADES[0]})" if narrow else "build it by a wider rule"
        raise ScircuitError(f"the circuit has no edges that are {circuit.widest}, so there is no file; {wider}.")
    if max_edges is None or len(edges) <= max_edges:
        return edges
    order = np.argsort(-edges["cohens_d"].abs().to_numpy(), kind="stable")[:max_edges]
    return edges.iloc[np.sort(order)]


def weights(edges: pd.DataFrame) -> list[float]:
    """Minus the mean response: what the source adds to the target, in units of the target's activation.

    Positive where the edge supports its target (it falls without the source), as in attribution graphs.
    """
    return (-edges["mean_delta"]).tolist()


def ends(edges: pd.DataFrame) -> Iterator[tuple[Key, Key]]:
    """Source and target of every edge as (layer, feature)."""
    sources, targets = (edges[columns].itertuples(index=False, name=None) for columns in (SOURCE, TARGET))
    return zip(sources, targets, strict=True)


def statistics(edges: pd.DataFrame) -> list[dict[str, Any]]:
    """The statistics of every edge as plain numbers; what is missing or not finite is left out."""
    present = [name for name in STATISTICS if name in edges]
    return [{str(k): v for k, v in row.items() if _is_finite(v)} for row in edges[present].to_dict("records")]


def described(circuit: Circuit, edges: pd.DataFrame) -> dict[Key, dict[str, Any]]:
    """The nodes at the ends of the edges, in the order of the node table: plain values, nothing missing."""
    used = {key for pair in ends(edges) for key in pair}
    found: dict[Key, dict[str, Any]] = {}
    for row in circuit.nodes.to_dict("records"):
        key = (int(row["layer"]), int(row["feature"]))
        if key not in used:
            continue
        genes = gene_list(row["top_genes"])
        # Without a gene set the label only says that there is none.
        label = row["label"] if row["n_terms"] > 0 and isinstance(row["label"], str) else ""
        numbers = {name: row[name] for name in ("frequency", "mean_activation", "n_terms", "n_firings")}
        found[key] = {
            "layer": key[0],
            "feature": key[1],
            "label": label or ", ".join(genes[:2]) or node_id(key),
            "genes": ", ".join(genes),
            "is_source": bool(row["is_source"]),
            **{name: value for name, value in numbers.items() if _is_finite(value)},
        }
    if missing := used - found.keys():
        raise ScircuitError(
            f"{node_id(min(missing))} is the end of an edge but not in the node table; "
            "edges and nodes must come from one run."
        )
    return found


def node_id(key: Key) -> str:
    """`L2_F103`: the name of a latent in graphs and tables, as in the published study."""
    return f"L{key[0]}_F{key[1]}"


def require_ends(edges: pd.DataFrame) -> pd.DataFrame:
    """The table with whole-number ends in front."""
    return edges[[*ENDS, *(column for column in edges.columns if column not in ENDS)]].astype(dict.fromkeys(ENDS, int))


def _is_finite(value: Any) -> bool:
    return value is not None and bool(np.isfinite(value))
