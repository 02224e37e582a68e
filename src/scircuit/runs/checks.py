"""Every mistake of a config that can be seen without cells, met before anything is written."""

from collections.abc import Sequence

from scircuit.config import RunConfig
from scircuit.errors import ScircuitError
from scircuit.features.coactivation import check_method
from scircuit.features.ranked import import_decoupler
from scircuit.features.sources import RULES
from scircuit.models.base import FoundationModel
from scircuit.models.stack import BlockStack
from scircuit.models.stream import check_layers
from scircuit.runs.inputs import (
    gene_set_libraries,
    listed,
    networks,
    open_saes,
    rule_of_annotation,
)
from scircuit.tracing.memory import parse_memory


def check_inputs(config: RunConfig, model: FoundationModel) -> None:
    """Meet every mistake that can be seen without cells, so that hours of work do not end in one.

    Raises
    ------
    ScircuitError
        On dictionaries of another model, unreadable gene sets, layers the model has not, or the
        local engine for a model whose layers cannot be looked into.
    """
    layers = check_layers(model, config.sae.layers or range(model.n_layers))
    if config.sae.path:
        open_saes(config.sae.path, model, layers)
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
