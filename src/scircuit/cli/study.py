"""`scircuit study ...`: thin, every command a function of this room."""

from pathlib import Path
from typing import Annotated

import typer

from scircuit.cli.options import ClusterOption, write_new
from scircuit.errors import ScircuitError

app = typer.Typer(
    help="Run a whole study from one file.\n\nDictionaries, conditions, what is asked between them, one report.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
StudyPath = Annotated[Path, typer.Argument(metavar="STUDY", help="TOML file of the study (see `scircuit study init`).")]


@app.command()
def init(
    what: Annotated[
        str, typer.Argument(metavar="[paper] FILE", help="`paper` for the published study; else the file to write.")
    ] = "study.toml",
    file: Annotated[Path | None, typer.Argument(metavar="FILE", hidden=True)] = None,
) -> None:
    """Write a study with every value explained.

    One of your own that runs as it is, without a download; or with `paper` the four published conditions.
    """
    from scircuit.study.config import TEMPLATES, template

    name, path = ("own", Path(what)) if what not in TEMPLATES else (what, file or Path(f"{what}.toml"))
    if name == "own" and file is not None:
        raise ScircuitError(
            f"There is no study called {what!r}; it may be {', '.join(TEMPLATES)}, or left out for your own."
        )
    write_new(path, template(name))


@app.command()
def plan(study: StudyPath) -> None:
    """Say what a study needs and takes.

    Files with size, licence and how the missing ones come here; forwards, memory, disk and time on this device, from a
    short calibration that needs none of them. Keeps it as plan.json in the study's folder.
    """
    from scircuit.study.config import load_study
    from scircuit.study.plan import plan_study

    typer.echo("\n".join(plan_study(load_study(study)).lines()))


@app.command()
def run(
    study: StudyPath,
    until: Annotated[
        str | None, typer.Option("--until", metavar="STAGE", help="Last stage to do, for example trace or trace:NAME.")
    ] = None,
    cluster: ClusterOption = None,
) -> None:
    """Do every stage that is not done.

    Goes on where an earlier call stopped, at whatever moment that was.
    """
    from scircuit.study.config import load_study
    from scircuit.study.run import run_study

    folder = run_study(load_study(study), until=until, cluster=cluster)
    report = folder / "report" / "index.html"
    typer.echo(report if until is None else folder)


@app.command()
def status(study: StudyPath) -> None:
    """Show where each stage of a study stands.

    Done, partial or waiting, with planned and measured seconds.
    """
    from scircuit.study.config import load_study
    from scircuit.study.page import lines
    from scircuit.study.stages import status as state

    typer.echo("\n".join(lines(state(load_study(study)))))
