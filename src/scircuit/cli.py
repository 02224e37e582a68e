"""The command line: thin, every command a function of the public API."""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scircuit.cli_knowledge import knowledge, models
from scircuit.cli_world import analyze, compare, print_answers, validate
from scircuit.errors import ScircuitError

if TYPE_CHECKING:
    from scircuit.config import RunConfig

app = typer.Typer(
    name="scircuit",
    help="Causal circuits between sparse-autoencoder features inside single-cell foundation models.\n\n"
    "Start with `scircuit demo`; then `scircuit init my.toml`, edit it, and `scircuit run my.toml`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file of the run (see `scircuit init`).")]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder of the run, instead of the config's.")
]


MemoryOption = Annotated[
    str | None, typer.Option("--memory", metavar="8GB", help="Memory budget of the trace, instead of the config's.")
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster", metavar="WHERE", help="Trace on Dask workers: local, local:4, slurm:8, or tcp://HOST:PORT."
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        from scircuit import __version__

        typer.echo(f"scircuit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")] = False,
) -> None:
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("fontTools").setLevel(logging.WARNING)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the two runs and the report.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Seeds every draw.")] = 0,
) -> None:
    """Trace circuits in both packaged models on 500 blood cells they never saw, and write one report."""
    from scircuit.pipeline.runs import demo as run_demo

    typer.echo(run_demo(out, seed=seed))


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the config.")] = Path("scircuit.toml"),
) -> None:
    """Write a commented config with every setting and its default."""
    from scircuit._io import atomic
    from scircuit.config import template

    if path.exists():
        raise ScircuitError(f"{path} exists already; choose another name or delete it.")
    with atomic(path) as temporary:
        temporary.write_text(template() + "\n", encoding="utf-8")
    typer.echo(path)


@app.command()
def doctor(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="A TOML file; everything it names is checked too.")
    ] = None,
) -> None:
    """Check the installation, devices and their arithmetic, caches, and every path of a config; exit 1 on a FAIL."""
    from scircuit.pipeline.doctor import doctor as examine
    from scircuit.pipeline.doctor import lines

    findings = examine(config)
    typer.echo("\n".join(lines(findings)))
    failed = sum(finding.state == "FAIL" for finding in findings)
    typer.echo(f"{failed} of {len(findings)} checks failed." if failed else "All is well.")
    if failed:
        raise typer.Exit(1)


@app.command()
def run(config: ConfigPath, out: OutOption = None, memory: MemoryOption = None, cluster: ClusterOption = None) -> None:
    """All stages: tokenize, train-sae, features, trace, report. Goes on where an earlier call stopped."""
    from scircuit.pipeline.runs import run as run_all

    typer.echo(run_all(_read(config, out, memory), cluster=cluster).stage("report") / "index.html")


def _read(config: Path, out: Path | None, memory: str | None = None) -> "RunConfig":
    from dataclasses import replace

    from scircuit.config import load_config

    loaded = load_config(config)
    if memory is not None:
        loaded = replace(loaded, trace=replace(loaded.trace, memory=memory))
    return loaded if out is None else replace(loaded, out=str(out))


def _stage(config: Path, out: Path | None, name: str, artefact: str) -> None:
    from scircuit.pipeline.runs import run_stage

    typer.echo(run_stage(_read(config, out), name).stage(artefact))


@app.command()
def tokenize(config: ConfigPath, out: OutOption = None) -> None:
    """Stage 1: cells to tokens, split by use: train, catalogue, discovery, confirmation. Writes tokens/."""
    _stage(config, out, "tokenize", "tokens")


@app.command(name="train-sae")
def train_sae(config: ConfigPath, out: OutOption = None) -> None:
    """Stage 2: train and measure the dictionaries of all layers; goes on where it stopped. Writes saes/."""
    _stage(config, out, "train-sae", "saes")


@app.command()
def features(config: ConfigPath, out: OutOption = None) -> None:
    """Stage 3: what every latent responds to: genes, gene sets, labels. Writes features/."""
    _stage(config, out, "features", "features")


