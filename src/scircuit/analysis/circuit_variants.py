"""What is run to learn whether a circuit carries a behaviour: the circuit, its orders by size, random sets, members."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import NodeIndex, need_edges
from scircuit.analysis.strata import Strata, node_strata
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import LATENT, SOURCE, TARGET
from scircuit.circuits.variants import ABLATIONS, RANDOM_ORDERS, SHARES, UNITS, Variant
from scircuit.errors import ScircuitError

_OF_EDGE = {"specific": "specificity", "d": "cohens_d", "weight": "weight_effect"}


def members(edges: pd.DataFrame, below: int) -> np.ndarray:
    """The latents at the ends of some edges, int64 `[latent, 2]`, in layers that have a say; ascending."""
    ends = np.concatenate([edges[side].to_numpy(np.int64) for side in (SOURCE, TARGET)])
    return np.unique(ends[ends[:, 0] < below], axis=0)


class Variants:
    """All variants of one circuit for one behaviour.

    `nodes` are those of the circuit with `norm`, the length of the decoder row, and `attribution`; `below` is the
    first layer without a say. `circuit` gives the members, `wide` (of the widest grade) the edges of the orders. All is
    done by `ablation`; the circuit and the rest alone by the other one too.
    """

    def __init__(
        self,
        circuit: Circuit,
        wide: Circuit,
        nodes: pd.DataFrame,
        below: int,
        rng: np.random.Generator,
        ablation: str = ABLATIONS[0],
    ) -> None:
        if ablation not in ABLATIONS:
            raise ScircuitError(f"ablation={ablation!r} is unknown; it may be {' or '.join(ABLATIONS)}.")
        need_edges(circuit)
        self.nodes = nodes[nodes["layer"] < below].reset_index(drop=True)
        self.members = members(circuit.edges, below)
        if not len(self.members):
            raise ScircuitError(f"no latent of the circuit lies below layer {below}, so none can carry the behaviour.")
        self.edges = wide.edges.reset_index(drop=True)
        self.below, self.rng, self.ablation = below, rng, ablation
        self._rows = NodeIndex.of(self.nodes).rows(*(pd.Series(column) for column in self.members.T))

    def whole(self) -> list[Variant]:
        """The model, all of it silenced, the circuit alone and the rest alone, by either ablation; errors once."""
        none = np.zeros((0, 2), dtype=np.int64)
        found = [Variant("model", none, removed=True)]
        (other,) = set(ABLATIONS) - {self.ablation}
        for how in ((self.ablation, "kept"), (other, "kept"), (self.ablation, "ablated")):
            found += [
                Variant("empty", none, False, *how),
                Variant("circuit", self.members, False, *how),
                Variant("rest", self.members, True, *how),
            ]
        return found

    def randomised(self, draws: int) -> list[Variant]:
        """Random circuits of the same number of latents in every stratum of layer and firing rate, kept and removed."""
        strata = node_strata(self.nodes)
        drawn = [self._alike(strata) for _ in range(draws)]
        return [
            Variant(kind, latents, kind == "random_rest", self.ablation, draw=draw)
            for kind in ("random_circuit", "random_rest")
            for draw, latents in enumerate(drawn)
        ]

    def single(self, n_members: int, draws: int) -> list[Variant]:
        """The circuit without each of `n_members` of its latents (drawn), and with each of `draws` others beside it."""
        n = len(self.members)
        tried = np.sort(self.rng.choice(n, min(n_members, n), replace=False))
        without = [
            self._one("without", np.delete(self.members, i, axis=0), layer, feature)
            for i, (layer, feature) in zip(tried, self.members[tried].tolist(), strict=True)
        ]
        outside = np.setdiff1d(self._pool(), self._rows)
        extra = self.rng.choice(outside, min(draws, len(outside)), replace=False)
        return without + [
            self._one("beside", np.vstack([self.members, [layer, feature]]), layer, feature)
            for layer, feature in self._latents(np.sort(extra)).tolist()
        ]

    def _one(self, kind: str, latents: np.ndarray, layer: int, feature: int) -> Variant:
        return Variant(kind, latents, ablation=self.ablation, layer=layer, feature=feature)

    def orders(self, shares: Sequence[float] = SHARES) -> list[Variant]:
        """The first latents, and the ends of the first edges, of every order that the circuit tells, at every size."""
        found = []
        for unit, of_unit in zip(UNITS, (self.node_scores(), self.edge_scores()), strict=True):
            for order, score in of_unit.items():
                for draw in range(RANDOM_ORDERS if order == "random" else 1):
                    ranked = self._ranked(score)
                    for share in shares:
                        latents = self._first(unit, ranked[: max(1, round(share * len(ranked)))])
                        found.append(Variant("order", latents, False, self.ablation, "kept", unit, order, share, draw))
        return found

    def _first(self, unit: str, rows: np.ndarray) -> np.ndarray:
        return self._latents(rows) if unit == "node" else members(self.edges.iloc[rows], self.below)

    def node_scores(self) -> Mapping[str, np.ndarray]:
        """By order, of every latent: the best of its edges where edges are scored; all alike at random."""
        index = NodeIndex.of(self.nodes)
        scores = {}
        for order, column in self._columns().items():
            score = np.zeros(len(self.nodes))
            value = self.edges[column].abs().fillna(0).to_numpy(np.float64)
            for side in (SOURCE, TARGET):
                inside = (self.edges[side[0]] < self.below).to_numpy()
                rows = index.rows(*(self.edges.loc[inside, name] for name in side))
                np.maximum.at(score, rows, value[inside])
            scores[order] = score
        rate = self.nodes["frequency"] * self.nodes["mean_activation"] * self.nodes["norm"]
        gradient = self.nodes["attribution"].abs()
        plain = {"rate_norm": rate, "gradient": gradient, "random": pd.Series(0.0, self.nodes.index)}
        return scores | {order: values.to_numpy(np.float64) for order, values in plain.items()}

    def edge_scores(self) -> Mapping[str, np.ndarray]:
        """By order, of every edge: its own, or the product of those of its ends."""
        scores = {
            order: self.edges[column].abs().fillna(0).to_numpy(np.float64) for order, column in self._columns().items()
        }
        of_node = self.node_scores()
        known = self.nodes.set_index(LATENT).index
        for order in ("rate_norm", "gradient"):
            by_latent = pd.Series(of_node[order], known)
            ends = [by_latent.reindex(pd.MultiIndex.from_frame(self.edges[side])) for side in (SOURCE, TARGET)]
            # An end that has no say leaves the edge to its other one.
            scores[order] = np.prod([end.fillna(1.0).to_numpy() for end in ends], axis=0)
        return scores | {"random": np.zeros(len(self.edges))}

    def _columns(self) -> Mapping[str, str]:
        return {order: column for order, column in _OF_EDGE.items() if column in self.edges}

    def _ranked(self, score: np.ndarray) -> np.ndarray:
        """Rows from the highest score down, equal ones at random."""
        return np.lexsort([self.rng.random(len(score)), -score])

    def _pool(self) -> np.ndarray:
        """Rows of the latents that ever fire."""
        return np.flatnonzero(self.nodes["n_firings"] > 0)

    def _latents(self, rows: np.ndarray) -> np.ndarray:
        return self.nodes[LATENT].to_numpy(np.int64)[rows]

    def _alike(self, strata: Strata) -> np.ndarray:
        code = strata.code[self._rows]
        drawn = [self._rows[code < 0]]  # a latent that never fires has no like
        for stratum, n in zip(*np.unique(code[code >= 0], return_counts=True), strict=True):
            alike = strata.members[strata.start[stratum] : strata.start[stratum] + strata.size[stratum]]
            drawn.append(self.rng.choice(alike, n, replace=False))
        return self._latents(np.sort(np.concatenate(drawn)))
