"""The command line: thin, every command a function of the public API."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from scircuit.cli.asking import analyze, compare, validate
from scircuit.cli.ending import Commands, end
from scircuit.cli.libraries import knowledge, models
from scircuit.cli.nulls import audit, controls, positive_control
from scircuit.cli.options import ClusterOption, ConfigPath, Grade, OutOption, RunPath, read_config, write_new
from scircuit.cli.probing import combine, faithfulness, mediate, paths, probe
from scircuit.cli.study import app as study_app
from scircuit.errors import ScircuitError

app = typer.Typer(
    name="scircuit",
    help="Causal circuits between sparse-autoencoder features inside single-cell foundation models.\n\n"
    "A sparse autoencoder (SAE) splits what a layer of Geneformer or scGPT computes into features, here also called "
    "latents. scircuit silences one at a time in real cells, measures every later one, and reports which drive "
    "which.\n\n"
    "Start with `scircuit demo`; then `scircuit init my.toml`, edit it, and `scircuit run my.toml`. "
    "`scircuit COMMAND --help` explains a command.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=Commands,
)

MemoryOption = Annotated[
    str | None, typer.Option("--memory", metavar="8GB", help="Memory budget of the trace, instead of the config's.")
]
AcceptOption = Annotated[
    bool,
    typer.Option("--accept-approximation", help="Go on though the local engine misses its floors; the result says so."),
]


def _version(wanted: bool) -> None:
    if wanted:
        from scircuit._version import __version__

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
    train: Annotated[
        bool, typer.Option("--train", help="Train short dictionaries on the cells, in place of those that ship.")
    ] = False,
) -> None:
    """Run everything once, without a file of yours.

    Traces circuits in both packaged models on 500 blood cells that they never saw, beside circuits planted by hand
    where every edge is known, and writes one report, DIR/report/index.html. Takes a minute or two on two cores; needs
    no network and no GPU.
    """
    from scircuit.runs.demo import demo as run_demo

    typer.echo(run_demo(out, seed=seed, train=train))


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the config.")] = Path("scircuit.toml"),
) -> None:
    """Write a config to start from, every setting explained.

    Set at least cells.path (your .h5ad) and model.source (your checkpoint), then `scircuit run FILE`.
    """
    from scircuit.config_file import template

    write_new(path, template() + "\n")


@app.command()
def doctor(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="A TOML file; everything it names is checked too.")
    ] = None,
) -> None:
    """Check the installation, the devices, a config.

    Arithmetic of the devices, caches, and every path of a config; exit 1 on a FAIL.
    """
    from scircuit.health import doctor as examine
    from scircuit.health import lines

    findings = examine(config)
    typer.echo("\n".join(lines(findings)))
    failed = sum(finding.state == "FAIL" for finding in findings)
    typer.echo(f"{failed} of {len(findings)} checks failed." if failed else "All is well.")
    if failed:
        raise typer.Exit(1)


@app.command()
def verify(run: RunPath) -> None:
    """Hold every file of a run to its hash.

    Each is read in full, and the ids by which the artefacts name one another are compared; exit 1 where one is wrong.
    """
    from scircuit.runs.verify import GOOD, UNLISTED, lines
    from scircuit.runs.verify import verify as examine

    found = examine(run)
    typer.echo("\n".join(lines(found)))
    if not found["state"].isin([GOOD, UNLISTED]).all():
        raise typer.Exit(1)


@app.command()
def run(
    config: ConfigPath,
    out: OutOption = None,
    memory: MemoryOption = None,
    cluster: ClusterOption = None,
    accept: AcceptOption = False,
) -> None:
    """Run all stages of a config, to the report.

    The stages are tokenize, train-sae, features, trace, report. A run that was interrupted goes on where it stopped;
    a folder that holds another run is left alone.
    """
    from scircuit.runs.stages import run as run_all

    typer.echo(run_all(read_config(config, out, memory, accept), cluster=cluster).stage("report") / "index.html")


def _stage(config: Path, out: Path | None, name: str, artefact: str, grade: str | None = None) -> None:
    from scircuit.runs.stages import run_stage

    typer.echo(run_stage(read_config(config, out), name, grade=grade).stage(artefact))


@app.command()
def tokenize(config: ConfigPath, out: OutOption = None) -> None:
    """Stage 1: turn cells into tokens.

    Checks the counts, matches the genes to the model's vocabulary, and splits the cells by use: train,
    catalogue, discovery, confirmation. Writes tokens/.
    """
    _stage(config, out, "tokenize", "tokens")


@app.command(name="train-sae")
def train_sae(config: ConfigPath, out: OutOption = None) -> None:
    """Stage 2: train one SAE per layer, and measure them.

    All layers in one pass over the cells. Measured on held-out cells: variance unexplained, L0, alive latents, and
    the share of the model's loss that the reconstruction recovers. Writes saes/, in SAELens format; goes on where it
    stopped.
    """
    _stage(config, out, "train-sae", "saes")


@app.command()
def features(config: ConfigPath, out: OutOption = None) -> None:
    """Stage 3: describe and label every latent.

    How often each fires, on which genes and cells most, and which gene sets those genes are enriched in. Writes
    features/.
    """
    _stage(config, out, "features", "features")


@app.command()
def plan(config: ConfigPath, out: OutOption = None, memory: MemoryOption = None) -> None:
    """Estimate what stage 4 will take here.

    Forward passes, FLOP, memory, disk and time. Needs features/ and writes nothing.
    """
    from scircuit.runs.trace import plan as plan_run

    typer.echo("\n".join(plan_run(read_config(config, out, memory)).lines()))


@app.command()
def trace(
    config: ConfigPath,
    out: OutOption = None,
    memory: MemoryOption = None,
    cluster: ClusterOption = None,
    accept: AcceptOption = False,
) -> None:
    """Stage 4: silence latents, and find the circuit.

    Ablates every source latent in every traced cell, measures all later latents, tests them, and keeps the edges
    that pass the thresholds; then finds the edges again in other cells. Writes trace/, circuit/ (edges.parquet,
    nodes.parquet, run.json) and confirmation/.
    """
    from scircuit.runs.stages import run_stage

    typer.echo(run_stage(read_config(config, out, memory, accept), "trace", cluster).stage("circuit"))


@app.command()
def report(
    config: ConfigPath,
    out: OutOption = None,
    grade: Grade = None,
) -> None:
    """Stage 5: write the report, one HTML page.

    Opens from disk, without network. Writes report/index.html.
    """
    _stage(config, out, "report", "report", grade)


app.command()(analyze)


@app.command(name="compare-profiles")
def compare_profiles(run: RunPath) -> None:
    """Show corrected and published numbers of a run.

    Side by side, with what differs in a sentence.
    """
    from scircuit.analysis.answers import beside
    from scircuit.analysis.result import GLOSSARY
    from scircuit.runs.ask import both_profiles

    for row in both_profiles(run).to_dict("records"):
        ours = f"{row['default']:.4g}{beside(row['default_low'], row['default_high'], row['default_null'])}"
        typer.echo(f"{row['number']}: {ours} by default, {row['paper']:.4g} as published. {row['difference']}")
    typer.echo(f"\n{GLOSSARY['supporting']}\n{GLOSSARY['chosen']}")


@app.command()
def export(
    run: RunPath,
    fmt: Annotated[str, typer.Option("--format", help="A format's name, or `list` to see the formats.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="PATH", help="Where to; by default RUN/export/.")] = None,
    max_edges: Annotated[int | None, typer.Option(help="Only the edges of largest |d|.", min=1)] = None,
    grade: Grade = None,
) -> None:
    """Write the circuit of a run for another tool."""
    from scircuit.circuits.export.formats import export as write
    from scircuit.circuits.export.formats import formats

    if fmt == "list":
        typer.echo("\n".join(f"{name:20} {known.says}" for name, known in formats().items()))
        return
    typer.echo(write(run, fmt, out, max_edges, grade))


@app.command()
def methods(run: RunPath) -> None:
    """Write the methods paragraph of a run.

    Every number is read from the run; the works to cite stand below.
    """
    from scircuit.circuits.artefacts import Artefacts
    from scircuit.report.methods import methods as paragraph

    typer.echo(paragraph(Artefacts(run)))


app.command()(compare)
app.command()(validate)
app.command()(mediate)
app.command()(combine)
app.command()(faithfulness)
app.command()(probe)
app.command()(paths)
app.command()(controls)
app.command(name="positive-control")(positive_control)
app.command()(audit)

app.add_typer(knowledge, name="knowledge")
app.add_typer(study_app, name="study")
app.add_typer(models, name="models")


def main() -> None:
    """Entry point: a wrong input, or output that cannot be written, is one sentence and exit code 2."""
    try:
        app(prog_name="scircuit")
    except (ScircuitError, OSError) as error:
        end(error)


if __name__ == "__main__":
    main()
