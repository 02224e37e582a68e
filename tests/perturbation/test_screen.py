import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scircuit.errors import ScircuitError
from scircuit.perturbation.opening import open_screen
from scircuit.perturbation.screen import TARGET_SUM

from .simulate import planted_effects, screen_from


@pytest.fixture(scope="module")
def data() -> ad.AnnData:
    rng = np.random.default_rng(0)
    return screen_from(planted_effects(rng), rng)


def dense_linear(data: ad.AnnData) -> np.ndarray:
    counts = data.X.toarray().astype(np.float64)
    return counts / counts.sum(axis=1, keepdims=True) * TARGET_SUM


def all_values(screen, **options) -> np.ndarray:
    out = np.empty((len(screen), len(screen.genes)))
    for cells, values in screen.chunks(**options):
        out[cells] = values.toarray() if sparse.issparse(values) else values
    return out


def test_cells_targets_and_strata_are_read(data):
    screen = open_screen(data)
    assert screen.scale == "counts"
    assert screen.strata == ["b0", "b1"]
    assert screen.n_controls == (data.obs["perturbation"] == "control").sum()
    table = screen.targets().set_index("label")
    expected = data.obs["perturbation"].value_counts().drop("control")
    pd.testing.assert_series_equal(table["n_cells"], expected.sort_index(), check_names=False, check_index_type=False)
    assert table["measured"].all()
    assert (table["n_strata"] == 2).all()


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_chunks_of_any_size_give_the_same_normalised_cells(data, size):
    screen = open_screen(data)
    np.testing.assert_allclose(all_values(screen, size=size), dense_linear(data), rtol=1e-5)


@pytest.mark.parametrize("storage", ["csr", "dense", "layer"])
def test_a_file_is_streamed_like_memory(data, storage, tmp_path):
    stored = data.copy()
    if storage == "dense":
        stored.X = stored.X.toarray()
    if storage == "layer":
        stored.layers["counts"] = stored.X.copy()
        stored.X = stored.X.log1p()
    stored.write_h5ad(tmp_path / "screen.h5ad")
    layer = "counts" if storage == "layer" else None
    screen = open_screen(tmp_path / "screen.h5ad", layer=layer)
    np.testing.assert_allclose(all_values(screen, size=37), dense_linear(data), rtol=1e-5)
    blocks = list(screen.gene_blocks(memory=4 * len(screen) * 11))
    assert [genes.stop - genes.start for genes, _ in blocks] == [11] * 5 + [5]
    np.testing.assert_allclose(np.concatenate([block for _, block in blocks]).T, dense_linear(data), rtol=1e-5)


def test_a_backed_anndata_works(data, tmp_path):
    data.copy().write_h5ad(tmp_path / "screen.h5ad")  # writing makes categories of the fixture's strings
    backed = ad.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    np.testing.assert_allclose(all_values(open_screen(backed)), dense_linear(data), rtol=1e-5)
    backed.file.close()


def test_only_requested_rows_of_a_file_are_held(data, tmp_path, monkeypatch):
    """No read asks for more rows than a chunk, whatever the size of the file."""
    import h5py

    dense = data.copy()
    dense.X = dense.X.toarray()
    dense.write_h5ad(tmp_path / "screen.h5ad")
    screen = open_screen(tmp_path / "screen.h5ad")
    largest = 0
    read = h5py.Dataset.__getitem__

    def watched(self, item, **options):
        nonlocal largest
        result = read(self, item, **options)
        largest = max(largest, np.size(result))
        return result

    monkeypatch.setattr(h5py.Dataset, "__getitem__", watched)
    for _ in screen.chunks(size=50):
        pass
    assert 0 < largest <= 50 * data.n_vars


def test_log1p_values_come_back_linear(data):
    logged = data.copy()
    logged.X = sparse.csr_matrix(np.log1p(dense_linear(data)))
    screen = open_screen(logged)
    assert screen.scale == "log1p"
    np.testing.assert_allclose(all_values(screen), dense_linear(data), rtol=1e-4)


@pytest.mark.parametrize(
    ("column", "control"),
    [("gene", "non-targeting"), ("perturbation", "control"), ("gene_target", "NT"), ("condition", "ctrl")],
)
def test_public_conventions_are_detected(data, column, control):
    renamed = data.copy()
    labels = renamed.obs.pop("perturbation").astype(str).replace("control", control)
    renamed.obs[column] = labels
    assert open_screen(renamed).n_controls == (labels == control).sum()


def test_two_readings_are_refused_and_naming_one_helps(data):
    twice = data.copy()
    twice.obs["gene"] = twice.obs["perturbation"].astype(str).replace("G1", "G2")
    with pytest.raises(ScircuitError, match=r"perturbation, gene.*perturbation="):
        open_screen(twice)
    assert "G1" not in set(open_screen(twice, perturbation="gene").labels["label"])
    twice.obs["gene"] = twice.obs["perturbation"]
    assert len(open_screen(twice)) == data.n_obs


