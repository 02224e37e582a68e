"""Every foreign format from a key-exact fixture, against the formula of the project that writes it."""

import json
import time
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import linear, relu

from scircuit.errors import ScircuitError
from scircuit.sae.base import require_traceable
from scircuit.sae.formats import _flat_yaml, read_dictionary_learning, read_openai, read_study
from scircuit.sae.readers import detect, read_sae, read_saes

D, F, K = 8, 24, 5


def draw(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"W": (F, D), "V": (D, F), "b": (F,), "c": (D,), "mean": (D,), "h": (40, D), "threshold": (F,)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    tensors["threshold"] = tensors["threshold"].abs()
    return tensors


def top_k(pre: torch.Tensor, k: int = K) -> torch.Tensor:
    values, indices = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, indices, values)


def agree(sae, h, z, reconstruction):
    for got, expected in ((sae.encode(h).dense(sae.n_latents), z), (sae(h), reconstruction)):
        torch.testing.assert_close(got, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))


def write_sparsify(folder, t, **changes):
    folder.mkdir(parents=True)
    weights = {"encoder.weight": t["W"], "encoder.bias": t["b"], "W_dec": t["V"].T.contiguous(), "b_dec": t["c"]}
    save_file(weights, folder / "sae.safetensors")
    cfg = {
        "activation": "topk", "expansion_factor": 3, "normalize_decoder": True, "num_latents": 0, "k": K,
        "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D,
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(cfg | changes))
    return weights


def test_sparsify(tmp_path):
    t = draw(0)
    write_sparsify(tmp_path / "layers.7", t)
    sae = read_sae(tmp_path / "layers.7")
    z = top_k(relu(linear(t["h"] - t["c"], t["W"], t["b"])))
    agree(sae, t["h"], z, z @ t["V"].T + t["c"])
    assert sae.config.layer == 7
    assert sae.config.k == K
    require_traceable(sae)


def test_sparsify_transcoder_is_read_and_not_traced(tmp_path):
    t = draw(1)
    write_sparsify(tmp_path / "layers.2", t, transcode=True)
    sae = read_sae(tmp_path / "layers.2")
    z = top_k(relu(linear(t["h"], t["W"], t["b"])))
    agree(sae, t["h"], z, z @ t["V"].T + t["c"])
    with pytest.raises(ScircuitError, match="transcoder"):
        require_traceable(sae)


def test_the_folder_of_a_sparsify_run_is_no_openai_dictionary(tmp_path):
    """Beside the hook points lie optimiser states, which are .pt files as OpenAI's dictionaries are."""
    for name in ("state", "rank_0_state", "optimizer_0", "lr_scheduler_0"):
        torch.save({}, tmp_path / f"{name}.pt")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ScircuitError, match="holds no SAE that can be read"):
        detect(tmp_path)
    write_sparsify(tmp_path / "layers.4", draw(0))
    assert list(read_saes(tmp_path)) == [4]


def test_sparsify_refusals(tmp_path):
    weights = write_sparsify(tmp_path / "a", draw(0))
    save_file({**weights, "W_skip": torch.zeros(D, D)}, tmp_path / "a" / "sae.safetensors")
    with pytest.raises(ScircuitError, match="skip transcoder"):
        read_sae(tmp_path / "a")
    write_sparsify(tmp_path / "b", draw(0), activation="groupmax")
    with pytest.raises(ScircuitError, match="groupmax"):
        read_sae(tmp_path / "b")
    write_sparsify(tmp_path / "c", draw(0))
    cfg = json.loads((tmp_path / "c" / "cfg.json").read_text())
    del cfg["k"]
    (tmp_path / "c" / "cfg.json").write_text(json.dumps(cfg))
    with pytest.raises(ScircuitError, match="lacks k"):
        read_sae(tmp_path / "c")


def write_dictionary_learning(folder, kind, tensors, **trainer):
    folder.mkdir(parents=True)
    torch.save(tensors, folder / "ae.pt")
    trainer = {
        "dict_class": kind, "activation_dim": D, "dict_size": F, "k": K, "layer": 3, "lm_name": "tiny",
        "submodule_name": "resid_post_layer_3", "steps": 10, **trainer,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"d_submodule": D, "ctx_len": 128}}))


