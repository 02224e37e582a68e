"""`scircuit knowledge` and `scircuit models`: the local libraries of databases and checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

knowledge = typer.Typer(
    help="Manage gene sets, networks and disease genes.\n\nWhat is known, what is in the cache, how it gets there.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
SourceName = Annotated[str, typer.Argument(metavar="NAME", help="A source; see `scircuit knowledge list`.")]


@knowledge.command(name="list")
def list_sources() -> None:
    """List every source: version, licence, in the cache or not."""
    from scircuit.knowledge.registry import list_sources as known

    typer.echo(known()[["name", "kind", "state", "version", "licence", "title"]].to_string(index=False))


@knowledge.command()
def fetch(
    name: SourceName, again: Annotated[bool, typer.Option("--again", help="Even if it is in the cache.")] = False
) -> None:
    """Download a source into the cache, checksum checked."""
    from scircuit.knowledge.registry import fetch as download

    typer.echo(download(name, again=again))


@knowledge.command()
def add(
    name: SourceName,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A file of yours, for example a GMT.")],
    kind: Annotated[str, typer.Option(help="What the file holds; an unknown kind is refused with the list.")] = (
        "gene sets"
    ),
    title: Annotated[str, typer.Option(help="Its title.")] = "",
    version: Annotated[str, typer.Option(help="Its version.")] = "",
    licence: Annotated[str, typer.Option(help="Its licence.")] = "",
) -> None:
    """Put a file of yours into the cache under a name."""
    from scircuit.knowledge.registry import add as put

    typer.echo(put(name, path, kind=kind, title=title, version=version, licence=licence))


@knowledge.command()
def show(name: SourceName) -> None:
    """Version, licence, addresses, checksums and size of one source."""
    import json

    from scircuit.knowledge.registry import show as describe

    typer.echo(json.dumps(describe(name), indent=2))


models = typer.Typer(
    help="Manage published checkpoints.\n\nWhich are known, what they are, how they get here.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
CheckpointName = Annotated[str, typer.Argument(metavar="NAME", help="A checkpoint; see `scircuit models list`.")]


@models.command(name="list")
def list_models() -> None:
    """List every checkpoint: size, licence, here or not."""
    from scircuit.models.hub import list_checkpoints_here

    typer.echo(list_checkpoints_here().to_string(index=False))


@models.command(name="fetch")
def fetch_model(
    name: CheckpointName,
    again: Annotated[bool, typer.Option("--again", help="Even if it is in the cache.")] = False,
) -> None:
    """Download a checkpoint and its dictionaries.

    Into the Hugging Face cache, each file held to its hash.
    """
    from scircuit.models.hub import fetch_checkpoint

    typer.echo(fetch_checkpoint(name, again=again))


@models.command(name="show")
def show_model(name: CheckpointName) -> None:
    """Show files, hashes, licence and paper of a checkpoint.

    And which of its files are missing here.
    """
    import json

    from scircuit.models.hub import show_checkpoint

    typer.echo(json.dumps(show_checkpoint(name), indent=2))
