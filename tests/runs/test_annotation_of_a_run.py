"""What a config can ask of the atlas: networks, regulons, ranks, published rules, sources by name, any dictionaries."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from scircuit._io import read_json
from scircuit.circuits.circuit import Circuit
from scircuit.config import RunConfig
from scircuit.config_file import load_config
from scircuit.errors import ScircuitError
from scircuit.knowledge import registry
from scircuit.published.annotation import label_as_published
from scircuit.runs.stages import run
from scircuit.sae.checkpoint import load_saes
from scircuit.sae.jumprelu import JumpReLUSAE
from scircuit.sae.topk import TopKSAE


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a small STRING and a small TRRUST over the genes of the test cells."""
    monkeypatch.setenv("SCIRCUIT_CACHE", str(tmp_path / "cache"))
    links = [f"GENE{a}\tGENE{b}\t900" for a in range(60) for b in range(a + 1, 60) if (a * b) % 5 == 1]
    (tmp_path / "string.tsv").write_text("gene_a\tgene_b\tcombined_score\n" + "\n".join(links) + "\n")
    control = [f"GENE{a}\tGENE{(a + 3 * i) % 60}\t{'Activation' if i % 2 else 'Repression'}\t1"
               for a in (1, 2) for i in range(1, 13)]  # fmt: skip
    (tmp_path / "trrust.tsv").write_text("\n".join(control) + "\n")
    for name in ("string", "trrust"):
        registry.add(name, tmp_path / f"{name}.tsv")
    return tmp_path


@pytest.fixture
def configured(project, scgpt_folder: Path) -> Callable[..., RunConfig]:
    def make(*changes: tuple[str, str], **sections: str) -> RunConfig:
        def edit(text: str) -> str:
            for old, new in changes:
                assert old in text
                text = text.replace(old, new)
            for section, lines in sections.items():
                assert f"[{section}]" in text
                text = text.replace(f"[{section}]", f"[{section}]\n{lines}")
            return text

        return load_config(project(scgpt_folder, edit=edit) / "run.toml")

    return make


def test_networks_and_regulons(configured) -> None:
    config = configured(
        ('gene_sets = ["sets.gmt"]', 'gene_sets = ["sets.gmt", "trrust"]'),
        features='networks = ["string", "trrust"]\ncontrol_draws = 0',
    )
    out = run(config, until="features").stage("features")
    support = pd.read_parquet(out / "support.parquet")
    assert set(support["network"]) == {"STRING", "TRRUST"}
    assert support["p_value"].between(0, 1).all()
    assert (support.loc[support["n_links"] == 0, "p_value"] == 1).all()
    libraries = {entry["name"]: entry["n_sets"] for entry in read_json(out / "labels.json")["libraries"]}
    assert libraries["TRRUST regulons"] == 6  # activates, represses and regulates, of two factors


def test_ranks_over_the_whole_profile(configured) -> None:
    pytest.importorskip("decoupler", reason="decoupler is an extra")
    out = run(configured(features="ranked = true\ncontrol_draws = 0\nalpha = 0.9"), until="features").stage("features")
    ranked = pd.read_parquet(out / "ranked_terms.parquet")
    assert {"layer", "feature", "library", "term", "statistic", "p_value", "q_value"} <= set(ranked)


@pytest.fixture
def published(configured) -> Path:
    config = configured(
        ('gene_sets = ["sets.gmt"]', 'gene_sets = ["go_bp", "kegg"]'),
        ('rule = "random"', 'rule = "annotated"\nmin_frequency = 0.0\nmin_top_genes = 3'),
        ("seed = 3", 'seed = 3\nprofile = "paper"'),
        features='networks = ["string", "trrust"]\ncontrol_draws = 3\nlink_score = 2\nalpha = 0.5',
    )
    sets = Path(config.out).parent / "sets.gmt"
    for name in ("go_bp", "kegg"):
        registry.add(name, sets)
    return run(config, until="trace").root


