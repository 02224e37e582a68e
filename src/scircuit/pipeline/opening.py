"""What a run reads from outside: model, cells, dictionaries, gene sets; all looked at before anything is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scircuit.cells.files import open_cells
from scircuit.circuits.build import EdgeRule
from scircuit.config import RunConfig
from scircuit.errors import ScircuitError
from scircuit.features.sources import RULES
from scircuit.knowledge.gmt import GeneSets
from scircuit.knowledge.registry import load_gene_sets
from scircuit.models.base import FoundationModel
from scircuit.models.load import load_model
from scircuit.models.stack import BlockStack
from scircuit.models.stream import check_layers
from scircuit.sae import LinearSAE, SaeTraining, load_saes
from scircuit.tracing.settings import TraceSettings


def open_model(config: RunConfig) -> FoundationModel:
    """The run's model."""
    m = config.model
    return load_model(
        m.source, protocol=m.protocol, dictionaries=m.dictionaries, device=m.device, dtype=m.dtype, options=m.options
    )


def read_cells(path: str) -> Any:
    """The cells of an .h5ad file, read by rows when asked for, or of one that scanpy ships (`scanpy:NAME`)."""
    if path.startswith("scanpy:"):
        return _shipped(path.removeprefix("scanpy:"))
    if not path:
        raise ScircuitError("cells.path is empty; name an .h5ad file.")
    return open_cells(path)


def _shipped(name: str) -> Any:
    import warnings

    allowed = ("pbmc68k_reduced",)
    if name not in allowed:
        raise ScircuitError(f"scanpy:{name} is unknown; allowed without network is scanpy:{allowed[0]}.")
    try:
        import scanpy
    except ModuleNotFoundError:
        raise ScircuitError(
            "These cells ship with scanpy, which is not installed: pip install 'scircuit[scanpy]'."
        ) from None
    with warnings.catch_warnings():
        # The file was written by an old AnnData; its reader says so on every load.
        warnings.simplefilter("ignore", (FutureWarning, UserWarning))
        return getattr(scanpy.datasets, name)()


def open_saes(folder: str | Path, model: FoundationModel, layers: Sequence[int] | None = None) -> dict[int, LinearSAE]:
    """Dictionaries of a folder, refused unless they were trained on this model under this protocol."""
    return load_saes(
        folder, layers=layers, model_fingerprint=model.fingerprint, d_model=model.d_model, protocol=model.protocol,
        device=model.device,
    )  # fmt: skip


def gene_set_libraries(config: RunConfig) -> list[GeneSets]:
    """The run's gene sets: GMT files, the packaged programs, and sources of the knowledge cache by name."""
    return [load_gene_sets(name) for name in config.features.gene_sets]


def sae_training(config: RunConfig, seed: int) -> SaeTraining:
    """How the run trains its dictionaries."""
    s = config.sae
    return SaeTraining(
        architecture=s.architecture, expansion=s.expansion, k=s.k, n_steps=s.n_steps, batch_rows=s.batch_rows,
        buffer_rows=s.buffer_rows, lr=s.lr, seed=seed,
    )  # fmt: skip


def check_inputs(config: RunConfig, model: FoundationModel) -> None:
    """Meet every mistake that can be seen without cells, so that hours of work do not end in one.

    Raises
    ------
    ScircuitError
        On dictionaries of another model, unreadable gene sets, layers the model has not, settings out of range, or the
        local engine for a model whose layers cannot be looked into.
    """
    layers = check_layers(model, config.sae.layers or range(model.n_layers))
    sae_training(config, config.seed)
    if config.sae.path:
        open_saes(config.sae.path, model, layers)
    gene_set_libraries(config)
    if config.sources.rule not in RULES[:-1]:
        raise ScircuitError(f"sources.rule = {config.sources.rule!r} is unknown; it may be {', '.join(RULES[:-1])}.")
    strange = [i for i in config.sources.layers if i not in layers]
    if strange:
        raise ScircuitError(f"sources.layers names {strange[0]}; dictionaries are of layers {_listed(layers)}.")
    if trace_settings(config).engine == "local" and not isinstance(model, BlockStack):
        raise ScircuitError(
            f"trace.engine = 'local' reads keys and values, which {model.name} does not show; use 'exact' or 'auto'."
        )
    EdgeRule(**vars(config.edges))


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def trace_settings(config: RunConfig) -> TraceSettings:
    """The trace's settings, with the thresholds near which an edge is confirmed."""
    e = config.edges
    return TraceSettings(
        **{k: v for k, v in vars(config.trace).items() if k != "n_cells"}, seed=config.seed,
        min_abs_d=e.min_abs_d, min_consistency=e.min_consistency, max_q=e.max_q,
    )  # fmt: skip
