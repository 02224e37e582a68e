"""Disease genes and networks by name: a source in the cache, or a file of one's own."""

from collections.abc import Sequence
from pathlib import Path

from scircuit.errors import ScircuitError
from scircuit.knowledge.disease import DiseaseGenes
from scircuit.knowledge.gmt import GeneSets, read_gmt
from scircuit.knowledge.networks import Network, read_chipseq, read_collectri
from scircuit.knowledge.record import is_path
from scircuit.knowledge.registry import load, load_network
from scircuit.knowledge.sources import KNOWN

_DISEASE = ("ClinGen", "IntOGen", "Open Targets", "GWAS")


def disease_sets(names: Sequence[str | Path], *, cache: str | Path | None = None) -> dict[str, list[str]]:
    """Genes of every disease of the named sources: ClinGen, IntOGen, Open Targets, GWAS, or GMT files of one's own.

    Each name is a source in the cache or the path of a GMT file. Of several sources, diseases carry the source's name.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        text = str(name)
        held = read_gmt(text) if is_path(text) else load(text, cache=cache)
        if isinstance(held, DiseaseGenes):
            held = held.sets()
        if not isinstance(held, GeneSets):
            raise ScircuitError(f"{text} holds no disease genes; take {_of_kind(_DISEASE)}, or a GMT file of your own.")
        prefix = f"{held.name}: " if len(names) > 1 else ""
        found |= {f"{prefix}{disease}": list(genes) for disease, genes in held.genes.items()}
    return found


def open_network(name: str | Path, *, cache: str | Path | None = None) -> Network:
    """A network by the name of a source in the cache, or from a file.

    A file is a GMT of targets per factor (as the ENCODE library), or a table with `source, target, weight`.
    """
    text = str(name)
    if is_path(text):
        kind = text.removesuffix(".gz")
        return read_chipseq(text, name=Path(kind).stem) if kind.endswith(".gmt") else read_collectri(text)
    return load_network(text, cache=cache)


def _of_kind(readers: Sequence[str]) -> str:
    return ", ".join(name for name, source in KNOWN.items() if source.reader in readers)
