"""Compiled blocks and TF32: asked for in the config, refused where they cannot be had."""

import pytest
import torch

from scircuit import ScircuitError, load_model, parse_config
from scircuit.models.stack import BlockStack
from scircuit.runs.inputs import open_model


@torch.inference_mode()
def test_compiled_blocks_compute_the_same_for_any_length():
    plain, compiled = (load_model("geneformer-mini", device="cpu") for _ in range(2))
    assert isinstance(compiled, BlockStack)
    compiled.compile_blocks(backend="aot_eager")
    generator = torch.Generator().manual_seed(0)
    for cells, length in ((1, 40), (3, 25), (2, 61)):
        h = torch.randn(cells, length, plain.d_model, generator=generator)
        mask = torch.ones(cells, 1, 1, length, dtype=torch.bool)
        mask[0, ..., 20:] = False
        for key_mask in (None, mask):
            torch.testing.assert_close(compiled.blocks[2](h, key_mask), plain.blocks[2](h, key_mask))
    assert compiled.blocks[2]._compiled_call_impl is not None


def test_a_config_asks_for_compiled_blocks(monkeypatch):
    asked = []
    monkeypatch.setattr(BlockStack, "compile_blocks", lambda self: asked.append(self.name))
    open_model(parse_config({"model": {"device": "cpu", "compile": True}}))
    assert asked == ["geneformer-mini"]


def test_tf32_is_refused_where_there_is_none():
    before = torch.backends.cuda.matmul.allow_tf32
    with pytest.raises(ScircuitError, match="NVIDIA GPUs, the model is on cpu; use float32"):
        open_model(parse_config({"model": {"device": "cpu", "dtype": "tf32"}}))
    assert torch.backends.cuda.matmul.allow_tf32 == before
