"""Synthetic run folders that follow the artefact schemas of docs/architecture.md."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.schema import EDGES
from scircuit.runs.ask import ask_run

GENES = (
    "CD3D,CD3E,CD3G,IL7R,LEF1,TCF7,NKG7,GNLY,GZMB,PRF1,CD79A,MS4A1,CD74,HLA-DRA,LYZ,S100A8,S100A9,FCN1,CST3,"
    "PPBP,PF4,RPL3,RPS6,RPL10,EEF1A1,ACTB,MKI67,TOP2A,MT-CO1,MT-ND1,JUN,FOS,IFI6,ISG15,MX1"
)
LABELS = [
    "T cell receptor signalling",
    "Cytotoxic granules",
    "B cell receptor signalling",
    "Antigen presentation, MHC class II",
    "Ribosome",
    "Oxidative phosphorylation",
    "Type I interferon response",
    "Platelet degranulation",
    "Cell cycle, G2/M",
]


def _edges(rng: np.random.Generator, n: int, n_layers: int, n_features: int) -> pd.DataFrame:
    source_layer = rng.integers(0, n_layers - 1, n)
    target_layer = np.array([rng.integers(s + 1, n_layers) for s in source_layer], dtype=np.int64)
    n_cells = rng.integers(20, 200, n)
    n_nonzero = np.minimum(n_cells, rng.integers(12, 200, n))
    sign = np.where(rng.random(n) < 0.62, -1, 1)
    d = sign * (0.5 + rng.exponential(0.45, n))
    major = np.ceil(n_nonzero * rng.uniform(0.72, 1.0, n)).astype(int)
    sd = rng.uniform(0.05, 0.8, n)
    table = pd.DataFrame(
        {
            "source_layer": source_layer,
            "source_feature": rng.integers(0, 14, n),
            "target_layer": target_layer,
            "target_feature": (n_features * rng.random(n) ** 3).astype(int),
            "n_cells": n_cells,
            "n_nonzero": n_nonzero,
            "n_pos": np.where(sign > 0, major, n_nonzero - major),
            "n_neg": np.where(sign > 0, n_nonzero - major, major),
            "mean_delta": d * sd,
            "sd_delta": sd,
            "cohens_d": d,
            "consistency": major / n_nonzero,
            "p_value": 10.0 ** -rng.uniform(4, 12, n),
            "q_value": 10.0 ** -rng.uniform(1.4, 9, n),
            "clean_mean": rng.uniform(0.2, 3, n),
            "clean_sd": rng.uniform(0.2, 1, n),
            "weight_effect": d * rng.uniform(0, 0.3, n),
        }
    )
    keys = ["source_layer", "source_feature", "target_layer", "target_feature"]
    return table.drop_duplicates(keys).reset_index(drop=True)[[*EDGES]]


def _nodes(rng: np.random.Generator, edges: pd.DataFrame, n_layers: int, n_features: int) -> pd.DataFrame:
    nodes = pd.MultiIndex.from_product([range(n_layers), range(n_features)], names=["layer", "feature"]).to_frame(
        index=False
    )
    n = len(nodes)
    labels = rng.choice(np.array([*LABELS, ""], dtype=object), n)
    sources = pd.MultiIndex.from_frame(edges[["source_layer", "source_feature"]])
    return nodes.assign(
        label=np.where(labels == "", "unlabelled", labels),
        frequency=rng.beta(1, 30, n),
        mean_activation=rng.uniform(0.2, 4, n),
        top_genes=[list(rng.choice(GENES.split(","), 8, replace=False)) for _ in range(n)],
        n_terms=np.where(labels == "", 0, rng.integers(1, 6, n)),
        n_firings=rng.integers(50, 9000, n),
        is_source=pd.MultiIndex.from_frame(nodes).isin(sources),
    )


def _tests(edges: pd.DataFrame, n_layers: int, n_features: int, draws: int) -> pd.DataFrame:
    rows = []
    for layer, feature in edges[["source_layer", "source_feature"]].drop_duplicates().itertuples(index=False):
        for target in range(layer + 1, n_layers):
            for kind, draw in [("latent", 0), *(("random", i) for i in range(draws))]:
                n_tests = n_features - 7 * target % 40 - feature
                rows.append((layer, feature, target, kind, draw, 120, n_features, n_tests, 40))
    columns = "source_layer source_feature target_layer kind draw n_cells n_targets n_tests n_retained"
    return pd.DataFrame(rows, columns=columns.split())


def _terms(nodes: pd.DataFrame) -> pd.DataFrame:
    labelled = nodes[nodes["n_terms"] > 0]
    return pd.DataFrame(
        {
            "layer": labelled["layer"].to_numpy(),
            "feature": labelled["feature"].to_numpy(),
            "term": labelled["label"].to_numpy(),
            "n_overlap": 4,
            "set_size": 40,
            "query_size": 20,
            "fold": 12.5,
            "p_value": 1e-6,
            "q_value": 1e-4,
            "information_content": 5.0,
        }
    )


def _record(name: str, n_edges: int, tests: pd.DataFrame) -> dict[str, object]:
    latent = tests[tests["kind"] == "latent"]
    return {
        "format_version": 1,
        "name": name,
        "model": {"name": name, "fingerprint": "9f" * 32, "protocol": "official"},
        "saes": "3c" * 32,
        "cells": "b1" * 32,
        "n_cells": 200,
        "n_clean_forwards": 200,
        "n_ablated_forwards": 24123,
        "n_tests": int(latent["n_tests"].sum()),
        "n_edges": n_edges,
        "seed": 0,
        "precision": "float32",
        "device": "cpu",
        "sources": {"rule": "annotated", "n": 14},
        "thresholds": {"min_abs_d": 0.5, "min_consistency": 0.7, "max_q": 0.05, "min_nonzero": 10},
        "versions": {"scircuit": "0.1.0", "torch": "2.13.0", "numpy": "2.3.0"},
        "config": {
            "profile": "default",
            "cells": {"path": "pbmc.h5ad"},
            "k": 16,
            "expansion": 4,
            "sources_per_layer": 14,
        },
    }


def _manifest(name: str, n_layers: int, n_features: int) -> dict[str, object]:
    layers = {
        str(layer): {
            "path": f"layer_{layer:02d}",
            "architecture": "topk",
            "d_in": 128,
            "n_latents": n_features,
            "k": 16,
            "metrics": {
                "fvu": 0.1 + 0.03 * layer,
                "explained_variance": 0.9 - 0.03 * layer,
                "l0": 15.2,
                "frac_alive": 0.98 - 0.02 * layer,
                "loss_recovered": 0.97 - 0.015 * layer,
                "n_rows": 20_480,
            },
        }
        for layer in range(n_layers)
    }
    return {"format_version": 1, "model": {"name": name}, "metadata": {}, "layers": layers}


def write_run(folder: Path, name: str = "geneformer-mini", n: int = 400, n_layers: int = 5, seed: int = 0) -> Artefacts:
    """Write a whole run of `n` edges (before removing duplicates) under `folder`."""
    rng = np.random.default_rng(seed)
    n_features = 96
    edges = _edges(rng, max(n, 30), n_layers, n_features)
    tests = _tests(edges, n_layers, n_features, draws=2)
    nodes = _nodes(rng, edges, n_layers, n_features)
    controls = _edges(rng, max(n // 3, 1), n_layers, n_features)
    controls["draw"] = rng.integers(0, 2, len(controls))
    if n == 0:
        edges, controls = edges.iloc[:0], controls.iloc[:0]
    circuit = folder / "circuit"
    circuit.mkdir(parents=True)
    tables = {"edges": edges, "nodes": nodes, "tests": tests, "controls": controls, "terms": _terms(nodes)}
    for table, frame in tables.items():
        frame.to_parquet(circuit / f"{table}.parquet", index=False)
    (circuit / "run.json").write_text(json.dumps(_record(name, len(edges), tests)))
    (folder / "saes").mkdir()
    (folder / "saes" / "manifest.json").write_text(json.dumps(_manifest(name, n_layers, n_features)))
    (folder / "features").mkdir()
    features = nodes.drop(columns="is_source").assign(label_term_id=None, n_cells=80)
    features.to_parquet(folder / "features" / "features.parquet", index=False)
    run = Artefacts(folder, name)
    ask_run(run)
    return run


def enrich(run: Artefacts, seed: int = 1) -> Artefacts:
    """The same run with everything that a page can show of edges and latents: grades, other cells, cells, decoys."""
    rng = np.random.default_rng(seed)
    circuit = run.root / "circuit"
    edges = pd.read_parquet(circuit / "edges.parquet")
    n, ends = len(edges), edges[["source_layer", "source_feature", "target_layer", "target_feature"]]
    grades = pd.CategoricalDtype(["reproducible", "sizeable", "specific"], ordered=True)
    effect = edges["mean_delta"] / edges["clean_sd"]
    edges = edges.assign(
        hedges_g=edges["cohens_d"], ci_low=edges["mean_delta"] - 0.1, ci_high=edges["mean_delta"] + 0.1, skewness=0.3,
        push_norm=2.0, push_weight=0.5, engine="exact", effect_sd=effect, effect_sd_low=effect - 0.1,
        effect_sd_high=effect + 0.1, effect_sd_near=effect.abs() - 0.1, share_lost=0.1,
        specificity=rng.uniform(0, 5, n), q_specific=rng.uniform(0, 1, n),
        grade=pd.Categorical.from_codes(rng.integers(0, 3, n), dtype=grades),
    )  # fmt: skip
    edges.to_parquet(circuit / "edges.parquet", index=False)
    controls = pd.read_parquet(circuit / "controls.parquet")
    same = edges.iloc[: n // 4].assign(draw=np.arange(n // 4) % 2, mean_delta=edges["mean_delta"] / 2)
    same = same[[*controls.columns]].assign(grade=pd.Categorical.from_codes(np.zeros(n // 4, int), dtype=grades))
    controls = controls.assign(grade=pd.Categorical.from_codes(np.zeros(len(controls), int), dtype=grades))
    pd.concat([controls, same]).astype({"grade": grades}).to_parquet(circuit / "controls.parquet", index=False)
    record = json.loads((circuit / "run.json").read_text())
    limits = {"min_effect_sd": 0.1, "max_q_specific": 0.05}
    told = [{"grade": g, "n_edges": int((edges["grade"] >= g).sum()), "n_by_decoys": 3.0} for g in grades.categories]
    record |= {"grade": "specific", "grades": told, "thresholds": record["thresholds"] | limits}
    (circuit / "run.json").write_text(json.dumps(record))
    for folder in ("trace", "confirmation", "probes", "tokens"):
        (run.root / folder).mkdir()
    other = edges.iloc[::2].assign(discovery_d=edges["cohens_d"], discovery_delta=edges["mean_delta"], hedges_g=0.0)
    other.assign(q_value=np.where(np.arange(len(other)) % 3, 1e-4, 0.5)).drop(columns="grade").to_parquet(
        run.root / "confirmation" / "edges.parquet", index=False
    )
    cells = pd.concat([ends.assign(cell=cell, delta=rng.normal(edges["mean_delta"], 0.1)) for cell in range(15)])
    cells.to_parquet(run.root / "trace" / "cell_effects.parquet", index=False)
    scales = ends[["source_layer", "target_layer", "target_feature"]].drop_duplicates()
    scales = scales.assign(n_decoys=12, sum_uu=12 * 0.05**2, sum_uc=0.0, sum_cc=1.0)
    scales.to_parquet(run.root / "trace" / "scales.parquet", index=False)
    groups = pd.concat([edges.assign(kind="latent", group_name="donor", group=g) for g in ("A", "B")])
    groups.drop(columns="grade").to_parquet(run.root / "trace" / "groups.parquet", index=False)
    shares = ends.loc[edges["cohens_d"].abs().nlargest(50).index].assign(local_share=0.7, context_share=0.3)
    shares.to_parquet(run.root / "trace" / "path_shares.parquet", index=False)
    first = edges.loc[[edges["cohens_d"].abs().idxmax()]]
    probe = first.assign(
        source=first["source_feature"].astype(str), target=first["target_feature"], kind="scale", what="activation",
        where="active", value=[0.5],
    )  # fmt: skip
    probe.drop(columns=["grade", "source_feature", "target_feature"]).to_parquet(
        run.root / "probes" / "activation_active.parquet", index=False
    )
    _catalogue(run, rng)
    return Artefacts(run.root, run.name)


def _catalogue(run: Artefacts, rng: np.random.Generator) -> None:
    path = run.root / "features" / "features.parquet"
    table = pd.read_parquet(path)
    quantiles = np.sort(rng.uniform(0, 4, (len(table), 5)), axis=1)
    columns = dict(zip(("q25", "q50", "q75", "q95", "max_activation"), quantiles.T, strict=True))
    table.assign(**columns, runner_up="Ribosome").to_parquet(path, index=False)
    latents = table[["layer", "feature"]]
    top = pd.concat([latents.assign(rank=rank, cell=rank, activation=1.0 / (1 + rank)) for rank in range(9)])
    top.to_parquet(run.root / "features" / "cells.parquet", index=False)
    exploded = table[["layer", "feature", "top_genes"]].explode("top_genes").rename(columns={"top_genes": "gene"})
    exploded.assign(n_firings=20, mean_activation=rng.uniform(0.1, 3, len(exploded))).to_parquet(
        run.root / "features" / "genes.parquet", index=False
    )
    latents.assign(
        column="kind", category="T cell", n_overlap=5, category_size=20, query_size=10, fold=4.0, p_value=1e-4,
        q_value=1e-3,
    ).to_parquet(run.root / "features" / "obs.parquet", index=False)  # fmt: skip
    pd.DataFrame({"kind": ["T cell"] * 9, "index": [f"CELL{i}" for i in range(9)]}).to_parquet(
        run.root / "tokens" / "cells.parquet", index=False
    )


@pytest.fixture(scope="session")
def rich_run(tmp_path_factory: pytest.TempPathFactory) -> Artefacts:
    """A run with everything that a page can show."""
    return enrich(write_run(tmp_path_factory.mktemp("rich") / "run", "rich", n=500))


@pytest.fixture(scope="session")
def build_run() -> Callable[..., Artefacts]:
    """`build_run(folder, name, n=..., n_layers=..., seed=...)` writes a synthetic run."""
    return write_run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Artefacts]:
    """`make_run(name, n=..., seed=...)` writes a synthetic run and returns it."""

    def make(name: str = "geneformer-mini", **options: int) -> Artefacts:
        return write_run(tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}", name, **options)

    return make