def dictionary_learning_cases(t):
    """dict_class -> state dict, activations, reconstruction, as in its `encode` and `decode`."""
    linear_keys = {"encoder.weight": t["W"], "encoder.bias": t["b"], "decoder.weight": t["V"]}
    matrices = {"W_enc": t["W"].T.contiguous(), "b_enc": t["b"], "W_dec": t["V"].T.contiguous(), "b_dec": t["c"]}
    h, level = t["h"], torch.tensor(0.7)
    shifted = relu(linear(h - t["c"], t["W"], t["b"]))
    plain = linear(h, t["W"], t["b"])
    norm = t["V"].norm(dim=0)
    jump = relu(plain * (plain > t["threshold"])) * norm
    over = shifted * (shifted > level)
    buffers = {"k": torch.tensor(K, dtype=torch.int), "threshold": level}
    groups = torch.tensor([F // 2, F - F // 2])
    decode = lambda z: z @ t["V"].T  # noqa: E731
    return {
        "AutoEncoder": ({**linear_keys, "bias": t["c"]}, shifted, decode(shifted) + t["c"]),
        "AutoEncoderNew": ({**linear_keys, "decoder.bias": t["c"]}, relu(plain), decode(relu(plain)) + t["c"]),
        "AutoEncoderTopK": (
            {**linear_keys, "b_dec": t["c"], **buffers}, top_k(shifted), decode(top_k(shifted)) + t["c"]
        ),
        "BatchTopKSAE": ({**linear_keys, "b_dec": t["c"], **buffers}, over, decode(over) + t["c"]),
        "MatryoshkaBatchTopKSAE": ({**matrices, **buffers, "group_sizes": groups}, over, decode(over) + t["c"]),
        "JumpReluAutoEncoder": ({**matrices, "threshold": t["threshold"]}, jump, decode(jump / norm) + t["c"]),
    }  # fmt: skip


@pytest.mark.parametrize("kind", dictionary_learning_cases(draw(2)))
def test_dictionary_learning(tmp_path, kind):
    t = draw(2)
    tensors, z, reconstruction = dictionary_learning_cases(t)[kind]
    write_dictionary_learning(tmp_path / "trainer_0", kind, tensors)
    sae = read_sae(tmp_path / "trainer_0")
    agree(sae, t["h"], z, reconstruction)
    assert sae.config.layer == 3
    assert sae.config.model == "tiny"
    require_traceable(sae)


def test_dictionary_learning_refusals(tmp_path):
    tensors = dictionary_learning_cases(draw(2))["BatchTopKSAE"][0]
    write_dictionary_learning(tmp_path / "a", "GatedAutoEncoder", tensors)
    with pytest.raises(ScircuitError, match=r"'GatedAutoEncoder'.*can be read"):
        read_sae(tmp_path / "a")
    write_dictionary_learning(tmp_path / "b", "BatchTopKSAE", {**tensors, "threshold": torch.tensor(-1.0)})
    with pytest.raises(ScircuitError, match="never set"):
        read_sae(tmp_path / "b")
    write_dictionary_learning(tmp_path / "c", "BatchTopKSAE", {k: v for k, v in tensors.items() if k != "b_dec"})
    with pytest.raises(ScircuitError, match="missing: b_dec"):
        read_sae(tmp_path / "c")
    (tmp_path / "c" / "config.json").unlink()
    with pytest.raises(ScircuitError, match=r"config\.json does not exist"):
        read_sae(tmp_path / "c")


def openai_state(t, activation):
    state = {
        "pre_bias": t["c"], "latent_bias": t["b"], "encoder.weight": t["W"], "decoder.weight": t["V"],
        "stats_last_nonzero": torch.zeros(F, dtype=torch.long), "activation": activation,
    }  # fmt: skip
    if activation == "TopK":
        state["activation_state_dict"] = {"k": K, "postact_fn": "ReLU"}
    return state


def test_openai_topk_normalises_its_input(tmp_path):
    t = draw(3)
    torch.save(openai_state(t, "TopK"), tmp_path / "autoencoder.pt")
    sae = read_sae(tmp_path)
    mu, sd = t["h"].mean(dim=1, keepdim=True), t["h"].std(dim=1, keepdim=True)
    normal = (t["h"] - mu) / (sd + 1e-5)
    z = relu(top_k(linear(normal - t["c"], t["W"], t["b"])))
    agree(sae, t["h"], z, (linear(z, t["V"]) + t["c"]) * sd + mu)
    with pytest.raises(ScircuitError, match="layer_norm"):
        require_traceable(sae)


def test_openai_relu_by_file(tmp_path):
    t = draw(4)
    torch.save(openai_state(t, "ReLU"), tmp_path / "0.pt")
    sae = read_sae(tmp_path / "0.pt", layer=2)
    z = relu(linear(t["h"] - t["c"], t["W"], t["b"]))
    agree(sae, t["h"], z, linear(z, t["V"]) + t["c"])
    assert sae.config.layer == 2
    state = openai_state(t, "TopK")
    del state["activation_state_dict"]["k"]
    torch.save(state, tmp_path / "1.pt")
    with pytest.raises(ScircuitError, match="needs k"):
        read_sae(tmp_path / "1.pt")
    with pytest.raises(ScircuitError, match=r"2 \.pt files"):
        read_sae(tmp_path)


def write_circuit_tracer(folder, t, *, reads, writes, extra="", **tensors):
    folder.mkdir(parents=True)
    weights = {"W_enc": t["W"], "W_dec": t["V"].T.contiguous(), "b_enc": t["b"], "b_dec": t["c"], **tensors}
    for layer in range(2):
        save_file(weights, folder / f"layer_{layer}.safetensors")
    (folder / "config.yaml").write_text(
        f'model_kind: transcoder_set  # one per layer\nmodel_name: "tiny"\nfeature_input_hook: {reads}\n'
        f"feature_output_hook: {writes}\nscan: tiny\n{extra}"
    )


def test_circuit_tracer_is_read_as_transcoders(tmp_path):
    t = draw(5)
    write_circuit_tracer(tmp_path / "plt", t, reads="hook_resid_mid", writes="hook_mlp_out")
    transcoders = read_saes(tmp_path / "plt")
    assert list(transcoders) == [0, 1]
    z = relu(linear(t["h"], t["W"], t["b"]))
    agree(transcoders[1], t["h"], z, z @ t["V"].T + t["c"])
    with pytest.raises(ScircuitError, match="from hook_resid_mid to hook_mlp_out"):
        require_traceable(transcoders[1])


def test_circuit_tracer_activations(tmp_path):
    t = draw(6)
    pre = linear(t["h"], t["W"], t["b"])
    hooks = {"reads": "hook_resid_post", "writes": "hook_resid_post"}
    write_circuit_tracer(tmp_path / "jump", t, **hooks, **{"activation_function.threshold": t["threshold"]})
    z = pre * (pre > t["threshold"])
    sae = read_sae(tmp_path / "jump", layer=1)
    agree(sae, t["h"], z, z @ t["V"].T + t["c"])
    require_traceable(sae)
    # Its TopK has no ReLU: with k near the size of the dictionary, negative activations take part.
    write_circuit_tracer(tmp_path / "topk", t, **hooks, extra="activation: topk\nk: 20\n")
    z = top_k(pre, 20)
    assert (z < 0).any()
    agree(read_sae(tmp_path / "topk", layer=0), t["h"], z, z @ t["V"].T + t["c"])


def test_circuit_tracer_refusals(tmp_path):
    t = draw(6)
    write_circuit_tracer(tmp_path / "set", t, reads="a", writes="b")
    with pytest.raises(ScircuitError, match="say which layer"):
        read_sae(tmp_path / "set")
    with pytest.raises(ScircuitError, match=r"no transcoder for layer 5; it has layers \[0, 1\]"):
        read_sae(tmp_path / "set", layer=5)
    (tmp_path / "set" / "config.yaml").write_text("model_kind: cross_layer_transcoder\nfeature_input_hook: a\n"
                                                  "feature_output_hook: b\n")  # fmt: skip
    with pytest.raises(ScircuitError, match="cross_layer_transcoder"):
        read_saes(tmp_path / "set")
    (tmp_path / "set" / "config.yaml").write_text("model_kind: transcoder_set\n")
    with pytest.raises(ScircuitError, match="lacks feature_input_hook, feature_output_hook"):
        read_saes(tmp_path / "set")


class StudySAE(nn.Module):
    """The published study's module, from its description: two linear layers around TopK and ReLU."""

    def __init__(self, t):
        super().__init__()
        self.W_enc, self.W_dec = nn.Linear(D, F), nn.Linear(F, D)
        self.W_enc.weight.data, self.W_enc.bias.data = t["W"], t["b"]
        self.W_dec.weight.data, self.W_dec.bias.data = t["V"], t["c"]


def write_study(folder, t):
    folder.mkdir(parents=True)
    saved = {"model_state_dict": StudySAE(t).state_dict(), "d_model": D, "n_features": F, "k": K}
    torch.save(saved, folder / "sae_final.pt")
    np.save(folder / "activation_mean.npy", t["mean"].numpy())


@torch.no_grad()
def test_published_study(tmp_path):
    t = draw(7)
    write_study(tmp_path / "layer11_x4_k32", t)
    sae = read_sae(tmp_path / "layer11_x4_k32")
    module = StudySAE(t)
    z = relu(top_k(module.W_enc(t["h"] - t["mean"])))
    agree(sae, t["h"], z, module.W_dec(z) + t["mean"])
    assert sae.config.layer == 11
    write_study(tmp_path / "layer00_x4_k32", draw(8))
    assert list(read_saes(tmp_path)) == [0, 11]
    with pytest.raises(ScircuitError, match="layer 11, not 3"):
        read_sae(tmp_path / "layer11_x4_k32", layer=3)


def test_published_study_refusals(tmp_path):
    folder = tmp_path / "layer11_x4_k32"
    write_study(folder, draw(7))
    np.save(folder / "activation_mean.npy", np.zeros(D + 1))
    with pytest.raises(ScircuitError, match=r"activation_mean\.npy has 9 numbers"):
        read_sae(folder)
    (folder / "activation_mean.npy").unlink()
    with pytest.raises(ScircuitError, match=r"activation_mean\.npy does not exist"):
        read_sae(folder)
    (folder / "sae_final.pt").write_bytes((folder / "sae_final.pt").read_bytes()[:300])
    with pytest.raises(ScircuitError, match=r"sae_final\.pt is truncated"):
        read_sae(folder)


class Pickled:
    def __reduce__(self):
        return (print, ("arbitrary code",))


def test_pickles_that_run_code_are_not_opened(tmp_path, capsys):
    folder = tmp_path / "layer11_x4_k32"
    write_study(folder, draw(7))
    torch.save({"model_state_dict": Pickled(), "k": K}, folder / "sae_final.pt")
    with pytest.raises(ScircuitError, match="more than tensors"):
        read_sae(folder)
    assert "arbitrary" not in capsys.readouterr().out


def test_saelens_written_by_others(tmp_path):
    """b_dec applied to the input, and activations rescaled by the decoder norm; layer from the hook's name."""
    t = draw(9)
    cfg = {
        "architecture": "topk", "d_in": D, "d_sae": F, "dtype": "float32", "device": "cuda", "k": K,
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": True,
        "metadata": {"sae_lens_version": "6.54.12", "model_name": "gpt2", "hook_name": "blocks.4.hook_resid_post"},
    }  # fmt: skip
    weights = {"W_enc": t["W"].T.contiguous(), "b_enc": t["b"], "W_dec": t["V"].T.contiguous(), "b_dec": t["c"]}
    save_file(weights, tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    norm = t["V"].norm(dim=0)
    z = relu(top_k(linear(t["h"] - t["c"], t["W"], t["b"]) * norm))
    sae = read_sae(tmp_path)
    agree(sae, t["h"], z, (z / norm) @ t["V"].T + t["c"])
    assert (sae.config.layer, sae.config.model) == (4, "gpt2")
    require_traceable(sae)
    (tmp_path / "cfg.json").write_text(json.dumps({**cfg, "metadata": {"hook_name": "blocks.4.hook_mlp_out"}}))
    with pytest.raises(ScircuitError, match=r"blocks\.4\.hook_mlp_out cannot be traced"):
        require_traceable(read_sae(tmp_path))
    for change, message in [
        ({"architecture": "gated"}, "'gated'"),
        ({"normalize_activations": "expected_average_only_in"}, "expected_average_only_in"),
        ({"reshape_activations": "hook_z"}, "attention heads"),
    ]:
        (tmp_path / "cfg.json").write_text(json.dumps({**cfg, **change}))
        with pytest.raises(ScircuitError, match=message):
            read_sae(tmp_path)


def test_saelens_jumprelu_with_thresholds_below_zero(tmp_path):
    t = draw(10)
    cfg = {"architecture": "jumprelu", "d_in": D, "d_sae": F, "dtype": "float32", "apply_b_dec_to_input": False}
    threshold = torch.randn(F, generator=torch.Generator().manual_seed(0))
    weights = {"W_enc": t["W"].T.contiguous(), "b_enc": t["b"], "W_dec": t["V"].T.contiguous(), "b_dec": t["c"]}
    save_file({**weights, "threshold": threshold}, tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    pre = linear(t["h"], t["W"], t["b"])
    z = relu(pre) * (pre > threshold)
    agree(read_sae(tmp_path), t["h"], z, z @ t["V"].T + t["c"])


def test_formats_are_told_apart_by_their_files(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScircuitError, match="holds nothing"):
        detect(tmp_path / "empty")
    with pytest.raises(ScircuitError, match="does not exist"):
        detect(tmp_path / "nowhere")
    both = tmp_path / "layer03_x4_k32"
    write_study(both, draw(0))
    (both / "ae.pt").write_bytes(b"")
    with pytest.raises(ScircuitError, match=r"dictionary_learning, study.*activation_mean\.npy, ae\.pt, sae_final\.pt"):
        detect(both)
    with pytest.raises(ScircuitError, match="no folders"):
        read_saes(tmp_path / "empty")


def torch_script(path, told):
    """An archive whose program writes a file when it is loaded."""
    buffer = torch._C.PyTorchFileWriter(str(path))
    program = f'import os\nopen({str(told)!r}, "w").write("ran")\n'.encode()
    for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
        buffer.write_record(name, program, len(program))
    buffer.write_end_of_file()


def repacked(path, change):
    """The archive with other members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in change(members).items():
            archive.writestr(name, content)


@pytest.mark.parametrize("kind", ["study", "dictionary_learning", "openai"])
def test_torchscript_never_reaches_torch_load(tmp_path, monkeypatch, kind):
    """torch before 2.6 runs the program of such an archive, `weights_only` or not."""
    folder = tmp_path / "layer11_x4_k32"
    write_study(folder, draw(7))
    read, name = {
        "study": (read_study, "sae_final.pt"),
        "dictionary_learning": (read_dictionary_learning, "ae.pt"),
        "openai": (lambda f: read_openai(f / "x.pt"), "x.pt"),
    }[kind]
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoder"}}))
    torch_script(folder / name, tmp_path / "told")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch saw it"))
    with pytest.raises(ScircuitError, match=r"TorchScript program .*save its state_dict"):
        read(folder)
    assert not (tmp_path / "told").exists()


def test_archives_that_grow_are_refused(tmp_path, monkeypatch):
    folder = tmp_path / "layer11_x4_k32"
    write_study(folder, draw(7))
    path = folder / "sae_final.pt"
    torch.save({"model_state_dict": {"W_enc.weight": torch.zeros(1).expand(1 << 20, 1 << 10)}, "k": K}, path)
    with pytest.raises(ScircuitError, match="a tensor larger than the file"):
        read_sae(folder)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch saw it"))
    repacked(path, lambda members: {**members, "archive/data/9": bytes(1 << 22)})
    with pytest.raises(ScircuitError, match="unpacks to more than its own size"):
        read_sae(folder)


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 70,), (-1,)])
def test_a_header_of_numpy_is_held_to_its_file(tmp_path, shape):
    folder = tmp_path / "layer11_x4_k32"
    write_study(folder, draw(7))
    with open(folder / "activation_mean.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.write(bytes(4 * D))
    with pytest.raises(ScircuitError, match=r"activation_mean\.npy is truncated or no numpy file"):
        read_sae(folder)


def test_the_sizes_of_a_configuration_take_no_memory(tmp_path):
    t = draw(9)
    cfg = {"architecture": "standard", "d_in": 1 << 45, "d_sae": F, "dtype": "float32", "apply_b_dec_to_input": False}
    weights = {"W_enc": t["W"].T.contiguous(), "b_enc": t["b"], "W_dec": t["V"].T.contiguous(), "b_dec": t["c"]}
    save_file(weights, tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    with pytest.raises(ScircuitError, match="belong to different dictionaries"):
        read_sae(tmp_path)


def test_a_configuration_of_blanks_is_read_in_one_pass(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "model_kind: 'transcoder_set'  # a # b\nmodel_name:" + " " * 200_000 + "x" + "#" * 200_000 + "\n  k: 3\nj:4\n"
    )
    start = time.perf_counter()
    assert _flat_yaml(tmp_path / "config.yaml") == {"model_kind": "transcoder_set", "model_name": "x"}
    assert time.perf_counter() - start < 5
