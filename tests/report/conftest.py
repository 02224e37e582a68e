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
