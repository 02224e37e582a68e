"""Objects of other libraries behind our interface; matching of dictionaries; one-gene detectors."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.pairwise import cosine_similarity

from scircuit.errors import ScircuitError
from scircuit.sae.adapter import ForeignSAE, as_sae, as_saes, sae_fingerprint
from scircuit.sae.latents import Latents
from scircuit.sae.stability import stability

from .test_encode import D, F, SaeConfig, TopKSAE, weights


class Dense:
    """What another library offers: dense activations, and nothing else but a decoder."""

    def __init__(self, sae, width=F):
        self.sae, self.width = sae, width
        self.W_dec = sae.W_dec

    def encode(self, h):
        return self.sae.encode(h).dense(F)[:, : self.width]

    def decode(self, z):
        return z @ self.sae.W_dec + self.sae.b_dec + self.sae.mean


def test_an_object_with_encode_decode_and_w_dec_serves():
    sae = TopKSAE(SaeConfig("topk", D, F, k=4), *weights(0))
    foreign = as_sae(Dense(sae), layer=3)
    h = torch.randn(20, D, generator=torch.Generator().manual_seed(0))
    latents = foreign.encode(h)
    assert isinstance(latents, Latents)
    assert latents.values.shape[1] <= 4
    torch.testing.assert_close(latents.dense(F), sae.encode(h).dense(F), rtol=0, atol=0)
    torch.testing.assert_close(foreign.decode(latents), sae(h), rtol=0, atol=1e-5)
    assert (foreign.d_in, foreign.n_latents, foreign.config.layer) == (D, F, 3)
    with pytest.raises(ScircuitError, match="pre-activations"):
        foreign.pre_activations(h)
    assert as_sae(sae) is sae


def test_objects_that_do_not_fit_are_refused():
    sae = TopKSAE(SaeConfig("topk", D, F, k=4), *weights(0))
    with pytest.raises(ScircuitError, match="lacks encode, decode, W_dec"):
        as_sae(object())
    with pytest.raises(ScircuitError, match=r"gives \(1, 31\) for 1 rows"):
        ForeignSAE(Dense(sae, width=F - 1))


def test_a_mapping_is_adapted_layer_by_layer_and_checked():
    sae = TopKSAE(SaeConfig("topk", D, F, k=4, layer=2), *weights(0))
    adapted = as_saes({5: Dense(sae), 2: sae})
    assert list(adapted) == [2, 5]
    assert adapted[2] is sae
    assert adapted[5].config.layer == 5
    with pytest.raises(ScircuitError, match="an SAE of layer 2 was given for layer 3"):
        as_saes({3: sae})


def test_a_fingerprint_tells_dictionaries_apart():
    """Weights where they are shown, behaviour where they are hidden."""
    sae = TopKSAE(SaeConfig("topk", D, F, k=4), *weights(0))
    narrow = TopKSAE(SaeConfig("topk", D, F, k=3), *weights(0))
    other_mean = TopKSAE(SaeConfig("topk", D, F, k=4), *weights(0)[:4])
    assert sae_fingerprint(sae) == sae_fingerprint(TopKSAE(SaeConfig("topk", D, F, k=4, layer=1), *weights(0)))
    hidden = [as_sae(Dense(one)) for one in (sae, sae, narrow, other_mean)]
    marks = [sae_fingerprint(one) for one in (sae, narrow, other_mean, *hidden)]
    assert marks[3] == marks[4]
    assert len(set(marks)) == 6


def test_a_decoder_that_is_not_linear_is_refused():
    class Scaled(Dense):
        def decode(self, z):
            return super().decode(z / 3)

    class Squared(Dense):
        def decode(self, z):
            return super().decode(z * z)

    sae = TopKSAE(SaeConfig("topk", D, F, k=4), *weights(0))
    for kind in (Scaled, Squared):
        with pytest.raises(ScircuitError, match="linear decoder"):
            as_sae(kind(sae))


def test_stability_equals_a_matrix_of_cosines():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(30, 12, generator=generator), torch.randn(50, 12, generator=generator)
    cosines = cosine_similarity(first.numpy(), second.numpy())
    found = stability(first, second)
    np.testing.assert_allclose(found.best, cosines.max(axis=1), atol=1e-6)
    np.testing.assert_array_equal(found.match, cosines.argmax(axis=1))
    assert found.mean == pytest.approx(cosines.max(axis=1).mean(), abs=1e-6)
    with pytest.raises(ScircuitError, match="cannot be matched"):
        stability(first, second[:, :5])


def test_a_permuted_dictionary_is_found_again():
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(40, 16, generator=generator)
    order = torch.randperm(40, generator=generator)
    found = stability(first, 3 * first[order])
    assert found.mean == pytest.approx(1, abs=1e-6)
    rows, columns = linear_sum_assignment(-cosine_similarity(first.numpy(), first[order].numpy()))
    np.testing.assert_array_equal(found.match[rows], columns)
