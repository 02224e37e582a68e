"""`Circuit`: what a trace found, as plain tables with their provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._io import read_json, sha256_of
from scircuit._sealed import FILES, check, write_sealed
from scircuit._tables import write_parquet
from scircuit.circuits.around import edges_around
from scircuit.circuits.grades import at_least
from scircuit.circuits.schema import CONTROLS, EDGES, ENDS, GRADES, NODES, TERMS, TESTS, conform
from scircuit.errors import ScircuitError

FORMAT_VERSION = 1

_TABLES: Mapping[str, Mapping[str, str]] = {
    "edges": EDGES,
    "nodes": NODES,
    "tests": TESTS,
    "controls": CONTROLS,
    "terms": TERMS,
}
_VOLATILE = {"run_id", "created", "seconds", "versions", "hardware"}


@dataclass(frozen=True)
class Circuit:
    """Causal edges between SAE latents, with everything that is needed to judge them.

    The column names, types and units of the tables are in `scircuit.circuits.schema` and in
    docs/architecture.md; effects are in units of the target latent's activation.
    """

    edges: pd.DataFrame
    """One row per reproducible (source latent, target latent); `grade` says what more each claims."""
    nodes: pd.DataFrame
    """One row per latent of every traced layer, with or without edges."""
    tests: pd.DataFrame
    """How many tests were made, per (source, target layer, kind, draw)."""
    controls: pd.DataFrame
    """The edges that norm-matched random directions produced under the same rule."""
    terms: pd.DataFrame
    """Significant gene sets of the latents."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """JSON-able: model, SAE and cell hashes, config, versions, seed, thresholds, number of tests."""
    widest: str = GRADES[0]
    """The widest grade whose edges are still here (`at`)."""

    @property
    def run_id(self) -> str:
        """Hash over the provenance, without what may differ between repeats (times, versions, hardware)."""
        return self.id_of(self.provenance)

    @staticmethod
    def id_of(provenance: Mapping[str, Any]) -> str:
        """`run_id` of a circuit with this provenance."""
        return sha256_of({k: v for k, v in provenance.items() if k not in _VOLATILE})

    def at(self, grade: str) -> "Circuit":
        """The circuit of the edges of one grade or a stricter one; controls likewise.

        Raises
        ------
        ScircuitError
            On an unknown grade, one that this circuit's trace or rule could not tell, or a wider one than its edges.
        """
        told = self.provenance.get("grade", GRADES[0])
        if grade not in GRADES[: GRADES.index(told) + 1]:
            known = ", ".join(GRADES[: GRADES.index(told) + 1])
            raise ScircuitError(f"this circuit has no grade {grade!r}; its trace and its rule tell {known}.")
        if GRADES.index(grade) < GRADES.index(self.widest):
            raise ScircuitError(
                f"this circuit holds its {self.widest} edges alone; read it again with grade={grade!r}."
            )
        edges, controls = (t.loc[at_least(t, grade)].reset_index(drop=True) for t in (self.edges, self.controls))
        return replace(self, edges=edges, controls=controls, widest=grade)

    def around(self, what: str | Sequence[str]) -> pd.DataFrame:
        """Its edges into and out of a gene's latents, a label's, or a latent such as `2:17`; see `circuits.around`."""
        return edges_around(self.edges, self.nodes, what)

    def write(self, path: str | Path) -> None:
        """Write the tables as Parquet and the provenance as `run.json` into the folder `path`.

        `run.json` is written last, so an interrupted write is never mistaken for a circuit.

        Raises
        ------
        ScircuitError
            When the folder holds the circuit of a different run, or the path is a file.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise ScircuitError(f"{path} is a file; give a folder for the circuit.")
        record = path / "run.json"
        if record.exists():
            found = read_json(record).get("run_id")
            if found != self.run_id:
                raise ScircuitError(
                    f"{path} holds a different run (id {str(found)[:12]}, this one {self.run_id[:12]}); "
                    "choose another folder or delete that one."
                )
            record.unlink()
        for name in _TABLES:
            write_parquet(path / f"{name}.parquet", getattr(self, name))
        content = {"format_version": FORMAT_VERSION, "run_id": self.run_id} | self.provenance
        write_sealed(record, content, [f"{name}.parquet" for name in (*_TABLES, "sources")])

    @classmethod
    def read(cls, path: str | Path, edge_columns: Sequence[str] | None = None, grade: str | None = None) -> "Circuit":
        """Read a circuit folder.

        Parameters
        ----------
        path : folder written by `write`.
        edge_columns : list of str, optional
            Columns of edges and controls to load; the four ends always come. A circuit of 25 million edges
            takes 2 GB whole and a fraction of that for one question.
        grade : str, optional
            Edges of this grade or a stricter one; by default the strictest that the circuit's rule asks.

        Raises
        ------
        ScircuitError
            On a missing or half-written folder, another `format_version`, a record or a table that is not as it was
            written, or a table that does not fit.
        """
        path = Path(path)
        provenance = read_json(path / "run.json")
        version = provenance.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ScircuitError(
                f"{path} has format_version {version}; this scircuit reads {FORMAT_VERSION}: "
                "build the circuit again or install the version that wrote it."
            )
        provenance.pop(FILES, None)
        recorded = provenance.pop("run_id", None)
        if recorded not in (None, cls.id_of(provenance)):
            raise ScircuitError(
                f"{path / 'run.json'} is not as it was written: its run_id is not that of what it records; copy the "
                "folder again, or delete it and trace again."
            )
        tables: dict[str, Any] = {}
        for name, schema in _TABLES.items():
            wanted = None
            if edge_columns is not None and name in ("edges", "controls"):
                wanted = [*dict.fromkeys([*ENDS, *edge_columns, *(["grade"] if "grade" in provenance else [])])]
                schema = {c: t for c, t in schema.items() if c in wanted}
            tables[name] = conform(_read_table(path / f"{name}.parquet", wanted), schema, name)
        return cls(**tables, provenance=provenance).at(grade or provenance.get("grade", GRADES[0]))


def _read_table(path: Path, columns: list[str] | None) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        unknown = [c for c in columns or [] if c not in file.schema_arrow.names]
        if unknown:
            raise ScircuitError(
                f"{path} has no column {', '.join(unknown)}; its columns are {', '.join(file.schema_arrow.names)}."
            )
        # Arrow's copy is released column by column, so that a big table is not held twice.
        table = file.read(columns=columns).to_pandas(split_blocks=True, self_destruct=True)
    except FileNotFoundError:
        raise ScircuitError(f"{path} does not exist; point to a whole circuit folder.") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ScircuitError(f"{path} is not a readable Parquet file ({error}); write it again.") from None
    check(path)
    return table
