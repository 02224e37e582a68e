"""The doctor: a healthy machine and config pass, and each illness is one line that says what, and what to do."""

import json
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import scircuit
from scircuit.cli.app import app
from scircuit.health import Finding, doctor, lines, numerics
from scircuit.health import machine as machine_checks
from scircuit.health.configured import check_config, tables
from scircuit.health.finding import tried

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIRCUIT_CACHE", str(tmp_path_factory.mktemp("cache")))


def failures(findings: list[Finding]) -> dict[str, str]:
    return {f.what: f"{f.detail} -> {f.fix}" for f in findings if f.state == "FAIL"}


def test_this_machine_is_fit(capsys: pytest.CaptureFixture) -> None:
    findings = doctor()
    assert not failures(findings)
    seen = {f.what for f in findings}
    assert {"python", "torch", "extra hub", "memory", "device cpu", "disk", "knowledge cache", "checkpoints"} <= seen
    assert {"top-k on cpu", "attention on cpu", "sums on cpu"} <= seen
    assert scircuit.doctor is doctor


def test_one_line_each_and_the_exit_code(project, geneformer_folder) -> None:
    config = project(geneformer_folder) / "run.toml"
    fine = CliRunner().invoke(app, ["doctor", str(config)])
    assert fine.exit_code == 0, fine.output
    assert fine.output.splitlines()[-1] == "All is well."
    assert all(line.split()[0] in ("ok", "warn") for line in fine.output.splitlines()[:-1])
    config.write_text(config.read_text().replace("cells.h5ad", "none.h5ad"))
    ill = CliRunner().invoke(app, ["doctor", str(config)])
    assert ill.exit_code == 1
    wrong = [line for line in ill.output.splitlines() if line.startswith("FAIL")]
    assert len(wrong) == 1
    assert "none.h5ad" in wrong[0]


def test_lines_carry_the_fix() -> None:
    assert lines([Finding("FAIL", "x", "is ill", "heal it"), Finding("ok", "longer", "fine")]) == [
        "FAIL  x       is ill  ->  heal it", "ok    longer  fine",
    ]  # fmt: skip


# --- arithmetic: each check must catch the fault it is there for ---


def off_by_one(x, k, dim):
    values, indices = torch.topk(x, k, dim=dim)
    return values, (indices + 1) % x.shape[dim]


def only_sixteen(x, k, dim):
    """The fault of early Apple GPU builds: right up to k = 16, then rubbish."""
    values, indices = torch.topk(x, k, dim=dim)
    if k > 16:
        values = values.clone()
        values[:, 16:] = 0
    return values, indices


def ignores_strides(x, k, dim):
    whole = torch.as_strided(x, x.shape, (x.shape[1], 1)) if not x.is_contiguous() else x
    return torch.topk(whole, k, dim=dim)


def repeats(x, k, dim):
    values, indices = torch.topk(x, k, dim=dim)
    tied = torch.cat([torch.ones_like(values[:, :1], dtype=torch.bool), values[:, 1:] != values[:, :-1]], dim=1)
    first = torch.where(tied, indices, 0)
    return values, torch.where(tied, indices, torch.gather(first, 1, (tied.cumsum(1) - 1).clamp(min=0)))


@pytest.mark.parametrize(
    ("top_k", "says"),
    [
        (off_by_one, "do not point at the values"),
        (only_sixteen, "k = 17"),
        (ignores_strides, "wrong values"),
        (repeats, "wrong values"),
    ],
)
def test_a_wrong_top_k_is_found(top_k, says: str) -> None:
    found = numerics.check_top_k(CPU, top_k)
    assert found.state == "FAIL"
    assert says in found.detail
    assert "model.device" in found.fix