def test_controls_must_be_there_and_unique(data):
    without = data[data.obs["perturbation"] != "control"].copy()
    with pytest.raises(ScircuitError, match="no perturbation column with a control label"):
        open_screen(without)
    with pytest.raises(ScircuitError, match=r"no usual control label.*control="):
        open_screen(without, perturbation="perturbation")
    with pytest.raises(ScircuitError, match="no control label 'mock'"):
        open_screen(data, perturbation="perturbation", control="mock")
    two = data.copy()
    labels = two.obs["perturbation"].astype(str).to_numpy()
    labels[np.flatnonzero(labels == "control")[:50]] = "non-targeting"
    two.obs["perturbation"] = labels
    with pytest.raises(ScircuitError, match="several control labels"):
        open_screen(two)
    assert open_screen(two, control=["control", "non-targeting"]).n_controls == 400


def test_one_cell_per_target_is_refused(data):
    keep = ~data.obs["perturbation"].duplicated() | (data.obs["perturbation"] == "control")
    with pytest.raises(ScircuitError, match=r"no perturbation has 30 cells \(the largest has 1\)"):
        open_screen(data[keep].copy())


def test_scaled_data_are_refused(data):
    scaled = data.copy()
    x = np.log1p(dense_linear(data))
    scaled.X = (x - x.mean(axis=0)) / x.std(axis=0)
    with pytest.raises(ScircuitError, match="scaled or regressed"):
        open_screen(scaled)
    scaled.X = x
    with pytest.raises(ScircuitError, match="has fractions"):
        open_screen(scaled, scale="counts")


def test_negative_values_deep_in_the_file_are_refused_when_met(data):
    hidden = data.copy()
    x = hidden.X.toarray()
    x[400, 3] = -1.0
    hidden.X = x
    big = ad.concat([hidden] * 2, index_unique="-")
    screen = open_screen(big)
    with pytest.raises(ScircuitError, match="scaled or regressed"):
        list(screen.chunks())


def test_lines_are_chosen_not_mixed(data):
    mixed = data.copy()
    mixed.obs["cell_line"] = np.where(np.arange(mixed.n_obs) % 2, "k562", "rpe1")
    with pytest.raises(ScircuitError, match="mixes 2 lines"):
        open_screen(mixed)
    one = open_screen(mixed, lines="k562", min_cells=10)
    assert set(one.cells % 2) == {1}
    assert one.line == "k562"
    pooled = open_screen(mixed, lines="all")
    assert pooled.line == "all"
    assert pooled.strata == ["k562 / b0", "k562 / b1", "rpe1 / b0", "rpe1 / b1"]
    with pytest.raises(ScircuitError, match="no level 'hepg2'"):
        open_screen(mixed, lines="hepg2")
    assert open_screen(mixed, lines="all", batches=["b0"]).strata == ["k562 / b0", "rpe1 / b0"]


def test_combinations_are_left_out_and_control_partners_ignored(data):
    pairs = data.copy()
    labels = pairs.obs["perturbation"].astype(str).replace({"G0": "G0+ctrl", "G1": "G1+G2"})
    pairs.obs["perturbation"] = labels
    table = open_screen(pairs).labels.set_index("label")
    assert table.loc["G0+ctrl", "gene"] == "G0"
    assert "G1+G2" not in table.index


def test_labels_map_to_genes(data):
    guides = data.copy()
    guides.obs["perturbation"] = guides.obs["perturbation"].astype(str).replace("G0", "enhancer-7")
    screen = open_screen(guides, targets={"enhancer-7": "G0"})
    assert screen.labels.set_index("label").loc["enhancer-7", "gene"] == "G0"
    with pytest.raises(ScircuitError, match="'nowhere'"):
        open_screen(guides, targets={"nowhere": "G0"})


def test_ensembl_columns_need_symbols(data):
    ensembl = data.copy()
    symbols = list(ensembl.var_names)
    ensembl.var_names = [f"ENSG{i:011d}" for i in range(ensembl.n_vars)]
    with pytest.raises(ScircuitError, match="genes="):
        open_screen(ensembl)
    ensembl.var["feature_name"] = symbols
    assert list(open_screen(ensembl).genes) == symbols
    ensembl.var["mine"] = symbols[::-1]
    assert list(open_screen(ensembl, genes="mine").genes) == symbols[::-1]


def test_selection_renumbers_labels(data):
    screen = open_screen(data)
    few = screen.select(labels=["G3", "G5"])
    assert list(few.labels["label"]) == ["G3", "G5"]
    assert len(few) == 120 + 400
    for code, label in enumerate(few.labels["label"]):
        assert set(data.obs["perturbation"].iloc[few.cells[few.label == code]]) == {label}
    assert few.key() != screen.key()
    with pytest.raises(ScircuitError, match="'G99'"):
        screen.select(labels=["G99"])


def test_files_that_are_no_screens(tmp_path, data):
    with pytest.raises(ScircuitError, match="does not exist"):
        open_screen(tmp_path / "none.h5ad")
    (tmp_path / "text.h5ad").write_text("hello")
    with pytest.raises(ScircuitError, match="not an HDF5 file"):
        open_screen(tmp_path / "text.h5ad")
    by_columns = data.copy()
    by_columns.X = by_columns.X.tocsc()
    by_columns.write_h5ad(tmp_path / "csc.h5ad")
    for stored in (by_columns, tmp_path / "csc.h5ad"):
        np.testing.assert_allclose(all_values(open_screen(stored)), dense_linear(data), rtol=1e-5)
