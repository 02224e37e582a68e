"""Known checkpoints: the data are whole, and a name leads to the published files or to a sentence that helps."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from scircuit._io import read_json, sha256_file
from scircuit.errors import ScircuitError
from scircuit.models import registry
from scircuit.models.geneformer import Geneformer
from scircuit.models.hub import fetch_checkpoint, list_checkpoints_here, locate, missing_files, show_checkpoint
from scircuit.models.load import load_model
from scircuit.models.maxtoki import MaxToki
from scircuit.models.registry import RemoteFile, checkpoints, find_checkpoint, list_checkpoints
from scircuit.models.scgpt import ScGPT

REVISION = checkpoints()["geneformer-v2-316m"].revision


def test_every_checkpoint_is_described_whole() -> None:
    table = list_checkpoints()
    assert set(table["name"]) == {
        "geneformer-v1-10m", "geneformer-v2-104m", "geneformer-v2-104m-clcancer", "geneformer-v2-316m",
        "scgpt-whole-human", "maxtoki-217m",
    }  # fmt: skip
    assert table[["title", "licence", "source", "paper"]].map(bool).all().all()
    for checkpoint in checkpoints().values():
        assert bool(checkpoint.repo) != bool(checkpoint.address), "a hub repository, or an address for a person"
        assert not checkpoint.repo or re.fullmatch("[0-9a-f]{40}", checkpoint.revision), "pinned to a commit"
        assert len(checkpoint.expected()) == len(checkpoint.needed), "local names are unique"
        for file in checkpoint.needed:
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
    hashes = [f.sha256 for c in checkpoints().values() for f in c.files if f.sha256]
    assert len(set(hashes)) == len(hashes) == 9


@pytest.mark.parametrize("name", [*checkpoints()])
def test_the_registered_shape_is_the_architecture_with_so_many_parameters(name: str) -> None:
    c = checkpoints()[name]
    with torch.device("meta"):
        if c.kind == "geneformer":
            config = {
                "vocab_size": c.n_tokens, "hidden_size": c.d_model, "num_hidden_layers": c.n_layers,
                "num_attention_heads": c.n_heads, "intermediate_size": c.d_mlp, "hidden_act": "relu",
                "layer_norm_eps": 1e-12, "max_position_embeddings": c.max_length, "type_vocab_size": 2,
            }  # fmt: skip
            model = Geneformer(config, None, name)
        elif c.kind == "maxtoki":
            config = {
                "vocab_size": c.n_tokens, "hidden_size": c.d_model, "num_hidden_layers": c.n_layers,
                "num_attention_heads": c.n_heads, "intermediate_size": c.d_mlp, "hidden_act": "silu",
                "rms_norm_eps": 1e-6, "max_position_embeddings": c.max_length,
            }  # fmt: skip
            model = MaxToki(config, None, name)
        else:
            args = {"embsize": c.d_model, "nheads": c.n_heads, "nlayers": c.n_layers, "d_hid": c.d_mlp,
                    "mask_value": -1}  # fmt: skip
            model = ScGPT(args, None, c.n_tokens, name)
    assert sum(p.numel() for p in model.parameters()) == c.n_parameters
    weights = next(f for f in c.files if f.name.startswith(("model.", "best_model.")))
    if weights.bytes is not None:
        # scGPT's file also holds the heads that no residual needs: mvc_decoder and flag_encoder.
        unread = 2 * c.d_model**2 + 3 * c.d_model if c.kind == "scgpt" else 0
        header = weights.bytes - 4 * (c.n_parameters + unread)
        assert 0 < header < 70_000, "float32 and a header"


def test_the_real_dictionaries_have_the_registered_sizes_and_hashes(shared_data: Path) -> None:
    known = {f.name: f for c in checkpoints().values() for f in c.needed if f.name.endswith(".pkl")}
    here = {p.name.removeprefix("geneformer_"): p for p in (shared_data / "tokenizers").glob("geneformer_*.pkl")}
    assert len(here) == 7
    for name, path in here.items():
        assert (path.stat().st_size, sha256_file(path)) == (known[name].bytes, known[name].sha256)


@pytest.mark.parametrize(
    "name", ["Geneformer-V2-316M", "GENEFORMER-V2-104M_CLcancer", "gf-6L-30M", "scGPT_human", "gf-18L-316M-i4096"]
)
def test_names_are_found_in_any_case_and_by_alias(name: str) -> None:
    assert find_checkpoint(name).name in checkpoints()


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ScircuitError, match=r"did you mean geneformer-v2-316m"):
        find_checkpoint("geneformer-v2-316")
    with pytest.raises(ScircuitError, match=r"geneformer-v2-316m is no folder|is no folder.*geneformer-v2-316m"):
        load_model("geneformer-v3")


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache and an empty folder of models, offline."""
    cache = tmp_path / "hf" / "hub"
    cache.mkdir(parents=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("SCIRCUIT_CACHE", str(tmp_path / "scircuit"))
    return cache


def snapshot(cache: Path) -> Path:
    """The folder of the pinned revision, as huggingface_hub lays it out."""
    return cache / "models--ctheodoris--Geneformer" / "snapshots" / REVISION


@pytest.fixture
def tiny(geneformer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> registry.Checkpoint:
    """The tiny Geneformer registered in place of V2-316M: its own hashes, its vocabulary as the dictionaries."""

    def described(name: str, path: str) -> RemoteFile:
        file = geneformer_folder / name
        return RemoteFile(path, file.stat().st_size, sha256_file(file))

    real = checkpoints()["geneformer-v2-316m"]
    files = (RemoteFile("config.json"), described("model.safetensors", "model.safetensors"))
    tables = (described("vocabulary.json", "Geneformer-V2-316M/vocabulary.json"),)
    checkpoint = replace(real, files=files, dictionaries=replace(real.dictionaries, files=tables))
    known = {**checkpoints(), checkpoint.name: checkpoint}
    monkeypatch.setattr(registry, "checkpoints", lambda: known)
    return checkpoint


def fill(cache: Path, geneformer_folder: Path, *, leave_out: str = "") -> Path:
    folder = snapshot(cache) / "Geneformer-V2-316M"
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "vocabulary.json"):
        if name != leave_out:
            shutil.copy(geneformer_folder / name, folder / name)
    return folder


def test_a_name_is_read_from_the_hub_cache_and_equals_the_local_folder(tiny, hub_cache, geneformer_folder) -> None:
    fill(hub_cache, geneformer_folder)
    named = load_model("geneformer-v2-316m", device="cpu")
    local = load_model(geneformer_folder, device="cpu")
    assert torch.equal(named.word.weight, local.word.weight)
    assert named.name == local.name == "geneformer-v2-316m", "weights are recognised wherever they lie"
    assert named.fingerprint == local.fingerprint, "dictionaries made with one are accepted with the other"
    origin = named.origin.to_dict()
    assert origin == local.origin.to_dict()
    assert (origin["checkpoint"], origin["revision"]) == (tiny.name, REVISION)
    assert origin["files"] == {
        name: sha256_file(geneformer_folder / name) for name in ("config.json", "model.safetensors", "vocabulary.json")
    }


def test_a_folder_of_models_comes_before_the_hub(tiny, hub_cache, geneformer_folder, tmp_path) -> None:
    shutil.copytree(geneformer_folder, tmp_path / "scircuit" / "models" / tiny.name)
    assert load_model(tiny.name, device="cpu").name == tiny.name
    assert missing_files(tiny) == []


def test_other_settings_with_equal_weights_are_another_model(tiny, hub_cache, geneformer_folder, tmp_path) -> None:
    copy = shutil.copytree(geneformer_folder, tmp_path / "gelu")
    config = read_json(copy / "config.json")
    (copy / "config.json").write_text(json.dumps({**config, "hidden_act": "gelu"}))
    plain, gelu = (load_model(folder, device="cpu") for folder in (geneformer_folder, copy))
    assert plain.name == gelu.name
    assert plain.fingerprint != gelu.fingerprint


def test_a_config_without_a_key_is_refused(geneformer_folder, tmp_path) -> None:
    copy = shutil.copytree(geneformer_folder, tmp_path / "short")
    config = read_json(copy / "config.json")
    del config["layer_norm_eps"]
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ScircuitError, match="lacks 'layer_norm_eps'"):
        load_model(copy, device="cpu")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["model.safetensors", "vocabulary.json"])
