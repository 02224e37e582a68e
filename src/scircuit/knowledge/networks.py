"""Protein and regulatory networks: one type, and a reader per database."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from scircuit._io import sha256_file
from scircuit.errors import ScircuitError
from scircuit.knowledge.genes import GeneNames
from scircuit.knowledge.gmt import GeneSets, read_gmt
from scircuit.knowledge.tables import read_table

_TRRUST_SIGN = {"Activation": 1, "Repression": -1, "Unknown": 0}


@dataclass(frozen=True)
class Network:
    """Links between genes."""

    name: str
    """Name of the database, kept beside every result made with it."""
    edges: pd.DataFrame
    """`source, target` (gene names), `sign` (int8: +1 activates, -1 represses, 0 unknown or meaningless) and `score`
    (float, the database's own). Distinct pairs, no self-links."""
    directed: bool
    """Whether source and target are told apart; in an undirected network source < target."""
    sha256: str
    """Hash of the file."""

    def __len__(self) -> int:
        return len(self.edges)

    def adjacency(self, names: GeneNames) -> sparse.csr_matrix:
        """Symmetric bool `[gene, gene]` over the rows of a gene table; unknown and ambiguous names are left out."""
        a, b = (names.resolve(self.edges[end]).row for end in ("source", "target"))
        kept = (a >= 0) & (b >= 0) & (a != b)
        n = len(names.genes)
        half = sparse.csr_matrix((np.ones(kept.sum(), bool), (a[kept], b[kept])), shape=(n, n))
        return ((half + half.T) > 0).tocsr()


def read_string(path: str | Path, *, min_score: int = 700, info: str | Path | None = None) -> Network:
    """STRING (von Mering et al.; Szklarczyk et al., Nucleic Acids Research 2023), links of at least `min_score`.

    Reads the official `9606.protein.links` file (blank-separated protein ids; `info` is the `9606.protein.info` file
    that gives their symbols) and tables with `gene_a, gene_b, combined_score` columns. Scores run from 0 to 1000.
    """
    if not 1 < min_score <= 1000:
        raise ScircuitError(
            f"min_score={min_score} is no STRING score; they run from 0 to 1000, 700 being high confidence."
        )
    if info is None:
        columns = ["gene_a", "gene_b", "combined_score"]
        table = read_table(path, columns, sep="\t").set_axis(["source", "target", "score"], axis=1)
    else:
        columns = ["protein1", "protein2", "combined_score"]
        table = read_table(path, columns, sep=" ").set_axis(["source", "target", "score"], axis=1)
        known = read_table(info, ["#string_protein_id", "preferred_name"], sep="\t")
        symbol = dict(zip(known["#string_protein_id"], known["preferred_name"], strict=True))
        table = table.assign(source=table["source"].map(symbol), target=table["target"].map(symbol)).dropna()
    if table["score"].max() <= 1:
        raise ScircuitError(f"{path} has scores of at most 1; STRING's run from 0 to 1000: multiply them by 1000.")
    table = table[table["score"] >= min_score]
    return _network("STRING", table.assign(sign=0), path, directed=False)


def read_trrust(path: str | Path) -> Network:
    """TRRUST v2 (Han et al., Nucleic Acids Research 2018): TF, target, mode, PMIDs, without header."""
    table = read_table(path, [0, 1, 2], sep="\t", header=None).set_axis(["source", "target", "mode"], axis=1)  # type: ignore[list-item]
    strange = sorted(set(table["mode"].astype(str)) - set(_TRRUST_SIGN))
    if strange:
        raise ScircuitError(
            f"{path} has the mode {strange[0]!r} in its third column; TRRUST knows {', '.join(_TRRUST_SIGN)}."
        )
    return _network("TRRUST", table.assign(sign=table["mode"].map(_TRRUST_SIGN), score=1.0), path, directed=True)


def read_collectri(path: str | Path) -> Network:
    """CollecTRI (Müller-Dott et al., Nucleic Acids Research 2023): `source, target, weight` (+1 or -1).

    The complexes AP1 and NFKB stand as sources under these names.
    """
    table = read_table(path, ["source", "target", "weight"])
    return _network("CollecTRI", table.assign(sign=np.sign(table["weight"]), score=1.0), path, directed=True)


def read_dorothea(path: str | Path, *, levels: Sequence[str] = ("A", "B", "C")) -> Network:
    """DoRothEA (Garcia-Alonso et al., Genome Research 2019): confidence A (best) to E; score = |weight|."""
    table = read_table(path, ["source", "confidence", "target", "weight"])
    strange = sorted(set(levels) - set("ABCDE"))
    if strange:
        raise ScircuitError(f"DoRothEA has no confidence level {strange[0]!r}; levels are A, B, C, D, E.")
    table = table[table["confidence"].isin(list(levels))]
    if table.empty:
        raise ScircuitError(f"{path} has no edge of confidence {', '.join(levels)}; allow lower levels.")
    return _network(
        "DoRothEA", table.assign(sign=np.sign(table["weight"]), score=table["weight"].abs()), path, directed=True
    )


def read_chipseq(path: str | Path, *, name: str = "ENCODE ChIP-seq") -> Network:
    """ENCODE TF ChIP-seq as a GMT (Enrichr 2015): terms like `GABPA_K562_HG19`, the factor before the first `_`."""
    sets = read_gmt(path, name=name)
    factor = [term.split("_")[0] for term in sets.genes]
    table = pd.DataFrame(
        {
            "source": np.repeat(factor, [len(genes) for genes in sets.genes.values()]),
            "target": [gene for genes in sets.genes.values() for gene in genes],
            "sign": 0,
            "score": 1.0,
        }
    )
    return _network(name, table, path, directed=True)


def regulons(network: Network, *, min_targets: int = 5) -> GeneSets:
    """The targets of each regulator as gene sets, by sign: `MYC activates`, `MYC represses`, `MYC regulates` (all).

    Over-representation of these sets names the regulator behind a latent's genes and the direction of control.

    Sets of fewer than `min_targets` genes are left out.
    """
    if not network.directed:
        raise ScircuitError(f"{network.name} is undirected and has no regulators; use TRRUST, CollecTRI or DoRothEA.")
    genes: dict[str, list[str]] = {}
    for regulator, part in network.edges.groupby("source", sort=True):
        groups = {"activates": part["sign"] > 0, "represses": part["sign"] < 0, "regulates": part["sign"] < 2}
        for verb, chosen in groups.items():
            if chosen.sum() >= min_targets and not (verb == "regulates" and (groups["activates"] == chosen).all()):
                genes[f"{regulator} {verb}"] = part.loc[chosen, "target"].tolist()
    if not genes:
        raise ScircuitError(f"No regulator of {network.name} has {min_targets} targets; lower min_targets.")
    return GeneSets.from_dict(f"{network.name} regulons", genes)


def _network(name: str, table: pd.DataFrame, path: str | Path, *, directed: bool) -> Network:
    """Distinct pairs without self-links; signs that contradict each other become 0, the best score is kept."""
    table = table.assign(source=table["source"].astype(str), target=table["target"].astype(str))
    table = table[table["source"] != table["target"]]
    if not directed:
        swapped = table["source"] > table["target"]
        table.loc[swapped, ["source", "target"]] = table.loc[swapped, ["target", "source"]].to_numpy()
    known = table[table["sign"] != 0]
    pairs = table.groupby(["source", "target"])["score"].max().to_frame()
    span = known.groupby(["source", "target"])["sign"].agg(["min", "max"])
    agreed = span["min"].where(span["min"] == span["max"], 0)
    pairs.insert(0, "sign", agreed.reindex(pairs.index).fillna(0).astype(np.int8))
    edges = pairs.reset_index().astype({"score": float})
    if edges.empty:
        raise ScircuitError(f"{path} leaves no edge of {name} under these thresholds; loosen them.")
    return Network(name, edges, directed, sha256_file(path))
