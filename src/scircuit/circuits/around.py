"""The part of a circuit around a gene, a label or a latent."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from scircuit._wording import did_you_mean
from scircuit.circuits.schema import gene_list
from scircuit.errors import ScircuitError

_LATENT = re.compile(r"L?(\d+)\s*(?:_F|:)\s*(\d+)", re.IGNORECASE)


def latents_named(nodes: pd.DataFrame, what: str) -> np.ndarray:
    """Which latents are meant, bool `[node]`.

    `2:17` or `L2_F17` is one; else those with that gene among their top genes or with that label, whatever the case.

    Raises
    ------
    ScircuitError
        Where no latent of the circuit is.
    """
    if found := _LATENT.fullmatch(what.strip()):
        layer, feature = map(int, found.groups())
        chosen = ((nodes["layer"] == layer) & (nodes["feature"] == feature)).to_numpy(dtype=bool)
    else:
        wanted = what.strip().casefold()
        of_gene = [wanted in {gene.casefold() for gene in gene_list(genes)} for genes in nodes["top_genes"]]
        chosen = np.array(of_gene, dtype=bool) | (nodes["label"].astype(str).str.casefold() == wanted).to_numpy(bool)
    if not chosen.any():
        genes = {gene for row in nodes["top_genes"] for gene in gene_list(row)}
        known = sorted(genes | set(nodes["label"].astype(str)))
        raise ScircuitError(
            f"No latent of the circuit is {what!r}, has that gene among its top genes, or that label; "
            f"{did_you_mean(what, known)}give a gene, a label or a latent such as 2:17."
        )
    return chosen


def edges_around(edges: pd.DataFrame, nodes: pd.DataFrame, what: str | Sequence[str]) -> pd.DataFrame:
    """The edges into and out of the latents that `what` names (see `latents_named`), several of them together.

    Raises
    ------
    ScircuitError
        Where a name means nothing here.
    """
    chosen = np.zeros(len(nodes), dtype=bool)
    for name in [what] if isinstance(what, str) else what:
        chosen |= latents_named(nodes, name)
    meant = pd.MultiIndex.from_frame(nodes.loc[chosen, ["layer", "feature"]])
    touches = np.zeros(len(edges), dtype=bool)
    for end in ("source", "target"):
        touches |= pd.MultiIndex.from_frame(edges[[f"{end}_layer", f"{end}_feature"]]).isin(meant)
    return edges[touches].reset_index(drop=True)
