"""Which latents of a layer fire together, and the modules they form."""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from scircuit._optional import optional
from scircuit._progress import progress
from scircuit.errors import ScircuitError
from scircuit.features.accumulate import NO_PAIRS, Pairs

METHODS = ("louvain", "leiden")


class Limits(NamedTuple):
    """Which pairs of latents are kept: the defaults are those of the published atlas (arXiv 2603.11940)."""

    min_both: int = 50
    """Least common firings."""
    min_pmi: float = 2.0
    """Least pointwise mutual information, in bits."""


def count_together(row: np.ndarray, latent: np.ndarray, n_latents: int) -> Pairs:
    """Number of positions at which two latents both fire, by the key `a * n_latents + b` with a < b.

    `row` and `latent`, int64 `[firing]`, are position and latent of each firing.
    """
    if len(row) == 0:
        return NO_PAIRS
    fires = sparse.csr_matrix((np.ones(len(row), np.int32), (row, latent)), shape=(int(row.max()) + 1, n_latents))
    together = sparse.triu(fires.T @ fires, k=1).tocoo()
    key = together.row.astype(np.int64) * n_latents + together.col
    order = np.argsort(key)
    return Pairs(key[order], together.data[order].astype(np.int64), together.data[order].astype(np.float64))


def coactivation_table(
    together: Pairs, n_firings: np.ndarray, n_positions: int, layer: int, limits: Limits
) -> pd.DataFrame:
    """Rows of `coactivation.parquet`: pairs of latents that fire together more often than their rates explain.

    PMI = log2(p_ab / (p_a p_b)) over gene positions; NPMI = PMI / -log2(p_ab), in [-1, 1] (Bouma 2009). `together` are
    summed results of `count_together`, `n_firings` is int64 `[latent]`.
    """
    enough = together.n >= limits.min_both
    a, b = np.divmod(together.key[enough], len(n_firings))
    n_both = together.n[enough]
    share = n_both / max(n_positions, 1)
    pmi = np.log2(n_both * n_positions / (n_firings[a] * n_firings[b].astype(np.float64)))
    # Two latents that fire together at every position have share 1, PMI 0 and no NPMI of their own.
    npmi = np.divide(pmi, -np.log2(share), out=np.ones(len(pmi)), where=share < 1)
    table = pd.DataFrame(
        {
            "layer": np.full(len(a), layer, dtype=np.int32),
            "feature_a": a.astype(np.int32),
            "feature_b": b.astype(np.int32),
            "n_both": n_both,
            "n_a": n_firings[a],
            "n_b": n_firings[b],
            "pmi": pmi,
            "npmi": npmi,
        }
    )
    return table[table["pmi"] >= limits.min_pmi].reset_index(drop=True)


def find_modules(
    pairs: pd.DataFrame, *, method: str = "louvain", resolution: float = 1.0, min_size: int = 3, seed: int = 42
) -> pd.DataFrame:
    """Rows of `modules.parquet`: groups of latents of a layer, on the NPMI-weighted graph of `coactivation_table`.

    `louvain` is that of NetworkX (Blondel et al. 2008); `leiden` (Traag et al. 2019, RB configuration model) needs the
    extra `scircuit[leiden]` (leidenalg and igraph are GPL-licensed and therefore no requirement). Pairs with NPMI <= 0
    carry no weight, groups of fewer than `min_size` are no modules; modules of a layer are numbered from the largest.
    """
    check_method(method)
    partition = _louvain if method == "louvain" else _leiden()
    rows = []
    for layer, part in progress(pairs[pairs["npmi"] > 0].groupby("layer"), desc="modules", unit="layer"):
        groups = [sorted(g) for g in partition(part, resolution, seed) if len(g) >= min_size]
        for module, members in enumerate(sorted(groups, key=lambda g: (-len(g), g[0]))):
            rows += [(layer, feature, module, len(members)) for feature in members]
    table = pd.DataFrame(rows, columns=["layer", "feature", "module", "module_size"]).astype(np.int32)
    return table.sort_values(["layer", "feature"], ignore_index=True)


def check_method(method: str) -> None:
    """Refuse an unknown clustering method, or one whose packages are not installed, before hours of work."""
    if method not in METHODS:
        raise ScircuitError(f"The clustering method {method!r} is unknown; it may be {' or '.join(METHODS)}.")
    if method == "leiden":
        _leiden()


def match_layers(decoders: Mapping[int, torch.Tensor], *, min_cosine: float = 0.7, block: int = 1024) -> pd.DataFrame:
    """Rows of `layer_matches.parquet`: latents of different layers that write the same direction.

    For every pair of layers a < b, each latent of a is matched with the latent of b whose decoder direction has the
    largest absolute cosine; pairs of at least `min_cosine` are kept (0.7 is the published threshold), `mutual` if each
    is the other's best. `decoders` are `W_dec [latent, d_model]` by layer; `block` latents are compared at a time,
    which bounds the memory.
    """
    unit = {layer: torch.nn.functional.normalize(w.detach().float(), dim=1) for layer, w in sorted(decoders.items())}
    rows: list[pd.DataFrame] = []
    for a, b in progress(list(combinations(unit, 2)), desc="layer matches", unit="pair"):
        forward, backward = _best_cosine(unit[a], unit[b], block), _best_cosine(unit[b], unit[a], block)
        cosine, best = (part.cpu().numpy() for part in forward)
        mutual = backward[1].cpu().numpy()[best] == np.arange(len(best))
        table = pd.DataFrame(
            {
                "layer_a": np.int32(a),
                "feature_a": np.arange(len(best), dtype=np.int32),
                "layer_b": np.int32(b),
                "feature_b": best.astype(np.int32),
                "cosine": cosine,
                "mutual": mutual,
            }
        )
        rows.append(table[table["cosine"].abs() >= min_cosine])
    columns = ["layer_a", "feature_a", "layer_b", "feature_b", "cosine", "mutual"]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)


def _best_cosine(left: torch.Tensor, right: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Signed cosine and index of the row of `right` with the largest |cosine|, for each row of `left`."""
    index = torch.cat([(part @ right.T).abs().argmax(dim=1) for part in left.split(block)])
    return (left * right[index]).sum(dim=1), index


def _louvain(pairs: pd.DataFrame, resolution: float, seed: int) -> list[set[int]]:
    import networkx as nx

    graph = nx.Graph()
    graph.add_weighted_edges_from(pairs[["feature_a", "feature_b", "npmi"]].itertuples(index=False, name=None))
    return nx.community.louvain_communities(graph, resolution=resolution, seed=seed)


def _leiden() -> Callable[[pd.DataFrame, float, int], list[set[int]]]:
    otherwise = (
        "Leiden needs leidenalg and igraph; install them with `pip install 'scircuit[leiden]'` or use method='louvain'."
    )
    igraph, leidenalg = optional("igraph", otherwise), optional("leidenalg", otherwise)

    def partition(pairs: pd.DataFrame, resolution: float, seed: int) -> list[set[int]]:
        nodes, ends = np.unique(pairs[["feature_a", "feature_b"]].to_numpy(), return_inverse=True)
        graph = igraph.Graph(n=len(nodes), edges=ends.reshape(-1, 2).tolist())
        found = leidenalg.find_partition(
            graph, leidenalg.RBConfigurationVertexPartition, weights=pairs["npmi"].tolist(),
            resolution_parameter=resolution, seed=seed, n_iterations=-1,
        )  # fmt: skip
        return [{int(nodes[i]) for i in members} for members in found]

    return partition
