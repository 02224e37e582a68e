"""What a question is given beside the tables of the run: gene sets, networks, disease genes, an ontology. No torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scircuit.analysis.cell_ontology import read_obo
from scircuit.circuits.artefacts import Artefacts
from scircuit.errors import ScircuitError
from scircuit.knowledge.choosing import disease_sets, open_network
from scircuit.knowledge.gmt import readable
from scircuit.knowledge.registry import load_gene_sets


@dataclass(frozen=True)
class Sources:
    """What a question may draw on beside the run."""

    sets: tuple[str, ...] = ()
    """Disease: sources or GMT files with disease genes. Novelty: gene sets, by default those of the run's labels."""
    network: str | None = None
    """Novelty: links between genes, a source or a file."""
    group: str | None = None
    """Tissue: the obs column of `trace.groups`; needed where there are several."""
    ontology: str | None = None
    """Tissue: an OBO file that says which groups belong to a term."""
    terms: tuple[str, ...] = ()
    """Tissue: terms to compare with the rest; every group by itself where none is given."""


def _gene_sets(run: Artefacts, sources: Sources) -> dict[str, Sequence[str]]:
    names = sources.sets or run.provenance().get("config", {}).get("features", {}).get("gene_sets", ())
    genes: dict[str, Sequence[str]] = {}
    for name in names:
        genes |= {readable(term): members for term, members in load_gene_sets(name).genes.items()}
    return genes


def _group(run: Artefacts, sources: Sources) -> str:
    columns = sorted(run.table("groups", ["group_name"])["group_name"].unique())
    if sources.group is None and len(columns) > 1:
        raise ScircuitError(f"the trace was grouped by {', '.join(columns)}; choose one with --group.")
    return sources.group or str(columns[0])


def _disease_sets(run: Artefacts, sources: Sources) -> dict[str, list[str]]:
    if not sources.sets:
        raise ScircuitError(
            "disease genes are missing; name some with --sets (clingen, intogen, open_targets, gwas_2019 of `scircuit "
            "knowledge list`, or a GMT file of your own)."
        )
    return disease_sets(sources.sets)


GIVEN: Mapping[str, Callable[[Artefacts, Sources], Any]] = {
    "gene_sets": _gene_sets,
    "network": lambda run, sources: None if sources.network is None else open_network(sources.network).edges,
    "group": _group,
    "ontology": lambda run, sources: None if sources.ontology is None else read_obo(sources.ontology),
    "ontology_terms": lambda run, sources: sources.terms or None,
    "disease_sets": _disease_sets,
}
"""What `Question.needs` may name beside the circuit and the tables of a run, made from the run and `Sources`."""
WITHOUT_DEFAULT = ("disease_sets",)
"""Those that a run has no default for."""
