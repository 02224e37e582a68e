"""The dictionaries of several layers as one stack of tensors, and one optimiser step on all of them.

Phases of a step: (1) centre and scale the batch, (2) encode and select the active latents, (3) squared error of
the reconstruction (of every nested prefix for Matryoshka), (4) AuxK: the dead latents reconstruct what is left,
(5) drop the part of the decoder gradient that is parallel to each row, (6) Adam, (7) rows back to unit norm.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from scircuit.errors import ScircuitError
from scircuit.sae.base import LinearSAE, SaeConfig
from scircuit.sae.jumprelu import JumpReLUSAE
from scircuit.sae.settings import FROZEN, SaeTraining
from scircuit.sae.topk import TopKSAE

_THRESHOLD_RATE = 0.05


class StepReport(NamedTuple):
    """What one step saw, each `[layer]`: share of variance unexplained, mean L0, share of dead latents."""

    unexplained: Tensor
    l0: Tensor
    dead: Tensor


class Stack:
    """Dictionaries of the same width and size, one per layer, trained together.

    Parameters live in units in which the residual minus its mean has mean square 1 per dimension; `export` takes
    the scale out again, which is exact because TopK and ReLU commute with positive factors. `encoder` is
    `[layer, n_latents, d_in]`, the transpose of `W_enc`.
    """

    def __init__(self, settings: SaeTraining, layers: Sequence[int], first_rows: Tensor) -> None:
        """Start from the first block of rows, `[layer, row, d_in]`: mean, scale, and weights seeded by layer.

        The encoder starts as the transpose of the decoder (Gao et al. 2024, section 2.4), biases at 0.
        """
        n_layers, _, d_in = first_rows.shape
        n_latents, device = settings.n_latents(d_in), first_rows.device
        self.settings, self.layers, self.d_in, self.n_latents = settings, tuple(layers), d_in, n_latents
        self.mean = first_rows.mean(dim=1, dtype=torch.float64).float().unsqueeze(1)
        squares = [(rows - mean).square().mean() for rows, mean in zip(first_rows, self.mean, strict=True)]
        self.scale = torch.stack(squares).sqrt().view(-1, 1, 1)
        for layer, scale in zip(self.layers, self.scale.flatten().tolist(), strict=True):
            if scale == 0:
                raise ScircuitError(f"activations of layer {layer} are all the same; there is nothing to learn there.")
        decoder = torch.stack([_unit_rows(n_latents, d_in, settings.seed, layer) for layer in self.layers]).to(device)
        self.parameters = {
            "encoder": decoder.clone(),
            "b_enc": torch.zeros(n_layers, 1, n_latents, device=device),
            "W_dec": decoder,
            "b_dec": torch.zeros(n_layers, 1, d_in, device=device),
        }
        if settings.architecture == "jumprelu":
            self.parameters["log_threshold"] = self._threshold_at_k(first_rows[:, : settings.batch_rows]).log()
        self.threshold = torch.zeros(n_layers, 1, 1, device=device)
        self.rows_since_fired = torch.zeros(n_layers, n_latents, dtype=torch.int64, device=device)
        self.optimiser = torch.optim.Adam(
            [tensor.requires_grad_() for tensor in self.parameters.values()], betas=(0.9, 0.999), fused=True
        )
        self.n_done = 0
        self.sparse = (
            settings.architecture == "topk" and not settings.matryoshka and not settings.bf16 and device.type == "cpu"
        )

    def step(self, batch: Tensor) -> StepReport:
        """One optimiser step on `[layer, row, d_in]`, in the units of the stream."""
        x = (batch - self.mean) / self.scale
        dead = self.rows_since_fired > self.settings.dead_after_rows
        error, n_fired = (self._sparse_pass if self.sparse else self._dense_pass)(x)
        self._revive(x, error, dead)
        self._descend()
        self.rows_since_fired += batch.shape[1]
        self.rows_since_fired[n_fired > 0] = 0
        unexplained = error.square().mean(dim=(1, 2)) / x.square().mean(dim=(1, 2))
        return StepReport(unexplained, n_fired.sum(dim=1) / batch.shape[1], dead.float().mean(dim=1))

    def _sparse_pass(self, x: Tensor) -> tuple[Tensor, Tensor]:
        error, values, indices = backpropagate(x, self.parameters, self.settings.k)
        fired = (values > 0).flatten(1).long()
        return error, torch.zeros_like(self.rows_since_fired).scatter_add_(1, indices.flatten(1), fired)

    def _dense_pass(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients by autograd; returns the error `[layer, row, d_in]` and firings `[layer, latent]`."""
        settings = self.settings
        with torch.autocast(x.device.type, torch.bfloat16, enabled=settings.bf16):
            pre = self._pre_activations(x, slice(None))
            z = self._select(pre)
            error, loss = self._reconstruct(x, z)
            if settings.architecture == "jumprelu":
                l0 = step_function(pre, self._jump_threshold(), settings.bandwidth).sum(dim=-1).mean(dim=1)
                loss = loss + settings.sparsity_coefficient * (l0 / settings.k - 1).square().sum()
        loss.backward()
        z = z.detach()
        if settings.architecture == "batchtopk":
            smallest = z.masked_fill(z <= 0, torch.inf).amin(dim=(1, 2), keepdim=True).float()
            self.threshold += (_THRESHOLD_RATE if self.n_done else 1.0) * (smallest - self.threshold)
        return error.detach().float(), (z > 0).sum(dim=1)

    def _pre_activations(self, x: Tensor, layers: slice | Tensor) -> Tensor:
        encoder, b_enc = self.parameters["encoder"][layers], self.parameters["b_enc"][layers]
        return torch.baddbmm(b_enc, x[layers], encoder.transpose(1, 2))

    def _select(self, pre: Tensor) -> Tensor:
        if self.settings.architecture == "topk":
            return top_k(pre, self.settings.k)
        if self.settings.architecture == "batchtopk":
            return batch_top_k(pre, self.settings.k)
        return jump_relu(pre, self._jump_threshold(), self.settings.bandwidth)

    def _jump_threshold(self) -> Tensor:
        return self.parameters["log_threshold"].exp()

    @torch.no_grad()
    def _threshold_at_k(self, rows: Tensor) -> Tensor:
        """The threshold, one per layer, above which k latents per row fire before training."""
        pre = self._pre_activations((rows - self.mean) / self.scale, slice(None))
        threshold = torch.stack([one.flatten().topk(self.settings.k * len(one)).values[-1] for one in pre])
        return threshold.clamp_min(1e-3).view(-1, 1, 1).expand(-1, 1, self.n_latents).contiguous()

    def _reconstruct(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Error of the whole dictionary, `[layer, row, d_in]`, and the loss: mean over the nested prefixes."""
        W_dec, b_dec = self.parameters["W_dec"], self.parameters["b_dec"]
        ends = sorted({max(1, round(share * self.n_latents)) for share in self.settings.matryoshka})
        ends = [*(end for end in ends if end < self.n_latents), self.n_latents]
        error, loss, start = x - b_dec, x.new_zeros(()), 0
        for end in ends:
            error = error - torch.bmm(z[..., start:end], W_dec[:, start:end])
            loss = loss + error.square().mean(dim=(1, 2)).sum() / len(ends)
            start = end
        return error, loss

    def _revive(self, x: Tensor, error: Tensor, dead: Tensor) -> None:
        """Add the gradient of AuxK: the dead latents reconstruct the error (Gao et al. 2024, section A.2)."""
        layers = dead.any(dim=1).nonzero().squeeze(1)
        if self.settings.aux_coefficient == 0 or not len(layers):
            return
        aux_k = min(self.settings.aux_k or max(1, self.d_in // 2), self.n_latents)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.settings.bf16):
            pre = self._pre_activations(x, layers).masked_fill(~dead[layers].unsqueeze(1), -torch.inf)
            guess = torch.bmm(top_k(pre, aux_k), self.parameters["W_dec"][layers])
        error = error[layers]
        share = (error - guess).square().mean(dim=(1, 2)) / error.square().mean(dim=(1, 2)).clamp_min(1e-12)
        (self.settings.aux_coefficient * share.sum()).backward()

    @torch.no_grad()
    def _descend(self) -> None:
        W_dec = self.parameters["W_dec"]
        assert W_dec.grad is not None
        W_dec.grad -= (W_dec.grad * W_dec).sum(dim=-1, keepdim=True) * W_dec
        frozen = FROZEN[self.settings.freeze]
        for name in frozen:
            self.parameters[name].grad = None  # Adam leaves alone what has no gradient
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate(self.d_in, self.n_done)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if "W_dec" not in frozen:
            W_dec /= W_dec.norm(dim=-1, keepdim=True)
        self.n_done += 1

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, as named tensors."""
        tensors = {name: tensor.detach() for name, tensor in self.parameters.items()}
        for name in ("mean", "scale", "threshold", "rows_since_fired"):
            tensors[name] = getattr(self, name)
        tensors["n_done"] = torch.tensor(self.n_done)
        for i, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": tensor for name, tensor in moments.items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Return to a `state`, exactly."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[name])
        for name in ("mean", "scale", "threshold", "rows_since_fired"):
            getattr(self, name).copy_(tensors[name])
        self.n_done = int(tensors["n_done"])
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith("adam."):
                _, i, name = key.split(".")
                moments.setdefault(int(i), {})[name] = tensor.clone()
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})

    def export(self) -> dict[int, LinearSAE]:
        """One dictionary per layer, in the units of the stream."""
        return {layer: self._export_one(i, layer) for i, layer in enumerate(self.layers)}

    def _export_one(self, i: int, layer: int) -> LinearSAE:
        scale = self.scale[i].squeeze()
        weights = {name: tensor.detach()[i].squeeze(0) for name, tensor in self.parameters.items()}
        arguments = (
            weights["encoder"].T.contiguous(),
            weights["b_enc"] * scale,
            weights["W_dec"],
            weights["b_dec"] * scale,
            self.mean[i].squeeze(0),
        )
        if self.settings.architecture == "topk":
            return TopKSAE(SaeConfig("topk", self.d_in, self.n_latents, k=self.settings.k, layer=layer), *arguments)
        if self.settings.architecture == "batchtopk":
            threshold = self.threshold[i].squeeze().expand(self.n_latents)
        else:
            threshold = weights["log_threshold"].exp()
        config = SaeConfig("jumprelu", self.d_in, self.n_latents, layer=layer)
        return JumpReLUSAE(config, *arguments, threshold=threshold * scale)