@app.command()
def plan(config: ConfigPath, out: OutOption = None, memory: MemoryOption = None) -> None:
    """What stage 4 will take on this device: forwards, FLOP, memory, disk, time. Needs features/, writes nothing."""
    from scircuit.pipeline.planning import plan as plan_run

    typer.echo("\n".join(plan_run(_read(config, out, memory)).lines()))


@app.command()
def trace(
    config: ConfigPath, out: OutOption = None, memory: MemoryOption = None, cluster: ClusterOption = None
) -> None:
    """Stage 4: ablate the sources, call edges, find them again. Writes trace/, circuit/ and confirmation/."""
    from scircuit.pipeline.runs import run_stage

    typer.echo(run_stage(_read(config, out, memory), "trace", cluster).stage("circuit"))


@app.command()
def report(config: ConfigPath, out: OutOption = None) -> None:
    """Stage 5: one self-contained HTML page. Writes report/index.html."""
    _stage(config, out, "report", "report")


@app.command()
def mediate(
    config: ConfigPath,
    out: OutOption = None,
    edges: Annotated[
        list[str] | None,
        typer.Option("--edge", metavar="0:12-3:45", help="An edge, layer:latent-layer:latent; may be repeated."),
    ] = None,
    n_edges: Annotated[int, typer.Option(help="Edges drawn at random where none is named.", min=1)] = 20,
    top: Annotated[
        int, typer.Option(help="Mediators held per edge, the likeliest first; as many random latents are.", min=1)
    ] = 5,
    n_cells: Annotated[int, typer.Option(help="Cells, those that were not traced first.", min=1)] = 50,
) -> None:
    """Hold the latents between the ends of edges at their clean value: which of them carry the effect."""
    from scircuit.pipeline.causes import mediate as measure

    measure(_read(config, out), edges or (), n_edges=n_edges, top=top, n_cells=n_cells)
    print_answers(Path(_read(config, out).out), "mediation")


@app.command()
def combine(
    config: ConfigPath,
    out: OutOption = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="0:12+0:33", help="Sources ablated together and apart; may be repeated."),
    ] = None,
    n_sets: Annotated[int, typer.Option(help="Sets drawn at random where none is named.", min=1)] = 10,
    size: Annotated[int, typer.Option(help="Sources of a drawn set; its pairs are measured too.", min=2, max=4)] = 3,
    n_cells: Annotated[int, typer.Option(help="Cells, those that were not traced first.", min=1)] = 50,
) -> None:
    """Ablate sources together and apart: whether their effects add up."""
    from scircuit.pipeline.causes import combine as measure

    measure(_read(config, out), sets or (), n_sets=n_sets, size=size, n_cells=n_cells)
    print_answers(Path(_read(config, out).out), "interactions")


RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]


app.command()(analyze)


@app.command(name="compare-profiles")
def compare_profiles(run: RunPath) -> None:
    """The corrected and the published numbers of one run side by side, with what differs in a sentence."""
    from scircuit.analysis.result import GLOSSARY
    from scircuit.pipeline.questions import beside, both_profiles

    for row in both_profiles(run).to_dict("records"):
        ours = f"{row['default']:.4g}{beside(row['default_low'], row['default_high'], row['default_null'])}"
        typer.echo(f"{row['number']}: {ours} by default, {row['paper']:.4g} as published. {row['difference']}")
    typer.echo(f"\n{GLOSSARY['supporting']}")


@app.command()
def export(
    run: RunPath,
    fmt: Annotated[str, typer.Option("--format", help="neuronpedia, cytoscape, graphml, decoupler or networkx-json.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="PATH", help="Where to; by default RUN/export/.")] = None,
    max_edges: Annotated[int | None, typer.Option(help="Only the edges of largest |d|.", min=1)] = None,
) -> None:
    """Write the circuit of a run for another tool."""
    from scircuit.pipeline.exports import export as write

    typer.echo(write(run, fmt, out, max_edges))


app.command()(compare)
app.command()(validate)

app.add_typer(knowledge, name="knowledge")
app.add_typer(models, name="models")


def main() -> None:
    """Entry point: a wrong input is one sentence and exit code 2."""
    try:
        app(standalone_mode=True)
    except ScircuitError as error:
        sys.stderr.write(f"scircuit: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