def test_attention_that_ignores_padding_or_scale_is_found() -> None:
    attention = torch.nn.functional.scaled_dot_product_attention
    assert numerics.check_attention(CPU, lambda q, k, v, attn_mask: attention(q, k, v)).state == "FAIL"
    assert (
        numerics.check_attention(CPU, lambda q, k, v, attn_mask: attention(q, 1.01 * k, v, attn_mask)).state == "FAIL"
    )
    assert numerics.check_attention(CPU, lambda q, k, v, attn_mask: attention(q, k, v, attn_mask)).state == "ok"


def test_a_sum_in_float32_is_found() -> None:
    assert numerics.check_sums(CPU, lambda x: x.float().sum()).state == "FAIL"


def test_an_accelerator_is_checked_as_the_cpu_is_and_with_a_whole_model(monkeypatch) -> None:
    monkeypatch.setattr(numerics, "tried_devices", lambda: [CPU, torch.device("cpu:0"), torch.device("meta")])
    found = numerics.check_numerics()
    assert numerics.check_model(CPU).state == "ok"
    ill = [f for f in found if f.state == "FAIL"]
    assert [f.what for f in ill] == [f"{what} on meta" for what in ("top-k", "attention", "sums", "model")]
    assert all(f.detail for f in ill), "a device that cannot compute is a finding, not a crash"


def test_devices_include_what_pytorch_sees(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert [str(d) for d in numerics.tried_devices()] == ["cpu", "cuda:0", "cuda:1", "mps"]


# --- the machine ---


def test_packages_that_are_missing_or_old(monkeypatch) -> None:
    wanted = [
        "numpy>=1.26", "torch>=99", "nosuchthing>=1", 'huggingface_hub>=0.25; extra == "hub"',
        'otherthing>=2; extra == "hf"',
    ]  # fmt: skip
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    found = {f.what: f for f in machine_checks._packages()}
    assert found["numpy"].state == "ok"
    assert found["torch"].state == "FAIL"
    assert "is not >=99" in found["torch"].detail
    assert found["nosuchthing"] == Finding(
        "FAIL", "nosuchthing", "nosuchthing is not installed", "pip install --upgrade nosuchthing"
    )
    assert found["extra hub"].state == "ok"
    assert found["extra hf"].state == "warn", "an extra is needed only by those who use it"
    assert found["extra hf"].fix == "pip install 'scircuit[hf]'"


def test_memory_and_disk_agree_with_the_system(monkeypatch, tmp_path) -> None:
    import psutil

    total, free = machine_checks.main_memory()
    assert total <= psutil.virtual_memory().total
    assert free is None or free <= total
    monkeypatch.setattr(machine_checks, "main_memory", lambda: (8 * 2**30, 2**30))
    assert machine_checks.memory().state == "warn"
    usage = shutil.disk_usage(tmp_path)
    told = float(machine_checks.disk(tmp_path / "not" / "yet").detail.split()[0])
    assert told == pytest.approx(usage.free / 2**30, abs=0.5)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type(usage)(100, 90, 10))
    assert machine_checks.disk(tmp_path).state == "warn"


def test_caches_say_what_they_hold(monkeypatch, tmp_path) -> None:
    from scircuit.knowledge.registry import add

    (tmp_path / "mine.gmt").write_text("a set\tx\tTP53\tMYC\n")
    add("mine", tmp_path / "mine.gmt")
    assert machine_checks._knowledge().detail.endswith(": mine")
    assert "none of the published ones" in machine_checks._checkpoints().detail
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "no hub cache without huggingface_hub" in machine_checks._checkpoints().detail
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCIRCUIT_CACHE", str(tmp_path / "file"))
    assert machine_checks._knowledge().state == "warn"


def test_a_check_that_breaks_is_a_finding() -> None:
    def breaks() -> Finding:
        raise OSError("libtorch.so: cannot open\nmore")

    assert tried("torch", breaks)[0].detail == "OSError: libtorch.so: cannot open"


# --- a config ---


