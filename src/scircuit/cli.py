"""The command line: thin, every command a function of the public API."""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scircuit.cli_study import app as study_app
from scircuit.cli_world import compare, validate
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


RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]


@app.command()
def analyze(
    question: Annotated[
        str, typer.Argument(metavar="QUESTION", help="A question's name, `all`, or `list` to see the questions.")
    ],
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="Folder of a finished run.")] = None,
    profile: Annotated[str, typer.Option(help="default, or paper for the published definitions.")] = "default",
) -> None:
    """Ask a traced run what its circuit says; answers go to RUN/analysis/ and into the next report."""
    from scircuit.analysis.registry import QUESTIONS, answerable
    from scircuit.pipeline.questions import ask, questions_of, sentences

    if question == "list":
        known = list(QUESTIONS) if run is None else answerable(run)
        typer.echo("\n".join(f"{name:18} {QUESTIONS[name].asks}" for name in known))
        return
    if run is None:
        raise ScircuitError("RUN is missing; give the folder of a finished run after the question.")
    asked = questions_of(run, question, profile)
    summary = ask(run, asked, profile)
    typer.echo("\n".join(sentences(summary[summary["question"].isin(asked)])))


@app.command(name="compare-profiles")
def compare_profiles(run: RunPath) -> None:
    """The corrected and the published numbers of one run side by side, with what differs in a sentence."""
    from scircuit.pipeline.questions import both_profiles

    for row in both_profiles(run).itertuples():
        typer.echo(f"{row.number}: {row.default:.4g} by default, {row.paper:.4g} as published. {row.difference}")


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

knowledge = typer.Typer(
    help="Gene sets, networks and disease genes: what is known, what is in the cache, and how it gets there.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(knowledge, name="knowledge")
app.add_typer(study_app, name="study")
SourceName = Annotated[str, typer.Argument(metavar="NAME", help="A source; see `scircuit knowledge list`.")]


@knowledge.command(name="list")
def list_sources() -> None:
    """Every source with its version, licence, and whether it is in the cache."""
    from scircuit.knowledge.registry import list_sources as known

    typer.echo(known()[["name", "kind", "state", "version", "licence", "title"]].to_string(index=False))


@knowledge.command()
def fetch(
    name: SourceName, again: Annotated[bool, typer.Option("--again", help="Even if it is in the cache.")] = False
) -> None:
    """Download a source once into the cache, checked against its checksum."""
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
    help="Published checkpoints: which are known, what they are, and how they get here.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(models, name="models")
CheckpointName = Annotated[str, typer.Argument(metavar="NAME", help="A checkpoint; see `scircuit models list`.")]


@models.command(name="list")
def list_models() -> None:
    """Every known checkpoint with its size, licence, and whether its files are on this machine."""
    from scircuit.models.hub import list_checkpoints_here

    typer.echo(list_checkpoints_here().to_string(index=False))


@models.command(name="fetch")
def fetch_model(
    name: CheckpointName,
    again: Annotated[bool, typer.Option("--again", help="Even if it is in the cache.")] = False,
) -> None:
    """Download a checkpoint and its dictionaries into the Hugging Face cache, each file held to its hash."""
    from scircuit.models.hub import fetch_checkpoint

    typer.echo(fetch_checkpoint(name, again=again))


@models.command(name="show")
def show_model(name: CheckpointName) -> None:
    """Repository, revision, files, hashes, licence and paper of one checkpoint, and which files are missing here."""
    import json

    from scircuit.models.hub import show_checkpoint

    typer.echo(json.dumps(show_checkpoint(name), indent=2))


def main() -> None:
    """Entry point: a wrong input is one sentence and exit code 2."""
    try:
        app(standalone_mode=True)
    except ScircuitError as error:
        sys.stderr.write(f"scircuit: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