def test_the_paper_profile_annotates_by_the_published_rules(published: Path) -> None:
    features = pd.read_parquet(published / "features" / "features.parquet")
    terms = pd.read_parquet(published / "features" / "terms.parquet")
    meta = read_json(published / "features" / "labels.json")
    assert meta["rule"] == "published"
    assert [n["name"] for n in meta["networks"]] == ["STRING", "TRRUST"]
    assert meta["label_libraries"] == {"source": ["GO_BP", "KEGG"], "target": ["GO_BP"]}
    assert {"GO_BP", "KEGG", "STRING_edges"} <= set(terms["library"])
    links = terms[terms["library"].str.endswith("_edges")]
    assert (links["q_value"] == 1).all()
    assert (links["n_links"] > 0).all()
    assert (features["n_terms"] > 0).sum() == meta["random_genes"]["n_annotated"] > 0

    # Labels and scores are those of the published functions on the same annotations.
    again = terms.assign(q_value=terms["q_value"].where(terms["n_links"] == 0))
    expected = label_as_published(features, again, link_score=2)
    assert features["score"].tolist() == pytest.approx(expected["score"].tolist())
    known = {"unknown": "unlabelled", "unannotated": "unlabelled"}
    assert features["label"].tolist() == expected["source_label"].replace(known).tolist()
    assert features["target_label"].tolist() == expected["target_label"].replace(known).tolist()

    # Sources are the best by that score; in the circuit each end is named by the rule of its end.
    circuit = Circuit.read(published / "circuit")
    nodes = circuit.nodes.merge(features[["layer", "feature", "target_label", "score"]], on=["layer", "feature"])
    for layer, part in nodes[nodes["is_source"]].groupby("layer"):
        pool = features[(features["layer"] == layer) & (features["n_terms"] > 0)]
        pool = pool[pool["top_genes"].map(len) >= 3]
        assert sorted(part["score"]) == pytest.approx(sorted(pool["score"].nlargest(len(part))))
    others = nodes[~nodes["is_source"]]
    assert (others["label"] == others["target_label"]).all()
    assert circuit.provenance["sources"]["rule"] == "annotated"


def test_sources_by_name(configured, finished: dict[str, Path]) -> None:
    features = pd.read_parquet(finished["scgpt"] / "out" / "features" / "features.parquet")
    live = features[(features["n_firings"] > 0) & (features["layer"] < 2)].groupby("layer").head(2)
    pairs = live[["layer", "feature"]].to_numpy().tolist()
    config = configured(('rule = "random"', f'rule = "list"\nlatents = {pairs}'), features="control_draws = 0")
    out = run(config, until="trace").root
    assert read_json(out / "trace" / "trace.json")["sources"] == {"rule": "list", "latents": pairs}
    nodes = Circuit.read(out / "circuit").nodes
    assert nodes.loc[nodes["is_source"], ["layer", "feature"]].to_numpy().tolist() == pairs


@pytest.mark.parametrize(
    ("section", "lines", "message"),
    [
        ("features", 'annotation = "loose"', "'loose' is unknown; it may be corrected or published"),
        ("features", 'modules = "kmeans"', "'kmeans' is unknown; it may be louvain or leiden"),
        ("features", 'networks = ["programs"]', "programs holds no network"),
        ("features", 'networks = ["strng"]', "did you mean string"),
        ("sources", "latents = [[0, 1]]", "sources.latents goes with sources.rule = 'list'"),
        ("sae", "matryoshka = [0.5, 0.25]", "rising shares"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(configured, section, lines, message) -> None:
    read: list[RunConfig] = []  # none where the file itself is refused

    def go() -> None:
        read.append(configured(**{section: lines}))
        run(read[0])

    with pytest.raises(ScircuitError, match=message):
        go()
    assert not any(Path(config.out).exists() for config in read)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ('rule = "list"', "give both or neither"),
        ('rule = "list"\nlatents = [[0, 1, 2]]', r"holds \[0, 1, 2\]"),
        ('rule = "list"\nlatents = [[9, 1]]', "sources.latents names 9"),
        ('rule = "best"', "'best' is unknown; it may be annotated, all, random, random_annotated, attribution, list"),
    ],
)
def test_wrong_sources_are_refused(configured, rule: str, message: str) -> None:
    with pytest.raises(ScircuitError, match=message):
        run(configured(('rule = "random"', rule)))


def test_leiden_without_its_packages_is_refused_at_once(configured, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "leidenalg", None)
    config = configured(features='modules = "leiden"')
    with pytest.raises(ScircuitError, match=r"pip install 'scircuit\[leiden\]'"):
        run(config)
    assert not Path(config.out).exists()


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ('architecture = "batchtopk"\nmatryoshka = [0.25]', JumpReLUSAE),
        ('architecture = "jumprelu"\nwarmup_share = 0.3', JumpReLUSAE),
        ("matryoshka = [0.25, 0.5]\nbf16 = true\naux_coefficient = 0.0", TopKSAE),
    ],
)
def test_every_variant_is_trained_saved_and_read(configured, lines: str, kind: type) -> None:
    out = run(configured(sae=lines), until="train-sae").root
    saes = load_saes(out / "saes")
    assert all(type(sae) is kind and torch.isfinite(sae.W_dec).all() for sae in saes.values())
    recorded = read_json(out / "saes" / "manifest.json")["metadata"]["training"]
    for line in lines.splitlines():
        name, _, value = line.partition(" = ")
        assert str(recorded[name]).lower() == value.strip('"')