@pytest.mark.parametrize(
    ("old", "new", "what", "says"),
    [
        ('path = "cells.h5ad"', 'path = "no.h5ad"', "cells", "no.h5ad"),
        ('path = "cells.h5ad"', 'path = "sets.gmt"', "cells", "not a readable .h5ad"),
        ('path = "cells.h5ad"', 'path = "cells.h5ad"\ncounts = "raw"', "cells", "counts='raw' is not in the data"),
        ('path = "cells.h5ad"', 'path = "cells.h5ad"\nwhere = {line = "K562"}', "cells.where", "no column 'line'"),
        ('path = "cells.h5ad"', 'path = "cells.h5ad"\nwhere = {kind = "z"}', "cells.where", "no cell has"),
        ('obs = ["kind"]', 'obs = ["donor"]', "cells.where", "no column 'donor'"),
        ("min_match = 0.1", 'gene_column = "names"', "cells", "no column 'names'"),
        ('gene_sets = ["sets.gmt"]', 'gene_sets = ["other.gmt"]', "features.gene_sets", "other.gmt"),
        ('gene_sets = ["sets.gmt"]', 'gene_sets = ["no_such_source"]', "features.gene_sets", "no_such_source"),
        ('device = "cpu"', 'device = "cuda:7"', "model.device", "cannot be used by torch on this machine"),
        ('device = "cpu"', 'device = "gpu"', "model.device", "cannot be used by torch on this machine"),
        ('device = "cpu"', 'device = "cpu"\ndictionaries = "nowhere"', "model.dictionaries", "is no folder"),
        ('device = "cpu"', 'device = "cpu"\nprotocol = "mine"', "model", "official"),
        ("[sae]", '[sae]\npath = "nowhere"', "sae", "nowhere"),
        ("k = 6", "k = 'many'", "config", "wrong type"),
        ("seed = 3", "seed = ", "config", "not valid TOML"),
        ('rule = "random"', 'rule = "random"\nlayers = [9]', "run", "sources.layers names 9"),
        ('out = "out"', 'out = "cells.h5ad/out"', "out", "is a file"),
    ],
)
def test_each_wrong_value_is_one_finding(project, geneformer_folder, old, new, what: str, says: str) -> None:
    folder = project(geneformer_folder, edit=lambda text: text.replace(old, new, 1))
    before = sorted(p.name for p in folder.iterdir())
    wrong = failures(check_config(folder / "run.toml"))
    assert list(wrong) == [what]
    assert says in wrong[what]
    assert sorted(p.name for p in folder.iterdir()) == before, "the doctor writes nothing"


def test_a_model_that_is_not_there_damaged_or_not_at_hand(project, geneformer_folder, tmp_path, monkeypatch) -> None:
    import huggingface_hub.constants

    def never(*_, **__):
        raise AssertionError("the doctor downloads nothing")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", never)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    damaged = shutil.copytree(geneformer_folder, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes((damaged / "model.safetensors").read_bytes()[:5000])
    for source, says in (
        ("no/such/folder", "is no folder"),
        (str(damaged), "truncated"),
        ("geneformer-v2-316m", "scircuit models fetch geneformer-v2-316m"),
        ("scgpt-whole-human", "drive.google.com"),
    ):
        folder = project(geneformer_folder, edit=lambda t, s=source: t.replace(str(geneformer_folder), s))
        wrong = failures(check_config(folder / "run.toml"))
        assert list(wrong) == ["model"], "the cells and sets are still checked, and well"
        assert says in wrong["model"]


def test_dictionaries_of_another_model_and_another_run_in_the_folder(project, finished, geneformer_folder) -> None:
    saes = finished["scgpt"] / "out" / "saes"
    folder = project(geneformer_folder, edit=lambda text: text.replace("[sae]", f'[sae]\npath = "{saes}"'))
    assert "were trained on another model" in failures(check_config(folder / "run.toml"))["sae"]
    other = finished["scgpt"] / "doctor.toml"
    other.write_text((finished["scgpt"] / "run.toml").read_text().replace("seed = 3", "seed = 5"))
    assert "holds a different run" in failures(check_config(other))["run"]
    assert not failures(check_config(finished["scgpt"] / "run.toml")), "a finished run is well"


