"""Latents of the packaged models on real cells: what they are called, and in which cells they are active.

Dictionaries learn from blood and gut together, in equal parts; the gut is a tissue that the models never saw, and the
sorted cells are seen by neither model nor dictionary under their labels.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

from scircuit.features.annotation import CorrectedRule
from scircuit.features.catalogue import build_catalogue
from scircuit.features.control import RandomGeneControl
from scircuit.features.enrichment import enrich
from scircuit.features.labels import label_features
from scircuit.knowledge.gmt import packaged_programs
from scircuit.models.load import load_model
from scircuit.models.stream import gene_rows
from scircuit.sae.mixing import mix
from scircuit.sae.settings import SaeTraining
from scircuit.sae.training import train_saes

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "scrna"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.exists(), reason="real data sets are not beside the project"),
]

LAYERS = (1, 3, 5)
PROGRAMS = {
    "B cell": {"B", "B cells", "B and plasma cells"},
    "T cell": {"CD8 T", "Naive CD4 T", "Memory CD4 T", "CD4 T cells", "CD8 T cells", "T and NK cells"},
    "Natural killer cell": {"NK", "CD8 T", "CD8 T cells", "T and NK cells"},
    "Classical monocyte": {"CD14+ Mono", "FCGR3A+ Mono", "Myeloid cells"},
    "Platelet and megakaryocyte": {"Platelet"},
    "Fibroblast and extracellular matrix": {"Stromal cells"},
    "Endothelial cell": {"Endothelial cells"},
    "Epithelium and keratins": {"Epithelial cells"},
}
"""Program -> kinds of cells that run it, in the words of the three data sets."""
EXPECTED = {
    **PROGRAMS,
    "Naive CD4 T cell": PROGRAMS["T cell"],
    "Memory CD4 T cell": PROGRAMS["T cell"],
    "Cytotoxic CD8 T cell": PROGRAMS["Natural killer cell"],
    "Neutrophil": PROGRAMS["Classical monocyte"],
    "Non-classical monocyte": PROGRAMS["Classical monocyte"],
    "Macrophage": PROGRAMS["Classical monocyte"],
    "Enterocyte": PROGRAMS["Epithelium and keratins"],
    "Goblet cell": PROGRAMS["Epithelium and keratins"],
    "Smooth muscle": PROGRAMS["Fibroblast and extracellular matrix"],
}
"""Every label that names a kind of cell of these data sets."""
GUT = {
    "B and plasma cells": ("B cells", "Plasma"),
    "T and NK cells": ("T cells", "Tregs", "IELs", "ILCs", "NK"),
    "Myeloid cells": ("Macrophages", "Monocytes", "DC", "Mature DC", "Neutrophils"),
    "Epithelial cells": ("Entero", "Epithelial", "Goblet", "Stem", "Paneth", "Tuft", "L cells"),
    "Stromal cells": ("Activated fibro", "Fibro", "Inflammatory fibro", "Myofibro", "Pericytes"),
    "Endothelial cells": ("Endothelial", "Lymphatics"),
}
"""The 68 kinds of the gut by how their names begin; the others (glia, mast cells, cycling cells) are left out."""


def cells(file: str, column: str, per_kind: int):
    """At most `per_kind` cells of each kind, so that rare ones are not drowned, and their kinds."""
    from anndata import read_h5ad

    data = read_h5ad(SHARED / file)
    kinds = data.obs[column].astype(str)
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(np.flatnonzero(kinds == kind))[:per_kind] for kind in kinds.unique()]
    data = data[rng.permutation(np.concatenate(chosen))].copy()
    return data, pd.DataFrame({"kind": data.obs[column].astype(str).to_numpy()})


def gut_cells(per_kind: int):
    data, kinds = cells("scp1884_crohn_gut.h5ad", "Celltype", per_kind)
    coarse = [next((c for c, starts in GUT.items() if kind.startswith(starts)), None) for kind in kinds["kind"]]
    known = np.array([c is not None for c in coarse])
    return data[known].copy(), pd.DataFrame({"kind": np.array(coarse, dtype=object)[known]})


class Described(NamedTuple):
    """A labelled feature table, significant terms, (latent, kind of cell) with q <= 0.05, chance of an annotation."""

    features: pd.DataFrame
    terms: pd.DataFrame
    obs: pd.DataFrame
    control: RandomGeneControl

    def strongest(self, program: str) -> pd.DataFrame:
        """Per layer, the latent with most of a program's genes among its top genes, its kind of cell, and whether the
        program is one of its significant terms."""
        genes = set(packaged_programs().genes[program])
        features = self.features.assign(n_genes=[len(genes & set(top)) for top in self.features["top_genes"]])
        best = features.sort_values(["n_genes", "feature"], ascending=[False, True]).drop_duplicates("layer")
        known = set(
            self.terms.loc[self.terms["term"] == program, ["layer", "feature"]].itertuples(index=False, name=None)
        )
        best["significant"] = [key in known for key in zip(best["layer"], best["feature"], strict=True)]
        return best.merge(self.first_kind(), how="left", on=["layer", "feature"]).sort_values("layer")

    def first_kind(self) -> pd.DataFrame:
        """The most significant kind of cell of each latent that has one."""
        first = self.obs.sort_values(["q_value", "p_value"]).drop_duplicates(["layer", "feature"])
        return first[["layer", "feature", "category", "q_value"]]

    def table(self) -> pd.DataFrame:
        """Label x kind of cell: latents, and the smallest q among them."""
        named = self.features[self.features["label"].isin(list(EXPECTED))]
        both = named.merge(self.first_kind(), on=["layer", "feature"])
        return both.groupby(["label", "category"])["q_value"].agg(["size", "min"]).reset_index()


class Atlas(NamedTuple):
    blood: Described
    sorted: Described
    gut: Described


@pytest.fixture(scope="module", params=["geneformer-mini", "scgpt-mini"])
def atlas(request: pytest.FixtureRequest) -> Atlas:
    model = load_model(request.param, device="cpu")
    sets = {
        "blood": cells("pbmc3k_counts.h5ad", "cell_type", 40),
        "sorted": cells("zheng_facs_pbmc800_counts.h5ad", "FACS_type", 100),
        "gut": gut_cells(8),
    }
    chunks = {
        name: [rows for rows, _, _ in gene_rows(model, model.batches(sets[name][0], batch_size=16), LAYERS)]
        for name in ("blood", "gut")
    }
    n_rows = sum(len(chunk[LAYERS[0]]) for part in chunks.values() for chunk in part)

    def stream_of(name: str):
        return lambda _: iter(chunks[name])

    settings = SaeTraining(n_steps=600, batch_rows=1024, buffer_rows=n_rows // 2, k=16)
    stream = mix({name: stream_of(name) for name in chunks}, dict.fromkeys(chunks, 1.0))
    torch.manual_seed(0)
    saes = train_saes(stream, model.d_model, LAYERS, settings)
    found = Atlas(*(describe(model, saes, *sets[name]) for name in Atlas._fields))
    for name, described in found._asdict().items():
        print(f"\n{request.param}, {name}\n{described.table().to_string(index=False)}")  # noqa: T201
        print(described.control)  # noqa: T201
    return found


def describe(model, saes, data, kinds) -> Described:
    catalogue = build_catalogue(model, model.batches(data, batch_size=16), saes, obs=kinds)
    programs = packaged_programs()
    terms = enrich(catalogue.features, programs, catalogue.background).terms
    control = CorrectedRule([programs]).control(catalogue.features, catalogue.background, draws=10, seed=0)
    return Described(label_features(catalogue.features, terms), terms, catalogue.obs, control)


def strongest_of(described: Described, names: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    for program in names:
        best = described.strongest(program)
        yield program, best[best["n_genes"] >= 3]


def right_cells(described: Described, draws: int = 5000) -> tuple[float, float]:
    """Share of the named latents whose first kind of cell runs the program of their label; p against chance.

    Chance deals the kinds out anew among all latents, so it keeps how many latents prefer each kind of cell and how
    many carry each label. Latents without a kind of cell are not counted.
    """
    both = described.features.merge(described.first_kind(), on=["layer", "feature"])
    labels, kinds = both["label"].to_numpy(), both["category"].to_numpy()
    named = np.flatnonzero(np.isin(labels, list(EXPECTED)))

    def share(dealt: np.ndarray) -> float:
        return float(np.mean([dealt[i] in EXPECTED[labels[i]] for i in named]))

    rng = np.random.default_rng(0)
    observed = share(kinds)
    null = np.array([share(rng.permutation(kinds)) for _ in range(draws)])
    return observed, float(((null >= observed).sum() + 1) / (draws + 1))


BLOOD = ["B cell", "T cell", "Natural killer cell", "Classical monocyte", "Platelet and megakaryocyte"]


def test_programs_of_blood_carry_their_names_in_their_cells(atlas: Atlas) -> None:
    for program, best in strongest_of(atlas.blood, BLOOD):
        assert len(best) == len(LAYERS), (program, best)
        assert best["significant"].all(), (program, best)
        named = (best["label"] == program) | (best["runner_up"] == program)
        assert named.sum() >= 2, (program, best)
        right = best["category"].isin(PROGRAMS[program]) & (best["q_value"] < 1e-3)
        assert right.sum() >= 2, (program, best)
    share, p = right_cells(atlas.blood)
    assert share > 0.6
    assert p < 0.001


@pytest.mark.parametrize("program", BLOOD)
def test_a_latent_of_blood_is_called_by_its_program(atlas: Atlas, program: str) -> None:
    called = atlas.blood.features[atlas.blood.features["label"] == program]
    both = called.merge(atlas.blood.first_kind(), on=["layer", "feature"])
    assert (both["category"].isin(PROGRAMS[program])).any(), (called, both)


def test_labels_agree_with_sorting(atlas: Atlas) -> None:
    for program, best in strongest_of(atlas.sorted, ["B cell", "T cell", "Natural killer cell"]):
        assert len(best) >= 2, (program, best)
        wrong = best["category"].notna() & ~best["category"].isin(PROGRAMS[program])
        assert wrong.sum() <= 1, (program, best)
    b_cells = atlas.sorted.strongest("B cell")
    assert (b_cells["category"] == "B cells").all(), b_cells
    assert (b_cells["q_value"] < 1e-3).all(), b_cells
    called = atlas.sorted.features.merge(atlas.sorted.first_kind(), on=["layer", "feature"])
    assert set(called.loc[called["label"] == "B cell", "category"]) == {"B cells"}
    share, p = right_cells(atlas.sorted)
    assert share > 0.6
    assert p < 0.01


def test_a_tissue_that_the_models_never_saw(atlas: Atlas) -> None:
    names = ["B cell", "T cell", "Natural killer cell", "Classical monocyte"]
    for program, best in strongest_of(atlas.gut, names):
        assert len(best) >= 2, (program, best)
        right = best["category"].isin(PROGRAMS[program]) & (best["q_value"] < 0.05)
        assert right.sum() >= len(best) - 1, (program, best)
    share, p = right_cells(atlas.gut)
    assert share > 0.6
    assert p < 0.001


def test_random_genes_are_not_annotated(atlas: Atlas) -> None:
    for described in atlas:
        assert described.control.annotated > 0.05
        assert described.control.control < 0.01
        assert described.control.p_value == pytest.approx(1 / 11)
