"""Conditions (model x SAE x cells) that are compared with each other, and the labels of their edges."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import NodeIndex, need_edges
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import LAYER_PAIR
from scircuit.errors import ScircuitError

_ROUNDS = 4
UNLABELLED = ("", "unlabelled", "unknown", "unannotated")


def traced_cells(circuit: Circuit) -> int:
    """Cells of the trace: what the provenance records as `n_cells`, else the most cells any source fired in."""
    recorded = circuit.provenance.get("n_cells")
    return int(circuit.tests["n_cells"].max()) if recorded is None else int(recorded)


def check_conditions(conditions: Sequence[Artefacts], n_models: int = 2) -> list[str]:
    """Names of the models in order of appearance, after refusing conditions that cannot be compared."""
    names = [condition.name for condition in conditions]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise ScircuitError(f"two conditions are called {repeated!r}; give each its own name.")
    models = list(dict.fromkeys(condition.model_name for condition in conditions))
    if len(models) < n_models:
        raise ScircuitError(
            f"{n_models} models are needed and {len(models)} given ({', '.join(models) or 'none'}); conditions of one "
            "model are not independent evidence."
        )
    first = conditions[0]
    for other in conditions:
        need_edges(other.circuit())
        limits, reference = (c.circuit().provenance.get("thresholds") for c in (other, first))
        if limits != reference:
            raise ScircuitError(
                f"{other.name} was built with the thresholds {limits} and {first.name} with {reference}; build both "
                "from their traces with one rule (`scircuit compare --rule default`)."
            )
        cells, expected = traced_cells(other.circuit()), traced_cells(first.circuit())
        if cells != expected:
            raise ScircuitError(
                f"{other.name} was traced in {cells} cells and {first.name} in {expected}; the error of d depends on "
                "it: subsample the larger from its stored moments "
                f"(`scircuit compare --cells {min(cells, expected)}`), or trace both in as many cells."
            )
    return models


class LabelledEdges(NamedTuple):
    """Edges with a label at both ends, sorted by stratum; all arrays `[edge]`.

    `source`, `target` are codes into `labels`; a stratum is a (source layer, target layer), the edges of stratum i are
    `start[i] : start[i + 1]`; `ends` int64 `[edge, 2]` are the latents of both ends, as rows of `circuit.nodes`.
    """

    source: np.ndarray
    target: np.ndarray
    abs_d: np.ndarray
    start: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, circuit: Circuit, labels: pd.Index) -> "LabelledEdges":
        """The labelled edges of a circuit, labels coded by `labels`."""
        edges, index = circuit.edges, NodeIndex.of(circuit.nodes)
        code = label_codes(circuit, labels)
        ends = np.column_stack([index.sources(edges), index.targets(edges)])
        source, target = code[ends[:, 0]], code[ends[:, 1]]
        row = np.flatnonzero((source >= 0) & (target >= 0))
        layers = edges[LAYER_PAIR].to_numpy(np.int64)[row]
        stratum = layers[:, 0] * (layers.max(initial=0) + 1) + layers[:, 1]
        order = np.argsort(stratum, kind="stable")
        row, stratum = row[order], stratum[order]
        start = np.flatnonzero(np.r_[True, stratum[1:] != stratum[:-1], True]) if len(row) else np.zeros(1, int)
        size = np.abs(edges["cohens_d"].to_numpy(np.float64)[row])
        return cls(source[row], target[row], size, start, ends[row])

    def permuted_targets(self, rng: np.random.Generator) -> np.ndarray:
        """Targets exchanged among the edges of a stratum.

        The bipartite configuration model of each layer pair: source labels keep their numbers of edges, target labels
        their frequencies, target latents their in-degrees; only who drives whom is drawn anew. As in a circuit,
        hardly a latent gets a target twice: with repeated edges the draws would hold fewer label pairs than any
        circuit, and targets drawn at random would look conserved.
        """
        order = np.arange(len(self.target))
        for begin, end in pairwise(self.start):
            rng.shuffle(order[begin:end])
        _separate(self.ends, order, self.start, rng)
        return self.target[order]


def _separate(ends: np.ndarray, order: np.ndarray, start: np.ndarray, rng: np.random.Generator) -> None:
    """Exchange, in place, the targets of repeated edges with those of random others of their stratum.

    Four rounds leave few; a source that drives a large part of the stratum's targets may keep some.
    """
    key = ends[:, 0] * (int(ends[:, 1].max(initial=0)) + 1)
    for _ in range(_ROUNDS):
        # Place and pair in one integer: sorting integers is several times faster than finding their order.
        pair, place = np.divmod(np.sort((key + ends[order, 1]) * len(order) + np.arange(len(order))), len(order))
        repeated = place[1:][np.diff(pair) == 0]
        if not len(repeated):
            return
        stratum = np.searchsorted(start, repeated, side="right") - 1
        others = start[stratum] + (rng.random(len(repeated)) * np.diff(start)[stratum]).astype(np.int64)
        mixed = np.unique(np.concatenate([repeated, others]))
        within = np.searchsorted(start, mixed, side="right")
        order[mixed] = order[mixed[np.lexsort((rng.random(len(mixed)), within))]]


def label_codes(circuit: Circuit, labels: pd.Index) -> np.ndarray:
    """Code of each node's label, -1 where it has none, int64 `[node]`."""
    text = circuit.nodes["label"].fillna("").astype(str)
    code = labels.get_indexer(pd.Index(text))
    return np.where(text.isin(UNLABELLED).to_numpy(), -1, code)


def labelled_edges(conditions: Sequence[Artefacts], edges: Sequence[LabelledEdges]) -> pd.DataFrame:
    """The labelled edges of all conditions in one table: `source, target` (codes), `abs_d, model, condition`."""
    parts = [
        pd.DataFrame({"source": own.source, "target": own.target, "abs_d": own.abs_d}).assign(
            model=condition.model_name, condition=condition.name
        )
        for condition, own in zip(conditions, edges, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def label_vocabulary(circuits: Sequence[Circuit]) -> pd.Index:
    """Every label in any of the circuits, sorted."""
    found = {label for circuit in circuits for label in circuit.nodes["label"].dropna().astype(str)}
    return pd.Index(sorted(found - set(UNLABELLED)), dtype=object)
