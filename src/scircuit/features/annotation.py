"""Rules of annotation: what a run asks of one, and the default one. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from scircuit.features.control import RandomGeneControl, random_gene_control
from scircuit.features.enrichment import Enrichment, enrich
from scircuit.features.labels import label_features
from scircuit.knowledge.gmt import GeneSets


class AnnotationRule(Protocol):
    """How latents get their terms and labels.

    `features` has `layer, feature, top_genes`, `background` the genes of the run.
    """

    def annotate(self, features: pd.DataFrame, background: pd.DataFrame) -> tuple[pd.DataFrame, Enrichment]:
        """The table with a label per latent, and the terms of all latents."""
        ...

    def control(self, features: pd.DataFrame, background: pd.DataFrame, *, draws: int, seed: int) -> RandomGeneControl:
        """Annotated latents beside the same latents with random genes."""
        ...


@dataclass(frozen=True)
class CorrectedRule:
    """Terms by enrichment against the genes of the run, one label rule for every latent."""

    libraries: Sequence[GeneSets]
    alpha: float = 0.05
    min_overlap: int = 3

    def annotate(self, features: pd.DataFrame, background: pd.DataFrame) -> tuple[pd.DataFrame, Enrichment]:
        """See `enrich` and `label_features`."""
        found = self._found(features, background)
        return label_features(features, found.terms), found

    def control(self, features: pd.DataFrame, background: pd.DataFrame, *, draws: int, seed: int) -> RandomGeneControl:
        """See `random_gene_control`."""
        return random_gene_control(lambda t: self._found(t, background).terms, features, draws=draws, seed=seed)

    def _found(self, features: pd.DataFrame, background: pd.DataFrame) -> Enrichment:
        return enrich(features, self.libraries, background, alpha=self.alpha, min_overlap=self.min_overlap)
