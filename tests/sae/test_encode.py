"""Encoding, decoding and quality of dictionaries against naive formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scircuit.errors import ScircuitError
from scircuit.sae import base as sae_base
from scircuit.sae.base import SaeConfig, SparseAutoencoder
from scircuit.sae.jumprelu import JumpReLUSAE
from scircuit.sae.latents import Latents
from scircuit.sae.metrics import QualityAccumulator, loss_recovered
from scircuit.sae.topk import TopKSAE

D, F = 10, 32


def weights(seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    W_dec = torch.randn(F, D, generator=generator)
    return (
        torch.randn(D, F, generator=generator),
        torch.randn(F, generator=generator),
        W_dec / W_dec.norm(dim=1, keepdim=True),
        torch.randn(D, generator=generator),
        torch.randn(D, generator=generator),
    )


def naive_pre(h, W_enc, b_enc, mean):
    return (h - mean) @ W_enc + b_enc


@given(seed=st.integers(0, 1_000), n_rows=st.integers(1, 9), k=st.integers(1, F))
def test_topk_encode_equals_a_loop_over_rows(seed, n_rows, k):
    W_enc, b_enc, W_dec, b_dec, mean = weights(seed)
    sae = TopKSAE(SaeConfig("topk", D, F, k=k), W_enc, b_enc, W_dec, b_dec, mean)
    h = torch.randn(n_rows, D, generator=torch.Generator().manual_seed(seed + 1))
    latents = sae.encode(h)
    pre = naive_pre(h.numpy(), W_enc.numpy(), b_enc.numpy(), mean.numpy())
    expected = np.zeros((n_rows, F))
    for row, values in enumerate(pre):
        for latent in np.argsort(-values)[:k]:
            expected[row, latent] = max(values[latent], 0)
    np.testing.assert_allclose(latents.dense(F).numpy(), expected, atol=1e-5)
    assert latents.values.shape == (n_rows, k)
    assert (latents.values >= 0).all()
    reconstruction = expected @ W_dec.numpy() + b_dec.numpy() + mean.numpy()
    np.testing.assert_allclose(sae.decode(latents).numpy(), reconstruction, atol=1e-5)
    np.testing.assert_allclose((sae(h) + (h - sae(h))).numpy(), h.numpy(), atol=1e-5)


@given(seed=st.integers(0, 1_000), n_rows=st.integers(1, 9), level=st.floats(0, 4))
def test_jumprelu_encode_equals_the_formula(seed, n_rows, level):
    W_enc, b_enc, W_dec, b_dec, mean = weights(seed)
    threshold = torch.rand(F, generator=torch.Generator().manual_seed(seed)) * level
    sae = JumpReLUSAE(SaeConfig("jumprelu", D, F), W_enc, b_enc, W_dec, b_dec, mean, threshold=threshold)
    h = torch.randn(n_rows, D, generator=torch.Generator().manual_seed(seed + 1))
    pre = sae.pre_activations(h)
    expected = torch.where(pre > threshold, pre, 0)
    latents = sae.encode(h)
    torch.testing.assert_close(latents.dense(F), expected, rtol=0, atol=0)
    torch.testing.assert_close(sae.decode(latents), expected @ W_dec + b_dec + mean, rtol=0, atol=1e-5)
    assert latents.values.shape[1] == int((expected > 0).sum(dim=1).max())


def test_ablating_a_latent_removes_exactly_its_part():
    sae = TopKSAE(SaeConfig("topk", D, F, k=4), *weights(3))
    latents = sae.encode(torch.randn(6, D, generator=torch.Generator().manual_seed(4)))
    latent = int(latents.indices[0, 0])
    silenced = Latents(latents.values * (latents.indices != latent), latents.indices)
    change = sae.decode(latents) - sae.decode(silenced)
    expected = latents.column(latent).unsqueeze(1) * sae.W_dec[latent]
    assert (expected[0] != 0).any()
    torch.testing.assert_close(change, expected, rtol=0, atol=1e-5)


def test_encode_in_chunks_equals_encode_at_once(monkeypatch):
    """Rows are chunked inside; chunks of unequal width (jumprelu) are padded with silent latents."""
    for sae in (
        TopKSAE(SaeConfig("topk", D, F, k=4), *weights(5)),
        JumpReLUSAE(SaeConfig("jumprelu", D, F), *weights(5), threshold=torch.full((F,), 2.0)),
    ):
        h = torch.randn(23, D, generator=torch.Generator().manual_seed(6))
        whole = sae.encode(h).dense(F)
        monkeypatch.setattr(sae_base, "_CHUNK_ELEMENTS", 4 * F)
        torch.testing.assert_close(sae.encode(h).dense(F), whole, rtol=0, atol=1e-5)
        monkeypatch.undo()


def test_dictionaries_satisfy_the_interface_and_refuse_other_widths():
    sae = TopKSAE(SaeConfig("topk", D, F, k=4), *weights(0))
    assert isinstance(sae, SparseAutoencoder)
    with pytest.raises(ScircuitError, match=r"width 10 .* \(3, 11\)"):
        sae.encode(torch.zeros(3, 11))
    with pytest.raises(ScircuitError, match="k between 1 and 32, not None"):
        SaeConfig("topk", D, F)
    with pytest.raises(ScircuitError, match="unknown SAE architecture 'gated'"):
        SaeConfig("gated", D, F)
    with pytest.raises(ScircuitError, match="W_enc of the SAE has shape"):
        TopKSAE(SaeConfig("topk", D + 1, F, k=4), *weights(0))
    with pytest.raises(ScircuitError, match="threshold"):
        JumpReLUSAE(SaeConfig("jumprelu", D, F), *weights(0), threshold=-torch.ones(F))


def test_quality_equals_its_formulas_and_merges():
    sae = TopKSAE(SaeConfig("topk", D, F, k=4), *weights(1)).double()
    h = torch.randn(300, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 50
    x, r = h, sae(h)
    expected = {
        "fvu": ((x - r) ** 2).sum() / ((x - x.mean(0)) ** 2).sum(),
        "mse": ((x - r) ** 2).sum(dim=1).mean(),
        "cossim": torch.nn.functional.cosine_similarity(x, r).mean(),
        "relative_reconstruction_bias": (r * r).sum(dim=1).mean() / (x * r).sum(dim=1).mean(),
        "l0": (sae.encode(h).dense(F) > 0).sum() / len(h),
        "frac_alive": (sae.encode(h).dense(F) > 0).any(dim=0).double().mean(),
    }
    parts = [QualityAccumulator(D, F) for _ in range(3)]
    for part, rows in zip(parts, h.split([170, 1, 129]), strict=True):
        part.update(sae, rows[: len(rows) // 2])
        part.update(sae, rows[len(rows) // 2 :])
    merged = (parts[0] + (parts[1] + parts[2])).result()
    for name, value in expected.items():
        assert getattr(merged, name) == pytest.approx(float(value), rel=1e-9), name
    assert merged.n_rows == 300
    assert merged.explained_variance == pytest.approx(1 - merged.fvu)
    frequency = (sae.encode(h).dense(F) > 0).double().mean(dim=0)
    sparsity = (parts[0] + parts[1] + parts[2]).log_sparsity()
    torch.testing.assert_close(sparsity.double(), (frequency + 1e-10).log10(), rtol=1e-6, atol=1e-6)


def test_quality_of_nothing_is_refused():
    with pytest.raises(ScircuitError, match="held-out rows"):
        QualityAccumulator(D, F).result()


def test_loss_recovered():
    assert loss_recovered(clean=2.0, spliced=2.5, ablated=6.0) == pytest.approx(0.875)
    assert loss_recovered(2.0, 2.0, 6.0) == 1
    with pytest.raises(ScircuitError, match="does not raise the loss"):
        loss_recovered(2.0, 2.5, 2.0)
