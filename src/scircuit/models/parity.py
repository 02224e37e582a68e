"""What every adapter must do, as one check that anyone can run on an adapter of their own.

The engines enter a model at any layer with an edited residual and read the layers above. That is only sound when the
pieces, put together, are the model; when nothing but the residual and the batch decides what a layer returns; and when
neither padding nor the other cells of a batch reach a cell. Each sentence below is one of the checks.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scircuit.cells.batch import Role, TokenBatch
from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.models.stream import residuals, resume


class Check(NamedTuple):
    """One check that held: what, and the largest difference met, in units of the residuals' standard deviation."""

    name: str
    worst: float


@torch.inference_mode()
def check_adapter(
    model: FoundationModel,
    batch: TokenBatch,
    reference: Sequence[Tensor] | Mapping[int, Tensor] | None = None,
    *,
    twin: FoundationModel | None = None,
    variants: Sequence[FoundationModel] = (),
    tolerance: float = 1e-5,
) -> list[Check]:
    """Hold an adapter to everything that the engines rely on.

    Parameters
    ----------
    batch
        At least two cells of different lengths, made by the model's own tokenizer.
    reference
        Hidden states of the original implementation for `batch`, `[cell, position, d_model]`: layer i is the residual
        after block i, so of Hugging Face's `hidden_states` pass `[1:]`. Padded positions are not compared.
    twin
        The same model loaded again: its fingerprint must be equal, and what it computes.
    variants
        The model with other weights, another protocol, another dtype: every fingerprint must differ.
    tolerance
        Largest difference allowed, over the standard deviation of the residual; 1e-5 suits float32.

    Returns
    -------
    list of Check
        Every check that was made; the first that fails is raised.

    Raises
    ------
    ScircuitError
        Naming the check, the layer, the difference and the usual cause.
    """
    if not isinstance(model, FoundationModel):
        raise ScircuitError(f"{type(model).__name__} lacks members of FoundationModel; see docs/adapters.md.")
    if len(batch) < 2 or len(set(batch.lengths.tolist())) < 2:
        raise ScircuitError("The batch must hold cells of different lengths, or padding is not tested; take others.")
    _check_positions(model, batch)
    checks = [Check("roles, genes and tokens agree", 0.0)]
    _check_shape(model, batch, -1, model.embed(batch))
    whole = residuals(model, batch, range(model.n_layers))
    for layer, h in whole.items():
        _check_shape(model, batch, layer, h)
    for name, found in (
        ("resuming at a layer equals the full forward", _resumed(model, batch, whole)),
        ("stopping early equals the prefix", _stopped(model, batch, whole)),
        ("a layer leaves its input alone and answers twice alike", _pure(model, batch, whole)),
        ("padding does not reach a cell", _padded(model, batch, whole)),
        ("one cell alone equals the cell among others", _alone(model, batch, whole)),
        ("equals the reference", _referenced(model, batch, whole, reference)),
    ):
        differences = [_held(name, layer, d, tolerance) for layer, d in found]
        if differences:
            checks.append(Check(name, max(differences)))
    _check_edits_arrive(model, batch, whole, tolerance)
    checks.append(Check("an edit of the residual reaches the next layer", 0.0))
    _check_fingerprints(model, twin, variants)
    checks.append(Check("the fingerprint names weights and protocol", 0.0))
    name = "loaded again it computes the same"
    if again := [_held(name, layer, d, tolerance) for layer, d in _again(twin, batch, whole)]:
        checks.append(Check(name, max(again)))
    if getattr(model, "offers_loss", True):
        _check_loss(model, batch)
        checks.append(Check("genes are masked and the loss is a number", 0.0))
    return checks


