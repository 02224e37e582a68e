"""The pre-norm block against implementations that others wrote: transformers' Llama, and torch's own layer."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scircuit.errors import ScircuitError
from scircuit.models.pre_norm import PreNormBlock, PreNormShape


def randomised(block: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in block.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2 + (
            "norm" in name and parameter.ndim == 1
        )
    return block.eval().requires_grad_(False)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_equals_torchs_layer_with_norm_first(activation):
    theirs = randomised(nn.TransformerEncoderLayer(24, 4, 48, 0.0, activation, 1e-5, batch_first=True, norm_first=True))
    ours = PreNormBlock(PreNormShape(24, 4, 48, activation, 1e-5)).eval()
    q, k, v = theirs.self_attn.in_proj_weight.chunk(3)
    bq, bk, bv = theirs.self_attn.in_proj_bias.chunk(3)
    weights = {"q.weight": q, "k.weight": k, "v.weight": v, "q.bias": bq, "k.bias": bk, "v.bias": bv}
    names = {"self_attn.out_proj": "out", "linear1": "up", "linear2": "down", "norm1": "norm1", "norm2": "norm2"}
    for name, tensor in theirs.state_dict().items():
        stem, _, kind = name.rpartition(".")
        if stem in names:
            weights[f"{names[stem]}.{kind}"] = tensor
    ours.load_state_dict(weights)
    h = torch.randn(3, 9, 24, generator=torch.Generator().manual_seed(1))
    padded = torch.arange(9) >= torch.tensor([9, 5, 7])[:, None]
    expected = theirs(h, src_key_padding_mask=padded)
    found = ours(h, ~padded[:, None, None, :])
    torch.testing.assert_close(found[~padded], expected[~padded], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours(h), theirs(h), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
def test_equals_transformers_llama(n_kv_heads):
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

    config = transformers.LlamaConfig(
        hidden_size=24, intermediate_size=40, num_attention_heads=4, num_key_value_heads=n_kv_heads, head_dim=10,
        rms_norm_eps=1e-6, hidden_act="silu", max_position_embeddings=64,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    theirs = randomised(LlamaDecoderLayer(config, 0))
    ours = PreNormBlock(
        PreNormShape(
            24, 4, 40, "silu", 1e-6, rms=True, gated=True, bias=False, causal=True, n_kv_heads=n_kv_heads, d_head=10,
            rope_theta=10000.0,
        )
    ).eval()  # fmt: skip
    names = {
        "self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v", "self_attn.o_proj": "out",
        "mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down", "input_layernorm": "norm1",
        "post_attention_layernorm": "norm2",
    }  # fmt: skip
    ours.load_state_dict({f"{names[n.rpartition('.')[0]]}.weight": tensor for n, tensor in theirs.state_dict().items()})
    h = torch.randn(2, 13, 24, generator=torch.Generator().manual_seed(1))
    at = torch.arange(13)[None]
    expected = theirs(h, position_embeddings=LlamaRotaryEmbedding(config=config)(h, at), position_ids=at)
    expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(ours(h), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_a_key_bias_is_added_to_the_scores(causal):
    block = randomised(PreNormBlock(PreNormShape(12, 3, 20, "gelu", 1e-5, bias=False, causal=causal)))
    h = torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(1))
    bias = torch.log1p(torch.arange(12.0).reshape(2, 1, 1, 6))
    keep = torch.arange(6) < torch.tensor([6, 4])[:, None]
    found = block(h, keep[:, None, None, :], bias)
    for cell, n in enumerate((6, 4)):  # by hand, head by head
        x = block.norm1(h[cell, :n])
        q, k, v = (linear(x).reshape(n, 3, 4) for linear in (block.q, block.k, block.v))
        rows = []
        for head in range(3):
            scores = q[:, head] @ k[:, head].T / 2 + bias[cell, 0, 0, :n]
            if causal:
                scores = scores + torch.full((n, n), -torch.inf).triu(1)
            rows.append(scores.softmax(-1) @ v[:, head])
        h1 = h[cell, :n] + block.out(torch.cat(rows, dim=-1))
        expected = h1 + block.down(F.gelu(block.up(block.norm2(h1))))
        torch.testing.assert_close(found[cell, :n], expected, atol=1e-5, rtol=1e-5)


def test_shapes_that_cannot_be_are_refused():
    for wrong, words in (
        ({"d_model": 10}, "not a multiple of n_heads"),
        ({"n_kv_heads": 3}, "not a multiple of n_kv_heads"),
        ({"activation": "tanh"}, "activation='tanh' is unknown"),
    ):
        with pytest.raises(ScircuitError, match=words):
            PreNormShape(**{"d_model": 12, "n_heads": 4, "d_mlp": 8, "activation": "relu", "eps": 1e-5} | wrong)