def _unit_rows(n_latents: int, d_in: int, seed: int, layer: int) -> Tensor:
    generator = torch.Generator().manual_seed(1_000_003 * seed + layer)
    rows = torch.randn(n_latents, d_in, generator=generator)
    return rows / rows.norm(dim=-1, keepdim=True)


def top_k(pre: Tensor, k: int) -> Tensor:
    """The k largest pre-activations of each row, then ReLU; 0 elsewhere."""
    values, indices = pre.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(pre).scatter(-1, indices, values.relu())


def batch_top_k(pre: Tensor, k: int) -> Tensor:
    """The k x rows largest positive pre-activations of each layer's batch (Bussmann et al. 2024, eq. 4)."""
    flat = pre.relu().flatten(1)
    values, indices = flat.topk(k * pre.shape[1], dim=1, sorted=False)
    return torch.zeros_like(flat).scatter(1, indices, values).view_as(pre)


class _Step(torch.autograd.Function):
    """H(pre - threshold), with a rectangle-kernel gradient for the threshold alone."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        window = ((pre - threshold).abs() < ctx.bandwidth / 2).to(pre.dtype) / ctx.bandwidth
        return None, -(gradients[0] * window).sum(dim=1, keepdim=True), None


def step_function(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """1 where pre > threshold (Rajamanoharan et al. 2024, eq. 9-11); its mean is a trainable L0.

    `threshold` is `[layer, 1, latent]`. d/d threshold = -1/bandwidth inside a window of that width, 0 outside.
    """
    return _Step.apply(pre, threshold, bandwidth)


def jump_relu(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """Pre where it exceeds the threshold, else 0; the jump's gradient reaches the threshold (same paper, eq. 11)."""
    return pre.relu() * step_function(pre, threshold, bandwidth)


