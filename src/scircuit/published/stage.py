"""Annotations of a run's latents by the published rules, for the `paper` profile. No torch."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from scircuit._io import atomic, read_json
from scircuit.errors import ScircuitError
from scircuit.knowledge.gmt import GeneSets
from scircuit.knowledge.networks import Network
from scircuit.knowledge.registry import load, load_gene_sets
from scircuit.published.annotation import annotate_as_published

log = logging.getLogger(__name__)
FILE = "published_annotations.parquet"
NAMES = {r"go.*(bp|biological)": "GO_BP", "kegg": "KEGG", "reactome": "Reactome"}
"""What the published label rules call a library, by a pattern of the name it has here."""


def annotate_run_as_published(run: str | Path) -> pd.DataFrame | None:
    """Write `features/published_annotations.parquet` of a run, once; None where its features are not there.

    Gene sets are those of the run's config. STRING and TRRUST links, which the published rules count as terms, are
    added where they are in the knowledge cache; the log says what was left out.
    """
    folder = Path(run) / "features"
    config = Path(run) / "config.json"
    if (folder / FILE).is_file():
        return pd.read_parquet(folder / FILE)
    if not (folder / "features.parquet").is_file() or not config.is_file():
        return None
    asked = read_json(config)["config"]["features"]["gene_sets"]
    libraries = [_as_published(load_gene_sets(name)) for name in asked]
    missing = sorted(set(NAMES.values()) - {library.name for library in libraries})
    if missing:
        log.info("published labels come from GO_BP, KEGG and Reactome; this run has no %s", ", ".join(missing))
    features = pd.read_parquet(folder / "features.parquet", columns=["layer", "feature", "top_genes"])
    table = annotate_as_published(features, libraries, trrust=_network("trrust"), string=_network("string"))
    with atomic(folder / FILE) as path:
        table.to_parquet(path, index=False)
    return table


def _as_published(library: GeneSets) -> GeneSets:
    for pattern, name in NAMES.items():
        if re.search(pattern, library.name.lower()):
            return replace(library, name=name)
    return library


def _network(name: str) -> Network | None:
    try:
        found = load(name)
    except ScircuitError as error:
        log.info("the published pseudo-terms are without %s: %s", name.upper(), error)
        return None
    return found if isinstance(found, Network) else None
