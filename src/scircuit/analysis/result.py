"""`Result`: the answer to one question, with interval, null and definition beside every number."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scircuit._io import atomic, read_json
from scircuit._sealed import write_sealed
from scircuit._tables import read_parquet
from scircuit.errors import ScircuitError
from scircuit.stats.resampling import Interval

GLOSSARY = {
    "supporting": "supporting: the target falls when the source is ablated, so the source drives it "
    "(published as 'inhibitory'); suppressing: the target rises.",
    "d": "d: mean response over its standard deviation across the cells in which the source fires.",
    "chosen": "sizes of edges are those in the cells in which the edges were chosen, and for that too large, with "
    "intervals too narrow; replication tells by how much, and gives them in other cells.",
    "zero as negative": "zero as negative: the edges of this circuit were called by the published consistency, which "
    "counts silent cells as falling, so falling targets pass more easily and the supporting share is too high.",
    "response": "response: change of the target's activation when the source is ablated, in units of the "
    "target's activation, averaged over the positions where the source fires.",
    "random direction": "random direction: a direction of the same norm, at the same positions, in place of "
    "the source's own; what it does is what any push of that size does.",
    "coherence": "coherent edge: source and target share a significant gene set; fold: observed over "
    "expected when targets are redrawn at equal layer, firing rate and number of sets.",
    "depth": "depth distance: number of layers between source and target.",
    "degree": "degree: number of edges; strength: sum of |d| over them; none is capped.",
    "pmi": "PMI: log2 of how much more often two latents fire at the same position than if independent.",
    "jaccard": "Jaccard: edges found in both over edges found in either.",
    "confirmation": "confirmation: the edges measured again in cells that had no part in finding them; replicated: "
    "same sign and significant there; slope: confirmation d over discovery d, below 1 by as much as edges were found "
    "too large.",
    "mediator": "mediator: a latent between source and target; the share it carries is what vanishes from "
    "the response when it is held at its clean value.",
    "interaction": "interaction: response to ablating the set minus what its parts add up to, cell by cell, "
    "in units of the target's activation.",
    "faithfulness": "faithfulness: share of the behaviour that is carried when all other latents are silenced, 1 for "
    "the whole model and 0 for none; completeness: what is left of it without the circuit.",
    "silenced": "silenced: brought to its mean over genes (or to 0) at every gene, layer after layer; what the "
    "dictionaries do not reconstruct stays unless said otherwise.",
    "co-expression": "co-expression: correlation over cells of what the two latents stand for, without any "
    "intervention.",
}


WORDS = ("question", "definition", "null_model", "glossary")
"""What stands beside the numbers wherever they are written."""


class Measure(NamedTuple):
    """One number: its estimate, interval, null value, p against the null, and n of `unit_of_n`."""

    measure: str
    estimate: float
    low: float = np.nan
    high: float = np.nan
    null: float = np.nan
    p_value: float = np.nan
    n: int = 0
    unit_of_n: str = "edges"

    @classmethod
    def of(
        cls,
        name: str,
        interval: Interval,
        n: int,
        null: float = np.nan,
        p_value: float = np.nan,
        unit_of_n: str = "edges",
    ) -> "Measure":
        """A measure from a bootstrap interval."""
        return cls(name, interval.estimate, interval.low, interval.high, null, p_value, n, unit_of_n)


@dataclass(frozen=True)
class Result:
    """The answer to one question."""

    question: str
    """Name in the registry."""
    definition: str
    """Identifier of the definition behind the numbers; it changes when the formula does."""
    measures: pd.DataFrame
    """One row per number: `measure, estimate, low, high, null, p_value, n, unit_of_n`; the first is the headline. What
    has no interval, null or p holds NaN there."""
    table: pd.DataFrame
    """The tidy table behind the figure."""
    null_model: str
    """What the null column compares with, in words."""
    glossary: str
    """The terms a reader needs, one sentence each."""

    @classmethod
    def of(
        cls,
        question: str,
        definition: str,
        measures: Sequence[Measure] | pd.DataFrame,
        table: pd.DataFrame,
        null_model: str,
        terms: Sequence[str] = (),
        glossary: str = "",
    ) -> "Result":
        """Assemble a result; `terms` name entries of the glossary, `glossary` explains what only this answer needs."""
        frame = pd.DataFrame(measures, columns=list(Measure._fields))
        words = " ".join([*(GLOSSARY[term] for term in terms), *([glossary] if glossary else [])])
        return cls(question, definition, frame, table, null_model, words)

    def __getitem__(self, measure: str) -> Measure:
        """The measure of that name."""
        found = self.measures.loc[self.measures["measure"] == measure]
        if found.empty:
            raise ScircuitError(
                f"{self.question} has no measure {measure!r}; it has {', '.join(self.measures['measure'])}."
            )
        return Measure(*next(found.itertuples(index=False, name=None)))

    @property
    def headline(self) -> Measure:
        """The first measure."""
        return Measure(*next(self.measures.itertuples(index=False, name=None)))

    @property
    def estimate(self) -> float:
        """The headline number."""
        return self.headline.estimate

    @property
    def interval(self) -> tuple[float, float]:
        """Bounds of the headline number."""
        return self.headline.low, self.headline.high

    @property
    def null(self) -> float:
        """What the headline number would be under the null."""
        return self.headline.null

    def to_json(self) -> dict[str, Any]:
        """Everything but the table, with null for what is not defined."""
        rows = [
            {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
            for row in self.measures.to_dict("records")
        ]
        return {name: getattr(self, name) for name in WORDS} | {"measures": rows}

    def write(self, folder: str | Path, facts: Mapping[str, Any] | None = None) -> None:
        """Write `<question>.json` and `<question>.parquet` into the folder.

        Both say what the numbers mean: the Parquet file carries question, definition, null model and glossary in
        its metadata (key `scircuit`). `facts` (the run's id, its thresholds) go beside them.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        words = {name: getattr(self, name) for name in WORDS} | dict(facts or {})
        table = pa.Table.from_pandas(self.table, preserve_index=False)
        table = table.replace_schema_metadata(
            {**(table.schema.metadata or {}), b"scircuit": json.dumps(words).encode()}
        )
        with atomic(Path(folder) / f"{self.question}.parquet") as temporary:
            pq.write_table(table, temporary)
        record = Path(folder) / f"{self.question}.json"
        write_sealed(record, self.to_json() | dict(facts or {}), [f"{self.question}.parquet"])

    @classmethod
    def read(cls, path: str | Path) -> "Result":
        """An answer from the pair of files that `write` leaves; `path` is the JSON one."""
        path, content = Path(path), read_json(path)
        missing = [key for key in (*WORDS, "measures") if key not in content]
        if missing:
            raise ScircuitError(f"{path} has no {', '.join(missing)}; it is not an answer written by the analysis.")
        table = path.with_suffix(".parquet")
        if not table.exists():
            raise ScircuitError(f"{table} does not exist beside {path.name}; write the answer again.")
        measures = pd.DataFrame(content["measures"], columns=list(Measure._fields))
        numeric = [name for name in Measure._fields if name not in ("measure", "n", "unit_of_n")]
        words = {key: content[key] for key in WORDS}
        return cls(**words, measures=measures.astype(dict.fromkeys(numeric, float)), table=read_parquet(table))