@pytest.mark.parametrize(("damage", "says"), [(cut, r"bytes, not"), (flip, r"sha256 .*, not")])
def test_truncated_and_tampered_files_are_refused(tiny, hub_cache, geneformer_folder, file, damage, says) -> None:
    damage(fill(hub_cache, geneformer_folder) / file)
    with pytest.raises(ScircuitError, match=rf"{file} is not the published file .*{says}.*models fetch"):
        load_model(tiny.name, device="cpu")


def test_tampered_weights_are_no_longer_recognised(tiny, geneformer_folder, tmp_path) -> None:
    copy = shutil.copytree(geneformer_folder, tmp_path / "mine")
    flip(copy / "model.safetensors")
    mine = load_model(copy, device="cpu")
    assert mine.name == "mine"
    assert "checkpoint" not in mine.origin.to_dict()
    assert mine.fingerprint != load_model(geneformer_folder, device="cpu").fingerprint


def test_offline_and_not_cached_says_what_to_do(tiny, hub_cache, geneformer_folder) -> None:
    fill(hub_cache, geneformer_folder, leave_out="model.safetensors")
    with pytest.raises(ScircuitError, match=r"HF_HUB_OFFLINE is set: unset it, run `scircuit models fetch genef") as e:
        load_model(tiny.name)
    assert str(hub_cache / "models--ctheodoris--Geneformer") in str(e.value)
    assert [f.name for f in missing_files(tiny)] == ["model.safetensors"]
    assert show_checkpoint(tiny.name)["missing"] == ["Geneformer-V2-316M/model.safetensors"]


