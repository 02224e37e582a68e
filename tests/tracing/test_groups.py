"""Effects per group of cells and p over units: against the per-cell responses, summed by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from planted import WIDTH, planted_cells, planted_model, random_saes
from scipy import stats

from scircuit.analysis.group_stability import group_stability
from scircuit.analysis.stability import stability
from scircuit.cells.tokens import tokenize
from scircuit.circuits.rule import EdgeRule
from scircuit.errors import ScircuitError
from scircuit.models.geneformer import load_geneformer
from scircuit.stats.resampling import clustered_mean
from scircuit.stats.skew import unskewed_p
from scircuit.tracing import tracer
from scircuit.tracing.controls import resample
from scircuit.tracing.engines.clean import clean_batch
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.groups import Grouping, group_table, over_units, unit_p, unit_unskewed_p
from scircuit.tracing.moments import Moments
from scircuit.tracing.parts import CellEffects
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.setup import Setup
from scircuit.tracing.tables import Weights, effect_table

ENDS = ["source_layer", "source_feature", "target_layer", "target_feature"]
N_CELLS = 36
GROUPS = {"kind": np.array(list("abc") * 12), "donor": np.arange(N_CELLS) // 6, "one": "same"}
SETTINGS = TraceSettings(groups=("kind", "donor"), cells_per_block=12, sources_per_block=100, tokens=2000, n_random=1)
SOURCES = {0: list(range(WIDTH)), 1: [2, 3]}


@pytest.fixture(scope="module")
def setup():
    model, saes = planted_model()
    return model, saes, planted_cells(model, N_CELLS, **GROUPS)


@pytest.fixture(scope="module")
def traced(setup, tmp_path_factory):
    return tracer.trace(*setup, SOURCES, tmp_path_factory.mktemp("groups") / "trace", settings=SETTINGS)


def table(folder, name):
    return pd.read_parquet(folder / f"{name}.parquet")


def per_cell(folder, cells):
    """{ends: response in every cell in which the source fires, in the order of those cells}, and those cells."""
    fires = table(folder, "source_cells").groupby(ENDS[:2])["cell"].apply(np.array)
    out = {}
    for ends, rows in table(folder, "cell_effects").groupby(ENDS):
        where = fires.loc[ends[:2]]
        values = np.zeros(N_CELLS)
        values[rows["cell"]] = rows["delta"]
        out[ends] = where, values[where]
    return out


def test_source_cells_are_those_in_which_the_source_fires(setup, traced):
    model, saes, store = setup
    found = table(traced, "source_cells")
    expected = set()
    for layer, features in SOURCES.items():
        for cell in range(N_CELLS):
            latents = clean_batch(model, saes[layer], store.batch(np.array([cell])), layer).latents[0]
            z = latents.dense(WIDTH)
            expected |= {(layer, f, cell) for f in features if bool((z[:, f] > 0).any())}
    assert set(found.itertuples(index=False, name=None)) == expected
    assert not found.duplicated().any()


@pytest.mark.parametrize("name", ["kind", "donor"])
def test_every_statistic_of_every_group(setup, traced, name):
    groups = table(traced, "groups")
    mine = groups[groups["group_name"] == name].set_index(["group", *ENDS])
    label = setup[2].cells[name].astype(str).to_numpy()
    assert set(mine.index.get_level_values(0)) == set(label)
    checked = 0
    for ends, (where, values) in per_cell(traced, setup[2]).items():
        for group in np.unique(label):
            x = values[label[where] == group]
            row = mine.loc[(group, *ends)]
            assert (row["n_cells"], row["n_nonzero"]) == (len(x), np.count_nonzero(x))
            assert (row["n_pos"], row["n_neg"]) == ((x > 0).sum(), (x < 0).sum())
            assert row["mean_delta"] == pytest.approx(x.mean(), rel=1e-5)
            assert row["sd_delta"] == pytest.approx(x.std(ddof=1), rel=1e-3, abs=1e-6)
            exact = stats.permutation_test((x,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
            assert row["p_value"] == pytest.approx(exact, rel=1e-6)
            checked += 1
    assert checked >= 3 * 8


def test_stability_over_groups_reads_the_table(traced):
    result = group_stability(table(traced, "groups"))
    measures = result.measures.set_index("measure")["estimate"]
    assert measures["kind_jaccard"] == pytest.approx(1.0), "every group shows every planted edge"
    assert measures["kind_sign"] == 1.0


def test_split_halves_of_the_cells_can_be_compared(traced):
    result = stability(table(traced, "cell_effects"), table(traced, "source_cells"), n_cells=(10,), n_draws=5)
    assert result.measures.set_index("measure")["estimate"]["split_half_sign"] == 1.0


def test_groups_change_nothing_of_the_whole(setup, traced, tmp_path):
    plain = replace(SETTINGS, groups=(), sources_per_block=5)
    other = tracer.trace(*setup, SOURCES, tmp_path / "t", settings=plain)
    for name in ("effects", "tests", "cell_effects", "source_cells"):
        a, b = table(traced, name), table(other, name)
        keys = [c for c in (*ENDS, "cell", "kind", "draw") if c in a]
        pd.testing.assert_frame_equal(
            a.sort_values(keys, ignore_index=True), b.sort_values(keys, ignore_index=True), rtol=1e-5
        )
    assert not (other / "groups.parquet").exists()


def test_an_interrupted_trace_resumes_to_the_same_groups(setup, traced, tmp_path, monkeypatch):
    original, done = tracer.run_unit, []

    def interrupted(*args, **options):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(1)
        return original(*args, **options)

    monkeypatch.setattr(tracer, "run_unit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tracer.trace(*setup, SOURCES, tmp_path / "t", settings=SETTINGS)
    monkeypatch.setattr(tracer, "run_unit", original)
    tracer.trace(*setup, SOURCES, tmp_path / "t", settings=SETTINGS)
    for name in ("groups", "source_cells", "effects"):
        pd.testing.assert_frame_equal(table(tmp_path / "t", name), table(traced, name), check_exact=True)


def test_other_groups_are_other_inputs(setup, traced):
    model, saes, store = setup
    changed = store.subset(np.arange(N_CELLS))
    changed.cells["kind"] = "a"
    with pytest.raises(ScircuitError, match="other inputs"):
        tracer.trace(model, saes, changed, SOURCES, traced, settings=SETTINGS)


def test_units_are_flipped_as_one(setup, traced, tmp_path):
    model, saes, store = setup
    settings = TraceSettings(units="donor", cells_per_block=10, tokens=400, retention=1.0, n_random=0)
    effects = table(tracer.trace(model, saes, store, SOURCES, tmp_path / "t", settings=settings), "effects")
    mine, bounds = effects.set_index(ENDS)["p_value"], effects.set_index(ENDS)
    responses = per_cell(tmp_path / "t", store)
    for ends, (where, values) in responses.items():
        of_donor = pd.Series(values).groupby(GROUPS["donor"][where]).mean()
        assert len(of_donor) == 6, "too few for a sign-flip"
        assert mine[ends] == pytest.approx(stats.ttest_1samp(of_donor, 0).pvalue, rel=1e-6)
        mean, sd, skew = of_donor.mean(), of_donor.std(), stats.skew(of_donor)
        assert bounds.loc[ends, "p_unskewed"] == pytest.approx(float(unskewed_p(6, mean, sd, skew)), rel=1e-4)
        expected = clustered_mean(values, GROUPS["donor"][where])
        assert bounds.loc[ends, "ci_low"] == pytest.approx(expected.low, rel=1e-4)
        assert bounds.loc[ends, "ci_high"] == pytest.approx(expected.high, rel=1e-4)
    cells = table(traced, "effects")
    assert (cells[cells["kind"] == "latent"]["p_value"] < 1e-6).all(), "cells as units promise far more"
    assert not (tmp_path / "t" / "groups.parquet").exists()


def test_hedges_g_and_the_interval_of_the_mean(setup, traced):
    effects = table(traced, "effects")
    mine = effects[effects["kind"] == "latent"].set_index(ENDS)
    for ends, (_, values) in per_cell(traced, setup[2]).items():
        row = mine.loc[ends]
        low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        assert (row["ci_low"], row["ci_high"]) == (pytest.approx(low, rel=1e-3), pytest.approx(high, rel=1e-3))
        assert row["hedges_g"] == pytest.approx(row["cohens_d"] * (1 - 3 / (4 * (len(values) - 1) - 1)), rel=1e-3)


def test_other_interventions_are_traced_beside_the_ablations(setup, traced, tmp_path):
    model, saes, store = setup
    extra = {0: [Intervention((0,), "scale", 2.0), Intervention((0,), "matched", draw=1, instead=(1,)),
                 Intervention((0, 1)), Intervention((0,), "activate", 3.0)]}  # fmt: skip
    settings = TraceSettings(cells_per_block=10, tokens=400, n_random=0)
    out = tracer.trace(model, saes, store, {0: [0, 1]}, tmp_path / "t", settings=settings, extra=extra)
    mean = table(out, "effects").set_index(["kind", "source_feature", "target_layer", "target_feature"])["mean_delta"]
    own = mean["latent"]
    assert mean["scale", 0, 1, 2] == pytest.approx(-own[0, 1, 2], rel=1e-4), "doubling adds what ablation takes"
    assert mean["matched", 0, 1, 3] == pytest.approx(own[1, 1, 3], rel=1e-6), "the ablation of latent 1"
    assert ("matched", 0, 1, 2) not in mean.index
    assert mean["group_zero", 0, 1, 2] < 0 < mean["group_zero", 0, 1, 3]
    assert mean["activate", 0, 1, 2] > 0
    ablations = table(traced, "effects")
    ablations = ablations[(ablations["kind"] == "latent") & (ablations["source_layer"] == 0)]
    again = ablations[ablations["source_feature"] < 2].set_index(ENDS[1:])["mean_delta"]
    pd.testing.assert_series_equal(own.sort_index(), again.sort_index(), rtol=1e-5, check_names=False)


def test_a_test_kept_in_one_group_is_shown_in_all_and_silent_ones_in_none():
    # Latent 0 rises in group a and falls in group b, so that no test over all cells would keep it; latent 1 is noise.
    rng = np.random.default_rng(0)
    n, code = 40, np.arange(40) % 2
    delta = np.stack([np.where(code, -1.0, 1.0) + rng.normal(0, 0.1, n), rng.normal(0, 1, n), np.zeros(n)], axis=1)
    overall, grouped = (Moments.zeros(rows, 3, torch.device("cpu")) for rows in (1, 2))
    ones = torch.ones(n, 3, dtype=torch.float64)
    overall.add(np.zeros(n, dtype=np.int64), torch.from_numpy(delta), ones)
    grouped.add(code, torch.from_numpy(delta), ones)
    todo, none = (Intervention((7,)),), CellEffects.concatenate([])
    rule = {"retention": 0.05, "seed": 0, "weights": Weights(np.zeros((1, 3)), np.zeros(1), np.zeros((1, 3)))}
    effects, _ = effect_table(0, 1, todo, overall, none, **rule)
    assert effects.empty
    found = group_table(0, 1, todo, Grouping("side", ("a", "b"), code), grouped, none, effects, **rule)
    assert found[["group", "target_feature"]].to_numpy().tolist() == [["a", 0], ["b", 0]]
    assert found["mean_delta"].to_numpy() == pytest.approx([delta[code == g, 0].mean() for g in (0, 1)])
    share = group_stability(found).measures.set_index("measure")["estimate"]["side_heterogeneous_share"]
    assert np.isnan(share), "heterogeneity is asked of edges of all cells, of which there is none"


def test_the_local_engine_gives_the_groups_of_the_exact_one(geneformer_folder, cells, tmp_path):
    model = load_geneformer(geneformer_folder, device="cpu")
    saes = random_saes(model, 24, k=12)
    store = tokenize(cells, model.tokenizer, rows=np.arange(24))
    kept = {}
    for engine, confirm in (("exact", "none"), ("local", "none"), ("local", "all")):
        settings = TraceSettings(
            engine, groups=("kind",), units="kind", context_rows=50.0, retention=1.0, n_random=0, confirm=confirm,
            targets=(1, 3), rule=EdgeRule(max_q=None), accept_approximation=True,
        )  # fmt: skip
        out = tracer.trace(
            model, saes, store, {0: list(range(0, 24, 3))}, tmp_path / engine / confirm, settings=settings
        )
        groups = table(out, "groups")
        assert not groups.duplicated([*ENDS, "group_name", "group"]).any()
        kept[engine, confirm] = groups.set_index(["group", *ENDS]).sort_index()
        counts = table(out, "source_cells").groupby(ENDS[:2]).size()
        whole = table(out, "effects").groupby(ENDS[:2])["n_cells"].first()
        pd.testing.assert_series_equal(counts, whole, check_names=False, check_dtype=False)
    exact = kept.pop(("exact", "none"))
    for other in kept.values():
        both = exact.join(other, rsuffix="_local", how="inner")
        assert len(both) > 100
        assert (both["n_cells"] == both["n_cells_local"]).all()
        np.testing.assert_allclose(both["mean_delta"], both["mean_delta_local"], atol=1e-4)


def test_resampling_is_traced_like_any_other_intervention(setup, tmp_path):
    model, saes, store = setup
    extra = {0: resample(Setup(model, saes, store), 0, [0], n_donors=5)}
    settings = TraceSettings(cells_per_block=10, tokens=400, n_random=0, retention=1.0)
    out = tracer.trace(model, saes, store, {0: [0]}, tmp_path / "t", settings=settings, extra=extra)
    effects = table(out, "effects").set_index(["kind", "target_layer", "target_feature"])
    zero, other = effects.loc[("latent", 1, 2)], effects.loc[("resample", 1, 2)]
    assert other["n_cells"] == zero["n_cells"]
    assert zero["mean_delta"] < other["mean_delta"] < 0, "half of the other cells' genes are silent, half are not"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"settings": TraceSettings(groups=("tissue",))},
            "no obs column 'tissue'; they have|to group by; they have kind",
        ),
        ({"extra": {2: [Intervention((0,), "scale")]}}, "Layer 2 has further interventions but no source"),
        ({"extra": {0: [Intervention((9,), "scale")]}}, "no latent 9; its latents are 0 to 5"),
        ({"extra": {0: [Intervention((0,), "scale", 2.0), Intervention((0,), "scale", 3.0)]}}, "number them by draw"),
    ],
)
def test_wrong_requests_are_refused(setup, tmp_path, options, message):
    with pytest.raises(ScircuitError, match=message):
        tracer.trace(*setup, SOURCES, tmp_path / "t", **options)


def test_a_missing_label_is_refused(setup, tmp_path):
    model, saes, store = setup
    holed = store.subset(np.arange(N_CELLS))
    holed.cells["kind"] = holed.cells["kind"].where(np.arange(N_CELLS) > 2)
    with pytest.raises(ScircuitError, match="missing in 3 cells"):
        tracer.trace(model, saes, holed, SOURCES, tmp_path / "t", settings=SETTINGS)
    with pytest.raises(ScircuitError, match="tuple of different"):
        TraceSettings(groups="kind")


@pytest.mark.parametrize("n_units", [6, 12])
@pytest.mark.parametrize("correlation", [0.0, 0.3])
def test_p_over_units_is_uniform_whatever_cells_of_one_share(n_units, correlation):
    """Over cells, p would be far too small: 0.3 of the variance is that of the unit."""
    rng = np.random.default_rng(1)
    n_tests, n_cells = 4000, rng.integers(5, 15, n_units)
    shared = np.sqrt(correlation) * rng.standard_normal((n_tests, n_units))
    sums = shared * n_cells + np.sqrt((1 - correlation) * n_cells) * rng.standard_normal((n_tests, n_units))
    moments = Moments.zeros(n_units, n_tests, torch.device("cpu"))
    moments.total += torch.from_numpy(sums.T.copy())
    moments.n_cells += torch.from_numpy(n_cells)
    p = unit_p(moments, n_units, 1.0, 0)[0]
    for level in (0.05, 0.2):
        assert (p <= level).mean() == pytest.approx(level, abs=0.02)


def test_units_that_a_source_does_not_reach_take_no_part():
    moments = Moments.zeros(4, 2, torch.device("cpu"))
    moments.n_cells += torch.tensor([3, 3, 3, 0])
    moments.total += torch.tensor([[3.0, 0.0], [6.0, 0.0], [4.5, 0.0], [0.0, 0.0]])
    p = unit_p(moments, 4, 1.0, 0)[0]
    assert p[0] == pytest.approx(stats.ttest_1samp([1.0, 2.0, 1.5], 0).pvalue)
    assert p[1] == 1
    allowing = unit_unskewed_p(moments, 4)[0]
    assert allowing[0] == pytest.approx(float(unskewed_p(3, 1.5, 0.5, 0.0)))
    assert allowing[1] == 1


@pytest.mark.parametrize("n_units", [8, 30])
def test_a_tail_among_units_is_allowed_for_over_units(n_units):
    """Donors have the tail, their cells have none: over cells nothing shows it, over donors p would be too small."""
    rng = np.random.default_rng(2)
    n_tests, n_cells = 4000, 40
    of_unit = rng.standard_exponential((n_tests, n_units)) - 1
    sums = n_cells * of_unit + np.sqrt(n_cells) * rng.standard_normal((n_tests, n_units))
    moments = Moments.zeros(n_units, n_tests, torch.device("cpu"))
    moments.total += torch.from_numpy(sums.T.copy())
    moments.n_cells += n_cells
    found = over_units(moments, n_units, 1.0, 0)
    # One of the two tails: where the sample missed the donors of the long one.
    against = sums.sum(axis=1) < 0
    plain, allowing = ((p[0] <= 0.05)[against].mean() / 2 for p in (found.p, np.maximum(found.p, found.p_unskewed)))
    assert plain > 0.04
    assert allowing < 0.75 * plain