def _check_positions(model: FoundationModel, batch: TokenBatch) -> None:
    tokens, is_gene, is_pad = batch.tokens, batch.is_gene, batch.role == Role.PAD
    gene_tokens = model.genes["token"].to_numpy()
    if ((batch.gene >= 0) != is_gene).any() or batch.gene.max(initial=-1) >= len(gene_tokens):
        raise ScircuitError(f"{model.name}: a position has a gene iff its role is GENE, and the gene a row of genes.")
    if (gene_tokens[batch.gene[is_gene]] != tokens[is_gene]).any():
        raise ScircuitError(f"{model.name}: a gene position holds another token than genes.token says.")
    if not is_gene.any(axis=1).all():
        raise ScircuitError(f"{model.name}: a cell of the batch has no gene position.")
    if (is_pad != (np.arange(tokens.shape[1]) >= batch.lengths[:, None])).any():
        raise ScircuitError(f"{model.name}: padding must follow the last position of a cell.")
    if (tokens[is_pad] != model.tokenizer.pad[0]).any():
        raise ScircuitError(f"{model.name}: padded positions hold another token than tokenizer.pad.")


def _check_shape(model: FoundationModel, batch: TokenBatch, layer: int, h: Tensor) -> None:
    what = f"{model.name}: the residual of layer {layer}" if layer >= 0 else f"{model.name}: embed(batch)"
    expected = (*batch.tokens.shape, model.d_model)
    if tuple(h.shape) != expected or h.is_nested or h.device.type != model.device.type or h.dtype != model.dtype:
        raise ScircuitError(
            f"{what} is {tuple(h.shape)} {h.dtype} on {h.device}; {expected} {model.dtype} on {model.device} is "
            "needed, batch first."
        )
    if not torch.isfinite(h[_real(batch, h)]).all():
        raise ScircuitError(f"{what} holds NaN or infinite values at real positions.")


def _resumed(model: FoundationModel, batch: TokenBatch, whole: Mapping[int, Tensor]) -> Iterator[tuple[int, float]]:
    # A batch object of its own: an adapter may keep something per batch, and a suffix starts with a new one.
    again = batch.take(np.arange(len(batch)), trim=False)
    h = model.layer(0, model.embed(again), again)
    yield 0, _difference(h, whole[0], batch)
    for start in range(model.n_layers - 1):
        for layer, h in resume(model, whole[start], start, again):
            yield layer, _difference(h, whole[layer], batch)


def _stopped(model: FoundationModel, batch: TokenBatch, whole: Mapping[int, Tensor]) -> Iterator[tuple[int, float]]:
    for layer in whole:
        yield layer, _difference(residuals(model, batch, [layer])[layer], whole[layer], batch)


def _pure(model: FoundationModel, batch: TokenBatch, whole: Mapping[int, Tensor]) -> Iterator[tuple[int, float]]:
    for layer in range(1, model.n_layers):
        given = whole[layer - 1].clone()
        first = model.layer(layer, given, batch)
        second = model.layer(layer, given, batch)
        yield layer, max(_difference(given, whole[layer - 1], batch), _difference(first, second, batch))


def _padded(model: FoundationModel, batch: TokenBatch, whole: Mapping[int, Tensor]) -> Iterator[tuple[int, float]]:
    wider = _widen(model, batch, 5)
    for layer, h in residuals(model, wider, whole).items():
        yield layer, _difference(h[:, : batch.tokens.shape[1]], whole[layer], batch)
    for layer in range(1, model.n_layers):
        rubbish = whole[layer - 1].clone()
        rubbish[~_real(batch, rubbish)] += 10.0
        yield layer, _difference(model.layer(layer, rubbish, batch), whole[layer], batch)


def _alone(model: FoundationModel, batch: TokenBatch, whole: Mapping[int, Tensor]) -> Iterator[tuple[int, float]]:
    for row in range(len(batch)):
        one = batch.take(np.array([row]))
        for layer, h in residuals(model, one, whole).items():
            yield layer, _difference(h, whole[layer][row : row + 1, : h.shape[1]], one)


def _referenced(
    model: FoundationModel,
    batch: TokenBatch,
    whole: Mapping[int, Tensor],
    reference: Sequence[Tensor] | Mapping[int, Tensor] | None,
) -> Iterator[tuple[int, float]]:
    if reference is None:
        return
    states = dict(reference) if isinstance(reference, Mapping) else dict(enumerate(reference))
    if not isinstance(reference, Mapping) and len(states) != model.n_layers:
        raise ScircuitError(
            f"The reference has {len(states)} states, {model.name} {model.n_layers} layers; layer i is the residual "
            "after block i, so leave the embeddings out."
        )
    for layer, state in states.items():
        yield layer, _difference(whole[layer], state.to(whole[layer]), batch)


