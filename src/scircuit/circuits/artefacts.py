"""`Artefacts`: what a run has left in its folder, each table read when it is asked for. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._io import read_json
from scircuit._sealed import FILES
from scircuit._tables import read_parquet
from scircuit.circuits.build import build_circuit
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.rule import EdgeRule
from scircuit.errors import ScircuitError

_TRACE, _PER_CELL = "run `scircuit trace`", "run `scircuit trace`, which keeps per-cell effects"
_PAIRS = "run with `pair_cells` above 0 under [features]"
TABLES: Mapping[str, tuple[str, str]] = {
    "effects": ("trace/effects.parquet", _TRACE),
    "tests": ("trace/tests.parquet", _TRACE),
    "scales": ("trace/scales.parquet", "trace with `n_random` above 0"),
    "groups": ("trace/groups.parquet", "trace with the obs columns to group by (`groups` under [trace])"),
    "cell_effects": ("trace/cell_effects.parquet", _PER_CELL),
    "source_cells": ("trace/source_cells.parquet", _PER_CELL),
    "mediation": ("trace/mediation.parquet", "run `scircuit mediate CONFIG`"),
    "interactions": ("trace/interactions.parquet", "run `scircuit combine CONFIG`"),
    "interaction_sets": ("trace/interaction_sets.parquet", "run `scircuit combine CONFIG`"),
    "faithfulness": ("trace/faithfulness.parquet", "run `scircuit faithfulness CONFIG`"),
    "path_shares": ("trace/path_shares.parquet", "run `scircuit paths CONFIG`"),
    "logits": ("trace/logits.parquet", "run `scircuit validate RUN --logits`"),
    "controls": ("controls/controls.parquet", "run `scircuit controls CONFIG`"),
    "positive_control": ("positive_control/paths.parquet", "run `scircuit positive-control RUN`"),
    "confirmation": ("confirmation/edges.parquet", "run `scircuit trace` with confirmation.n_cells above 0"),
    "features": ("features/features.parquet", "run `scircuit features`"),
    "terms": ("features/terms.parquet", "run `scircuit features`"),
    "genes": ("features/genes.parquet", "run `scircuit features`"),
    "coactivation": ("features/coactivation_across.parquet", _PAIRS),
    "correlations": ("features/correlations.parquet", _PAIRS),
    "published_annotations": ("features/published_annotations.parquet", "run `scircuit features`"),
}
"""Tables beside the circuit: where they lie in a run's folder, and how they come about."""
CIRCUIT = "circuit"


