"""Disease in one circuit: which latents carry disease genes, of which diseases, and whether they are central."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from scircuit.analysis.disease import associate, disease_centrality
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.circuit import Circuit

ASSOCIATED = ("disease", "n_overlap", "set_size", "fold", "p_value", "q_value")


def disease(
    circuit: Circuit,
    genes: pd.DataFrame,
    sets: Mapping[str, Sequence[str]],
    profile_size: int = 50,
    min_firings: int = 5,
    max_q: float = 0.05,
) -> Result:
    """`associate` and `disease_centrality` in one answer.

    Parameters
    ----------
    circuit : Circuit
    genes : DataFrame
        `features/genes.parquet`.
    sets : mapping
        Disease -> genes.
    profile_size, min_firings, max_q
        As in `associate`.

    Returns
    -------
    Result
        Measures `in_degree_ratio`, `raw_in_degree_ratio`, `out_degree_ratio`, `raw_out_degree_ratio` (null 1) and
        `disease_latent_share` (of the latents with a full profile). Table: one row per (latent, disease), latents
        without a disease once: those of `disease_centrality`, with `disease, n_overlap, set_size, fold, p_value,
        q_value`.

    Raises
    ------
    ScircuitError
        As `associate` and `disease_centrality`.
    """
    found = associate(genes, sets, profile_size=profile_size, min_firings=min_firings, max_q=max_q)
    central = disease_centrality(circuit, found)
    ill = int(found.latents["is_disease"].sum())
    share = Measure("disease_latent_share", ill / len(found.latents), n=len(found.latents), unit_of_n="latents")
    measures = pd.concat([central.measures, pd.DataFrame([share])], ignore_index=True)
    table = central.table.merge(found.table[["layer", "feature", *ASSOCIATED]], how="left", on=["layer", "feature"])
    table = table.sort_values(["q_value", "layer", "feature"], ignore_index=True)
    return replace(central, question="disease", definition="disease/1", measures=measures, table=table)
