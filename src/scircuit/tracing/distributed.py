"""The units of a trace on Dask distributed: any number of processes, GPUs or machines, one result.

What the workers need (model, dictionaries, cells) is written once beside the parts; each worker process reads it
once, runs whole units and writes their parts, so the folder of the trace must lie on a file system that all of
them see. Nothing but names travels over the network. A worker that dies costs the units it was at; they run again
elsewhere. Sums are taken from the parts in the order of the blocks, wherever those were computed.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from scircuit._io import atomic, sha256_file
from scircuit._optional import optional
from scircuit.errors import ScircuitError
from scircuit.tracing.parts import Part, Unit

_LOCK = threading.Lock()
_LOADED: dict[str, Callable[[Unit], Part]] = {}


@contextmanager
def open_client(where: str = "local") -> Iterator[Any]:
    """A `distributed.Client` for as long as the block runs.

    `where` is `local` or `local:N` (N processes on this machine, which share its cores; by default one per core),
    `slurm:N` (N jobs through dask-jobqueue, as configured in its `jobqueue.slurm`), or the address of a running
    scheduler such as `tcp://host:8786`.
    """
    distributed = _require("distributed")
    kind, _, number = where.partition(":")
    if kind in ("local", "slurm"):
        if (number and not (number.isdigit() and int(number) > 0)) or (kind == "slurm" and not number):
            raise ScircuitError(f"cluster {where!r} needs a positive number of workers, for example {kind}:4.")
        cluster = _local(distributed, int(number or 0)) if kind == "local" else _slurm(int(number))
        with cluster, distributed.Client(cluster) as client:
            yield client
        return
    if "://" not in where:
        raise ScircuitError(f"cluster {where!r} is unknown; it may be local, local:N, slurm:N or tcp://HOST:PORT.")
    try:
        client = distributed.Client(where, timeout="20s")
    except (OSError, ValueError) as error:
        raise ScircuitError(
            f"No Dask scheduler answers at {where} ({error}); start one with `dask scheduler`."
        ) from None
    with client:
        yield client


def _require(name: str) -> Any:
    return optional(name, f"{name} is not installed; pip install 'scircuit[cluster]'.")


def _local(distributed: Any, n_workers: int) -> Any:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n_workers = n_workers or cores
    torch.set_num_threads(max(1, cores // n_workers))
    # Memory is planned by the trace itself; Dask's own limit would kill workers for the size of the model.
    return distributed.LocalCluster(
        n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=None
    )


def _slurm(n_jobs: int) -> Any:
    cluster = _require("dask_jobqueue").SLURMCluster()
    cluster.scale(jobs=n_jobs)
    return cluster


def run_units(units: Sequence[Unit], run: Callable[[Unit], Part], parts: Path, client: Any) -> Iterator[Unit]:
    """Run the units on the client's workers; yields each unit once its part is written to `parts`.

    `run` computes one unit; it is pickled by value, with all it refers to, and read once per worker process. Workers
    compute with as many torch threads as this process, on which the last bit depends.
    """
    if not units:
        return
    from distributed import as_completed
    from distributed.protocol.pickle import dumps
    from distributed.scheduler import KilledWorker

    work = (parts / "work.pkl").absolute()
    with atomic(work) as temporary:
        temporary.write_bytes(dumps(run))
    arguments = (str(work), sha256_file(work), torch.get_num_threads())
    todo = {
        client.submit(_run_there, *arguments, unit, str(work.parent / unit.name), pure=False): unit for unit in units
    }
    try:
        for future in as_completed(list(todo)):
            unit = todo.pop(future)
            try:
                future.result()
            except KilledWorker:
                raise ScircuitError(
                    f"{unit.name.split('.')[0]} killed every worker that tried it, most likely for want of memory; "
                    "lower the memory budget, cells_per_block or sources_per_block."
                ) from None
            if not (parts / unit.name).is_file():
                raise ScircuitError(
                    f"A worker wrote {unit.name}, but {parts} does not show it here; trace into a folder on a file "
                    "system that all workers share."
                )
            yield unit
    finally:
        client.cancel(list(todo))


def _run_there(work: str, digest: str, threads: int, unit: Unit, part: str) -> None:
    """On a worker: one unit, unless its part is there (Dask repeats what a dead worker had finished)."""
    if Path(part).is_file():
        return
    torch.set_num_threads(threads)
    with _LOCK:
        if digest not in _LOADED:
            from distributed.protocol.pickle import loads

            _LOADED.clear()
            _LOADED[digest] = loads(Path(work).read_bytes())
        run = _LOADED[digest]
    run(unit).write(Path(part))
