"""Small models, dictionaries and cells that every room may use; all made here, nothing downloaded."""

import gc
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck
from hypothesis import settings as property_settings
from scipy import sparse

from builders import SCGPT_ARGS, SHARED, scgpt_weights
from scircuit._io import write_json
from scircuit.cells.vocabulary import Vocabulary, write_vocabulary

# `make test` draws the same examples every time; `make fuzz` draws new ones, and more.
ROOMY = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
property_settings.register_profile("default", derandomize=True, max_examples=25, database=None, **ROOMY)
property_settings.register_profile("fuzz", max_examples=500, print_blob=True, **ROOMY)
property_settings.load_profile("default")

# A million objects live as long as the process (modules, fixtures): looking through them again and again for rubbish
# took a fourteenth of the time of all tests.
gc.set_threshold(100_000, 20, 100)


def pytest_collection_finish() -> None:
    """What is imported by now stays, and is not looked through by those who collect garbage at every call."""
    gc.freeze()


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """No test leaves another number of threads behind: last bits and the time of every later test depend on it."""
    before = torch.get_num_threads()
    yield
    now = torch.get_num_threads()
    torch.set_num_threads(before)
    assert now == before, f"PyTorch was left with {now} threads in place of {before}"


@pytest.fixture
def own_threads(same_threads: None) -> Iterator[None]:
    """For what sets the threads of the whole process, as kernels of numba do: they are given back after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets; skips where they are not beside the project."""
    if not SHARED.exists():
        pytest.skip("real data sets are not beside the project")
    return SHARED


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    """60 genes with medians and the four special tokens of Geneformer V2."""
    rng = np.random.default_rng(7)
    ids = [f"ENSG{i:011d}" for i in range(1, 61)]
    genes = pd.DataFrame({"ensembl_id": ids, "symbol": [f"GENE{i}" for i in range(60)], "token": np.arange(4, 64)})
    return Vocabulary(genes, {"<pad>": 0, "<mask>": 1, "<cls>": 2, "<eos>": 3}, rng.uniform(0.5, 3.0, 60).round(6))


@pytest.fixture(scope="session")
def cells(vocabulary: Vocabulary) -> ad.AnnData:
    """40 cells of raw counts with 10 to 40 of those genes each, and some genes no model knows."""
    rng = np.random.default_rng(3)
    x = np.zeros((40, 70))
    for row in x:
        expressed = rng.choice(70, int(rng.integers(10, 40)), replace=False)
        row[expressed] = rng.poisson(4, len(expressed)) + 1
    names = [*vocabulary.genes["ensembl_id"], *(f"ENSG9{i:010d}" for i in range(10))]
    obs = pd.DataFrame({"kind": pd.Categorical(["a", "b"] * 20)}, index=[f"cell{i}" for i in range(40)])
    return ad.AnnData(sparse.csr_matrix(x), obs=obs, var=pd.DataFrame(index=names))


@pytest.fixture(scope="session")
def geneformer_folder(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Path:
    """A random Geneformer written by Hugging Face in the published layout, with our vocabulary."""
    import transformers

    folder = tmp_path_factory.mktemp("geneformer")
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64,
        hidden_act="relu", layer_norm_eps=1e-12, max_position_embeddings=48, pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    write_vocabulary(folder / "vocabulary.json", vocabulary)
    return folder


@pytest.fixture(scope="session")
def scgpt_folder(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Path:
    """A random scGPT in the published layout: best_model.pt, args.json, vocab.json."""
    folder = tmp_path_factory.mktemp("scgpt")
    names = [*vocabulary.genes["symbol"], "<pad>", "<cls>", "<eoc>"]
    write_json(folder / "vocab.json", {name: i for i, name in enumerate(names)})
    vocabulary.genes[["ensembl_id", "symbol"]].to_csv(folder / "genes.tsv", sep="\t", index=False)
    write_json(folder / "args.json", SCGPT_ARGS)
    torch.save(scgpt_weights(SCGPT_ARGS, len(names)), folder / "best_model.pt")
    return folder
