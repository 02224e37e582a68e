import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scircuit.errors import ScircuitError
from scircuit.perturbation import differential
from scircuit.perturbation.differential import Effects, differential_expression
from scircuit.perturbation.opening import open_screen
from scircuit.perturbation.rank import wilcoxon
from scircuit.perturbation.statistics import PSEUDOCOUNT, effective, fold_change, group_sums, on_target

from .simulate import planted_effects, screen_from


@pytest.fixture(scope="module")
def planted():
    rng = np.random.default_rng(1)
    effects = planted_effects(rng)
    return effects, open_screen(screen_from(effects, rng))


def linear(screen) -> np.ndarray:
    return np.concatenate([block for _, block in screen.gene_blocks()]).T.astype(np.float64)


def test_wilcoxon_equals_scipy_in_one_stratum():
    rng = np.random.default_rng(2)
    screen = open_screen(screen_from(planted_effects(rng), rng, depth=100), batch=None)
    values = linear(screen)
    result = wilcoxon(screen)
    for label in range(3):
        treated, control = values[screen.label == label], values[screen.label < 0]
        oracle = stats.mannwhitneyu(treated, control, method="asymptotic", use_continuity=False)
        np.testing.assert_allclose(result.p_value[label], np.nan_to_num(oracle.pvalue, nan=1.0), rtol=1e-9)
        np.testing.assert_allclose(result.auc[label], oracle.statistic / (len(treated) * len(control)))


def van_elteren(treated, control, strata_t, strata_c):
    """Per-stratum ranks by scipy, combined with weights 1 / (N + 1)."""
    shift = variance = 0.0
    for stratum in set(strata_t) & set(strata_c):
        x, y = treated[strata_t == stratum], control[strata_c == stratum]
        n, m = len(x), len(y)
        if m < 2:
            continue
        ranks = stats.rankdata(np.r_[x, y])
        u = ranks[:n].sum() - n * (n + 1) / 2
        shift += (u - n * m / 2) / (n + m + 1)
        variance += n * m / ((n + m) * (n + m - 1)) * ((ranks - ranks.mean()) ** 2).sum() / (n + m + 1) ** 2
    return shift / np.sqrt(variance) if variance > 0 else 0.0


@given(seed=st.integers(0, 10_000), n_batches=st.integers(1, 5), depth=st.sampled_from([20.0, 200.0]))
def test_stratified_wilcoxon_equals_ranks_by_stratum(seed, n_batches, depth):
    rng = np.random.default_rng(seed)
    effects = planted_effects(rng, n_targets=3, n_genes=8)
    screen = open_screen(
        screen_from(effects, rng, n_cells=12, n_controls=30, n_batches=n_batches, depth=depth), min_cells=2
    )
    values = linear(screen)
    result = wilcoxon(screen, memory=4 * len(screen) * 3)
    control = screen.label < 0
    for label in range(3):
        member = screen.label == label
        for gene in range(8):
            z = van_elteren(
                values[member, gene], values[control, gene], screen.stratum[member], screen.stratum[control]
            )
            assert result.z[label, gene] == pytest.approx(z, abs=1e-9)


def test_matching_removes_a_batch_effect_that_pooling_calls_an_effect():
    """All treated cells sit in the batch in which gene 5 is high; nothing is perturbed."""
    rng = np.random.default_rng(3)
    data = screen_from(np.zeros((1, 20)), rng, n_cells=80, n_controls=300)
    counts = data.X.toarray()
    treated = (data.obs["perturbation"] == "G0").to_numpy()
    data.obs.loc[treated, "batch"] = "b0"
    high = (data.obs["batch"] == "b0").to_numpy()
    counts[high, 5] = rng.poisson(225, high.sum())
    counts[~high, 5] = rng.poisson(75, (~high).sum())
    # Equal depth elsewhere: both batches follow the same rates but for gene 5.
    others = np.arange(20) != 5
    counts[:, others] = rng.poisson(75, (len(counts), 19))
    data.X = counts
    matched, pooled = (differential_expression(open_screen(data, batch=batch)) for batch in ("detect", None))
    assert abs(matched.log2_fold_change[0, 5]) < 0.1
    assert matched.p_value[0, 5] > 0.01
    assert pooled.log2_fold_change[0, 5] > 0.4
    assert pooled.p_value[0, 5] < 1e-6


