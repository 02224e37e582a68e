"""Commands that hold a finished run to its nulls, and to what reviewers ask: controls, planted paths, the audit."""

from pathlib import Path
from typing import Annotated

import typer

from scircuit.cli.asking import print_answers
from scircuit.cli.options import ClusterOption, ConfigPath, OutOption, RunPath, read_config


def controls(
    config: ConfigPath,
    out: OutOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it takes; nothing is written.")] = False,
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps of the controls' dictionaries, instead of the run's.", min=1)
    ] = None,
    cluster: ClusterOption = None,
) -> None:
    """Run the same road where nothing was learnt.

    On the model with redrawn and with permuted weights, and through dictionaries whose decoder or encoder stays random:
    every headline of the run beside theirs. Goes on where it was stopped; writes controls/.
    """
    own = read_config(config, out)
    if plan:
        from scircuit.study.plan import plan_controls

        typer.echo("\n".join(plan_controls(own, steps)))
        return
    from scircuit.runs.controls import controls as run_controls

    run_controls(own, n_steps=steps, cluster=cluster)
    print_answers(Path(own.out), "controls")


def positive_control(
    config: ConfigPath,
    out: OutOption = None,
    dose: Annotated[
        list[float] | None,
        typer.Option("--dose", metavar="SD", help="Clean SD of the target; may be repeated; 0 plants nothing.", min=0),
    ] = None,
    turns: Annotated[int, typer.Option(help="Paths per source; each turn costs a trace.", min=1)] = 3,
) -> None:
    """Plant paths of known size, and count those found.

    In the run's own model, between latents that had none: the smallest effect that this run could have seen.
    """
    from scircuit.runs.positive_control import DOSES
    from scircuit.runs.positive_control import positive_control as plant

    own = read_config(config, out)
    plant(own, doses=dose or DOSES, turns=turns)
    print_answers(Path(own.out), "positive_control")


def audit(
    run: RunPath,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Ask of a run what its reviewers will.

    Ten questions, each answered, weak or missing by what the run has left, with the command that would answer it.
    Computes nothing; exit 0 whatever it says.
    """
    import json

    from scircuit.runs.audit import audit as examine
    from scircuit.runs.audit import lines, to_json

    items = examine(run)
    typer.echo(json.dumps(to_json(items), indent=2) if as_json else "\n".join(lines(items)))
