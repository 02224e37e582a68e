"""Folders of dictionaries: exact reload, the exact keys of SAELens, and every refusal in one sentence."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from scircuit._io import write_json
from scircuit.errors import ScircuitError
from scircuit.sae.base import SaeConfig
from scircuit.sae.checkpoint import dictionaries_hash, load_saes, read_manifest, save_saes
from scircuit.sae.jumprelu import JumpReLUSAE
from scircuit.sae.topk import TopKSAE

D, F, K = 12, 40, 5
MODEL = {"model": "geneformer-mini", "model_fingerprint": "a" * 64, "protocol": "official"}


def topk(layer: int, seed: int = 0, mean: float = 3.0) -> TopKSAE:
    generator = torch.Generator().manual_seed(seed + layer)
    W_dec = torch.randn(F, D, generator=generator)
    W_dec /= W_dec.norm(dim=1, keepdim=True)
    return TopKSAE(
        SaeConfig("topk", D, F, k=K, layer=layer),
        torch.randn(D, F, generator=generator),
        torch.randn(F, generator=generator),
        W_dec,
        torch.randn(D, generator=generator),
        mean * torch.randn(D, generator=generator),
    )


def jumprelu(layer: int) -> JumpReLUSAE:
    other = topk(layer, seed=9)
    arguments = (other.W_enc, other.b_enc, other.W_dec, other.b_dec, other.mean)
    return JumpReLUSAE(SaeConfig("jumprelu", D, F, layer=layer), *arguments, threshold=torch.linspace(0, 2, F))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "saes"
    saes = {0: topk(0), 3: jumprelu(3)}
    save_saes(root, saes, **MODEL, metadata={"seed": 7}, metrics={0: {"fvu": 0.25}}, log_sparsity={0: torch.zeros(F)})
    return root


def test_reload_is_exact(folder):
    saes = load_saes(folder, model_fingerprint="a" * 64, d_model=D, protocol="official")
    for layer, original in {0: topk(0), 3: jumprelu(3)}.items():
        for name, tensor in original.state_dict().items():
            if name != "threshold":
                assert torch.equal(tensor, saes[layer].state_dict()[name]), name
        assert saes[layer].config.model == "geneformer-mini"
        assert saes[layer].config.metadata == {"seed": 7}
    h = torch.randn(50, D, generator=torch.Generator().manual_seed(0))
    assert torch.equal(saes[0].encode(h).values, topk(0).encode(h).values)
    assert list(load_saes(folder, layers=[3])) == [3]
    assert read_manifest(folder)["layers"]["0"]["metrics"] == {"fvu": 0.25}


def test_the_hash_of_dictionaries_is_of_what_they_are(folder, tmp_path):
    """Taken up by another run and measured in its cells they are the same; other weights or another model are not."""
    known = dictionaries_hash(folder)
    again, measured = load_saes(folder), {"metrics": {0: {"fvu": 0.5}}, "log_sparsity": {0: torch.ones(F)}}
    save_saes(tmp_path / "again", again, **MODEL, metadata={"source": "theirs"}, **measured)
    assert dictionaries_hash(tmp_path / "again") == known
    save_saes(tmp_path / "weights", {0: topk(0, seed=1), 3: jumprelu(3)}, **MODEL)
    save_saes(tmp_path / "model", again, **MODEL | {"model_fingerprint": "b" * 64})
    assert len({known, *(dictionaries_hash(tmp_path / name) for name in ("weights", "model"))}) == 3


def test_every_key_of_the_format_is_written(folder):
    cfg = json.loads((folder / "layer_00" / "cfg.json").read_text())
    assert set(cfg) == {
        "architecture", "d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input", "normalize_activations",
        "reshape_activations", "k", "rescale_acts_by_decoder_norm", "metadata",
    }  # fmt: skip
    assert (cfg["architecture"], cfg["k"], cfg["apply_b_dec_to_input"]) == ("topk", K, False)
    assert (cfg["d_in"], cfg["d_sae"], cfg["dtype"]) == (D, F, "float32")
    assert cfg["metadata"]["hook_name"] == "blocks.0.hook_resid_post"
    assert cfg["metadata"]["sae_lens_version"] >= "6.0.0"
    weights = load_file(folder / "layer_00" / "sae_weights.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    assert shapes == {"W_enc": (D, F), "b_enc": (F,), "W_dec": (F, D), "b_dec": (D,)}
    assert load_file(folder / "layer_00" / "sparsity.safetensors")["sparsity"].shape == (F,)
    assert "threshold" in load_file(folder / "layer_03" / "sae_weights.safetensors")


def test_folded_weights_compute_the_same_without_our_extra_file(folder):
    """SAELens' own formula on the exported weights against the unfolded dictionary, in float64."""
    weights = {k: v.double() for k, v in load_file(folder / "layer_00" / "sae_weights.safetensors").items()}
    h = torch.randn(200, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pre = h @ weights["W_enc"] + weights["b_enc"]
    values, indices = pre.topk(K, dim=1)
    z = torch.zeros_like(pre).scatter(1, indices, values.relu())
    sae = topk(0).double()
    torch.testing.assert_close(sae.encode(h).dense(F), z, rtol=0, atol=1e-5)
    torch.testing.assert_close(sae(h), z @ weights["W_dec"] + weights["b_dec"], rtol=0, atol=1e-5)


def test_another_model_protocol_width_or_layer_is_refused(folder):
    with pytest.raises(ScircuitError, match=r"another model .geneformer-mini"):
        load_saes(folder, model_fingerprint="b" * 64)
    with pytest.raises(ScircuitError, match=r"'official'.*'paper'"):
        load_saes(folder, protocol="paper")
    with pytest.raises(ScircuitError, match="width 12, the model's are 128 wide"):
        load_saes(folder, d_model=128)
    with pytest.raises(ScircuitError, match=r"no SAE for layer 2; it has layers .0, 3."):
        load_saes(folder, layers=[0, 2])
    with pytest.raises(ScircuitError, match="trained on layer 0"):
        save_saes(folder / "wrong", {1: topk(0)}, **MODEL)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["layers"]["1"] = manifest["layers"].pop("0")
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(ScircuitError, match=r"SAE of layer 0.*files it under layer 1"):
        load_saes(folder, layers=[1])


@pytest.mark.parametrize("key", ["architecture", "d_in", "d_sae", "dtype", "k", "apply_b_dec_to_input"])
def test_a_missing_key_is_refused_by_name(folder, key):
    path = folder / "layer_00" / "cfg.json"
    cfg = json.loads(path.read_text())
    del cfg[key]
    path.write_text(json.dumps(cfg))
    with pytest.raises(ScircuitError, match=f"lacks {key}"):
        load_saes(folder)


@pytest.mark.parametrize(
    "name", ["sae_weights.safetensors", "centring.safetensors", "cfg.json", "sparsity.safetensors"]
)
def test_a_truncated_or_missing_file_is_refused_by_name(folder, name):
    path = folder / "layer_00" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ScircuitError, match=name):
        load_saes(folder)
    path.unlink()
    with pytest.raises(ScircuitError, match=name):
        load_saes(folder)