def test_without_the_extra_the_sentence_names_it(tiny, hub_cache, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ScircuitError, match=r"pip install 'scircuit\[hub\]'"):
        load_model(tiny.name)
    states = list_checkpoints_here().set_index("name")["state"]
    assert states[tiny.name] == "needs scircuit[hub]"
    assert show_checkpoint(tiny.name)["state"] == "needs scircuit[hub]"


def test_only_the_needed_files_are_downloaded_at_the_pinned_revision(
    tiny, hub_cache, geneformer_folder, monkeypatch
) -> None:
    asked = []

    def download(repo, filename, *, revision, cache_dir, force_download):
        asked.append((repo, filename, revision, force_download))
        target = snapshot(Path(cache_dir)) / filename
        target.parent.mkdir(parents=True, exist_ok=True)
        return str(shutil.copy(geneformer_folder / target.name, target))

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load_model(tiny.name, device="cpu").n_layers == 4
    names = ["config.json", "model.safetensors", "vocabulary.json"]
    assert asked == [("ctheodoris/Geneformer", f"Geneformer-V2-316M/{name}", REVISION, False) for name in names]
    asked.clear()
    fetch_checkpoint(tiny.name)
    assert not asked, "what is cached is not asked for again"
    fetch_checkpoint(tiny.name, again=True)
    assert [a[3] for a in asked] == [True] * 3
    weights = snapshot(hub_cache) / "Geneformer-V2-316M" / "model.safetensors"
    flip(weights)
    with pytest.raises(ScircuitError, match=re.escape(str(weights))):
        fetch_checkpoint(tiny.name)


def test_a_failed_download_is_a_sentence(tiny, hub_cache, monkeypatch) -> None:
    def download(*_, **__):
        raise ConnectionError("no route to host\nmore")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(ScircuitError, match=r"could not be downloaded \(no route to host\); try again"):
        load_model(tiny.name)
    with pytest.raises(ScircuitError, match="nothing is downloaded here"):
        locate(tiny, download=False)


