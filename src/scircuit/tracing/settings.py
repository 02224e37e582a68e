"""What a trace does, as data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scircuit._settings import check_ranges, derived, ranged, values_of
from scircuit.circuits.rule import DEFAULT, EdgeRule
from scircuit.circuits.schema import DECOYS
from scircuit.errors import ScircuitError

ENGINES = ("auto", "exact", "local")
CONFIRM = ("borderline", "all", "none")
RESOURCES = ("tokens", "score_bytes", "sources_per_block", "memory")
"""Settings that decide how a trace is computed but, beyond the last bits, not what it finds."""
PERMISSIONS = ("accept_approximation",)
"""Settings that allow a trace to go on but change nothing of it; what was allowed is recorded with the result."""
CONTEXT_LADDER = (0.0, 1.0, 2.0, 4.0)
"""Context rows per firing position that the fidelity check tries, least first."""


@dataclass(frozen=True)
class TraceSettings:
    """How effects are measured."""

    engine: str = "auto"
    """exact (the rest of the model runs again for every edit), local (edited rows only), or auto (by size)."""
    targets: tuple[int, ...] = ()
    """Target layers; by default every later layer."""
    decoy: str = "radial"
    """What a latent must beat to be specific: radial, random, covariance, dictionary or encoder_cosine."""
    n_random: int = ranged(8, 0)
    """Decoys per source, a fourth of them held out; for a layer traced whole, one for every tenth source instead."""
    groups: tuple[str, ...] = ()
    """obs columns (cell type, donor) whose groups of cells get effects of their own, in the same pass."""
    units: str | None = None
    """obs column (donor, batch) whose cells share their noise: p and intervals over whole units instead of cells, p by
    flipping their signs, or of fewer than 10 by t on their means."""
    special_tokens: bool = False
    """Edit and read special tokens (<cls>, <eos>) too where a latent fires there, as the published hook did; they are
    no genes, and a latent may live on them alone."""
    context_rows: float | None = None
    """local: rows propagated beside each firing position; by default the least that meets the floors below."""
    check_sources: int = ranged(8, 1)
    """local: sources per layer that are also measured exactly, before anything else."""
    check_cells: int = ranged(16, 4)
    """local: cells in which they are."""
    min_r: float = 0.995
    """local: floor for the correlation of d with the exact one, at every layer distance."""
    min_sign: float = 0.995
    """local: floor for the share of effects of the same sign as the exact ones."""
    accept_approximation: bool = False
    """local: go on below the floors; the result says so."""
    confirm: str = "borderline"
    """local: edges measured again exactly: borderline (those the measured error could flip), all or none."""
    cells_per_block: int = ranged(25, 1)
    """Cells between two checkpoints."""
    sources_per_block: int = ranged(512, 1)
    """Sources whose sums are held in memory at once; fewer with groups, so that memory does not grow with them."""
    tokens: int = ranged(16_384, 1)
    """Positions propagated at once; lower it when memory is short."""
    memory: str | None = None
    """Budget such as "8GB", from which tokens and sources_per_block follow; may change between calls."""
    score_bytes: int = derived(1 << 27)
    """Local engine: bytes of attention scores held at once; follows from `memory` too."""
    rule: EdgeRule = derived(DEFAULT)
    """What will be an edge when the circuit is built: near its thresholds an edge of the local engine is borderline."""
    retention: float = derived(0.05)
    """Tests with p up to this, or up to the rule's max_q where that is larger, are kept in the effect table: no other
    can have a BH q below it. Without max_q those with |d| > min_abs_d are kept as well."""
    seed: int = derived(0)
    """Seeds the random directions, the sampled sign-flips and the fidelity check."""

    def deciding(self, aside: Sequence[str]) -> dict[str, Any]:
        """What decides a result, less the settings `aside`; one that older traces lack is left out at what it was."""
        found = {name: value for name, value in values_of(self, TraceSettings).items() if name not in aside}
        if not self.special_tokens:
            found.pop("special_tokens")
        return found

    @property
    def kept_abs_d(self) -> float | None:
        """|d| above which a test is kept whatever its p: where edges need no significance, p must not lose any."""
        return self.rule.min_abs_d if self.rule.max_q is None else None

    def cells_at_once(self, length: int) -> int:
        """Cells of `length` positions in one clean batch; the rest of `tokens` is for their edits."""
        return max(1, self.tokens // (8 * length))

    def __post_init__(self) -> None:
        for name, allowed in (("engine", ENGINES), ("decoy", DECOYS), ("confirm", CONFIRM)):
            if getattr(self, name) not in allowed:
                raise ScircuitError(f"{name}={getattr(self, name)!r} is unknown; it may be {', '.join(allowed)}.")
        check_ranges(self)
        if isinstance(self.groups, str) or len(set(self.groups)) < len(self.groups):
            raise ScircuitError(f"groups={self.groups!r} must be a tuple of different obs columns.")
        if self.context_rows is not None and not 0 <= self.context_rows < math.inf:
            raise ScircuitError(
                f"context_rows={self.context_rows} must be finite and at least 0; all is engine='exact'."
            )
        if not 0 < self.retention <= 1:
            raise ScircuitError(f"retention={self.retention} is no p-value; choose it in (0, 1].")
        object.__setattr__(self, "retention", max(self.retention, self.rule.max_q or 0.0))