def write_as_the_study_did(folder: Path, sae: TopKSAE, layer: int) -> None:
    place = folder / f"layer{layer:02d}_x2_k6"
    place.mkdir(parents=True)
    state = {"W_enc.weight": sae.W_enc.T, "W_enc.bias": sae.b_enc, "W_dec.weight": sae.W_dec.T, "W_dec.bias": sae.b_dec}
    tensors = {name: tensor.detach().clone() for name, tensor in state.items()}
    torch.save({"model_state_dict": tensors, "k": sae.config.k}, place / "sae_final.pt")
    np.save(place / "activation_mean.npy", sae.mean.numpy())


def test_dictionaries_of_another_format_are_taken_for_a_run(
    configured, finished: dict[str, Path], tmp_path: Path
) -> None:
    own = finished["scgpt"] / "out"
    saes = load_saes(own / "saes")
    for layer, sae in saes.items():
        write_as_the_study_did(tmp_path / "study", sae, layer)
    out = run(configured(sae=f'path = "{tmp_path / "study"}"'), until="features").root
    again = load_saes(out / "saes")
    for layer, sae in saes.items():
        assert torch.equal(sae.W_dec, again[layer].W_dec)
    left, right = (pd.read_parquet(p / "features" / "features.parquet") for p in (own, out))
    pd.testing.assert_frame_equal(left.drop(columns="top_genes"), right.drop(columns="top_genes"))
    assert read_json(out / "saes" / "manifest.json")["metadata"]["source"] == str(tmp_path / "study")


def test_dictionaries_that_cannot_belong_are_refused(configured, finished: dict[str, Path], tmp_path: Path) -> None:
    saes = load_saes(finished["scgpt"] / "out" / "saes")
    for layer, sae in saes.items():
        far = TopKSAE(sae.config, sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, sae.mean + 50)
        write_as_the_study_did(tmp_path / "far", far, layer)
        if layer == 0:
            write_as_the_study_did(tmp_path / "one", sae, layer)
    with pytest.raises(ScircuitError, match="explains nothing of this model's residuals"):
        run(configured(sae=f'path = "{tmp_path / "far"}"'), until="train-sae")
    with pytest.raises(ScircuitError, match=r"holds no SAE for layer 1; it has layers 0: set sae\.layers"):
        run(configured(sae=f'path = "{tmp_path / "one"}"\nlayers = [0, 1]'), until="train-sae")


def test_without_layers_the_dictionaries_that_are_there_are_taken(
    configured, finished: dict[str, Path], tmp_path: Path
) -> None:
    saes = load_saes(finished["scgpt"] / "out" / "saes")
    for layer in (0, 2):
        write_as_the_study_did(tmp_path / "some", saes[layer], layer)
    out = run(configured(sae=f'path = "{tmp_path / "some"}"')).root
    assert sorted(load_saes(out / "saes")) == [0, 2]
    tests = pd.read_parquet(out / "trace" / "tests.parquet")
    assert set(zip(tests["source_layer"], tests["target_layer"], strict=True)) == {(0, 2)}