STUDY = """
name = "several"
out = "study"
[defaults.features]
gene_sets = ["sets.gmt"]
[dictionaries.one.model]
source = "{geneformer}"
[dictionaries.one.cells]
path = "cells.h5ad"
[[dictionaries.two.sae.mix]]
name = "more"
path = "gone.h5ad"
[[conditions]]
name = "A"
dictionaries = "one"
[conditions.cells]
path = "cells.h5ad"
where = {{ kind = "z" }}
[[conditions]]
name = "G"
dictionaries = "two"
[conditions.model]
source = "{scgpt}"
[conditions.cells]
path = "cells.h5ad"
[disease]
sources = ["clingen", "intogen", "sets.gmt"]
[perturbation]
screen = "screen.h5ad"
"""


def test_a_file_of_several_runs_is_walked_at_every_depth(project, geneformer_folder, scgpt_folder) -> None:
    folder = project(geneformer_folder)
    (folder / "study.toml").write_text(STUDY.format(geneformer=geneformer_folder, scgpt=scgpt_folder))
    findings = check_config(folder / "study.toml")
    wrong = failures(findings)
    assert set(wrong) == {
        "dictionaries.two.sae.mix[0]", "conditions[0].cells.where", "disease.sources", "perturbation",
    }  # fmt: skip
    assert "scircuit knowledge fetch" in wrong["disease.sources"]
    fine = {f.what: f.detail for f in findings if f.state == "ok"}
    assert "for geneformer" in fine["dictionaries.one.cells.genes"]
    assert "for scgpt" in fine["conditions[1].cells.genes"]
    assert "conditions[0].cells.genes" not in fine, "two models: none is guessed to be the condition's"
    assert fine["out"] == f"{folder / 'study'} will be made"
    assert not (folder / "study").exists()


def test_a_model_that_is_named_twice_is_opened_once(project, geneformer_folder, scgpt_folder, monkeypatch) -> None:
    from scircuit.models import load

    opened, load_model = [], load.load_model
    monkeypatch.setattr(load, "load_model", lambda source, **k: opened.append(source) or load_model(source, **k))
    folder = project(geneformer_folder)
    tables = [f'[[conditions]]\n[conditions.model]\nsource = "{m}"\n[conditions.cells]\npath = "cells.h5ad"'
              for m in (geneformer_folder, scgpt_folder, geneformer_folder)]  # fmt: skip
    (folder / "several.toml").write_text("\n".join(tables))
    findings = check_config(folder / "several.toml")
    assert not failures(findings)
    assert opened == [str(geneformer_folder), str(scgpt_folder)]
    matched = {f.what: f.detail.rpartition(" ")[2] for f in findings if f.what.endswith(".genes")}
    assert list(matched) == ["conditions[0].cells.genes", "conditions[1].cells.genes"]


def test_tables_are_found_at_any_depth_and_in_lists() -> None:
    content = {"a": {"model": {"source": "x"}}, "b": [{"cells": {"path": "y"}}, {"z": 1}], "c": 3}
    assert [t.where for t in tables(content)] == ["", "a", "a.model", "b[0]", "b[0].cells", "b[1]"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot be written" in machine_checks.unwritable(tmp_path / "out")


def test_a_model_too_large_for_memory_is_told(project, geneformer_folder, monkeypatch) -> None:
    from scircuit.health import configured

    monkeypatch.setattr(configured, "main_memory", lambda: (100, 100))
    wrong = failures(check_config(project(geneformer_folder) / "run.toml"))
    assert "bfloat16" in wrong["model.device"]


def test_a_missing_config_says_how_to_make_one(tmp_path: Path) -> None:
    assert "scircuit init" in failures(check_config(tmp_path / "none.toml"))["config"]
    assert np.isfinite(len(json.dumps([f._asdict() for f in doctor()]))), "findings are plain data"
