"""Arguments that several commands share, and the config as they change it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from scircuit.config import RunConfig

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file of the run (see `scircuit init`).")]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder of the run, instead of the config's.")
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster", metavar="WHERE", help="Trace on Dask workers: local, local:4, slurm:8, or tcp://HOST:PORT."
    ),
]


def read_config(config: Path, out: Path | None, memory: str | None = None, accept: bool = False) -> "RunConfig":
    """The config with what the command line says instead."""
    from dataclasses import replace

    from scircuit.config_file import load_config

    loaded = load_config(config)
    if memory is not None:
        loaded = replace(loaded, trace=replace(loaded.trace, memory=memory))
    if accept:
        loaded = replace(loaded, trace=replace(loaded.trace, accept_approximation=True))
    return loaded if out is None else replace(loaded, out=str(out))
