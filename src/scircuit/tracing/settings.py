"""What a trace does, as data."""

import math
from dataclasses import dataclass

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
    """Settings of a trace.

    Attributes
    ----------
    engine
        exact (the rest of the model runs again for every edit), local (only the edited rows are propagated), or
        auto: local where at least half of a dictionary is traced on a model that allows it, exact otherwise.
    targets
        Target layers; empty means every layer above the source.
    decoy
        What latents must beat to be specific (see `engines.decoys`): radial, random, covariance or dictionary.
    n_random
        Decoys per source, traced beside it; every fourth is held out of the comparison and shows what it lets through.
        Where at least half of a dictionary is traced, one decoy for every tenth source instead.
    context_rows
        Local engine: rows propagated beside the firing positions, per firing position; None lets the fidelity
        check choose the least that meets the floors.
    check_sources, check_cells
        Fidelity check: sources per layer and cells that are measured by both engines.
    min_r, min_sign
        Floors of the fidelity check at every layer distance: correlation of d, agreement in sign.
    accept_approximation
        Go on although the floors are missed; the result says so.
    confirm
        Local engine: which edges are measured again exactly: borderline (those that the measured error of the
        approximation could flip), all, or none.
    rule
        What will be an edge when the circuit is built: near its thresholds an edge of the local engine is borderline.
    groups
        obs columns (cell type, donor) whose groups of cells get effects of their own (`groups.parquet`) in the same
        pass. Blocks of sources shrink by the number of groups, so that memory does not grow with it.
    units
        obs column (donor, batch) whose cells share their noise: p by flipping the signs of whole units instead
        of cells. Within groups p stays over cells.
    cells_per_block
        Cells between two checkpoints; an interrupted trace goes on from the last whole block.
    sources_per_block
        Sources whose moments are held in memory at once.
    tokens
        Positions propagated at once; lower it when memory is short.
    score_bytes
        Local engine: bytes of attention scores held at once.
    memory
        Budget such as `8GB`, from which `tokens`, `sources_per_block` and `score_bytes` follow; None takes them as
        they are.
    retention
        Tests with p up to this are kept in the effect table. No test above it can have BH q below it. Without
        `rule.max_q` those with |d| > `rule.min_abs_d` are kept as well.
    seed
        Seeds the random directions, the sampled sign-flips and the fidelity check.
    """

    engine: str = "auto"
    targets: tuple[int, ...] = ()
    decoy: str = "radial"
    n_random: int = 8
    context_rows: float | None = None
    check_sources: int = 8
    check_cells: int = 16
    min_r: float = 0.995
    min_sign: float = 0.995
    accept_approximation: bool = False
    confirm: str = "borderline"
    rule: EdgeRule = DEFAULT
    groups: tuple[str, ...] = ()
    units: str | None = None
    cells_per_block: int = 25
    sources_per_block: int = 512
    tokens: int = 16_384
    score_bytes: int = 1 << 27
    memory: str | None = None
    retention: float = 0.05
    seed: int = 0

    @property
    def kept_abs_d(self) -> float | None:
        """|d| above which a test is kept whatever its p: where edges need no significance, p must not lose any."""
        return self.rule.min_abs_d if self.rule.max_q is None else None

    def __post_init__(self) -> None:
        for name, allowed in (("engine", ENGINES), ("decoy", DECOYS), ("confirm", CONFIRM)):
            if getattr(self, name) not in allowed:
                raise ScircuitError(f"{name}={getattr(self, name)!r} is unknown; it may be {', '.join(allowed)}.")
        for name, least in (
            ("cells_per_block", 1),
            ("sources_per_block", 1),
            ("tokens", 1),
            ("score_bytes", 1),
            ("check_sources", 1),
            ("check_cells", 4),
        ):
            if getattr(self, name) < least:
                raise ScircuitError(f"{name}={getattr(self, name)} is too small; it must be at least {least}.")
        if isinstance(self.groups, str) or len(set(self.groups)) < len(self.groups):
            raise ScircuitError(f"groups={self.groups!r} must be a tuple of different obs columns.")
        if self.n_random < 0:
            raise ScircuitError(f"n_random={self.n_random} is negative; 0 means no decoys.")
        if self.context_rows is not None and not 0 <= self.context_rows < math.inf:
            raise ScircuitError(
                f"context_rows={self.context_rows} must be finite and at least 0; all is engine='exact'."
            )
        if not 0 < self.retention <= 1:
            raise ScircuitError(f"retention={self.retention} is no p-value; choose it in (0, 1].")
