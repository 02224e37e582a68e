"""A folder of dictionaries written with format_version 1 stays readable, number by number."""

from pathlib import Path

import torch

from scircuit.sae.checkpoint import load_saes

STORED = Path(__file__).parent / "stored" / "format_1"


def test_format_1_is_read():
    saes = load_saes(STORED, model_fingerprint="0" * 64, d_model=4, protocol="official")
    h = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    expected = {
        0: ([4, 5], [2.3627, 2.2853], [2.2003, 1.0031, 4.8059, 3.6087]),
        2: ([4, 5, 7, 6], [2.3627, 2.2853, 2.2827, 2.2690], [4.1744, 3.1712, 7.1680, 6.1649]),
    }
    assert list(saes) == list(expected)
    for layer, (indices, values, reconstruction) in expected.items():
        latents = saes[layer].encode(h)
        assert latents.indices.tolist() == [indices]
        torch.testing.assert_close(latents.values, torch.tensor([values]), rtol=0, atol=1e-4)
        torch.testing.assert_close(saes[layer](h), torch.tensor([reconstruction]), rtol=0, atol=1e-4)
        assert saes[layer].config.metadata == {"seed": 0}
