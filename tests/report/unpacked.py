"""A page's data as its script reads it."""

import base64
import gzip
import json
import re
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Carried(NamedTuple):
    """Facts and columns of one run."""

    facts: dict[str, Any]
    columns: dict[str, np.ndarray]

    def words(self, name: str) -> list[str]:
        return [self.facts["words"][place] for place in self.columns[name]]

    def rows(self, part: str, name: str, i: int) -> np.ndarray:
        """The values of a part that belong to latent or edge `i`."""
        first, last = self.columns[f"{part}.at"][i : i + 2]
        return self.columns[f"{part}.{name}"][first:last]

    def genes(self, i: int) -> list[str]:
        return [self.facts["words"][place] for place in self.rows("genes", "name", i)]

    def ends(self) -> list[tuple[int, int, int, int]]:
        """Layer and latent of source and target of every edge."""
        layer, feature = self.columns["n.layer"], self.columns["n.feature"]
        both = zip(self.columns["e.source"], self.columns["e.target"], strict=True)
        return [(int(layer[s]), int(feature[s]), int(layer[t]), int(feature[t])) for s, t in both]


def unpacked(text: str) -> Carried:
    whole = gzip.decompress(base64.b64decode(text))
    length = struct.unpack("<I", whole[:4])[0]
    facts = json.loads(whole[4 : 4 + length])
    columns = {
        name: np.frombuffer(whole, np.dtype(kind).newbyteorder("<"), n, 4 + length + at)
        for name, (kind, at, n) in facts.pop("columns").items()
    }
    return Carried(facts, columns)


def carried(path: Path) -> dict[str, Carried]:
    """What each run of a page brings, by the run's slug."""
    found = re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return {slug: unpacked(run["packed"]) for slug, run in json.loads(found.group(1)).items()}
