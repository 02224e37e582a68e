"""What the name of a column says: an Ensembl id or a symbol, once what files add to it is taken off; no guessing."""

import re
from collections.abc import Mapping
from typing import NamedTuple

_BLANK = frozenset({"", "na", "nan", "none", "null", "n/a", "<na>", "-", "."})
_BUILD = r"(?:[-.p]\w+(?:-\w)?)?_+(?=\S)"
_HUMAN = re.compile(rf"^(?:GRCh3[78]|hg19|hg38){_BUILD}")
_OTHER_GENOME = re.compile(rf"^(?:GRCm3[89]|mm9|mm10|mm39|GRCz1[01]|rn[67]){_BUILD}")
_ID = re.compile(r"^(?P<id>ENS[A-Z]*G(?:R0)?\d{6,})(?P<version>\.\d+)?(?P<par>_PAR_Y)?$", re.IGNORECASE)
_ID_WITHIN = r"ENS[A-Z]*G(?:R0)?\d{11}(?:\.\d+)?(?:_PAR_Y)?"
_JOINED = re.compile(
    rf"^(?:(?P<first>{_ID_WITHIN})[_|:;,/ -]+\S.*|\S.*?[_|:;,/ -]+(?P<last>{_ID_WITHIN}))$", re.IGNORECASE
)
_NUMBERED = re.compile(r"^(?P<stem>.+)[-.]\d{1,2}$")


class Name(NamedTuple):
    """A name, read."""

    kind: str
    """`id`, `symbol`, `blank`, or `other genome` (the other species of a mixture)."""
    text: str
    """The Ensembl id, upper case and without version, or the symbol as it is written."""
    off: tuple[str, ...] = ()
    """What was taken off."""


def read_name(name: str) -> Name:
    """Take a name apart.

    `ENSA` is a symbol: an id has its digits. Of a symbol joined to an id the id counts. The copy of a gene in the
    pseudoautosomal region of Y (`_PAR_Y`, or the older `ENSGR...`) is the gene.
    """
    text = name.strip()
    off = ["blanks"] if text != name else []
    if text.lower() in _BLANK:
        return Name("blank", "")
    if _OTHER_GENOME.match(text):
        return Name("other genome", text)
    bare = _HUMAN.sub("", text)
    off += ["genome prefix"] if bare != text else []
    if joined := _JOINED.match(bare) if _ID.match(bare) is None else None:
        bare = joined["first"] or joined["last"]
        off.append("symbol beside the id")
    if (found := _ID.match(bare)) is None:
        return Name("symbol", bare, tuple(off))
    identity = found["id"].upper()
    off += ["case"] if identity != found["id"] else []
    off += ["version"] if found["version"] else []
    if found["par"] or identity.startswith("ENSGR"):
        off.append("_PAR_Y")
        identity = identity.replace("ENSGR", "ENSG0", 1)
    return Name("id", identity, tuple(off))


class Genes(NamedTuple):
    """The rows of a vocabulary by every name that data may bring."""

    ensembl: Mapping[str, int]
    """Upper case."""
    symbol: Mapping[str, int]
    """As they are written: `C1orf112` is human, `Actb` is not."""
    upper: Mapping[str, int]
    """Symbols in upper case, for files that hold all of theirs so."""

    @classmethod
    def of(cls, ensembl: Mapping[str, int], symbol: Mapping[str, int]) -> "Genes":
        """Index the symbols by their upper case too."""
        upper: dict[str, int] = {}
        for name, row in symbol.items():
            upper.setdefault(name.upper(), row)
        return cls(ensembl, symbol, upper)

    def find(self, name: Name, beside: frozenset[str] = frozenset()) -> tuple[int, tuple[str, ...]]:
        """Row of a name, -1 without one, and what had to be taken off for it.

        `beside` are the other names of its column: `NAME-1` is the second `NAME` of a file whose names were made
        unique, and nothing else.
        """
        if name.kind == "id":
            return self.ensembl.get(name.text, -1), name.off
        if name.kind != "symbol":
            return -1, name.off
        if (row := self.symbol.get(name.text, -1)) >= 0:
            return row, name.off
        if name.text.isupper() and (row := self.upper.get(name.text, -1)) >= 0:
            return row, (*name.off, "case")
        again = _NUMBERED.match(name.text)
        if again and again["stem"] in beside and (row := self.symbol.get(again["stem"], -1)) >= 0:
            return row, (*name.off, "number of a repeated name")
        return -1, name.off
