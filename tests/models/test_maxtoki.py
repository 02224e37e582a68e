"""MaxToki: the published layout, written by transformers' Llama, against its hidden states and logits."""

import numpy as np
import pytest
import torch

import scircuit
from builders import save_llama
from scircuit.errors import ScircuitError
from scircuit.models.maxtoki import MaxToki
from scircuit.models.stream import residuals

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("changes", [{}, {"num_key_value_heads": 2, "head_dim": 10}])
def test_equals_transformers_in_every_layer(tmp_path, vocabulary, cells, changes):
    theirs = save_llama(tmp_path, vocabulary, **changes)
    model = scircuit.load_model(tmp_path, device="cpu")
    assert isinstance(model, MaxToki)
    batch = scircuit.tokenize(cells, model.tokenizer).batch(np.arange(5))
    assert (batch.tokens[:, 0] == 2).all()
    mask = torch.from_numpy((batch.role != 0).astype("int64"))
    with torch.inference_mode():
        out = theirs(torch.from_numpy(batch.tokens), attention_mask=mask, output_hidden_states=True)
        # transformers gives the last state after the final norm.
        reference = dict(enumerate(out.hidden_states[1:-1]))
        twin = scircuit.load_model(tmp_path, device="cpu")
        checks = scircuit.check_adapter(model, batch, reference, twin=twin)
        last = residuals(model, batch, [2])[2]
        found = model.logits(last)[mask.bool()]
        torch.testing.assert_close(found, out.logits[mask.bool()], atol=1e-4, rtol=1e-4)
        masked = model.mask(batch, 1.0, torch.Generator().manual_seed(0))
        labels = torch.where(torch.from_numpy(batch.is_gene), torch.from_numpy(batch.tokens), -100)
        expected = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        assert model.masked_loss(last, masked).item() == pytest.approx(expected.item(), rel=1e-5)
    assert {check.name for check in checks} >= {"equals the reference", "padding does not reach a cell"}


def test_other_decoders_are_refused_with_the_road_that_works(tmp_path, vocabulary):
    save_llama(tmp_path / "llama", vocabulary, vocab_size=100)
    (tmp_path / "llama" / "vocabulary.json").unlink()
    with pytest.raises(
        ScircuitError, match=r"is a Llama over 100 tokens.*wrap another decoder with scircuit.HookedModel"
    ):
        scircuit.load_model(tmp_path / "llama", device="cpu")
    save_llama(tmp_path / "tied", vocabulary, tie_word_embeddings=True)
    with pytest.raises(ScircuitError, match=r"biases or a tied head, so it is no MaxToki; wrap another decoder"):
        scircuit.load_model(tmp_path / "tied", device="cpu")
    gemma = transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=20)
    transformers.GPT2LMHeadModel(gemma).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(
        ScircuitError, match=r"holds GPT2LMHeadModel, a decoder.*scircuit.HookedModel.*docs/adapters.md"
    ):
        scircuit.load_model(tmp_path / "gpt2", device="cpu")
