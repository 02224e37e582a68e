"""Arguments that several commands share, and the config as they change it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scircuit.errors import ScircuitError

if TYPE_CHECKING:
    from dataclasses import Field

    from scircuit.config import RunConfig

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="TOML file of the run (see `scircuit init`), or its folder.")
]
RUN = typer.Argument(metavar="RUN", help="Folder of a finished run.")
RunPath = Annotated[Path, RUN]
Grade = Annotated[str | None, typer.Option(help="Take the wider circuit of this grade: reproducible or sizeable.")]
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
    """The config of a file, or that a run's folder records, with what the command line says instead."""
    from dataclasses import replace

    from scircuit.config_file import load_config
    from scircuit.runs.run import Run

    loaded = Run(config).config if config.is_dir() else load_config(config)
    if memory is not None:
        loaded = replace(loaded, trace=replace(loaded.trace, memory=memory))
    if accept:
        loaded = replace(loaded, trace=replace(loaded.trace, accept_approximation=True))
    return loaded if out is None else replace(loaded, out=str(out))


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet, and say its name."""
    from scircuit._io import atomic

    if path.exists():
        raise ScircuitError(f"{path} exists already; choose another name or delete it.")
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    typer.echo(path)


def with_options(group: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a command that takes a dataclass as `options` take one option per field of it that has a help instead.

    Field metadata: `help, metavar, min`, `flag` (its name on the command line) and `read` (from text to the value).
    """
    import inspect
    from dataclasses import fields
    from functools import wraps
    from typing import get_type_hints

    shown = [field for field in fields(group) if "help" in field.metadata]
    hints = get_type_hints(group)

    def parameter(field: "Field[Any]") -> inspect.Parameter:
        about, many = field.metadata, isinstance(field.default, tuple)
        kind: Any = list[str] if many else str if about["read"] else hints[field.name]
        flags = [about["flag"] or "--" + field.name.replace("_", "-")]
        option = typer.Option(*flags, metavar=about["metavar"], help=about["help"], min=about["min"])
        default = None if many else field.default
        optional: Any = kind | None if default is None else kind
        hint: Any = Annotated[optional, option]
        return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)

    def value(field: "Field[Any]", given: Any) -> Any:
        if isinstance(field.default, tuple):
            return tuple(given or ())
        read = field.metadata["read"]
        return given if read is None or given is None else read(given)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**given: Any) -> None:
            own = {field.name: value(field, given.pop(field.name)) for field in shown}
            command(**given, options=group(**own))

        before = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in inspect.signature(command).parameters.values()
        ]
        place = [p.name for p in before].index("options")
        after = [*before[:place], *map(parameter, shown), *before[place + 1 :]]
        run.__signature__ = inspect.Signature(after)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in after}
        return run

    return decorate
