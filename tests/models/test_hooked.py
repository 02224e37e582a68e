"""A foreign module behind the same interface: tensors or tuples, batch or time first, never nested."""

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from scircuit.cells.tokens import tokenize
from scircuit.errors import ScircuitError
from scircuit.models.geneformer import load_geneformer
from scircuit.models.hooked import HookedModel
from scircuit.models.stream import residuals, resume


def call_bert(module, batch):
    mask = torch.from_numpy((batch.role != 0).astype(np.int64))
    return module(input_ids=torch.from_numpy(batch.tokens), attention_mask=mask)


def wrap(module, ours, **options):
    options = {"blocks": "bert.encoder.layer", "call": call_bert, "name": "foreign", "d_model": 32, **options}
    return HookedModel(module, tokenizer=ours.tokenizer, **options)


@pytest.fixture
def ours(geneformer_folder):
    return load_geneformer(geneformer_folder, device="cpu")


@pytest.fixture
def hf(geneformer_folder):
    return transformers.BertForMaskedLM.from_pretrained(geneformer_folder)


@pytest.fixture
def batch(ours, cells):
    return tokenize(cells, ours.tokenizer).batch(np.array([1, 4, 30]))


def test_hugging_face_bert_hooked_equals_the_adapter(ours, hf, batch):
    foreign = wrap(hf, ours)
    keep = torch.from_numpy(batch.role != 0)
    mine, theirs = residuals(ours, batch, range(4)), residuals(foreign, batch, range(4))
    assert (foreign.embed(batch) - ours.embed(batch)).abs().max() <= 1e-6
    for layer in range(4):
        assert (mine[layer] - theirs[layer])[keep].abs().max() <= 1e-6
    for i in range(3):
        for layer, h in resume(foreign, theirs[i], i, batch):
            assert torch.equal(h, theirs[layer])


class TupleLayer(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, mask=None):
        return self.layer(x, src_key_padding_mask=mask), "attention"


class Encoder(nn.Module):
    """Embedding and torch layers, `time_first` or not, returning tuples or not."""

    def __init__(self, time_first, tuples):
        super().__init__()
        torch.manual_seed(1)
        self.embedding = nn.Embedding(64, 32)
        plain = [nn.TransformerEncoderLayer(32, 4, 64, batch_first=not time_first) for _ in range(3)]
        self.layers = nn.ModuleList([TupleLayer(x) for x in plain] if tuples else plain)
        self.time_first, self.tuples = time_first, tuples

    def forward(self, tokens, pad):
        h = self.embedding(tokens)
        h = h.transpose(0, 1) if self.time_first else h
        for layer in self.layers:
            h = layer(h, pad)[0] if self.tuples else layer(h, src_key_padding_mask=pad)
        return h.transpose(0, 1) if self.time_first else h


def call_encoder(module, batch):
    return module(torch.from_numpy(batch.tokens), torch.from_numpy(batch.role == 0))


@pytest.mark.parametrize("tuples", [False, True])
@pytest.mark.parametrize("time_first", [False, True])
def test_both_layouts_and_both_return_types_equal_the_module_itself(ours, batch, time_first, tuples):
    module = Encoder(time_first, tuples).eval()
    expected = call_encoder(module, batch).detach()
    foreign = wrap(module, ours, blocks="layers", call=call_encoder, time_first=time_first)
    keep = torch.from_numpy(batch.role != 0)
    assert (residuals(foreign, batch, [2])[2] - expected)[keep].abs().max() <= 1e-6


def test_the_module_keeps_no_hook_and_another_batch_is_recorded_anew(ours, hf, cells, batch):
    foreign = wrap(hf, ours)
    residuals(foreign, batch, [0])
    other = tokenize(cells, ours.tokenizer).batch(np.array([7]))
    keep = torch.from_numpy(other.role != 0)
    assert (residuals(foreign, other, [3])[3] - residuals(ours, other, [3])[3])[keep].abs().max() <= 1e-6
    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in foreign.layers)


class Nested(nn.Module):
    def forward(self, x, *args, **kwargs):
        return torch.nested.nested_tensor(list(x))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_and_wrong_shapes_are_refused(ours, batch):
    module = Encoder(False, False)
    module.layers[1] = Nested()

    def stops_early(m, b):
        return m.layers[0](m.embedding(torch.from_numpy(b.tokens)))

    foreign = wrap(module.eval(), ours, blocks="layers", call=stops_early)
    with pytest.raises(ScircuitError, match="check blocks="):
        foreign.embed(batch)
    foreign = wrap(module, ours, blocks="layers", call=call_encoder)
    with pytest.raises(ScircuitError, match="enable_nested_tensor=False"):
        residuals(foreign, batch, [1])
    with pytest.raises(ScircuitError, match=r"not \[., ., 16\]"):
        residuals(wrap(Encoder(False, False), ours, blocks="layers", call=call_encoder, d_model=16), batch, [0])


def test_a_wrong_path_names_what_is_there(ours, hf):
    with pytest.raises(ScircuitError, match="top-level modules are: bert, cls"):
        wrap(hf, ours, blocks="encoder.layer")
    with pytest.raises(ScircuitError, match="a list of layers is needed"):
        wrap(hf, ours, blocks="bert.encoder")
    foreign = wrap(hf, ours)
    with pytest.raises(ScircuitError, match="masked="):
        foreign.mask(None, 0.1, None)
