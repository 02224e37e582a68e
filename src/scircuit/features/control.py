"""How many latents would be annotated if their genes meant nothing."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scircuit._progress import progress
from scircuit.features.enrichment import enrich
from scircuit.features.queries import shuffle_top_genes


@dataclass(frozen=True)
class RandomGeneControl:
    """Annotated latents beside the same latents with random genes."""

    n_latents: int
    """Latents with a non-empty query."""
    n_annotated: int
    """Those with at least one significant term."""
    annotated: float
    """Share annotated."""
    control: float
    """Mean share over the draws of random genes; `control_low` and `control_high` are its range."""
    control_low: float
    control_high: float
    beyond: float
    """annotated - control: the share of latents that annotate beyond what random genes do."""
    p_value: float
    """(b + 1) / (draws + 1), b draws with at least as many annotated latents."""
    draws: int


def random_gene_control(
    annotate: Callable[[pd.DataFrame], pd.DataFrame], features: pd.DataFrame, *, draws: int = 20, seed: int = 0
) -> RandomGeneControl:
    """Annotate random genes exactly as the latents were annotated, by `annotate`, which gives one row per annotation.

    Within each layer the top genes are dealt out anew among the latents: every latent keeps the number of its genes,
    every gene the number of latents it tops (`queries.shuffle_top_genes`).
    """
    n_latents = int((features["top_genes"].map(len) > 0).sum())
    rng = np.random.default_rng(seed)

    def count(table: pd.DataFrame) -> int:
        return len(annotate(table)[["layer", "feature"]].drop_duplicates())

    found = count(features)
    with _said_once():
        null = np.array([count(shuffle_top_genes(features, rng)) for _ in progress(range(draws), desc="random genes")])
    share = null / max(n_latents, 1)
    return RandomGeneControl(
        n_latents=n_latents,
        n_annotated=found,
        annotated=found / max(n_latents, 1),
        control=float(share.mean()),
        control_low=float(share.min()),
        control_high=float(share.max()),
        beyond=float(found / max(n_latents, 1) - share.mean()),
        p_value=float(((null >= found).sum() + 1) / (draws + 1)),
        draws=draws,
    )


@contextmanager
def _said_once() -> Iterator[None]:
    """What the enrichment says of its libraries holds for every draw alike."""
    logger = logging.getLogger(enrich.__module__)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