def test_published_dictionaries_are_read_from_where_the_hub_keeps_them(
    hub_cache, shared_data: Path, tmp_path, monkeypatch
) -> None:
    """The published layout with the real V2 dictionaries; only the weights are small and of this test."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=20275, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        hidden_act="relu", layer_norm_eps=1e-12, max_position_embeddings=4096, pad_token_id=0,
    )  # fmt: skip
    folder = snapshot(hub_cache) / "Geneformer-V2-316M"
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    (snapshot(hub_cache) / "geneformer").mkdir()
    for file in (shared_data / "tokenizers").glob("geneformer_*_gc104M.pkl"):
        shutil.copy(file, snapshot(hub_cache) / "geneformer" / file.name.removeprefix("geneformer_"))
    real = checkpoints()["geneformer-v2-316m"]
    small = (
        RemoteFile("config.json"),
        RemoteFile("model.safetensors", None, sha256_file(folder / "model.safetensors")),
    )
    known = {real.name: replace(real, files=small)}
    monkeypatch.setattr(registry, "checkpoints", lambda: known)
    model = load_model(real.name, device="cpu")
    assert (len(model.genes), model.tokenizer.max_length) == (20271, 4096)
    assert {name: digest for name, digest in model.origin.files if name.endswith(".pkl")} == {
        f.name: f.sha256 for f in real.dictionaries.files
    }
    flip(snapshot(hub_cache) / "geneformer" / "gene_median_dictionary_gc104M.pkl")
    with pytest.raises(ScircuitError, match=r"gene_median_dictionary_gc104M\.pkl is not the published file"):
        load_model(real.name, device="cpu")


def test_own_dictionaries_spare_the_download_of_the_published_ones(tiny, hub_cache, geneformer_folder) -> None:
    fill(hub_cache, geneformer_folder, leave_out="vocabulary.json")
    located = locate(tiny, dictionaries="here")
    assert located.dictionaries == Path("here")
    assert located.folder.name == "Geneformer-V2-316M"


def test_scgpt_has_an_address_and_a_place(hub_cache, scgpt_folder, tmp_path, monkeypatch) -> None:
    with pytest.raises(ScircuitError, match=r"download args.json, vocab.json, best_model.pt from https://drive") as e:
        load_model("scgpt-whole-human")
    place = tmp_path / "scircuit" / "models" / "scgpt-whole-human"
    assert str(place) in str(e.value)
    with pytest.raises(ScircuitError, match="no repository"):
        fetch_checkpoint("scgpt-whole-human")
    shutil.copytree(scgpt_folder, place)
    with pytest.raises(ScircuitError, match=r"is not the published file of scgpt-whole-human \(.* not 1,300\)"):
        load_model("scGPT_human", device="cpu")
    real = checkpoints()["scgpt-whole-human"]
    unknown = replace(real, files=tuple(RemoteFile(file.path) for file in real.files))
    known = {**checkpoints(), real.name: unknown}
    monkeypatch.setattr(registry, "checkpoints", lambda: known)
    model = load_model("scGPT_human", device="cpu")
    assert model.name == "scgpt-whole-human"
    assert set(model.origin.to_dict()["files"]) == {"args.json", "vocab.json", "genes.tsv", "best_model.pt"}
    assert show_checkpoint("scgpt-whole-human")["state"] == "here"
    assert [f["sha256"] for f in show_checkpoint("scgpt-whole-human")["files"]] == [None] * 3, "none is made up"


def test_the_environment_decides_the_cache(tmp_path, geneformer_folder) -> None:
    """The real registry against files of another model, in a process of its own: HF_HOME is read at import."""
    fill(tmp_path / "hub", geneformer_folder)
    code = (
        "from scircuit import load_model, ScircuitError\n"
        "for name in ('geneformer-v2-104m', 'geneformer-v2-316m'):\n"
        "    try:\n"
        "        load_model(name, dictionaries='x')\n"
        "    except ScircuitError as error:\n"
        "        print(error)\n"
        "from scircuit.models.hub import fetch_checkpoint\n"
        "try:\n"
        "    fetch_checkpoint('geneformer-v2-316m', again=True)\n"
        "except ScircuitError as error:\n"
        "    print(error)\n"
    )
    env = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "SCIRCUIT_CACHE": str(tmp_path), "PATH": "", "HOME": "/x"}
    env["PYTHONPATH"] = ":".join(sys.path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    absent, other, again = done.stdout.splitlines()
    assert "cannot be downloaded again; unset it" in again
    assert "HF_HUB_OFFLINE is set" in absent
    assert "Geneformer-V2-104M/config.json" in absent
    assert str(tmp_path) in absent
    size = (geneformer_folder / "config.json").stat().st_size
    assert f"({size:,} bytes, not 591)" in other