def test_a_truncated_lone_folder_is_refused(folder):
    from scircuit.sae.saelens import read_saelens

    path = folder / "layer_00" / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ScircuitError, match="truncated"):
        read_saelens(folder / "layer_00")


def test_missing_or_foreign_tensors_are_refused(folder):
    from scircuit.sae.saelens import read_saelens

    path = folder / "layer_00" / "sae_weights.safetensors"
    weights = load_file(path)
    save_file({**weights, "W_skip": torch.zeros(D, D)}, path)
    with pytest.raises(ScircuitError, match="unknown: W_skip"):
        read_saelens(folder / "layer_00")
    weights.pop("b_enc")
    save_file(weights, path)
    with pytest.raises(ScircuitError, match="missing: b_enc"):
        read_saelens(folder / "layer_00")
    save_file(
        {**load_file(folder / "layer_03" / "sae_weights.safetensors")}, folder / "layer_03" / "sae_weights.safetensors"
    )
    shuffled = load_file(folder / "layer_03" / "sae_weights.safetensors")
    shuffled["b_dec"] = shuffled["b_dec"] + 1
    save_file(shuffled, folder / "layer_03" / "sae_weights.safetensors")
    with pytest.raises(ScircuitError, match="does not belong"):
        read_saelens(folder / "layer_03")


def test_no_manifest_or_another_version_is_refused(folder, tmp_path):
    with pytest.raises(ScircuitError, match=r"holds no manifest\.json"):
        load_saes(tmp_path / "nowhere")
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", {**manifest, "format_version": 99})
    with pytest.raises(ScircuitError, match="format_version 99"):
        load_saes(folder)


@pytest.mark.parametrize("keys", [("model",), ("layers",), ("model", "protocol"), ("layers", "0", "sha256")])
def test_a_manifest_with_missing_keys_is_refused_by_name(folder, keys):
    manifest = json.loads((folder / "manifest.json").read_text())
    place = manifest
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(ScircuitError, match=".".join(keys)):
        load_saes(folder)


def test_weights_that_are_no_numbers_are_refused():
    sae = topk(0)
    W_enc = sae.W_enc.detach().clone()
    W_enc[0, 0] = torch.nan
    with pytest.raises(ScircuitError, match="W_enc of the SAE holds NaN"):
        TopKSAE(sae.config, W_enc, sae.b_enc, sae.W_dec, sae.b_dec, sae.mean)


@pytest.mark.parametrize("change", [{"path": "../elsewhere"}, {"path": "/etc"}, {"sha256": {"../../x": "0"}}])
def test_a_manifest_names_files_of_its_own_folder(folder, change):
    manifest = json.loads((folder / "manifest.json").read_text())
    next(iter(manifest["layers"].values())).update(change)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ScircuitError, match="outside of it"):
        load_saes(folder)
