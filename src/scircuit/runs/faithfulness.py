"""Whether the circuit of a finished run carries a behaviour: the forward passes that three questions read."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from scircuit._sealed import write_sealed
from scircuit._tables import write_parquet
from scircuit.analysis.circuit_variants import Variants
from scircuit.cells.tokens import TokenStore
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import GRADES, LATENT
from scircuit.circuits.variants import DRAWS, N_CELLS, N_MEMBERS, SHARES
from scircuit.config import RunConfig
from scircuit.errors import ScircuitError
from scircuit.runs.attribution import means_of, source_cells, with_attribution
from scircuit.runs.run import Run
from scircuit.runs.tokens import split_cells
from scircuit.tracing.probes.behaviours import behaviour
from scircuit.tracing.probes.faithfulness import trace_variants
from scircuit.tracing.setup import Setup

log = logging.getLogger(__name__)


def faithfulness(
    config: RunConfig,
    of: Sequence[str] = ("loss",),
    *,
    grade: str | None = None,
    ablation: str = "mean",
    n_cells: int = N_CELLS,
    draws: int = DRAWS,
    n_members: int = N_MEMBERS,
    shares: Sequence[float] = SHARES,
) -> Path:
    """Read behaviours with the circuit alone, without it, at growing sizes; writes `trace/faithfulness.parquet`.

    `of` are written as `tracing.probes.behaviours.behaviour` reads them. The cells are at most `n_cells` of the
    confirmation split, or where there is none of the catalogue's; what a behaviour is fitted on, and the gradients that
    order the latents, come from other catalogue cells. `draws` random circuits, and as many single latents, stand
    beside the circuit and `n_members` of its members. `grade` takes the wider circuit of that grade. All is done by
    `ablation` (`mean` or `zero`), the circuit alone and the model without it by the other one too.
    """
    run = Run.open(config)
    circuit, wide = _circuit(run, grade), run.circuit(grade=GRADES[0])
    setup = run.setup()
    measured, others, split = _cells(setup.cells, n_cells, config)
    nodes = _with_norms(circuit.nodes, setup)
    means = means_of(circuit.nodes, setup)
    tables = []
    for number, name in enumerate(dict.fromkeys(of)):
        asked = behaviour(name, replace(setup, cells=measured), others, config.seed)
        variants = Variants(
            circuit, wide, with_attribution(nodes, name, setup, others, config.seed, ablation), asked.below,
            np.random.default_rng([config.seed, 10, number]), ablation,
        )  # fmt: skip
        todo = [*variants.whole(), *variants.randomised(draws), *variants.single(n_members, draws)]
        todo += variants.orders(shares)
        log.info("%s: %d latents of the circuit, %d variants", name, len(variants.members), len(todo))
        _tell(name, asked.told())
        tables.append(trace_variants(replace(setup, cells=measured), name, asked, todo, means))
    table = pd.concat(tables, ignore_index=True)
    write_parquet(run.path("faithfulness"), table.astype({"behaviour": "category"}))
    content = {
        "of": list(of), "grade": circuit.widest, "split": split, "n_cells": len(measured), "draws": draws,
        "n_members": n_members, "ablation": ablation, "seed": config.seed, "circuit": circuit.run_id,
    }  # fmt: skip
    write_sealed(run.path("faithfulness").with_suffix(".json"), content, ["faithfulness.parquet"])
    return run.path("faithfulness")


def _tell(name: str, told: pd.DataFrame) -> None:
    """Say how good a fitted behaviour is itself."""
    if len(told):
        own, chance = (told.loc[told["kind"] == kind, "value"] for kind in ("held_out", "majority"))
        log.info("%s tells %.0f %% of %d held-out cells, %.0f %% being of the commonest category",
                 name, 100 * own.mean(), len(own), 100 * chance.mean())  # fmt: skip


def _circuit(run: Run, grade: str | None) -> Circuit:
    """The run's circuit at a grade; refused where it has no edge, with the grade that may have some."""
    circuit = run.circuit(grade=grade)
    if circuit.edges.empty:
        at = GRADES.index(circuit.widest)
        wider = f"take the wider circuit (--grade {GRADES[at - 1]})" if at else "lower the thresholds, or trace more"
        raise ScircuitError(
            f"no edge of {run.name} is {circuit.widest}, so there is no circuit to hold to it; {wider}."
        )
    return circuit


def _cells(store: TokenStore, n: int, config: RunConfig) -> tuple[TokenStore, TokenStore, str]:
    """Cells to measure, catalogue cells that are none of them in random order, and the split of the former."""
    rng = np.random.default_rng([config.seed, 11])
    catalogue, confirmation = (rng.permutation(split_cells(store, name)) for name in ("catalogue", "confirmation"))
    split = "confirmation" if len(confirmation) else "catalogue"
    unseen = catalogue[~np.isin(catalogue, source_cells(store, config))]
    measured = (confirmation if len(confirmation) else unseen[: len(catalogue) // 2])[:n]
    others = catalogue[~np.isin(catalogue, measured)]
    if not len(measured) or not len(others):
        raise ScircuitError(
            "no cell is left that had no part in finding the circuit; give cells.shares of confirmation, or catalogue, "
            "something, and run again."
        )
    return store.subset(np.sort(measured)), store.subset(others), split


def _with_norms(nodes: pd.DataFrame, setup: Setup) -> pd.DataFrame:
    norms = {layer: sae.W_dec.norm(dim=1).cpu().numpy() for layer, sae in setup.saes.items()}
    pairs = nodes[LATENT].to_numpy(np.int64).tolist()
    return nodes.assign(norm=[float(norms[layer][feature]) for layer, feature in pairs])
