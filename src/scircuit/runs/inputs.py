"""What a run reads from outside: model, cells, dictionaries, gene sets; all looked at before anything is written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from scircuit._optional import optional
from scircuit._packaged import sae_folder
from scircuit.cells.files import open_cells
from scircuit.config import RunConfig
from scircuit.errors import ScircuitError
from scircuit.features.annotation import AnnotationRule
from scircuit.features.coactivation import check_method
from scircuit.features.ranked import import_decoupler
from scircuit.features.sources import RULES
from scircuit.knowledge.gmt import GeneSets
from scircuit.knowledge.networks import Network
from scircuit.knowledge.registry import load_gene_sets, load_network
from scircuit.models.base import FoundationModel
from scircuit.models.load import load_model
from scircuit.models.stack import BlockStack
from scircuit.models.stream import check_layers
from scircuit.models.untrained import untrain
from scircuit.published.annotation_rule import annotation_rule
from scircuit.sae.base import LinearSAE, require_traceable
from scircuit.sae.checkpoint import MANIFEST, load_saes
from scircuit.sae.readers import read_saes
from scircuit.tracing.memory import parse_memory


def open_model(config: RunConfig) -> FoundationModel:
    """The run's model."""
    m = config.model
    dtype = "float32" if m.dtype == "tf32" else m.dtype
    model = load_model(
        m.source, protocol=m.protocol, dictionaries=m.dictionaries, device=m.device, dtype=dtype, options=m.options
    )
    if m.dtype == "tf32":
        if model.device.type != "cuda":
            raise ScircuitError(
                f"model.dtype = 'tf32' is arithmetic of NVIDIA GPUs, the model is on {model.device.type}; use float32."
            )
        torch.backends.cuda.matmul.allow_tf32 = True
    untrain(model, m.weights, config.seed)
    if m.compile:
        if not isinstance(model, BlockStack):
            raise ScircuitError(f"model.compile compiles blocks of ours, which {model.name} has not; leave it out.")
        model.compile_blocks()
    return model


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
    scanpy = optional("scanpy", "These cells ship with scanpy, which is not installed: pip install 'scircuit[scanpy]'.")
    with warnings.catch_warnings():
        # The file was written by an old AnnData; its reader says so on every load.
        warnings.simplefilter("ignore", (FutureWarning, UserWarning))
        return getattr(scanpy.datasets, name)()


def open_saes(folder: str | Path, model: FoundationModel, layers: Sequence[int] | None = None) -> dict[int, LinearSAE]:
    """Dictionaries of a folder, refused unless they were trained on this model under this protocol.

    Folders of other projects (without our manifest) do not say what they were trained on; of these only the width is
    checked here, and `check_belonging` what they explain.
    """
    if not is_ours(folder):
        return _open_foreign(Path(folder), model, layers)
    return load_saes(
        folder, layers=layers, model_fingerprint=model.fingerprint, d_model=model.d_model, protocol=model.protocol,
        device=model.device,
    )  # fmt: skip


def is_ours(folder: str | Path) -> bool:
    """Whether a folder of dictionaries has our manifest; a missing folder is left to `load_saes` to refuse."""
    folder = sae_folder(folder)
    return (folder / MANIFEST).is_file() or not folder.is_dir()


def _open_foreign(folder: Path, model: FoundationModel, layers: Sequence[int] | None) -> dict[int, LinearSAE]:
    saes = read_saes(folder, device=model.device)
    wanted = sorted(saes) if layers is None else layers
    missing = [layer for layer in wanted if layer not in saes]
    if missing:
        raise ScircuitError(
            f"{folder} holds no SAE for layer {missing[0]}; it has layers {listed(list(saes))}: set sae.layers."
        )
    for layer in wanted:
        require_traceable(saes[layer])
        if saes[layer].d_in != model.d_model:
            raise ScircuitError(
                f"the SAE of layer {layer} in {folder} reads residuals of width {saes[layer].d_in}, {model.name}'s are "
                f"{model.d_model} wide; load SAEs that were trained on this model."
            )
    return {layer: saes[layer] for layer in wanted}