class SparsePass(NamedTuple):
    """`error` = x - reconstruction, `[layer, row, d_in]`; `values` and `indices` of the latents, `[layer, row, k]`."""

    error: Tensor
    values: Tensor
    indices: Tensor


def backpropagate(x: Tensor, parameters: dict[str, Tensor], k: int) -> SparsePass:
    """TopK's loss and gradients through its active latents alone, written into `.grad`: the fast path on CPUs.

    `Stack` states the same loss (mean squared error, summed over layers) densely, for autograd, and that is the
    reference. Here the decoder and all the weight gradients touch only the k of n_latents entries per row that are not
    zero, a sixth of the arithmetic. `x` is `[layer, row, d_in]`; parameters as in `Stack`. Gradients are exact and
    deterministic: rows are summed in order within each latent.
    """
    encoder, W_dec = parameters["encoder"].detach(), parameters["W_dec"].detach()
    n_layers, n_latents, d_in = W_dec.shape
    n_rows = x.shape[1]
    pre = torch.baddbmm(parameters["b_enc"].detach(), x, encoder.transpose(1, 2))
    values, indices = pre.topk(k, dim=-1, sorted=False)
    values = values.relu().view(-1, k).requires_grad_()
    flat = (indices + n_latents * torch.arange(n_layers, device=x.device).view(-1, 1, 1)).view(-1, k)
    decoded = functional.embedding_bag(flat, W_dec.view(-1, d_in), per_sample_weights=values, mode="sum")
    error = x - decoded.detach().view_as(x) - parameters["b_dec"].detach()
    descent = error.mul(-2 / (n_rows * d_in))
    (value_gradient,) = torch.autograd.grad(decoded, values, descent.view(-1, d_in))
    values = values.detach()
    value_gradient = value_gradient * (values > 0)

    # The same entries sorted by latent: then a weight's gradient is a weighted sum over a run of rows.
    order = flat.flatten().argsort(stable=True)
    rows = order // k
    starts = torch.bincount(flat.flatten(), minlength=n_layers * n_latents).cumsum(0).roll(1)
    starts[0] = 0

    def per_latent(table: Tensor, weights: Tensor) -> Tensor:
        weights = weights.flatten()[order]
        return functional.embedding_bag(rows, table, starts, per_sample_weights=weights, mode="sum")

    parameters["W_dec"].grad = per_latent(descent.view(-1, d_in), values).view_as(W_dec)
    parameters["encoder"].grad = per_latent(x.reshape(-1, d_in), value_gradient).view_as(encoder)
    ones = x.new_ones(n_layers * n_rows, 1)
    parameters["b_enc"].grad = per_latent(ones, value_gradient).view_as(parameters["b_enc"])
    parameters["b_dec"].grad = descent.sum(dim=1, keepdim=True)
    return SparsePass(error, values.view(n_layers, n_rows, k), indices)
