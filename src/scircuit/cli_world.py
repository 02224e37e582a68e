"""Commands between models and against the world: `compare`, `validate`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from scircuit.errors import ScircuitError

RunPaths = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of two or more finished runs.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]
Profile = Annotated[str, typer.Option(help="default, or paper to put the published definitions beside them.")]
Seed = Annotated[int, typer.Option(help="Seeds every draw.")]


def compare(
    runs: RunPaths,
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
    draws: Annotated[int, typer.Option(help="Draws of every null.", min=1)] = 1000,
    seed: Seed = 0,
) -> None:
    """What the circuits of several runs share: labels, latents matched by genes, effect sizes, disease; one report."""
    from scircuit.pipeline import comparing

    if rule is not None and rule not in comparing.RULES:
        raise ScircuitError(f"there is no rule {rule!r}; choose one of {', '.join(comparing.RULES)}.")
    folder = comparing.compare(
        runs, out, names=None if names is None else names.split(","), profile=profile,
        rule=None if rule is None else comparing.RULES[rule], n_cells=cells, disease=disease or (),
        gene_sets=gene_sets or (), draws=draws, seed=seed,
    )  # fmt: skip
    typer.echo("\n".join([*comparing.sentences(folder), str(folder / "index.html")]))


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
    perturbation: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="obs column of perturbations; by default detected.")
    ] = None,
    control: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="Label of unperturbed cells; by default detected.")
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="CSV with label, gene, where labels are not gene symbols."),
    ] = None,
    line_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="obs column of cell lines; by default detected.")
    ] = None,
    line: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Cell line to keep, or all to pool on purpose.")
    ] = None,
    batch_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="obs column of batches, or none; by default detected.")
    ] = None,
    batch: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Batch to keep; by default all.")] = None,
    genes: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="var column of gene symbols; by default detected.")
    ] = None,
    layer: Annotated[str | None, typer.Option(metavar="NAME", help="Layer to read instead of X.")] = None,
    scale: Annotated[str | None, typer.Option(help="counts, normalised or log1p; by default detected.")] = None,
    min_cells: Annotated[int, typer.Option(help="Leave out perturbations with fewer cells.", min=1)] = 30,
    max_fall: Annotated[
        float | None,
        typer.Option(metavar="LFC", help="Keep perturbations whose own gene falls to this log2 fold change, as -0.5."),
    ] = None,
    method: Annotated[str, typer.Option(help="wilcoxon or pseudobulk (DESeq2).")] = "wilcoxon",
    alpha: Annotated[float, typer.Option(help="A gene responds below this q.")] = 0.05,
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
    draws: Annotated[int, typer.Option(help="Bootstrap draws over knock-downs.", min=1)] = 2000,
    seed: Seed = 0,
) -> None:
    """Whether a circuit predicts a knock-down screen better than every baseline; goes into the next report of RUN."""
    from scircuit.pipeline import screening

    options = screening.ScreenOptions(
        perturbation=perturbation, control=tuple(control or ()), targets=_targets(targets),
        line=line_column or "detect", lines=tuple(line or ()),
        batch=None if batch_column == "none" else batch_column or "detect", batches=tuple(batch or ()),
        genes=genes, layer=layer, scale=scale, min_cells=min_cells, max_fall=max_fall, method=method, alpha=alpha,
    )  # fmt: skip
    folder = screening.validate(
        run, screen, out, truth=truth, options=options, profile=profile, network=network or (), deletion=deletion,
        logits=logits, model_cells=model_cells, draws=draws, seed=seed,
    )  # fmt: skip
    typer.echo(screening.score_table(folder).to_string(index=False))
    typer.echo("\n".join([*screening.sentences(folder), str(folder)]))


def _targets(path: Path | None) -> Mapping[str, str] | None:
    """Label -> gene from a table."""
    if path is None:
        return None
    import pandas as pd

    if not path.is_file():
        raise ScircuitError(f"{path} does not exist; give a CSV with the columns label and gene.")
    table = pd.read_csv(path, dtype=str)
    if not {"label", "gene"} <= set(table):
        raise ScircuitError(f"{path} has the columns {', '.join(map(str, table.columns))}; it needs label and gene.")
    return dict(zip(table["label"], table["gene"], strict=True))
