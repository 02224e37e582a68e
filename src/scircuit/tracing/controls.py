"""What some interventions need to know before they run: latents alike in rate and norm, activations elsewhere."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from scircuit.errors import ScircuitError
from scircuit.sae.base import SparseAutoencoder
from scircuit.tracing.engines.clean import clean_batch
from scircuit.tracing.engines.interventions import Donor, Firings, Intervention
from scircuit.tracing.setup import Setup


def matched_latents(
    features: pd.DataFrame,
    sae: SparseAutoencoder,
    layer: int,
    feature: int,
    n: int = 1,
    exclude: Sequence[int] = (),
) -> list[int]:
    """The `n` latents of a layer most like one of them in firing rate and in the norm of what its ablation removes.

    Distance: Euclidean in (log firing rate, log of mean activation times ||W_dec[f]||), both over their standard
    deviations among the live latents of the layer. `features` is `features/features.parquet`, `sae` the layer's
    dictionary; latents of `exclude` may not be chosen.
    """
    live = features[(features["layer"] == layer) & (features["frequency"] > 0) & (features["mean_activation"] > 0)]
    number = live["feature"].to_numpy(np.int64)
    if feature not in number:
        raise ScircuitError(f"Latent {feature} of layer {layer} never fires in the feature table; choose a live one.")
    norm = sae.W_dec.detach().norm(dim=1).double().cpu().numpy()[number] * live["mean_activation"].to_numpy(np.float64)
    place = np.log(np.column_stack([live["frequency"].to_numpy(np.float64), norm]))
    spread = place.std(axis=0)
    place /= np.where(spread > 0, spread, 1.0)
    distance = np.linalg.norm(place - place[number == feature], axis=1)
    allowed = ~np.isin(number, [feature, *exclude])
    if allowed.sum() < n:
        raise ScircuitError(
            f"Layer {layer} has {int(allowed.sum())} other live latents, {n} were asked for; lower n or exclude fewer."
        )
    order = np.argsort(distance[allowed], kind="stable")
    return [int(f) for f in number[allowed][order[:n]]]


def matched_controls(
    features: pd.DataFrame, sae: SparseAutoencoder, layer: int, sources: Sequence[int], n: int = 1
) -> list[Intervention]:
    """For each source, the ablation of the `n` latents most like it, none of them a source; `draw` numbers them."""
    return [
        Intervention((source,), "matched", draw=draw, instead=(other,))
        for source in sources
        for draw, other in enumerate(matched_latents(features, sae, layer, source, n, exclude=sources), 1)
    ]


def resample(
    setup: Setup,
    layer: int,
    sources: Sequence[int],
    *,
    n_donors: int = 8,
    seed: int = 0,
) -> list[Intervention]:
    """For each source, its resampling from `n_donors` of the setup's cells, chosen with the seed."""
    n_donors = min(len(setup.cells), n_donors)
    if n_donors < 2:
        raise ScircuitError(f"{n_donors} donor cell is too few for resampling; give at least two.")
    donors = find_donors(setup, layer, sources, n_donors=n_donors, seed=seed)
    return [
        Intervention((source,), "resample", seed=seed, donors=(of_source,))
        for source, of_source in zip(sources, donors, strict=True)
    ]


def find_donors(
    setup: Setup,
    layer: int,
    features: Sequence[int],
    *,
    n_donors: int = 8,
    seed: int = 0,
) -> list[tuple[Donor, ...]]:
    """For each latent, what it does in `n_donors` cells drawn with the seed."""
    cells = setup.cells
    rng = np.random.default_rng([seed, layer, 5])
    rows = np.sort(rng.choice(len(cells), min(n_donors, len(cells)), replace=False))
    found: list[list[Donor]] = [[] for _ in features]
    with torch.inference_mode():
        for batch in cells.batches(1, cells=rows, by_length=False):
            clean = clean_batch(setup.model, setup.saes[layer], batch, layer)
            firings = Firings(clean.latents[0], clean.positions[0])
            for feature, donors in zip(features, found, strict=True):
                values = tuple(firings.of(feature)[1].double().tolist())
                donors.append(Donor(int(batch.cell[0]), len(clean.positions[0]), values))
    return [tuple(donors) for donors in found]
