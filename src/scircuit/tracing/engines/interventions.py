"""What is done to a latent, as small data: an `Intervention` becomes rows to add to the residual stream."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scircuit._io import sha256_of
from scircuit.circuits.schema import DECOYS
from scircuit.errors import ScircuitError
from scircuit.sae.base import SparseAutoencoder
from scircuit.sae.latents import Latents
from scircuit.tracing.engines.decoys import radial_rows

ACTIONS = ("zero", *DECOYS, "matched", "mean", "scale", "set", "resample", "activate", "optimal")
KINDS = ("latent", *ACTIONS[1:], *(f"group_{action}" for action in ACTIONS))
"""Values of `kind` in the effect tables: what was done to one latent (`latent` is its ablation), or to a group."""
_DIRECTED = ("covariance", "encoder_cosine")
"""Decoys along a direction that is given and not drawn here."""


class Edit(NamedTuple):
    """Rows to add at some positions of one cell; all that an engine knows of an intervention.

    `positions` int64 `[n]` within the sequence, ascending; `rows` `[n, d_model]`.
    """

    positions: Tensor
    rows: Tensor


class Firings:
    """Where each latent fires in one cell, sorted once so that any latent is found without a search.

    `latents` `[row, k]` are the activations at the gene positions `positions` (int64 `[row]`, ascending). Resampled
    values are drawn by the number `cell`, which batches do not change; radial decoys need the clean `residual`
    `[position, d_model]`.
    """

    def __init__(self, latents: Latents, positions: Tensor, cell: int = -1, residual: Tensor | None = None) -> None:
        self.cell, self.gene_positions, self.residual = cell, positions, residual
        row, slot = (latents.values > 0).nonzero(as_tuple=True)
        feature = latents.indices[row, slot]
        # Rows come in ascending order, so a stable sort by latent keeps positions ascending within each.
        order = feature.argsort(stable=True)
        self.positions = positions[row[order]]
        self.values = latents.values[row, slot][order]
        live, counts = feature[order].unique_consecutive(return_counts=True)
        stops = counts.cumsum(0).tolist()
        starts = [0, *stops][:-1]
        self._span = {int(f): slice(a, b) for f, a, b in zip(live.tolist(), starts, stops, strict=True)}

    def of(self, feature: int) -> tuple[Tensor, Tensor]:
        """Positions int64 `[n]` (ascending) at which a latent fires, and its activations there; maybe empty."""
        span = self._span.get(feature, slice(0, 0))
        return self.positions[span], self.values[span]


class Donor(NamedTuple):
    """What one latent does in another cell: the activations `values` where it fires, of `n_positions` genes."""

    cell: int
    n_positions: int
    values: tuple[float, ...]


@dataclass(frozen=True)
class Intervention:
    """What happens to one or several latents of a layer at the positions where any of them fires."""

    features: tuple[int, ...]
    """The latents; more than one are edited together."""
    action: str = "zero"
    """`zero`: ablate, the residual loses z_f(p) W_dec[f]. `mean`: z becomes `value`, the latent's mean activation.
    `optimal`: its mean where it fires, the constant that in the mean square changes the residual least.
    `set`: z becomes `value`. `scale`: z becomes `value` * z (2 doubles it). `resample`: z becomes what the latent does
    at a random gene of another cell (`donors`). `activate`: z becomes `value` at every gene position, firing or not.
    Decoys (see `engines.decoys`), rows of the norm ||z_f(p) W_dec[f]|| that mean nothing: `random`, `radial`,
    `covariance` and `encoder_cosine` (along `direction`), `dictionary` (along the decoder row of the latent `instead`).
    `matched`: the latents `instead` are ablated in place of `features`, for which they count."""
    value: float | tuple[float, ...] = 0.0
    """For `mean`, `optimal`, `set`, `scale` and `activate`: one for all latents, or one for each."""
    draw: int = 0
    """For decoys: which of the directions; `random` and `radial` ones depend on (seed, features, draw) only. For every
    other action it numbers the interventions of one kind on one latent (doses, matched latents)."""
    seed: int = 0
    """For `random`, `radial` and `resample`."""
    instead: tuple[int, ...] = ()
    """For `matched` (see `matched_latents`) and `dictionary`."""
    direction: tuple[float, ...] = ()
    """For `covariance` and `encoder_cosine`: `[d_model]`, of any length but 0."""
    donors: tuple[tuple[Donor, ...], ...] = ()
    """For `resample`: one tuple per latent (see `find_donors`). A cell never is its own donor."""

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ScircuitError(f"action={self.action!r} is unknown; it may be {', '.join(ACTIONS)}.")
        if not self.features or len(set(self.features)) < len(self.features):
            raise ScircuitError("An intervention needs at least one latent, each named once.")
        if isinstance(self.value, tuple) and len(self.value) != len(self.features):
            raise ScircuitError(
                f"{len(self.value)} values were given for {len(self.features)} latents; give one, or one for each."
            )
        if bool(self.instead) != (self.action in ("matched", "dictionary")):
            raise ScircuitError(
                f"action={self.action!r}: matched and dictionary, and no other, need instead=, the latents to edit by."
            )
        if bool(self.direction) != (self.action in _DIRECTED):
            raise ScircuitError(
                f"action={self.action!r}: {' and '.join(_DIRECTED)} need direction=; no other action takes it."
            )
        if self.action in DECOYS[1:] and len(self.features) > 1:
            raise ScircuitError(f"action={self.action!r} is a decoy of one latent; for groups there is 'random'.")
        if (len(self.donors) == len(self.features)) != (self.action == "resample"):
            raise ScircuitError(
                "action='resample' needs donors= for each latent (see find_donors); no other action takes it."
            )

    @property
    def kind(self) -> str:
        """One of `KINDS`: `latent` for the ablation of one source, `group_...` for several at once."""
        if len(self.features) > 1:
            return f"group_{self.action}"
        return "latent" if self.action == "zero" else self.action

    def edit(self, sae: SparseAutoencoder, firings: Firings) -> Edit | None:
        """The rows to add in one cell, or None where nothing is to be changed (none of the latents fires)."""
        acted = list(self.instead if self.action == "matched" else self.features)
        spans = [firings.of(f) for f in acted]
        if self.action == "activate":
            positions = firings.gene_positions
        else:
            positions = spans[0][0] if len(spans) == 1 else torch.cat([p for p, _ in spans]).unique()
        if not len(positions):
            return None
        z = torch.zeros(len(positions), len(spans), dtype=sae.W_dec.dtype, device=positions.device)
        for column, (at, values) in enumerate(spans):
            z[torch.searchsorted(positions, at), column] = values.to(z.dtype)
        decoder = sae.W_dec[acted]
        if self.action in DECOYS and self.action != "radial":
            decoder = self._directions(sae, decoder)
        change = self._change(z, firings.cell)
        # One latent is a product per element, so that ablating it removes exactly z_f(p) W_dec[f].
        rows = change * decoder if len(spans) == 1 else change @ decoder
        if self.action == "radial":
            if firings.residual is None:
                raise ScircuitError("A radial decoy turns rows around the residual; give Firings the cell's residual.")
            residual = firings.residual[positions].to(rows.dtype)
            rows = radial_rows(rows, residual, self._drawn_directions(decoder)[0])
        return Edit(positions, rows.detach())

    def _change(self, z: Tensor, cell: int) -> Tensor:
        """What is added to each activation `[position, latent]`."""
        if self.action in ("zero", "matched", *DECOYS):
            return -z
        if self.action == "resample":
            return self._drawn(z, cell) - z
        value = torch.tensor(self.value, dtype=z.dtype, device=z.device)
        return (value - 1.0) * z if self.action == "scale" else value - z

    def _drawn(self, z: Tensor, cell: int) -> Tensor:
        """Activations at random genes of one other cell, for each latent; drawn on the CPU for all devices."""
        columns = []
        for feature, donors in zip(self.features, self.donors, strict=True):
            others = [donor for donor in donors if donor.cell != cell]
            if not others:
                raise ScircuitError(f"Latent {feature} has no donor but cell {cell} itself; give at least two donors.")
            generator = torch.Generator().manual_seed(_seed(self.seed, feature, cell, self.draw))
            donor = others[int(torch.randint(len(others), (), generator=generator))]
            pool = torch.zeros(donor.n_positions, dtype=z.dtype)
            pool[: len(donor.values)] = torch.tensor(donor.values, dtype=z.dtype)
            columns.append(pool[torch.randint(len(pool), (len(z),), generator=generator)])
        return torch.stack(columns, dim=1).to(z.device)

    def _directions(self, sae: SparseAutoencoder, decoder: Tensor) -> Tensor:
        """One direction per latent, with the norm of its decoder row."""
        if self.action == "random":
            return self._drawn_directions(decoder) * decoder.norm(dim=1, keepdim=True)
        if self.action == "dictionary":
            directions = sae.W_dec[list(self.instead)]
        else:
            directions = torch.tensor(self.direction, device=decoder.device, dtype=decoder.dtype)[None]
        return directions / directions.norm(dim=1, keepdim=True) * decoder.norm(dim=1, keepdim=True)

    def _drawn_directions(self, decoder: Tensor) -> Tensor:
        """One random unit direction per latent; drawn on the CPU for all devices."""
        out = []
        for feature in self.features:
            generator = torch.Generator().manual_seed(_seed(self.seed, feature, self.draw))
            u = torch.randn(decoder.shape[1], generator=generator, dtype=torch.float64)
            out.append(u / u.norm())
        return torch.stack(out).to(device=decoder.device, dtype=decoder.dtype)


def _seed(*parts: int) -> int:
    return int(sha256_of(list(parts))[:15], 16)
