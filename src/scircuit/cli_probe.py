"""Commands beyond the published read-out: `probe`, `paths`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from scircuit.config import RunConfig

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file of the run.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder of the run, instead of the config's.")]


def probe(
    config: ConfigPath,
    latents: Annotated[list[str], typer.Argument(metavar="LAYER:LATENT...", help="For example 3:17; 3:17+40 at once.")],
    do: Annotated[
        list[str] | None,
        typer.Option(
            "--do", metavar="WORD",
            help="zero (the default), mean, scale:ALPHA, set:VALUE, activate:VALUE, resample, matched:N or random:N; "
            "may be given several times.",
        ),
    ] = None,
    what: Annotated[str, typer.Option(help="activation, pre_activation, logits or embedding.")] = "activation",
    where: Annotated[str, typer.Option(help="active, other or all positions.")] = "active",
    target: Annotated[list[int] | None, typer.Option(help="A target layer; may be given several times.")] = None,
    cells: Annotated[int | None, typer.Option(help="Only so many of the traced cells.", min=2)] = None,
    out: Out = None,
    table: Annotated[Path | None, typer.Option("--table", metavar="FILE", help="Parquet file to write.")] = None,
) -> None:  # fmt: skip
    """Do something to chosen latents and read anything: dose-response, controls, logits, the cell embedding."""
    from scircuit.pipeline.probing import probe_run

    path = probe_run(
        _config(config, out), latents, do or ["zero"], where=where, what=what, targets=target or (), n_cells=cells,
        out=table,
    )  # fmt: skip
    typer.echo(path)


def paths(config: ConfigPath, out: Out = None) -> None:
    """How each edge comes about: at the firing positions, through other genes, by weights. Writes trace/path_shares."""
    from scircuit.pipeline.probing import paths_of_run

    typer.echo(paths_of_run(_config(config, out)))


def _config(path: Path, out: Path | None) -> "RunConfig":
    from dataclasses import replace

    from scircuit.config import load_config

    loaded = load_config(path)
    return loaded if out is None else replace(loaded, out=str(out))
