"""ScGPT equals torch's own encoder built from the published description, and loads strictly."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from scircuit.cells.tokens import tokenize
from scircuit.errors import ScircuitError
from scircuit.models.scgpt import load_scgpt
from scircuit.models.stream import residuals, resume


class Reference(nn.Module):
    """The perception path of scGPT in plain torch modules (Cui et al. 2024), no line shared with ours."""

    def __init__(self, weights, args):
        super().__init__()
        d = args["embsize"]
        self.w = weights
        layer = nn.TransformerEncoderLayer(d, args["nheads"], args["d_hid"], dropout=0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, args["nlayers"], enable_nested_tensor=False)
        prefix = "transformer_encoder."
        state = {n.removeprefix(prefix).replace("Wqkv.", "in_proj_"): t for n, t in weights.items() if prefix in n}
        self.encoder.load_state_dict(state)

    def forward(self, tokens, values, pad):
        w, f = self.w, nn.functional
        gene = f.embedding(tokens, w["encoder.embedding.weight"])
        d = gene.shape[-1]
        gene = f.layer_norm(gene, (d,), w["encoder.enc_norm.weight"], w["encoder.enc_norm.bias"])
        x = torch.clamp(values.unsqueeze(-1), max=512)
        x = torch.relu(f.linear(x, w["value_encoder.linear1.weight"], w["value_encoder.linear1.bias"]))
        x = f.linear(x, w["value_encoder.linear2.weight"], w["value_encoder.linear2.bias"])
        h = gene + f.layer_norm(x, (d,), w["value_encoder.norm.weight"], w["value_encoder.norm.bias"])
        states = []
        for layer in self.encoder.layers:
            h = layer(h, src_key_padding_mask=pad)
            states.append(h)
        return states


@pytest.fixture
def model(scgpt_folder):
    return load_scgpt(scgpt_folder, device="cpu")


@pytest.fixture
def batch(model, cells):
    return tokenize(cells, model.tokenizer).batch(np.array([0, 3, 8, 21]))


def test_every_layer_equals_torch(model, batch, scgpt_folder):
    args = json.loads((scgpt_folder / "args.json").read_text())
    reference = Reference(torch.load(scgpt_folder / "best_model.pt", weights_only=True), args).eval()
    pad = torch.from_numpy(batch.role == 0)
    assert pad.any(), "the batch must be padded for this to test the mask"
    # Gradients on keep torch off its fused inference path, which zeroes padded rows.
    expected = reference(torch.from_numpy(batch.tokens), torch.from_numpy(batch.values), pad)
    for layer, h in residuals(model, batch, range(3)).items():
        assert (h - expected[layer].detach())[~pad].abs().max() <= 1e-5


def test_resuming_anywhere_equals_the_full_forward_and_stopping_early_equals_the_prefix(model, batch):
    whole = residuals(model, batch, range(3))
    for i in range(3):
        for layer, h in resume(model, whole[i], i, batch):
            assert torch.equal(h, whole[layer])
        assert torch.equal(residuals(model, batch, [i])[i], whole[i])


def test_masked_loss_is_the_squared_error_of_the_decoder(model, batch, scgpt_folder):
    w = torch.load(scgpt_folder / "best_model.pt", weights_only=True)
    masked = model.mask(batch, 0.3, torch.Generator().manual_seed(0))
    assert (masked.batch.values[masked.positions[:, 0], masked.positions[:, 1]] == -1).all()
    h = residuals(model, masked.batch, [2])[2]
    x = h[masked.positions[:, 0], masked.positions[:, 1]]
    for part in ("0", "2"):
        x = nn.functional.leaky_relu(x @ w[f"decoder.fc.{part}.weight"].T + w[f"decoder.fc.{part}.bias"])
    x = x @ w["decoder.fc.4.weight"].T + w["decoder.fc.4.bias"]
    expected = ((x[:, 0] - masked.targets) ** 2).mean()
    assert float(model.masked_loss(h, masked)) == pytest.approx(float(expected), rel=1e-5)


def rewrite(folder, out, change):
    shutil.copytree(folder, out, dirs_exist_ok=True)
    weights = torch.load(out / "best_model.pt", weights_only=True)
    torch.save(change(weights), out / "best_model.pt")
    return out


def test_all_published_spellings_of_attention_load_alike(scgpt_folder, tmp_path, model):
    spellings = {
        "impl": lambda n: n.replace("self_attn.", "self_attn._impl."),
        "torch": lambda n: n.replace("Wqkv.", "in_proj_"),
    }
    for name, spell in spellings.items():
        folder = rewrite(scgpt_folder, tmp_path / name, lambda w, s=spell: {s(n): t for n, t in w.items()})
        loaded = load_scgpt(folder, device="cpu")
        assert torch.equal(loaded.blocks[1].qkv.weight, model.blocks[1].qkv.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {n: t for n, t in w.items() if n != "value_encoder.linear1.bias"}, "lacks the weight value1.bias"),
        (lambda w: {n: t for n, t in w.items() if "layers.1.linear2" not in n}, "lacks the weight blocks.1.down"),
        (lambda w: {**w, "cls_decoder.out_layer.weight": torch.zeros(2)}, "unexpected weight cls_decoder"),
        (lambda w: {**w, "transformer_encoder.layers.0.extra.weight": torch.zeros(2)}, "unexpected weight"),
        (lambda w: {**w, "encoder.enc_norm.bias": torch.zeros(3)}, "different models"),
        (lambda w: {"model": w}, "flat state dict"),
    ],
)
def test_weights_that_do_not_fit_are_refused(scgpt_folder, tmp_path, change, message):
    with pytest.raises(ScircuitError, match=message):
        load_scgpt(rewrite(scgpt_folder, tmp_path / "bad", change), device="cpu")


def test_a_file_that_runs_code_is_refused(scgpt_folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('ran')",))

    folder = shutil.copytree(scgpt_folder, tmp_path / "evil")
    torch.save({"x": Evil()}, folder / "best_model.pt")
    with pytest.raises(ScircuitError, match="truncated, damaged or holds code"):
        load_scgpt(folder, device="cpu")


def test_torchscript_never_reaches_torch_load(scgpt_folder, tmp_path, monkeypatch):
    folder = shutil.copytree(scgpt_folder, tmp_path / "script")
    with zipfile.ZipFile(folder / "best_model.pt", "a") as archive:
        archive.writestr("best_model/code/__torch__.py", "raise SystemExit('ran')")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch saw it"))
    with pytest.raises(ScircuitError, match=r"TorchScript program \(best_model/code/__torch__.py\)"):
        load_scgpt(folder, device="cpu")


def test_truncated_checkpoint_and_incomplete_args_are_refused(scgpt_folder, tmp_path):
    folder = shutil.copytree(scgpt_folder, tmp_path / "cut")
    data = (folder / "best_model.pt").read_bytes()
    (folder / "best_model.pt").write_bytes(data[:1000])
    with pytest.raises(ScircuitError, match="truncated"):
        load_scgpt(folder, device="cpu")
    args = json.loads((folder / "args.json").read_text())
    for key, value in (("pre_norm", True), ("input_emb_style", "category"), ("input_style", "log1p")):
        (folder / "args.json").write_text(json.dumps({**args, key: value}))
        with pytest.raises(ScircuitError, match=f"{key} = {value!r}; only"):
            load_scgpt(folder, device="cpu")
    (folder / "best_model.pt").write_bytes(data)
    (folder / "args.json").write_text(json.dumps({**args, "nlayers": 1 << 40}))
    with pytest.raises(ScircuitError, match="the config asks for 1,099,511,627,776 layers"):
        load_scgpt(folder, device="cpu")
    (folder / "args.json").write_text('{"embsize": 32}')
    with pytest.raises(ScircuitError, match="lacks 'nheads'"):
        load_scgpt(folder, device="cpu")


def test_a_vocabulary_without_its_special_tokens_is_refused(scgpt_folder, tmp_path):
    folder = shutil.copytree(scgpt_folder, tmp_path / "vocab")
    content = json.loads((folder / "vocab.json").read_text())
    del content["<cls>"]
    (folder / "vocab.json").write_text(json.dumps(content))
    with pytest.raises(ScircuitError, match="lacks the token <cls>"):
        load_scgpt(folder, device="cpu")
