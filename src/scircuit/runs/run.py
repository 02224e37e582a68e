"""`Run`: a finished or running folder, with all that can be had of it."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from scircuit._io import read_json, write_json
from scircuit.analysis.answers import read_answers
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.grades import sentences
from scircuit.config import RunConfig
from scircuit.config_file import parse_config
from scircuit.errors import ScircuitError
from scircuit.runs.identity import places, recorded, refuse_another, settings

if TYPE_CHECKING:
    from anndata import AnnData

    from scircuit.cells.tokens import TokenStore
    from scircuit.models.base import FoundationModel
    from scircuit.sae.base import LinearSAE
    from scircuit.tracing.setup import Setup

STAGES: Mapping[str, tuple[str, str]] = {
    "tokens": ("tokens.json", "tokenize"),
    "saes": ("manifest.json", "train-sae"),
    "features": ("labels.json", "features"),
    "trace": ("trace.json", "trace"),
    "circuit": ("run.json", "trace"),
    "confirmation": ("confirmation.json", "trace"),
    "analysis": ("answers.parquet", "analyze all"),
    "report": ("index.html", "report"),
}
"""The file that each stage writes last, and the command that does it."""


class Run(Artefacts):
    """The folder of one run: its config, tables, circuit under any rule, answers, cells, dictionaries and model.

    Parameters
    ----------
    root : path
        A folder that holds `circuit/` at least (a notebook writes one too), or all that `scircuit run` leaves.
    config : RunConfig, optional
        By default the one that the folder records; `open` gives that of a run to be made.

    Raises
    ------
    ScircuitError
        Where there is nothing of a run in the folder.
    """

    def __init__(self, root: str | Path, config: RunConfig | None = None) -> None:
        super().__init__(root)
        self._config = config
        if config is None and not ((self.root / "config.json").is_file() or any(map(self.done, STAGES))):
            raise ScircuitError(f"{self.root} holds no run; give a folder that `scircuit run` or `Circuit.write` made.")

    @classmethod
    def open(cls, config: RunConfig) -> "Run":
        """A new run, or the same one to go on with; another config is refused. Nothing is written before `record`."""
        refuse_another(config)
        return cls(config.out, config)

    @property
    def config(self) -> RunConfig:
        """The config that it was opened for, or that the folder records; refused where it records none."""
        if self._config is None:
            found = {**recorded(self.root), "out": str(self.root)}
            self._config = parse_config(found, where=str(self.root / "config.json"))
        return self._config

    def record(self) -> None:
        """Make the folder this run's, where it lies now; called once the inputs have proved good."""
        file = self.root / "config.json"
        content = {"format_version": 1, "config": settings(self.config), "places": places(self.config)}
        if not file.is_file() or read_json(file) != content:
            write_json(file, content)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds that the block takes to those of a stage in `seconds.json`, unless it was done before."""
        if self.done(name):
            yield
            return
        started = time.monotonic()
        try:
            yield
        finally:
            if (self.root / "config.json").is_file():
                spent = self.seconds()
                spent[name] = round(spent.get(name, 0.0) + time.monotonic() - started, 2)
                write_json(self.root / "seconds.json", spent)

    def stage(self, name: str) -> Path:
        """Folder of a stage."""
        return self.root / name

    def done(self, name: str) -> bool:
        """Whether a stage's artefact is whole."""
        return (self.root / name / STAGES[name][0]).is_file()

    def need(self, name: str) -> Path:
        """Folder of a stage that must be there already."""
        if not self.done(name):
            raise ScircuitError(
                f"{self.root} has no {name} yet; run `scircuit {STAGES[name][1]}` with the same config first."
            )
        return self.stage(name)

    def seconds(self) -> dict[str, float]:
        """Seconds spent per stage, over all calls."""
        file = self.root / "seconds.json"
        return dict(read_json(file)) if file.is_file() else {}

    def answers(self) -> pd.DataFrame:
        """What it was asked and answered, one row per number; see `scircuit.analysis.answers`."""
        return read_answers(self.stage("analysis"))

    def ask(self, *questions: str, **options: Any) -> pd.DataFrame:
        """Ask questions of the circuit, all that it can answer where none is named; returns all its answers."""
        from scircuit.runs.ask import ask, ask_run

        if not questions:
            return ask_run(self)
        return ask(self, questions, options=dict.fromkeys(questions, options))

    def cells(self) -> "TokenStore":
        """Its tokenised cells, of all splits."""
        from scircuit.cells.tokens import TokenStore

        return TokenStore.read(self.need("tokens"))

    def model(self) -> "FoundationModel":
        """Its model; loaded anew at each call."""
        from scircuit.runs.inputs import open_model

        return open_model(self.config)

    def saes(self, model: "FoundationModel | None" = None) -> "dict[int, LinearSAE]":
        """Its dictionaries by layer, for `model` (its own by default), and refused unless they are of it."""
        from scircuit.runs.inputs import open_saes

        return open_saes(self.need("saes"), model or self.model())

    def setup(self) -> "Setup":
        """Model, dictionaries, all cells and settings of the trace; its sources are chosen from its features."""
        from scircuit.tracing.setup import Setup

        store, _ = self.cells(), self.need("saes")
        model = self.model()
        return Setup(model, self.saes(model), store, settings=self.config.trace)

    def to_anndata(self) -> "AnnData":
        """Its cells by its latents: X is the mean activation over a cell's gene positions, `[cell, latent]` sparse.

        `obs` as tokenised with `_split`; `var` says of each latent its layer, label and genes; `uns["scircuit"]` holds
        the edges. The model runs once over all cells.
        """
        from scircuit.runs.latents import as_anndata

        return as_anndata(self)

    def __repr__(self) -> str:
        done = [name for name in STAGES if self.done(name)]
        return f"Run({str(self.root)!r}: {', '.join(done) or 'nothing yet'})"

    def _repr_html_(self) -> str:
        known = self.provenance() if self.has("circuit") else {}
        told = sentences(known) or [
            f"{known['n_edges']:,} edges of {known['n_tests']:,} tests." if known else "No circuit."
        ]
        lines = re.sub("`(.*?)`", r"<code>\1</code>", "".join(f"<li>{escape(line)}</li>" for line in told))
        return f"<b>{escape(self.name)}</b> <code>{escape(str(self.root))}</code><ul>{lines}</ul>"