def _again(twin: FoundationModel | None, batch: TokenBatch, whole: Mapping[int, Tensor]) -> Iterator[tuple[int, float]]:
    if twin is not None:
        for layer, h in residuals(twin, batch, whole).items():
            yield layer, _difference(h, whole[layer], batch)


def _check_edits_arrive(
    model: FoundationModel, batch: TokenBatch, whole: Mapping[int, Tensor], tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    for layer in range(1, model.n_layers):
        clean = whole[layer - 1]
        noise = torch.randn(clean.shape, generator=generator).to(clean) * clean.std()
        if _difference(model.layer(layer, clean + noise, batch), whole[layer], batch) <= tolerance:
            raise ScircuitError(
                f"{model.name}: layer {layer} returns the same for an edited residual; it must compute from the "
                "residual that it is given, not from one that it remembers."
            )


def _check_fingerprints(model: FoundationModel, twin: FoundationModel | None, variants: Sequence[object]) -> None:
    if twin is not None and twin.fingerprint != model.fingerprint:
        raise ScircuitError(
            f"{model.name}: loaded twice, its fingerprints differ; hash only what decides the output, and see "
            "that no weight which the files lack is drawn at random."
        )
    for number, variant in enumerate(variants):
        if getattr(variant, "fingerprint", None) == model.fingerprint:
            raise ScircuitError(
                f"{model.name}: variant {number} has the same fingerprint; hash weights, settings, tokenizer and dtype."
            )


def _check_loss(model: FoundationModel, batch: TokenBatch) -> None:
    masked = model.mask(batch, 0.5, torch.Generator().manual_seed(0))
    at = masked.positions.cpu().numpy()
    if not len(at) or not batch.is_gene[at[:, 0], at[:, 1]].all() or len(masked.targets) != len(at):
        raise ScircuitError(f"{model.name}: mask() must hide some genes, only genes, and give one target for each.")
    last = model.n_layers - 1
    loss = model.masked_loss(residuals(model, masked.batch, [last])[last], masked)
    if loss.numel() != 1 or not torch.isfinite(loss).all():
        raise ScircuitError(f"{model.name}: masked_loss() must be one finite number, not {loss}.")


def _widen(model: FoundationModel, batch: TokenBatch, n: int) -> TokenBatch:
    token, value = model.tokenizer.pad

    def add(array: np.ndarray, fill: float) -> np.ndarray:
        return np.pad(array, ((0, 0), (0, n)), constant_values=fill)

    values = None if batch.values is None or value is None else add(batch.values, value)
    return TokenBatch(add(batch.tokens, token), add(batch.role, Role.PAD), add(batch.gene, -1), batch.cell, values)


def _real(batch: TokenBatch, h: Tensor) -> Tensor:
    return torch.from_numpy(batch.role != Role.PAD).to(h.device)


def _difference(mine: Tensor, theirs: Tensor, batch: TokenBatch) -> float:
    """Largest difference at real positions, over the standard deviation of the residual."""
    keep = _real(batch, mine)
    a, b = mine[keep].float(), theirs[keep].float()
    return float((a - b).abs().max() / b.std().clamp_min(1e-12))


_CAUSES = {
    "padding does not reach a cell": "the mask of padded keys is missing or not passed on",
    "one cell alone equals the cell among others": "something is normalised or drawn over the whole batch",
    "equals the reference": "another layer numbering (layer i is after block i), activation, eps or weight order",
    "loaded again it computes the same": "weights that the files lack were drawn at random",
    "a layer leaves its input alone and answers twice alike": "an in-place operation, or dropout that is still on",
}


def _held(name: str, layer: int, difference: float, tolerance: float) -> float:
    if not difference <= tolerance:  # NaN is no parity either
        cause = _CAUSES.get(name, "a layer depends on more than the residual and the batch")
        raise ScircuitError(
            f"Not so: {name} (layer {layer}, difference {difference:.2g} of a standard deviation, at most "
            f"{tolerance:.2g}); usual cause: {cause}."
        )
    return difference
