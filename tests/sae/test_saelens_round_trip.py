"""SAELens itself reads what we write, and we read what it writes; needs `pip install sae-lens`."""

import json

import pytest
import torch

from scircuit.sae.adapter import as_sae
from scircuit.sae.base import SaeConfig
from scircuit.sae.checkpoint import save_saes
from scircuit.sae.jumprelu import JumpReLUSAE
from scircuit.sae.readers import read_sae
from scircuit.sae.topk import TopKSAE

sae_lens = pytest.importorskip("sae_lens", reason="sae-lens is not installed")

D, F, K = 64, 256, 16


def dictionary(architecture: str) -> JumpReLUSAE | TopKSAE:
    generator = torch.Generator().manual_seed(0)
    W_dec = torch.randn(F, D, generator=generator)
    W_dec /= W_dec.norm(dim=1, keepdim=True)
    W_enc = W_dec.T + 0.1 * torch.randn(D, F, generator=generator)
    others = [torch.randn(n, generator=generator) for n in (F, D, D)]
    arguments = (W_enc, 0.1 * others[0], W_dec, others[1], others[2])
    if architecture == "topk":
        return TopKSAE(SaeConfig("topk", D, F, k=K), *arguments)
    threshold = torch.rand(F, generator=generator) if architecture == "jumprelu" else None
    return JumpReLUSAE(SaeConfig(architecture, D, F), *arguments, threshold=threshold)


def assert_same_support(ours, h, theirs, z):
    """Identical for topk; where a threshold decides, wherever the pre-activation is not within rounding of it."""
    clear = torch.ones_like(z, dtype=torch.bool)
    if isinstance(ours, JumpReLUSAE):
        clear = (ours.pre_activations(h) - ours.threshold).abs() > 1e-5
        assert clear.float().mean() > 0.9999
    assert torch.equal((theirs > 0)[clear], (z > 0)[clear])


@pytest.mark.parametrize("architecture", ["topk", "jumprelu", "standard"])
@torch.no_grad()
def test_round_trip(tmp_path, architecture):
    ours = dictionary(architecture)
    save_saes(tmp_path / "ours", {5: ours}, model="tiny", model_fingerprint="f" * 64, protocol="official")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "ours" / "layer_05")
    h = torch.randn(2_000, D, generator=torch.Generator().manual_seed(1)) + ours.mean
    z = ours.encode(h).dense(F)
    assert_same_support(ours, h, theirs.encode(h), z)
    torch.testing.assert_close(theirs.encode(h), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs.decode(theirs.encode(h)), ours(h), rtol=1e-5, atol=1e-5)

    theirs.save_model(tmp_path / "theirs")
    kept = json.loads((tmp_path / "theirs" / "cfg.json").read_text())
    written = json.loads((tmp_path / "ours" / "layer_05" / "cfg.json").read_text())
    assert kept == written
    for again in (read_sae(tmp_path / "theirs"), as_sae(theirs)):
        assert again.config.layer == 5
        assert_same_support(ours, h, again.encode(h).dense(F), z)
        torch.testing.assert_close(again.encode(h).dense(F), z, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_gated_sae_is_used_as_it_is():
    config = sae_lens.GatedSAEConfig(d_in=D, d_sae=F)
    theirs = sae_lens.GatedSAE(config)
    theirs.b_gate.normal_(generator=torch.Generator().manual_seed(0))
    theirs.b_mag.normal_(generator=torch.Generator().manual_seed(1))
    h = torch.randn(100, D, generator=torch.Generator().manual_seed(2))
    ours = as_sae(theirs, layer=1)
    z = theirs.encode(h)
    assert 0.05 < float((z > 0).float().mean()) < 0.95
    torch.testing.assert_close(ours.encode(h).dense(F), z, rtol=0, atol=0)
    torch.testing.assert_close(ours.decode(ours.encode(h)), theirs.decode(z), rtol=0, atol=1e-5)