def test_fold_change_equals_the_loop(planted):
    _, screen = planted
    values = linear(screen)
    change = fold_change(group_sums(screen))
    for label in (0, 4):
        member = screen.label == label
        mean, error = values[member].mean(axis=0), values[member].var(axis=0, ddof=1) / member.sum()
        control, control_error = 0.0, 0.0
        for stratum in range(2):
            inside = (screen.label < 0) & (screen.stratum == stratum)
            share = (screen.stratum[member] == stratum).mean()
            control = control + share * values[inside].mean(axis=0)
            control_error = control_error + share**2 * values[inside].var(axis=0, ddof=1) / inside.sum()
        np.testing.assert_allclose(
            change.log2_fold_change[label], np.log2((mean + PSEUDOCOUNT) / (control + PSEUDOCOUNT)), rtol=1e-6
        )
        expected = np.sqrt(error / (mean + PSEUDOCOUNT) ** 2 + control_error / (control + PSEUDOCOUNT) ** 2)
        np.testing.assert_allclose(change.standard_error[label], expected / np.log(2), rtol=1e-5)


def test_the_standard_error_covers():
    """95 % intervals of the log fold change hold the planted value about 95 % of the time."""
    rng = np.random.default_rng(4)
    effects = np.zeros((20, 60))
    screen = open_screen(screen_from(effects, rng, n_batches=1))
    change = fold_change(group_sums(screen))
    covered = np.abs(change.log2_fold_change) < 1.96 * change.standard_error
    assert 0.93 < covered.mean() < 0.97


def test_planted_effects_are_found_at_the_nominal_rate(planted):
    effects, screen = planted
    result = differential_expression(screen)
    assert list(result.perturbations["label"]) == list(screen.labels["label"])
    order = [int(name[1:]) for name in result.perturbations["gene"]]
    truth = effects[order]
    called = result.q_value < 0.05
    planted_here = (truth != 0) & np.isfinite(result.q_value)
    assert called[planted_here].mean() > 0.9
    assert (np.sign(result.log2_fold_change) == np.sign(truth))[called & planted_here].mean() > 0.99
    null = differential_expression(shuffled(screen))
    assert np.mean(null.q_value < 0.05) < 0.01
    assert stats.kstest(null.p_value.ravel(), "uniform").statistic < 0.06


def shuffled(screen):
    from dataclasses import replace

    rng = np.random.default_rng(0)
    label = screen.label.copy()
    for stratum in range(len(screen.strata)):
        inside = np.flatnonzero(screen.stratum == stratum)
        label[inside] = label[rng.permutation(inside)]
    return replace(screen, label=label)


def test_q_values_are_benjamini_hochberg_without_the_targeted_gene(planted):
    _, screen = planted
    result = differential_expression(screen)
    own = result.genes.get_indexer(result.perturbations["gene"])
    for row in (0, 7):
        others = np.arange(len(result.genes)) != own[row]
        assert np.isnan(result.q_value[row, own[row]])
        np.testing.assert_allclose(
            result.q_value[row, others], stats.false_discovery_control(result.p_value[row, others])
        )


def test_paper_fold_change_ignores_batches(planted):
    _, screen = planted
    result = differential_expression(screen, method="paper")
    x = np.concatenate([values.toarray() for _, values in screen.chunks(raw=True)]).astype(float)
    expected = np.log2(x[screen.label == 2].mean(axis=0) + 1) - np.log2(x[screen.label < 0].mean(axis=0) + 1)
    np.testing.assert_allclose(result.log2_fold_change[2], expected, rtol=1e-6)
    assert np.isnan(result.p_value).all()


