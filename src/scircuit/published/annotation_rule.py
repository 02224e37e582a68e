"""The published annotation in the tables of a run, so that everything after it reads them like the corrected ones."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from scircuit._io import read_json
from scircuit._sealed import seal
from scircuit._tables import write_parquet
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.schema import LATENT
from scircuit.errors import ScircuitError
from scircuit.features.annotation import AnnotationRule, CorrectedRule
from scircuit.features.control import RandomGeneControl, random_gene_control
from scircuit.features.enrichment import Enrichment
from scircuit.features.labels import UNLABELLED
from scircuit.knowledge.gmt import GeneSets, readable
from scircuit.knowledge.networks import Network
from scircuit.knowledge.registry import load, load_gene_sets
from scircuit.published.annotation import N_TOP, annotate_as_published, label_as_published
from scircuit.published.definitions import SOURCE_LIBRARIES, TARGET_LIBRARY, UNKNOWN_SOURCE, UNKNOWN_TARGET

log = logging.getLogger(__name__)
PUBLISHED = "published_annotations"
"""Name of the table of annotations under the published rule."""
_ONTOLOGIES = {"GO_BP": r"go[^a-z]*bp|go[^a-z]*biological[^a-z]*process", "KEGG": r"kegg", "Reactome": r"reactome"}
"""What the published rules call a library, by a pattern of the name it has here."""


@dataclass(frozen=True)
class PublishedRule:
    """Gene sets and networks as the published rules take them."""

    libraries: tuple[GeneSets, ...]
    """With the names `GO_BP`, `KEGG`, `Reactome` where a library's own name says that it is one of them."""
    trrust: Network | None = None
    string: Network | None = None
    """Links that annotate without a test."""
    alpha: float = 0.05
    """Of the BH call."""
    link_score: int = 1
    """What a link annotation adds to a source's score."""

    @classmethod
    def of(
        cls, libraries: Sequence[GeneSets], networks: Sequence[Network], *, alpha: float = 0.05, link_score: int = 1
    ) -> "PublishedRule":
        """The rule for the libraries and networks of a run."""
        named = tuple(map(_renamed, libraries))
        names = [sets.name for sets in named]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ScircuitError(f"two gene-set libraries are {twice[0]}; the published rules know one: leave one out.")
        by_name = {network.name: network for network in networks}
        strange = sorted(set(by_name) - {"STRING", "TRRUST"})
        if strange:
            raise ScircuitError(
                f"the published rules know the networks STRING and TRRUST, not {strange[0]}; leave it out of "
                "features.networks."
            )
        return cls(named, by_name.get("TRRUST"), by_name.get("STRING"), alpha, link_score)

    @property
    def label_libraries(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Libraries that name sources, and those that name targets: the published ones, or all where none is there."""
        present = tuple(sets.name for sets in self.libraries)
        source = tuple(name for name in present if name in SOURCE_LIBRARIES)
        return (source, (TARGET_LIBRARY,)) if source else (present, present)

    def annotations(self, features: pd.DataFrame) -> pd.DataFrame:
        """See `annotate_as_published`."""
        return annotate_as_published(features, self.libraries, trrust=self.trrust, string=self.string, alpha=self.alpha)

    def control(self, features: pd.DataFrame, background: pd.DataFrame, *, draws: int, seed: int) -> RandomGeneControl:
        """Annotated latents beside the same latents with random genes, under the same permissive rules."""
        return random_gene_control(self.annotations, features, draws=draws, seed=seed)

    def annotate(self, features: pd.DataFrame, background: pd.DataFrame) -> tuple[pd.DataFrame, Enrichment]:
        """A labelled feature table and the annotations as terms.

        `background` is not used: the published one are the top genes of the layer.
        The table gains the columns of `label_features`, with the source's label as `label`, and `target_label, score`.
        Terms are in the order of the published files, with `odds_ratio, n_links, density` beside the usual columns.
        Links have no test: their p and q are 1, as the published score counts them, and their information is 0.
        """
        found = self.annotations(features)
        source_libraries, target_libraries = self.label_libraries
        labels = label_as_published(
            features, found, source_libraries=source_libraries, target_libraries=target_libraries,
            link_score=self.link_score,
        )  # fmt: skip
        groups = found.assign(q_value=found["q_value"].fillna(1.0)).groupby(LATENT)
        index = pd.MultiIndex.from_frame(features[LATENT])
        term = labels["source_label"].replace(UNKNOWN_SOURCE, "")
        target = labels["target_label"].replace(UNKNOWN_TARGET, "")
        table = features.assign(
            label_term_id=term.to_numpy(),
            runner_up="",
            n_terms=groups.size().reindex(index).fillna(0).to_numpy(np.int32),
            n_libraries=groups["library"].nunique().reindex(index).fillna(0).to_numpy(np.int32),
            best_q=groups["q_value"].min().reindex(index).to_numpy(),
            target_label=[readable(t) or UNLABELLED for t in target],
            score=labels["score"].to_numpy(),
        )
        table.insert(2, "label", [readable(t) or UNLABELLED for t in term])
        meta = {
            "rule": "published",
            "n_sets": sum(map(len, self.libraries)),
            "n_queries": int((features["top_genes"].map(len) > 0).sum()),
            "alpha": self.alpha,
            "link_score": self.link_score,
            "label_libraries": {"source": list(source_libraries), "target": list(target_libraries)},
            "libraries": [
                {"name": s.name, "version": s.version, "sha256": s.sha256, "n_sets": len(s)} for s in self.libraries
            ],
            "networks": [{"name": n.name, "sha256": n.sha256} for n in (self.string, self.trrust) if n is not None],
        }
        return table, Enrichment(self._terms(features, found), meta)

    def _terms(self, features: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
        top = features["top_genes"].map(lambda genes: set(list(genes)[:N_TOP]))
        size = pd.Series(top.map(len).to_numpy(), index=pd.MultiIndex.from_frame(features[LATENT]))
        background = top.groupby(features["layer"]).agg(lambda sets: len(set().union(*sets)))
        n = found["layer"].map(background).to_numpy(dtype=float)
        query = size.reindex(pd.MultiIndex.from_frame(found[LATENT])).to_numpy(dtype=np.int64)
        set_size = found["set_size"].to_numpy(dtype=float)
        tested = set_size > 0
        # The published sets are not cut to the background, so one may be larger than it.
        information = -np.log2(np.minimum(np.divide(set_size, n, out=np.ones(len(n)), where=tested), 1.0))
        expected = np.where(tested, set_size * query / np.maximum(n, 1), np.nan)
        return found.assign(
            query_size=query,
            fold=found["n_overlap"] / expected,
            p_value=found["p_value"].fillna(1.0),
            q_value=found["q_value"].fillna(1.0),
            information_content=np.abs(information),
        )[
            ["layer", "feature", "library", "term", "n_overlap", "set_size", "query_size", "fold", "p_value", "q_value",
             "information_content", "odds_ratio", "n_links", "density"]
        ]  # fmt: skip


def annotation_rule(
    name: str,
    libraries: Sequence[GeneSets],
    networks: Sequence[Network],
    *,
    alpha: float = 0.05,
    min_overlap: int = 3,
    link_score: int = 1,
) -> AnnotationRule:
    """The rule called `name`: `corrected` (which knows no networks) or `published` (which has its own overlap)."""
    rules: dict[str, Callable[[], AnnotationRule]] = {
        "corrected": lambda: CorrectedRule(libraries, alpha, min_overlap),
        "published": lambda: PublishedRule.of(libraries, networks, alpha=alpha, link_score=link_score),
    }
    if name not in rules:
        raise ScircuitError(f"features.annotation = {name!r} is unknown; it may be {' or '.join(rules)}.")
    return rules[name]()


def ontology(name: str) -> str:
    """`GO_BP`, `KEGG` or `Reactome` where a library's name says so, else the name itself."""
    return next((known for known, pattern in _ONTOLOGIES.items() if re.search(pattern, name.lower())), name)


def _renamed(library: GeneSets) -> GeneSets:
    return replace(library, name=ontology(library.name))


def label_ends(features: pd.DataFrame, sources: pd.DataFrame) -> pd.DataFrame:
    """`label` as the published graph writes it: a source's by the source rule, any other latent's by the target rule.

    `sources` has `layer, feature`. A table without `target_label` has one rule and is returned as it is.
    """
    if "target_label" not in features:
        return features
    is_source = pd.MultiIndex.from_frame(features[LATENT]).isin(pd.MultiIndex.from_frame(sources[LATENT]))
    return features.assign(label=features["label"].where(is_source, features["target_label"]))


def annotate_run_as_published(run: Artefacts) -> pd.DataFrame | None:
    """Write `features/published_annotations.parquet` of a run, once; None where its features are not there.

    Gene sets are those of the run's config. STRING and TRRUST links, which the published rules count as terms, are
    added where they are in the knowledge cache; the log says what was left out.
    """
    config = run.root / "config.json"
    if run.has(PUBLISHED):
        return run.table(PUBLISHED)
    if not run.has("features") or not config.is_file():
        return None
    asked = read_json(config)["config"]["features"]["gene_sets"]
    libraries = [_renamed(load_gene_sets(name)) for name in asked]
    missing = sorted(set(_ONTOLOGIES) - {library.name for library in libraries})
    if missing:
        log.info("published labels come from GO_BP, KEGG and Reactome; this run has no %s", ", ".join(missing))
    features = run.table("features", [*LATENT, "top_genes"])
    table = annotate_as_published(features, libraries, trrust=_network("trrust"), string=_network("string"))
    write_parquet(run.path(PUBLISHED), table)
    seal(run.path(PUBLISHED))
    return table


def _network(name: str) -> Network | None:
    try:
        found = load(name)
    except ScircuitError as error:
        log.info("the published pseudo-terms are without %s: %s", name.upper(), error)
        return None
    return found if isinstance(found, Network) else None