class Artefacts:
    """What a run found. Nothing is read before it is asked for; the whole circuit is read once and kept.

    Parameters
    ----------
    root : path
        Folder of the run (docs/architecture.md).
    name, model : str, optional
        What the run is called, and the model it was traced in: runs of one model are conditions of it. By default
        what its record says.
    held : mapping, optional
        `circuit` and tables of `TABLES` that stand for those in the folder.
    """

    def __init__(
        self,
        root: str | Path,
        name: str | None = None,
        model: str | None = None,
        held: Mapping[str, Any] | None = None,
    ) -> None:
        self.root = Path(root)
        self._name, self._model = name, model
        self._held: dict[str, Any] = dict(held or {})
        self._read: Circuit | None = None
        self._grade: str | None = None

    @classmethod
    def of(cls, run: "str | Path | Artefacts") -> "Artefacts":
        """A run that is given as itself or as its folder."""
        return run if isinstance(run, Artefacts) else Artefacts(run)

    @classmethod
    def in_memory(cls, circuit: Circuit, genes: pd.DataFrame | None = None, *, name: str, model: str) -> "Artefacts":
        """A run that lies in no folder: its circuit and the gene loadings of its latents."""
        held = {CIRCUIT: circuit} if genes is None else {CIRCUIT: circuit, "genes": genes}
        return Artefacts(name, name, model, held)

    def holding(self, **tables: Any) -> "Artefacts":
        """The same run with another circuit (of another rule, of fewer cells) or other tables in place of its own."""
        return self._as(self.name, self.model_name, self._held | tables)

    def called(self, name: str | None = None, model: str | None = None) -> "Artefacts":
        """The same run under another name, or as a condition of another model."""
        return self._as(name or self._name, model or self._model, self._held)

    def showing(self, grade: str) -> "Artefacts":
        """The same run whose `circuit()` holds the edges of this grade unless another is asked for."""
        other = self._as(self._name, self._model, self._held)
        other._grade, other._read = grade, None
        return other

    def _as(self, name: str | None, model: str | None, held: Mapping[str, Any]) -> "Artefacts":
        other = Artefacts(self.root, name, model, held)
        other._grade, other._read = self._grade, self._read
        return other

    @property
    def name(self) -> str:
        """What the run is called: by whoever opened it, by itself, or its folder's name."""
        recorded = self.provenance().get("name") if self.has(CIRCUIT) and not self._name else None
        return self._name or str(recorded or self.root.resolve().name)

    @property
    def model_name(self) -> str:
        """The model it was traced in, `unknown` where its record does not say."""
        recorded = self.provenance().get("model", {}) if self.has(CIRCUIT) and not self._model else {}
        return self._model or str(recorded.get("name", "unknown"))

    def has(self, name: str) -> bool:
        """Whether the `circuit`, or a table of `TABLES`, is there."""
        return name in self._held or self.path(name).is_file()

    def path(self, name: str) -> Path:
        """The file of a table, or the record of the circuit, there or not."""
        return self.root / ("circuit/run.json" if name == CIRCUIT else TABLES[name][0])

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A table of `TABLES`, or the named columns of it.

        Raises
        ------
        ScircuitError
            Where it is not there, with how to make it.
        """
        if name not in TABLES:
            raise ScircuitError(f"a run has no table {name!r}; it has {', '.join(TABLES)}.")
        if not self.has(name):
            raise ScircuitError(f"{self.path(name)} is not there; {TABLES[name][1]}.")
        if name in self._held:
            held: pd.DataFrame = self._held[name]
            return held
        return read_parquet(self.path(name), columns)

    def n_rows(self, name: str) -> int:
        """Rows of a table that is there, told without reading them."""
        if name in self._held:
            return len(self._held[name])
        import pyarrow.parquet as pq

        return int(pq.read_metadata(self.path(name)).num_rows)

    def circuit(
        self, rule: EdgeRule | None = None, *, grade: str | None = None, columns: Sequence[str] | None = None
    ) -> Circuit:
        """The circuit of the run.

        Parameters
        ----------
        rule : EdgeRule, optional
            Build it again from the trace under this rule; by default as the run built it.
        grade, columns
            As for `Circuit.read`, whose `edge_columns` the latter are.

        Raises
        ------
        ScircuitError
            Where the run has no circuit, or for another rule no trace.
        """
        self._need_circuit()
        if rule is not None:
            return self._built(rule, grade)
        if CIRCUIT in self._held:
            held: Circuit = self._held[CIRCUIT]
            wanted = grade or self._grade
            return held if wanted is None else held.at(wanted)
        if grade is not None or columns is not None:
            return Circuit.read(self.root / CIRCUIT, columns, grade or self._grade)
        if self._read is None:
            self._read = Circuit.read(self.root / CIRCUIT, grade=self._grade)
        return self._read

    def _built(self, rule: EdgeRule, grade: str | None) -> Circuit:
        own = self.circuit()
        scales = self.table("scales") if self.has("scales") else None
        tables = self.table("effects"), self.table("tests"), own.nodes, own.terms
        built = build_circuit(*tables, rule, own.provenance, scales)
        return built.at(grade or self._grade or built.provenance["grade"])

    def provenance(self) -> dict[str, Any]:
        """What `circuit/run.json` records; refused where there is no circuit."""
        self._need_circuit()
        circuit: Circuit | None = self._held.get(CIRCUIT, self._read)
        if circuit is not None:
            return circuit.provenance
        recorded = dict(read_json(self.path(CIRCUIT)))
        return {key: value for key, value in recorded.items() if key not in ("format_version", "run_id", FILES)}

    @property
    def run_id(self) -> str:
        """As `Circuit.run_id`, of the circuit as it is recorded."""
        return Circuit.id_of(self.provenance())

    def rule(self) -> EdgeRule | None:
        """The rule that its circuit was built by; None where none is recorded."""
        found = self.provenance().get("thresholds")
        return EdgeRule.recorded(found) if found else None

    def _need_circuit(self) -> None:
        if not self.has(CIRCUIT):
            raise ScircuitError(
                f"{self.root} holds no circuit; give the folder of a run that `scircuit trace` has finished."
            )
