"""Questions that need more than a run's own tables: gene sets, networks, disease genes, an ontology. No torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from scircuit.analysis.cell_ontology import read_obo
from scircuit.analysis.disease_of_run import disease
from scircuit.analysis.hierarchy import hierarchy
from scircuit.analysis.novelty import novelty
from scircuit.analysis.registry import QUESTIONS
from scircuit.analysis.result import Result
from scircuit.analysis.tissue import tissue
from scircuit.circuits.circuit import Circuit
from scircuit.errors import ScircuitError
from scircuit.features.labels import readable
from scircuit.knowledge.choosing import disease_sets, open_network
from scircuit.knowledge.registry import load_gene_sets
from scircuit.report.answers import KNOWLEDGE_ASKS
from scircuit.runs.ask import notebook
from scircuit.runs.conditions import need_circuit, read_table

ASKS: Mapping[str, str] = KNOWLEDGE_ASKS
"""Questions by name, in words."""


@dataclass(frozen=True)
class Sources:
    """What a question may draw on beside the run.

    Attributes
    ----------
    sets : tuple of str
        Disease: sources or GMT files with disease genes. Novelty: gene sets, by default those of the run's labels.
    network : str or None
        Novelty: links between genes, a source or a file.
    group : str or None
        Tissue: the obs column of `trace.groups`; needed where there are several.
    ontology : str or None
        Tissue: an OBO file that says which groups belong to a term.
    terms : tuple of str
        Tissue: terms to compare with the rest; every group by itself where none is given.
    """

    sets: tuple[str, ...] = ()
    network: str | None = None
    group: str | None = None
    ontology: str | None = None
    terms: tuple[str, ...] = ()


def ask_with_knowledge(
    run: str | Path, names: Sequence[str], sources: Sources | None = None, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Ask questions of `ASKS` and write the answers beside the run's others; returns the whole summary.

    Parameters
    ----------
    run : folder
    names : list of str
        Keys of `ASKS`; a single one that cannot be answered raises, one of several is recorded as refused.
    sources : Sources, optional
    draws, seed : int
        Of the nulls.

    Raises
    ------
    ScircuitError
        On an unknown question, a folder without a circuit, or (for a single question) what it needs and is not there.
    """
    run, sources = Path(run), sources or Sources()
    unknown = [name for name in names if name not in ASKS]
    if unknown:
        raise ScircuitError(f"there is no question {unknown[0]!r}; choose one of {', '.join(ASKS)}.")
    need_circuit(run)
    answers = notebook(run, run / "analysis")
    for name in names:
        answer = partial(_ANSWERS[name], run, sources, draws, seed)
        answers.add(answer()) if len(names) == 1 else answers.ask(name, answer)
    return answers.write(list(QUESTIONS))


def answerable_with_knowledge(run: str | Path) -> list[str]:
    """Questions of `ASKS` that a run answers without being given anything."""
    own = ["hierarchy", "novelty"]
    return own + ["tissue"] * (Path(run) / "trace" / "groups.parquet").is_file()


def _hierarchy(run: Path, sources: Sources, draws: int, seed: int) -> Result:
    return hierarchy(Circuit.read(run / "circuit", ["cohens_d"]), draws=draws, seed=seed)


def _novelty(run: Path, sources: Sources, draws: int, seed: int) -> Result:
    circuit = Circuit.read(run / "circuit", ["cohens_d"])
    names = sources.sets or circuit.provenance.get("config", {}).get("features", {}).get("gene_sets", ())
    genes: dict[str, Sequence[str]] = {}
    for name in names:
        genes |= {readable(term): members for term, members in load_gene_sets(name).genes.items()}
    network = None if sources.network is None else open_network(sources.network).edges
    return novelty(circuit, genes, network, draws=draws, seed=seed)


def _tissue(run: Path, sources: Sources, draws: int, seed: int) -> Result:
    how = "trace with the obs columns to group by (`groups` under [trace])"
    groups = read_table(run, "trace/groups.parquet", how)
    columns = sorted(groups["group_name"].astype(str).unique())
    if sources.group is None and len(columns) > 1:
        raise ScircuitError(f"the trace was grouped by {', '.join(columns)}; choose one with --group.")
    ontology = None if sources.ontology is None else read_obo(sources.ontology)
    return tissue(groups, sources.group or columns[0], ontology, sources.terms or None)


def _disease(run: Path, sources: Sources, draws: int, seed: int) -> Result:
    if not sources.sets:
        raise ScircuitError(
            "disease genes are missing; name some with --sets (clingen, intogen, open_targets, gwas_2019 of `scircuit "
            "knowledge list`, or a GMT file of your own)."
        )
    genes = read_table(run, "features/genes.parquet", "run `scircuit features`")
    return disease(Circuit.read(run / "circuit"), genes, disease_sets(sources.sets))


_ANSWERS: Mapping[str, Callable[[Path, Sources, int, int], Result]] = {
    "hierarchy": _hierarchy,
    "novelty": _novelty,
    "tissue": _tissue,
    "disease": _disease,
}
