"""TopK sparse autoencoder: the k largest pre-activations of each row, then ReLU (Gao et al. 2024)."""

from torch import Tensor

from scircuit.sae.base import LinearSAE
from scircuit.sae.latents import Latents


class TopKSAE(LinearSAE):
    """At most `k` latents per row: z = ReLU(TopK(pre)); without the ReLU where the architecture is `signed_topk`.

    Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", eq. 4-5. A latent among the k largest
    whose pre-activation is not positive does not fire.
    """

    def _activate(self, pre: Tensor) -> Latents:
        assert self.config.k is not None
        values, indices = pre.topk(self.config.k, dim=1)
        return Latents(values if self.config.architecture == "signed_topk" else values.relu(), indices)
