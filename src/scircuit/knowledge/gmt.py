"""Gene sets: one type for every library, and a reader for any GMT file."""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from scircuit._packed import open_packed
from scircuit.errors import ScircuitError

log = logging.getLogger(__name__)

# Both are matched against a piece that is cut out first, so that no field takes more than one pass.
_ACCESSION = re.compile(r"\((GO|HP|MP|R-HSA)[:-]?\d+\)")
_WEIGHT = re.compile(r"\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class GeneSets:
    """A library of gene sets."""

    name: str
    """Name of the library, kept beside every result made with it."""
    genes: Mapping[str, tuple[str, ...]]
    """Term to its genes: distinct, in the order of the file."""
    descriptions: Mapping[str, str]
    """Term to what the file says about it (a citation, an identifier, an address), empty where nothing."""
    sha256: str
    """Hash of the file's bytes, or of the content where there was no file."""
    version: str = ""
    """Release of the library, empty where unknown."""

    def __len__(self) -> int:
        return len(self.genes)

    @property
    def universe(self) -> set[str]:
        """Every gene that stands in any set."""
        return {gene for genes in self.genes.values() for gene in genes}

    @classmethod
    def from_dict(cls, name: str, genes: Mapping[str, tuple[str, ...] | list[str]], version: str = "") -> "GeneSets":
        """Sets that are already in memory; genes repeated within a set count once."""
        distinct = {term: tuple(dict.fromkeys(members)) for term, members in genes.items()}
        content = "".join("\t".join((term, "", *members)) + "\n" for term, members in distinct.items())
        digest = hashlib.sha256(content.encode()).hexdigest()
        return cls(name, distinct, dict.fromkeys(distinct, ""), digest, version)


def read_gmt(
    path: str | Path, *, name: str | None = None, version: str = "", description: bool | None = None
) -> GeneSets:
    """Read a GMT file, plain or gzipped: one set per line, tabs between term, description and genes.

    Blanks around fields, tabs at line ends and empty lines are dropped; Enrichr's `GENE,1.0` loses its weight;
    a gene repeated within a set counts once. A term that occurs twice is told apart by its description
    (`term (description)`); two equal lines count once.

    Parameters
    ----------
    name, version : str, optional
        What to call the library; the file's name without `.gmt` by default.
    description : bool, optional
        Whether the second column is a description (possibly empty). By default it is, and a file whose second
        column holds genes is refused rather than guessed at.

    Raises
    ------
    ScircuitError
        On a missing, empty or undecodable file, and with the line number on a line without genes, without a
        term, without tabs, or with a term that an earlier line defines differently.
    """
    path = Path(path)
    data, text = _read_text(path)
    rows = list(_rows(text, path))
    if not rows:
        raise ScircuitError(f"{path} holds no gene set; a GMT line is term<tab>description<tab>gene<tab>gene...")
    if description is None:
        _refuse_missing_description(rows, path)
    genes, descriptions = _collect(rows, path, described=description is not False)
    stem = path.name.removesuffix(".gz").removesuffix(".gmt").removesuffix(".txt")
    return GeneSets(name or stem, genes, descriptions, hashlib.sha256(data).hexdigest(), version)


def packaged_programs() -> GeneSets:
    """The small library of well-known human gene programs that ships with the package.

    Compiled by the developers; each description names the paper that describes the program.
    """
    with resources.as_file(resources.files("scircuit") / "data" / "programs.gmt") as path:
        return read_gmt(path, name="programs", version="1")


def _read_text(path: Path) -> tuple[bytes, str]:
    if not path.is_file():
        raise ScircuitError(f"The gene-set file {path} does not exist; give the path of a GMT file.")
    try:
        with open_packed(path) as file:
            return path.read_bytes(), file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ScircuitError(
            f"{path} is not a text file ({error}); give a GMT file, plain or gzipped, in UTF-8."
        ) from None


def _rows(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    # Only \n ends a line (str.splitlines would also cut at form feeds and the like); \r goes with the blanks.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        if "\t" not in line:
            raise ScircuitError(
                f"{path}, line {number} has no tab; a GMT line is term<tab>description<tab>gene<tab>gene..."
            )
        fields = [field.strip() for field in line.split("\t")]
        if not fields[0]:
            raise ScircuitError(f"{path}, line {number} has no term in its first column; name the set.")
        yield number, fields


def _refuse_missing_description(rows: list[tuple[int, list[str]]], path: Path) -> None:
    """A second column of distinct genes that other lines list as genes is no description."""
    second = [fields[1] for _, fields in rows]
    known = {_gene(field) for _, fields in rows for field in fields[2:]}
    if len(rows) > 1 and len(set(second)) > 1 and sum(_gene(s) in known for s in second if s) > len(rows) / 2:
        raise ScircuitError(
            f"{path} seems to have genes in its second column, where a GMT has the description; insert an empty "
            "column, or pass description=False (or True, if these are descriptions)."
        )


def _gene(field: str) -> str:
    gene, _, weight = field.rpartition(",")
    return gene.strip() if gene and _WEIGHT.fullmatch(weight) else field


def _collect(
    rows: list[tuple[int, list[str]]], path: Path, *, described: bool
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    genes: dict[str, tuple[str, ...]] = {}
    descriptions: dict[str, str] = {}
    seen: dict[str, int] = {}
    repeated = 0
    for number, fields in rows:
        term, about = fields[0], fields[1] if described else ""
        members = [_gene(field) for field in fields[2 if described else 1 :] if field]
        distinct = tuple(dict.fromkeys(members))
        repeated += len(members) - len(distinct)
        if not distinct:
            raise ScircuitError(f"{path}, line {number}: the set {term!r} has no gene; remove the line or fill it.")
        if term in genes and about and about != descriptions[term]:
            term = f"{term} ({about})"
        if term in genes:
            if genes[term] == distinct and descriptions[term] == about:
                continue
            raise ScircuitError(
                f"{path}, line {number}: the set {term!r} is already defined on line {seen[term]}; rename one of them."
            )
        genes[term], descriptions[term], seen[term] = distinct, about, number
    if repeated:
        log.info("%s: %d genes repeated within a set were counted once", path.name, repeated)
    return genes, descriptions


def readable(term: str) -> str:
    """A term as people say it: without the accession that GO libraries append."""
    name, bracket, accession = term.rstrip().rpartition("(")
    return name.rstrip() if _ACCESSION.fullmatch(bracket + accession) else term
