"""`Setup`: everything that a trace computes with, checked once and handed on whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from scircuit.cells.tokens import TokenStore
from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.models.stack import BlockStack
from scircuit.sae.adapter import as_saes
from scircuit.sae.base import SparseAutoencoder, require_traceable
from scircuit.tracing.draws import decoys_of, is_exhaustive, with_decoys
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.groups import Grouping, groupings
from scircuit.tracing.parts import EFFECT_BYTES, Unit, plan_units
from scircuit.tracing.settings import TraceSettings

RESPONSE_BYTES = 8 << 30
"""Bytes up to which the local engine keeps responses cell by cell; the hundredth to tenth that answers is stored."""


@dataclass(frozen=True, eq=False)
class Setup:
    """What is traced, through which dictionaries, in which cells and how.

    `Setup.of` checks all of it. Probes, which name their own latents, need no more than the first three fields.
    """

    model: FoundationModel
    saes: Mapping[int, SparseAutoencoder]
    """Dictionary per layer."""
    cells: TokenStore
    sources: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """Latents to ablate per source layer."""
    targets: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """Layers to read per source layer, ascending."""
    settings: TraceSettings = field(default_factory=TraceSettings)
    extra: Mapping[int, Sequence[Intervention]] = field(default_factory=dict)
    """Further interventions per source layer that were asked for."""
    todo: Mapping[int, Sequence[Intervention]] = field(default_factory=dict)
    """All that is done per source layer: the ablation of each source, followed by its decoys, then the extra ones."""
    groupings: tuple[Grouping, ...] = ()
    """obs columns whose groups of cells have sums of their own: those of `settings.groups` and `settings.units`."""

    @classmethod
    def of(
        cls,
        model: FoundationModel,
        saes: Mapping[int, Any],
        cells: TokenStore,
        sources: Mapping[int, Sequence[int]],
        settings: TraceSettings | None = None,
        extra: Mapping[int, Sequence[Intervention]] | None = None,
    ) -> "Setup":
        """The setup of a trace; dictionaries may be another library's (`scircuit.sae.adapter.as_sae`)."""
        settings = settings or TraceSettings()
        asked = cls(model, as_saes(saes), cells, sources, settings=settings, extra=extra or {})
        for sae in asked.saes.values():
            require_traceable(sae)
        columns = dict.fromkeys([*settings.groups, *([settings.units] if settings.units else [])])
        targets, todo = _targets(asked), _interventions(asked)
        return replace(asked, targets=targets, todo=todo, groupings=groupings(cells, list(columns)))

    @property
    def engine(self) -> str:
        """`exact` or `local`; `auto` is local where at least half of a dictionary is traced and the model allows it."""
        if self.settings.engine != "auto":
            return self.settings.engine
        exhaustive = any(is_exhaustive(len(some), self.saes[layer].n_latents) for layer, some in self.sources.items())
        return "local" if exhaustive and isinstance(self.model, BlockStack) else "exact"

    @property
    def context_rows(self) -> float | None:
        """Context rows of the local engine (0 until the fidelity check has chosen); None with the exact one."""
        return None if self.engine == "exact" else self.settings.context_rows or 0.0

    @property
    def keeps_responses(self) -> bool:
        """Whether the sign-flip p is made of responses cell by cell, and not its t form of their sums.

        Always by the exact engine. By the local one, which traces whole dictionaries, where the responses would take at
        most `RESPONSE_BYTES` if every latent answered in every cell.
        """
        if self.engine == "exact":
            return True
        n_latents = {layer: sum(self.saes[t].n_latents for t in some) for layer, some in self.targets.items()}
        most = sum(len(planned) * n_latents[layer] for layer, planned in self.todo.items()) * len(self.cells)
        return most * EFFECT_BYTES <= RESPONSE_BYTES

    @property
    def kept_abs_d(self) -> float | None:
        """|d| above which a test is a row whatever its p: the t form must not hide what the sign-flip would find."""
        return self.settings.kept_abs_d if self.keeps_responses else self.settings.rule.min_abs_d

    def by(self, engine: str, context_rows: float | None = None) -> "Setup":
        """The same by another engine."""
        return self.with_settings(engine=engine, context_rows=context_rows)

    def with_settings(self, **changes: Any) -> "Setup":
        """The same with other values of some settings."""
        return replace(self, settings=replace(self.settings, **changes))

    def units(self) -> list[Unit]:
        """Units of work, in the order in which their sums are taken.

        A group of cells holds sums like the whole, so with groups fewer interventions go together.
        """
        n_groups = sum(len(g.labels) for g in self.groupings)
        at_once = max(1, self.settings.sources_per_block // (1 + n_groups))
        return plan_units(self.todo, np.arange(len(self.cells)), at_once, self.settings.cells_per_block)


def _targets(setup: Setup) -> dict[int, list[int]]:
    """Target layers of each source layer."""
    if not setup.sources:
        raise ScircuitError("No source was given; name at least one latent of one layer.")
    out, saes = {}, setup.saes
    for layer, features in setup.sources.items():
        if layer not in saes:
            raise ScircuitError(f"Layer {layer} has no SAE; source layers may be {', '.join(map(str, sorted(saes)))}.")
        _check_latents(saes, layer, features)
        asked = setup.settings.targets or tuple(range(setup.model.n_layers))
        out[layer] = [t for t in asked if t > layer and t in saes]
        if not out[layer]:
            raise ScircuitError(f"No SAE lies above source layer {layer}; trace from an earlier layer.")
    return out


def _check_latents(saes: Mapping[int, SparseAutoencoder], layer: int, features: Sequence[int]) -> None:
    wrong = [f for f in features if not 0 <= f < saes[layer].n_latents]
    if wrong:
        raise ScircuitError(
            f"Layer {layer} has no latent {wrong[0]}; its latents are 0 to {saes[layer].n_latents - 1}."
        )


def _interventions(setup: Setup) -> dict[int, list[Intervention]]:
    """Interventions per source layer, none of them twice."""
    decoys = decoys_of(setup.model, setup.saes, setup.cells, setup.sources, setup.settings)
    todo = {layer: with_decoys(features, decoys[layer]) for layer, features in setup.sources.items()}
    for layer, more in setup.extra.items():
        if layer not in todo:
            raise ScircuitError(f"Layer {layer} has further interventions but no source; name a source of it.")
        _check_latents(setup.saes, layer, [f for i in more for f in (*i.features, *i.instead)])
        todo[layer] += more
        known: set[tuple[int, str, int]] = set()
        for i in todo[layer]:
            name = (i.features[0], i.kind, i.draw)
            if name in known:
                raise ScircuitError(
                    f"Latent {i.features[0]} of layer {layer} has two interventions of kind {i.kind} and draw "
                    f"{i.draw}; number them by draw."
                )
            known.add(name)
    return todo
