"""Commands that question finished runs: `analyze` one, `compare` several, `validate` one against a screen."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scircuit.cli.options import RUN, RunPath, with_options
from scircuit.errors import ScircuitError
from scircuit.runs.screen_options import ScreenOptions

if TYPE_CHECKING:
    from scircuit.analysis.given import Sources

Profile = Annotated[str, typer.Option(help="default, or paper to put the published definitions beside them.")]
Seed = Annotated[int, typer.Option(help="Seeds every draw.")]


def analyze(
    question: Annotated[
        str, typer.Argument(metavar="QUESTION", help="A question's name, `all`, or `list` to see the questions.")
    ],
    run: Annotated[Path | None, RUN] = None,
    profile: Annotated[str, typer.Option(help="default, or paper for the published definitions.")] = "default",
    second: Annotated[
        Path | None, typer.Option("--with", metavar="RUN", help="Another run, for the questions that compare two.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="A setting of one question, such as draws=5000."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="disease, novelty: sources of `knowledge list`, or GMT files."),
    ] = None,
    network: Annotated[
        str | None, typer.Option(metavar="NAME", help="novelty: links between genes, as string, or a file.")
    ] = None,
    group: Annotated[str | None, typer.Option(metavar="COLUMN", help="tissue: the obs column traced by.")] = None,
    ontology: Annotated[
        str | None, typer.Option(metavar="OBO", help="tissue: an ontology such as cl-basic.obo.")
    ] = None,
    term: Annotated[
        list[str] | None, typer.Option(metavar="TERM", help="tissue: a term of it, as CL:0000084 or 'T cell'.")
    ] = None,
) -> None:
    """Put a question to a traced run.

    Answers go to RUN/analysis/ and into the next report. `scircuit analyze list` shows the questions.
    """
    from scircuit.analysis.given import Sources
    from scircuit.analysis.registry import answerable, questions
    from scircuit.circuits.artefacts import Artefacts
    from scircuit.runs.ask import questions_of

    if question == "list":
        known = questions()
        names = list(known) if run is None else answerable(Artefacts(run))
        typer.echo("\n".join(f"{name:20} {known[name].asks}" for name in names))
        return
    if run is None:
        raise ScircuitError("RUN is missing; give the folder of a finished run after the question.")
    if question == "all" and (option or second):
        raise ScircuitError("`all` takes no --option and no --with; ask one question at a time with them.")
    sources = Sources(tuple(sets or ()), network, group, ontology, tuple(term or ()))
    names = questions_of(run, question, profile)
    print_answers(run, *names, profile=profile, second=second, options=_settings(option or []), sources=sources)


def print_answers(
    run: Path,
    *names: str,
    profile: str = "default",
    second: Path | None = None,
    options: Mapping[str, object] | None = None,
    sources: "Sources | None" = None,
) -> None:
    """Ask, and print the headline of every answer with the words it needs."""
    from scircuit.analysis.answers import glossary, headlines
    from scircuit.runs.ask import ask

    table = ask(run, names, profile, {name: dict(options or {}) for name in names}, second, sources)
    mine = table[table["question"].isin(list(names))]
    typer.echo("\n".join([*headlines(mine), "", *glossary(mine)]))


def _settings(given: list[str]) -> dict[str, object]:
    """`NAME=VALUE` as keywords; numbers and lists as JSON writes them, anything else as text."""
    import json

    found: dict[str, object] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator:
            raise ScircuitError(f"--option {text!r} is not NAME=VALUE; write for example draws=5000.")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of two or more finished runs.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of tables and report.")] = Path(
        "comparison"
    ),
    names: Annotated[
        str | None, typer.Option(metavar="A,B", help="Names of the runs, where theirs are not to be used.")
    ] = None,
    profile: Profile = "default",
    rule: Annotated[
        str | None, typer.Option(help="Build all circuits from their traces by one rule first: default or paper.")
    ] = None,
    cells: Annotated[
        int | None, typer.Option(help="Subsample all traces to so many cells first, without running a model.", min=2)
    ] = None,
    disease: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Disease genes: clingen, intogen, open_targets, gwas_2019, or a GMT file."),
    ] = None,
    gene_sets: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Sets with the published disease keywords (paper profile)."),
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write the page.")] = True,
    draws: Annotated[int, typer.Option(help="Draws of every null.", min=1)] = 1000,
    seed: Seed = 0,
) -> None:
    """Compare the circuits of several runs.

    What they share: pairs of labels, latents matched by genes, effect sizes, disease; one report.
    """
    from scircuit._tables import records
    from scircuit.analysis.answers import read_answers, sentence
    from scircuit.published.profiles import profile as named_profile
    from scircuit.runs.compare import compare as compare_runs

    folder = compare_runs(
        runs, out, names=None if names is None else names.split(","), profile=profile,
        rule=None if rule is None else named_profile(rule).rule, n_cells=cells, disease=disease or (),
        gene_sets=gene_sets or (), draws=draws, report=report, seed=seed,
    )  # fmt: skip
    found = map(sentence, records(read_answers(folder)))
    typer.echo("\n".join([*found, str(folder / "index.html" if report else folder)]))


@with_options(ScreenOptions)
def validate(
    run: RunPath,
    screen: Annotated[
        Path | None, typer.Option(metavar="H5AD", help="A knock-down screen of any size; it is streamed.")
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A table of truths (target, gene, sign or score), or a GMT of rising genes."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder; by default RUN/validation/NAME.")
    ] = None,
    options: ScreenOptions = ScreenOptions(),  # noqa: B008  frozen
    network: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Direct regulation: collectri, encode_chipseq, or a file of yours."),
    ] = None,
    logits: Annotated[
        bool, typer.Option("--logits", help="Measure what every source does to the model's own outputs first.")
    ] = False,
    deletion: Annotated[
        bool, typer.Option("--deletion/--no-deletion", help="In-silico deletion by the same model as a baseline.")
    ] = True,
    model_cells: Annotated[int, typer.Option(help="Cells for these two.", min=1)] = 50,
    profile: Profile = "default",
    draws: Annotated[
        int, typer.Option(help="Bootstrap draws of the published sign accuracy (paper profile).", min=1)
    ] = 2000,
    seed: Seed = 0,
) -> None:
    """Hold a circuit to a knock-down screen.

    Whether it predicts the screen better than every baseline; goes into the next report of RUN.
    """
    from scircuit.runs import screen as screening

    folder = screening.validate(
        run, screen, out, truth=truth, options=options, profile=profile, network=network or (), deletion=deletion,
        logits=logits, model_cells=model_cells, draws=draws, seed=seed,
    )  # fmt: skip
    typer.echo(screening.score_table(folder).to_string(index=False))
    said = screening.sentences(folder)
    if any("No skill" in line for line in said):
        from scircuit.analysis.positive_control import seen

        said.append(seen(run))
    typer.echo("\n".join([*said, str(folder)]))
