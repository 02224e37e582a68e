"""Any foreign `nn.Module` with a list of residual layers, behind the same interface."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scircuit._io import sha256_of
from scircuit.cells.batch import TokenBatch
from scircuit.cells.tokens import Tokenizer
from scircuit.errors import ScircuitError
from scircuit.models.base import Masked
from scircuit.models.origin import Origin
from scircuit.models.stack import ReadsCells, hash_weights


class _Reached(Exception):  # noqa: N818 - control flow, not an error
    """Raised by the hook once the wanted residual is at hand, to skip the rest of the forward."""


class HookedModel(ReadsCells):
    """Wrap a foreign model.

    Entering at layer i calls the foreign layer with the other arguments (masks, ...) that the module itself
    passes for that batch; they are recorded by one forward per batch.

    Parameters
    ----------
    module
        The model; it is put in eval mode and its gradients are switched off.
    blocks
        Dotted path of the list of layers inside it, for example `encoder.layer`. A layer takes the residual
        stream as its first argument (or as `hidden_states=`, `src=`, `x=`) and returns it, alone or first in
        a tuple; a tuple's other members are dropped, as no later layer may depend on them.
    call
        `call(module, batch)` runs the model on a `TokenBatch`.
    tokenizer
        What turns cells into tokens (`cells.tokens.Tokenizer`).
    name, d_model
        As in `FoundationModel`.
    time_first
        True when the layers work on `[position, cell, d_model]`.
    masked
        Optional pair of functions `mask(batch, share, generator)` and `loss(h, masked)`; without it the dictionaries'
        quality is measured without the model's loss.
    settings
        What decides the output beyond the weights (number of heads, activation, ...), JSON-able: equal weights with
        other settings are another model.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        blocks: str,
        call: Callable[[nn.Module, TokenBatch], Any],
        tokenizer: Tokenizer,
        name: str,
        d_model: int,
        time_first: bool = False,
        masked: tuple[Callable[..., Masked], Callable[..., Tensor]] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        try:
            layers = module.get_submodule(blocks)
        except AttributeError:
            top = ", ".join(child for child, _ in module.named_children())
            raise ScircuitError(f"{name} has no submodule {blocks!r}; its top-level modules are: {top}.") from None
        if not isinstance(layers, (nn.ModuleList, nn.Sequential)):
            raise ScircuitError(f"{blocks!r} of {name} is a {type(layers).__name__}; a list of layers is needed.")
        self.layers = list(layers)
        self.n_layers, self.d_model, self.name = len(self.layers), d_model, name
        self.tokenizer, self._call, self._time_first, self._masked = tokenizer, call, time_first, masked
        self._recorded: tuple[TokenBatch, list[tuple[tuple, dict[str, Any]]], Tensor] | None = None
        weights = hash_weights(dict(module.state_dict()))
        self.fingerprint = sha256_of(name, weights, dict(settings or {}), tokenizer.fingerprint, str(self.dtype))
        self.origin = Origin()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are."""
        return next(self.module.parameters()).dtype

    @property
    def offers_loss(self) -> bool:
        """Whether `mask` and `masked_loss` can be asked."""
        return self._masked is not None

    def embed(self, batch: TokenBatch) -> Tensor:
        """Residual stream before the first layer."""
        return self._record(batch)[1]

    def layer(self, i: int, h: Tensor, batch: TokenBatch) -> Tensor:
        """Layer i, called with the arguments that the module passes to it for this batch; gradients flow if asked."""
        if not 0 <= i < self.n_layers:
            raise ScircuitError(f"{self.name} has no layer {i}; layers are 0 to {self.n_layers - 1}.")
        args, kwargs = self._record(batch)[0][i]
        x = h.transpose(0, 1) if self._time_first else h
        # Grad mode keeps torch's own encoder layer off its fused path, which zeroes padding and nests tensors.
        with torch.inference_mode(False), torch.enable_grad():
            out = self.layers[i](x.clone(), *args, **kwargs)
        after = self._plain(out)
        return after if h.requires_grad else after.detach()

    def mask(self, batch: TokenBatch, share: float, generator: torch.Generator) -> Masked:
        """Hide genes by the function given as `masked`."""
        return self._pair()[0](batch, share, generator)

    def masked_loss(self, h: Tensor, masked: Masked) -> Tensor:
        """Loss by the function given as `masked`."""
        return self._pair()[1](h, masked)

    def _pair(self) -> tuple[Callable[..., Masked], Callable[..., Tensor]]:
        if self._masked is None:
            raise ScircuitError(f"{self.name} was wrapped without masked=(mask, loss); pass it to measure a loss.")
        return self._masked

    def _plain(self, out: Any) -> Tensor:
        """The residual `[cell, position, d_model]` out of whatever a layer returned."""
        h = out[0] if isinstance(out, (tuple, list)) else out
        if not isinstance(h, Tensor):
            raise ScircuitError(f"A layer of {self.name} returned a {type(h).__name__}; a tensor is needed.")
        if h.is_nested:
            raise ScircuitError(
                f"{self.name} passes nested tensors between its layers; build it with enable_nested_tensor=False."
            )
        if h.ndim != 3 or h.shape[-1] != self.d_model:
            raise ScircuitError(f"A layer of {self.name} returned shape {tuple(h.shape)}, not [., ., {self.d_model}].")
        return h.transpose(0, 1) if self._time_first else h

    def _record(self, batch: TokenBatch) -> tuple[list[tuple[tuple, dict[str, Any]]], Tensor]:
        """Arguments of every layer and the embeddings for this batch, from one forward."""
        if self._recorded is not None and self._recorded[0] is batch:
            return self._recorded[1], self._recorded[2]
        seen: list[tuple[tuple, dict[str, Any]]] = []
        first: list[Tensor] = []

        def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            key = next((k for k in ("hidden_states", "src", "x") if k in kwargs), None)
            h = args[0] if args else kwargs.get(key or "")
            rest = {k: v for k, v in kwargs.items() if k != key}
            if not first:
                first.append(self._plain(h).detach())
            seen.append((args[1:], rest))
            if len(seen) == self.n_layers:
                raise _Reached

        handles = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in self.layers]
        try:
            with torch.inference_mode(False), torch.enable_grad():
                self._call(self.module, batch)
        except _Reached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        if len(seen) != self.n_layers:
            raise ScircuitError(f"{self.name} called {len(seen)} of its {self.n_layers} layers; check blocks=.")
        self._recorded = (batch, seen, first[0])
        return seen, first[0]
