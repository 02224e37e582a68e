"""Whole runs: every stage in order, and the demonstration on the models and cells that need no download."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext

from scircuit._lock import locked
from scircuit.config import RunConfig
from scircuit.runs.ask import ask_run
from scircuit.runs.features import run_features
from scircuit.runs.inputs import check_inputs, open_model
from scircuit.runs.pairs import run_pairs
from scircuit.runs.probe import run_paths
from scircuit.runs.report import report
from scircuit.runs.run import Run
from scircuit.runs.saes import run_saes
from scircuit.runs.tokens import check_cells, run_tokenize
from scircuit.runs.trace import run_circuit, run_confirmation, run_trace
from scircuit.tracing.distributed import open_client
from scircuit.tracing.setup import Setup

log = logging.getLogger(__name__)
NEEDS: Mapping[str, tuple[str, ...]] = {
    "tokenize": (),
    "train-sae": ("tokens",),
    "features": ("tokens", "saes"),
    "trace": ("tokens", "saes", "features"),
    "report": ("circuit",),
}
"""The commands that run one stage alone, and the stages that must be whole before."""


def run(config: RunConfig, *, until: str = "report", cluster: str | None = None) -> Run:
    """Run the stages up to `until`, skipping those whose artefact is whole.

    `cluster` names the Dask workers that trace (see `tracing.distributed.open_client`); None is this process.

    Raises
    ------
    ScircuitError
        On any wrong input, before or at the stage that meets it; earlier artefacts stay whole. While another process
        writes the folder.
    """
    Run.open(config)
    with locked(config.out):
        return _run(config, until, cluster)


def _run(config: RunConfig, until: str, cluster: str | None) -> Run:
    folder = Run.open(config)
    if folder.done("tokens"):
        folder.record()  # where its files lie now, if the folder was moved
    check_cells(config)
    model = open_model(config)
    check_inputs(config, model)
    with folder.timed("tokens"):
        store = run_tokenize(folder, model)
    if until == "tokenize":
        return folder
    with folder.timed("saes"):
        saes = run_saes(folder, model, store)
    if until == "train-sae":
        return folder
    setup = Setup(model, saes, store, settings=config.trace)
    with folder.timed("features"):
        catalogue, terms = run_features(folder, setup)
    if until == "features":
        return folder
    with nullcontext() if cluster is None else open_client(cluster) as client:
        with folder.timed("trace"):
            run_trace(folder, setup, catalogue, client)
        circuit = run_circuit(folder, model, catalogue, terms)
        with folder.timed("confirmation"):
            run_confirmation(folder, setup, circuit, client)
    if config.trace.path_shares:
        run_paths(folder, setup, circuit)
    run_pairs(folder, setup, circuit)
    if until in ("analysis", "report"):
        _analyse(folder)
    if until == "report":
        report([folder], folder.stage("report"))
    return folder


def _analyse(folder: Run) -> None:
    with folder.timed("analysis"):
        ask_run(folder.root)


def run_stage(config: RunConfig, stage: str, cluster: str | None = None, grade: str | None = None) -> Run:
    """One stage alone; the stages before it must be there. `cluster` as in `run`, `grade` as in `write_report`."""
    folder = Run.open(config)
    for name in NEEDS[stage]:
        folder.need(name)
    if stage == "report":
        with locked(folder.root):
            _analyse(folder)
            report([folder], folder.stage("report"), grade=grade)
        return folder
    return run(config, until=stage, cluster=cluster)
