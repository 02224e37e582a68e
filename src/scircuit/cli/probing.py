"""Commands that run the model again on a finished run: `probe`, `paths`, `mediate`, `combine`, `faithfulness`."""

from pathlib import Path
from typing import Annotated

import typer

from scircuit.circuits.variants import DRAWS, N_CELLS, N_MEMBERS
from scircuit.cli.asking import print_answers
from scircuit.cli.options import ConfigPath, Grade, OutOption, read_config


def probe(
    config: ConfigPath,
    latents: Annotated[list[str], typer.Argument(metavar="LAYER:LATENT...", help="For example 3:17; 3:17+40 at once.")],
    do: Annotated[
        list[str] | None,
        typer.Option(
            "--do", metavar="WORD",
            help="zero (the default), mean, optimal, scale:ALPHA, set:VALUE, activate:VALUE, resample, matched:N or "
            "random:N; may be given several times.",
        ),
    ] = None,
    what: Annotated[str, typer.Option(help="activation, pre_activation, logits or embedding.")] = "activation",
    where: Annotated[str, typer.Option(help="active, other or all positions.")] = "active",
    target: Annotated[list[int] | None, typer.Option(help="A target layer; may be given several times.")] = None,
    cells: Annotated[int | None, typer.Option(help="Only so many of the traced cells.", min=2)] = None,
    out: OutOption = None,
    table: Annotated[Path | None, typer.Option("--table", metavar="FILE", help="Parquet file to write.")] = None,
) -> None:  # fmt: skip
    """Do anything to a latent, read anything.

    Dose-response, controls, pre-activations, the model's own logits, the cell embedding.
    """
    from scircuit.runs.probe import probe_run

    path = probe_run(
        read_config(config, out), latents, do or ["zero"], where=where, what=what, targets=target or (), n_cells=cells,
        out=table,
    )  # fmt: skip
    typer.echo(path)


def paths(config: ConfigPath, out: OutOption = None) -> None:
    """Show how each edge comes about.

    At the firing positions, through other genes' positions, by weights alone. Writes trace/path_shares.parquet.
    """
    from scircuit.runs.probe import paths_of_run

    typer.echo(paths_of_run(read_config(config, out)))


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
    """Find the latents that carry an edge.

    Holds the latents between its ends at their clean value, one at a time: how much of the effect is left.
    """
    from scircuit.runs.causes import mediate as measure

    measure(read_config(config, out), edges or (), n_edges=n_edges, top=top, n_cells=n_cells)
    print_answers(Path(read_config(config, out).out), "mediation")


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
    """Ablate sources together: do their effects add up.

    Each source alone, every pair and the whole set, in the same cells.
    """
    from scircuit.runs.causes import combine as measure

    measure(read_config(config, out), sets or (), n_sets=n_sets, size=size, n_cells=n_cells)
    print_answers(Path(read_config(config, out).out), "interactions")


def faithfulness(
    config: ConfigPath,
    out: OutOption = None,
    of: Annotated[
        list[str] | None,
        typer.Option(
            "--of", metavar="BEHAVIOUR",
            help="loss (the default), genes:CD3E,IL7R, embedding, probe:COLUMN or latents:LAYER:F+F; may be repeated.",
        ),
    ] = None,
    grade: Grade = None,
    ablation: Annotated[str, typer.Option(help="What silenced latents become: mean or zero.")] = "mean",
    n_cells: Annotated[int, typer.Option(help="Cells that had no part in finding the circuit.", min=2)] = N_CELLS,
    draws: Annotated[int, typer.Option(help="Random circuits, and single latents, beside it.", min=1)] = DRAWS,
    members: Annotated[int, typer.Option(help="Members of the circuit taken away one at a time.", min=1)] = N_MEMBERS,
) -> None:  # fmt: skip
    """Ask whether the circuit carries a behaviour.

    Silences all other latents, or the circuit itself, and as many random ones: faithfulness, completeness, the sizes
    that suffice, and which members matter.
    """
    from scircuit.runs.faithfulness import faithfulness as measure

    measure(
        read_config(config, out), of or ["loss"], grade=grade, ablation=ablation, n_cells=n_cells, draws=draws,
        n_members=members,
    )  # fmt: skip
    print_answers(Path(read_config(config, out).out), "faithfulness", "circuit_curve", "circuit_tests")