def check_belonging(folder: str | Path, metrics: Mapping[int, Mapping[str, float]]) -> None:
    """Refuse dictionaries without our manifest that explain less of a layer than its mean does: they are another's."""
    for layer, values in metrics.items():
        if not is_ours(folder) and values["explained_variance"] <= 0:
            raise ScircuitError(
                f"the SAE of layer {layer} in {folder} explains nothing of this model's residuals (explained variance "
                f"{values['explained_variance']:.3g}); it was trained on another model, layer or tokenisation."
            )


def gene_set_libraries(config: RunConfig) -> list[GeneSets]:
    """The run's gene sets: GMT files, the packaged programs, and sources of the knowledge cache by name."""
    return [load_gene_sets(name) for name in config.features.gene_sets]


def networks(config: RunConfig) -> list[Network]:
    """The run's networks, from the knowledge cache."""
    return [load_network(name) for name in config.features.networks]


def rule_of_annotation(config: RunConfig, libraries: Sequence[GeneSets], linked: Sequence[Network]) -> AnnotationRule:
    """The run's rule of annotation with its gene sets and networks."""
    f = config.features
    options = {"alpha": f.alpha, "min_overlap": f.min_overlap, "link_score": f.link_score}
    return annotation_rule(f.annotation, libraries, linked, **options)  # type: ignore[arg-type]


def listed(values: Sequence[int]) -> str:
    """Numbers for a sentence."""
    return ", ".join(map(str, values))


def check_inputs(config: RunConfig, model: FoundationModel) -> None:
    """Meet every mistake that can be seen without cells, so that hours of work do not end in one."""
    layers = check_layers(model, config.sae.layers or range(model.n_layers))
    if config.sae.path:
        layers = check_layers(model, sorted(open_saes(config.sae.path, model, config.sae.layers or None)))
    else:
        config.sae.n_latents(model.d_model)
    check_features(config)
    check_sources(config, layers)
    check_trace(config, model, layers)


def check_features(config: RunConfig) -> None:
    """Refuse gene sets, networks and options of the atlas that cannot be had."""
    f = config.features
    libraries, linked = gene_set_libraries(config), networks(config)
    if not libraries:
        raise ScircuitError("features.gene_sets is empty; name programs, a GMT file, or both.")
    rule_of_annotation(config, libraries, linked)
    if f.ranked:
        import_decoupler()
    if f.coactivation:
        check_method(f.modules)


def check_sources(config: RunConfig, layers: Sequence[int]) -> None:
    """Refuse a rule of source selection that is unknown, or layers and latents that cannot be sources."""
    r = config.sources
    if r.rule not in RULES:
        raise ScircuitError(f"sources.rule = {r.rule!r} is unknown; it may be {', '.join(RULES)}.")
    if (r.rule == "list") != bool(r.latents):
        raise ScircuitError("sources.latents goes with sources.rule = 'list', and only with it; give both or neither.")
    odd = [pair for pair in r.latents if len(pair) != 2]
    if odd:
        raise ScircuitError(f"sources.latents holds {list(odd[0])}; each source is a pair [layer, latent].")
    for name, asked in (("layers", r.layers), ("latents", [pair[0] for pair in r.latents])):
        strange = [i for i in asked if i not in layers]
        if strange:
            raise ScircuitError(f"sources.{name} names {strange[0]}; dictionaries are of layers {listed(layers)}.")


def check_trace(config: RunConfig, model: FoundationModel, layers: Sequence[int]) -> None:
    """Refuse layers that cannot be read, an engine that the model does not allow, or a budget that is none."""
    if config.trace.engine == "local" and not isinstance(model, BlockStack):
        raise ScircuitError(
            f"trace.engine = 'local' reads keys and values, which {model.name} does not show; use 'exact' or 'auto'."
        )
    targets = config.trace.targets or layers
    absent = [i for i in targets if i not in layers]
    if absent:
        raise ScircuitError(f"trace.targets names {absent[0]}; dictionaries are of layers {listed(layers)}.")
    named = config.sources.layers or [pair[0] for pair in config.sources.latents]
    for source in named or layers[:-1] or layers:
        if source >= max(targets):
            raise ScircuitError(
                f"No target layer lies above source layer {source}; sources.layers must lie below layer "
                f"{max(targets)}, the last that is read."
            )
    if config.trace.memory is not None:
        parse_memory(config.trace.memory)
