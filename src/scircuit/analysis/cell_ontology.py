"""Cell Ontology: cell types by identifier, their names and what they are kinds of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from scircuit.errors import ScircuitError


@dataclass(frozen=True)
class CellOntology:
    """Terms of the Cell Ontology (Diehl et al. 2016), or of any ontology in OBO format."""

    name: Mapping[str, str]
    """Identifier -> name (`CL:0000084` -> `T cell`)."""
    parents: Mapping[str, tuple[str, ...]]
    """Identifier -> identifiers of what it is a kind of (`is_a`)."""

    def identifier(self, term: str) -> str:
        """The identifier of a term given by identifier or by its exact name, whatever the case."""
        if term in self.name:
            return term
        found = [key for key, name in self.name.items() if name.lower() == term.lower()]
        if len(found) != 1:
            raise ScircuitError(
                f"{term!r} is no term of the ontology; give a Cell Ontology identifier (CL:...) or an exact name, as "
                "in the column cell_type_ontology_term_id of CELLxGENE files."
            )
        return found[0]

    def ancestors(self, term: str) -> set[str]:
        """The term itself and everything it is a kind of, as identifiers."""
        found, waiting = set(), [self.identifier(term)]
        while waiting:
            current = waiting.pop()
            if current not in found:
                found.add(current)
                waiting += [parent for parent in self.parents.get(current, ()) if parent in self.name]
        return found

    def members(self, term: str, groups: Iterable[str]) -> list[str]:
        """Those of the groups that are the term or a kind of it."""
        wanted = self.identifier(term)
        return [group for group in groups if wanted in self.ancestors(group)]


def read_obo(path: str | Path) -> CellOntology:
    """Read an OBO file (for example `cl-basic.obo`); obsolete terms are left out."""
    path = Path(path)
    if not path.is_file():
        raise ScircuitError(f"{path} does not exist; give an OBO file such as cl-basic.obo.")
    name: dict[str, str] = {}
    parents: dict[str, tuple[str, ...]] = {}
    for stanza in path.read_text(encoding="utf-8").split("\n[")[1:]:
        if not stanza.startswith("Term]"):
            continue
        fields = [line.split(": ", 1) for line in stanza.splitlines() if ": " in line]
        values = dict(fields)
        if "id" in values and "name" in values and values.get("is_obsolete") != "true":
            name[values["id"]] = values["name"]
            parents[values["id"]] = tuple(value.split()[0] for key, value in fields if key == "is_a")
    if not name:
        raise ScircuitError(f"{path} holds no [Term] with id and name; give an OBO file such as cl-basic.obo.")
    return CellOntology(name, parents)