def test_pseudobulk_finds_planted_effects_and_needs_counts_and_replicates():
    pytest.importorskip("pydeseq2")
    rng = np.random.default_rng(5)
    effects = planted_effects(rng, n_targets=2, n_genes=60, share=0.15)
    data = screen_from(effects, rng, n_cells=60, n_batches=3)
    result = differential_expression(open_screen(data), method="pseudobulk")
    order = [int(name[1:]) for name in result.perturbations["gene"]]
    planted = effects[order] != 0
    # DESeq2 takes the median gene as unchanged, so fold changes of all genes may share an offset.
    error = result.log2_fold_change[planted] - effects[order][planted]
    assert np.median(np.abs(error - np.median(error))) < 0.25
    called = result.q_value < 0.05
    assert called[planted & np.isfinite(result.q_value)].mean() > 0.9
    with pytest.raises(ScircuitError, match="replicates"):
        differential_expression(open_screen(data, batch=None), method="pseudobulk")
    data.X = data.X.log1p()
    with pytest.raises(ScircuitError, match="counts but the matrix holds log1p"):
        differential_expression(open_screen(data), method="pseudobulk")


def test_efficacy_keeps_targets_that_fall(planted):
    _, screen = planted
    rng = np.random.default_rng(6)
    effects = planted_effects(rng, n_targets=6)
    effects[[1, 4], [1, 4]] = 0.0
    weak = open_screen(screen_from(effects, rng))
    table = on_target(weak).set_index("gene")
    assert (table["log2_fold_change"].drop(["G1", "G4"]) < -1.5).all()
    assert list(effective(weak).labels["gene"]) == ["G0", "G2", "G3", "G5"]
    assert len(effective(screen).labels) == len(screen.labels)
    with pytest.raises(ScircuitError, match="relax"):
        effective(weak.select(labels=["G1", "G4"]))
    unmeasured = open_screen(screen_from(effects, rng), targets={f"G{i}": f"X{i}" for i in range(6)})
    with pytest.raises(ScircuitError, match="cannot be judged"):
        effective(unmeasured)


def test_a_stratum_without_controls_is_left_out():
    rng = np.random.default_rng(7)
    data = screen_from(planted_effects(rng, n_targets=2), rng, n_batches=3)
    lonely = (data.obs["batch"] == "b2") & (data.obs["perturbation"] == "control")
    screen = open_screen(data[~lonely].copy())
    result = differential_expression(screen)
    inside = (data.obs["batch"] != "b2").to_numpy()
    fewer = differential_expression(open_screen(data[inside].copy(), min_cells=10))
    np.testing.assert_allclose(result.log2_fold_change, fewer.log2_fold_change, rtol=1e-6)
    np.testing.assert_allclose(result.p_value, fewer.p_value, rtol=1e-9)


def test_results_are_cached_by_content(planted, tmp_path, monkeypatch):
    _, screen = planted
    first = differential_expression(screen, cache=tmp_path)
    assert len(list(tmp_path.glob("*.parquet"))) == 1

    def fail(*_: object) -> None:
        raise AssertionError("computed again")

    compute = differential._compute
    monkeypatch.setattr(differential, "_compute", fail)
    again = differential_expression(screen, cache=tmp_path)
    for name in ("log2_fold_change", "standard_error", "p_value", "q_value", "mean_control"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert list(again.genes) == list(first.genes)
    assert again.perturbations.equals(first.perturbations)
    for changed in (screen.select(labels=["G1"]), shuffled(screen)):
        with pytest.raises(AssertionError, match="computed again"):
            differential_expression(changed, cache=tmp_path)
    monkeypatch.setattr(differential, "_compute", compute)
    assert (
        differential_expression(screen, cache=tmp_path, pseudocount=1.0).log2_fold_change[0, 1]
        != (first.log2_fold_change[0, 1])
    )


def test_the_long_table_has_one_row_per_pair(planted):
    _, screen = planted
    result = differential_expression(screen.select(labels=["G1", "G2"]))
    table = result.table()
    assert len(table) == 2 * len(screen.genes)
    row = table[(table["target"] == "G2") & (table["gene"] == "G7")].iloc[0]
    assert row["p_value"] == result.p_value[1, 7]


def test_unknown_methods_and_files(planted, tmp_path):
    _, screen = planted
    with pytest.raises(ScircuitError, match="wilcoxon, pseudobulk, paper"):
        differential_expression(screen, method="t-test")
    with pytest.raises(ScircuitError, match="does not exist"):
        Effects.read(tmp_path / "none.parquet")
