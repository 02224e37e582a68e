"""How good dictionaries are on held-out cells: what the model loses when a reconstruction is spliced in."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from scircuit._progress import progress
from scircuit.cells.batch import TokenBatch
from scircuit.models.base import FoundationModel, Masked
from scircuit.models.stream import residuals, resume
from scircuit.sae.adapter import as_saes
from scircuit.sae.base import require_traceable
from scircuit.sae.metrics import QualityAccumulator, loss_recovered

log = logging.getLogger(__name__)


@torch.inference_mode()
def measure_quality(
    model: FoundationModel,
    saes: Mapping[int, Any],
    batches: Iterable[TokenBatch],
    *,
    mask_share: float = 0.15,
    seed: int = 0,
) -> tuple[dict[int, dict[str, float]], dict[int, Tensor]]:
    """Quality per layer on cells that the dictionaries were not trained on.

    Returns the metrics of `SaeQuality` plus `loss_clean`, `loss_spliced`, `loss_ablated` (masked-gene loss with
    the layer's residual at gene positions left alone, replaced by its reconstruction, replaced by its mean over
    the batch) and `loss_recovered` = (ablated - spliced) / (ablated - clean), SAEBench's definition with mean
    instead of zero ablation, since zero is far outside what a LayerNorm puts out; `loss_recovered` is left out
    where the ablation does not raise the loss. A model without a loss (`HookedModel` without `masked`) has none of
    these four. And per layer the log10 firing frequency of each latent. `saes` are dictionaries of any library
    (`as_sae`).

    Raises
    ------
    ScircuitError
        If a dictionary does not reconstruct the residual stream that it reads (see `require_traceable`), or there are
        no held-out rows.
    """
    saes = as_saes(saes)
    for sae in saes.values():
        require_traceable(sae)
    generator = torch.Generator().manual_seed(seed)
    quality = {layer: QualityAccumulator(sae.d_in, sae.n_latents) for layer, sae in saes.items()}
    losses = dict.fromkeys(saes, torch.zeros(3, dtype=torch.float64))
    n = 0
    offers_loss = getattr(model, "offers_loss", True)
    if not offers_loss:
        log.warning("%s offers no loss, so the dictionaries are measured without it", model.name)
    for batch in progress(batches, desc="SAE quality", unit="batch"):
        keep = torch.from_numpy(batch.is_gene).to(model.device)
        for layer, h in residuals(model, batch, saes).items():
            quality[layer].update(saes[layer], h[keep])
        if not offers_loss:
            continue
        masked = model.mask(batch, mask_share, generator)
        weight = len(masked.targets)
        if not weight:
            continue
        n += weight
        states = residuals(model, masked.batch, [*saes, model.n_layers - 1])
        clean = float(model.masked_loss(states[model.n_layers - 1], masked))
        for layer, sae in saes.items():
            rows = states[layer][keep]
            spliced = _loss(model, states[layer], keep, sae.decode(sae.encode(rows)), layer, masked)
            ablated = _loss(model, states[layer], keep, rows.mean(dim=0).expand_as(rows), layer, masked)
            losses[layer] = losses[layer] + weight * torch.tensor([clean, spliced, ablated], dtype=torch.float64)
    metrics = {layer: asdict(q.result()) for layer, q in quality.items()}
    for layer in saes if offers_loss else ():
        clean, spliced, ablated = (losses[layer] / max(n, 1)).tolist()
        metrics[layer] |= {"loss_clean": clean, "loss_spliced": spliced, "loss_ablated": ablated}
        if ablated > clean:
            metrics[layer]["loss_recovered"] = loss_recovered(clean, spliced, ablated)
        else:
            log.warning("layer %d: ablating it does not raise the loss, so no loss recovered is given", layer)
    return metrics, {layer: q.log_sparsity() for layer, q in quality.items()}


def _loss(model: FoundationModel, h: Tensor, keep: Tensor, rows: Tensor, layer: int, masked: Masked) -> float:
    """Masked loss with `rows` in place of the gene positions of `layer`."""
    h = h.clone()
    h[keep] = rows.to(h.dtype)
    for _, state in resume(model, h, layer, masked.batch):
        h = state
    return float(model.masked_loss(h, masked))
