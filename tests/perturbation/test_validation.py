import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scircuit.errors import ScircuitError
from scircuit.perturbation import baselines
from scircuit.perturbation.differential import differential_expression
from scircuit.perturbation.metrics import METRICS, auprc, auroc, spearman
from scircuit.perturbation.opening import open_screen
from scircuit.perturbation.predictions import GenePredictions
from scircuit.perturbation.skill import conclusion, summarise
from scircuit.perturbation.truth import Truth, truth_from_effects, truth_from_gene_sets, truth_from_table
from scircuit.perturbation.validation import validate

from .simulate import planted_effects, screen_from


def predictions_from(effects: np.ndarray, noise: float, rng: np.random.Generator) -> GenePredictions:
    names = [f"G{i}" for i in range(effects.shape[1])]
    scores = effects + noise * rng.normal(size=effects.shape)
    return GenePredictions(pd.DataFrame(scores, index=names[: len(effects)], columns=names), "planted")


def truth_of(sign: np.ndarray) -> Truth:
    """Knock-downs K0, K1, ... that are not among the measured genes."""
    knockdowns = pd.DataFrame(
        {"label": [f"K{i}" for i in range(len(sign))], "gene": [f"K{i}" for i in range(len(sign))]}
    )
    genes = pd.Index([f"G{i}" for i in range(sign.shape[1])])
    return Truth(knockdowns, genes, sign.astype(np.int8), sign.astype(float), one_sided=False)


def scores_of(values: np.ndarray) -> GenePredictions:
    index = [f"K{i}" for i in range(len(values))]
    return GenePredictions(pd.DataFrame(values, index=index, columns=[f"G{i}" for i in range(values.shape[1])]), "x")


def row(result, metric: str, stratum: str = "all") -> pd.Series:
    table = result.comparison
    return table[(table["metric"] == metric) & (table["stratum"] == stratum)].iloc[0]


@given(seed=st.integers(0, 10_000), n=st.integers(5, 60), levels=st.sampled_from([2, 5, 1000]))
def test_metrics_equal_independent_implementations(seed, n, levels):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    positive = np.r_[True, False, rng.random(n - 2) < 0.3]
    score = rng.integers(levels, size=n) / levels
    assert auroc(positive, score) == pytest.approx(metrics.roc_auc_score(positive, score))
    assert auprc(positive, score) == pytest.approx(metrics.average_precision_score(positive, score))
    other = rng.integers(levels, size=n) + 0.0
    if np.ptp(score) and np.ptp(other):
        assert spearman(score, other) == pytest.approx(stats.spearmanr(score, other).statistic)


def test_metrics_without_two_classes_are_undefined():
    assert np.isnan(auroc(np.ones(4, bool), np.arange(4)))
    assert np.isnan(auprc(np.zeros(4, bool), np.arange(4)))
    assert np.isnan(auprc(np.ones(4, bool), np.arange(4)))
    assert np.isnan(spearman(np.ones(5), np.arange(5)))


@pytest.fixture(scope="module")
def planted():
    rng = np.random.default_rng(0)
    effects = planted_effects(rng, n_targets=20)
    screen = open_screen(screen_from(effects, rng))
    return effects, screen, truth_from_effects(differential_expression(screen), min_abs_log2_fold_change=0.4)


def test_a_planted_screen_is_recovered(planted):
    effects, screen, truth = planted
    predictions = predictions_from(effects, 0.3, np.random.default_rng(1))
    result = validate(predictions, truth, screen)
    for metric in METRICS:
        found = row(result, metric)
        assert found["verdict"] == "better", metric
        assert found["p_permuted"] < 0.01
        assert found["n_knockdowns"] == 20
    assert row(result, "direction")["low"] > 0.8
    assert row(result, "auroc")["low"] > 0.85
    assert any("skill beyond every baseline" in sentence for sentence in result.sentences)
    assert set(result.summary["method"]) == {
        "circuit", "always down", "gene-wise majority", "permuted sources",
        "mean expression", "co-expression", "absolute co-expression",
    }  # fmt: skip


def test_the_conclusion_is_drawn_from_the_best_baseline(planted):
    effects, screen, truth = planted
    good = validate(predictions_from(effects, 0.3, np.random.default_rng(1)), truth, screen)
    assert conclusion(good.comparison).startswith("Skill beyond every baseline tried over 20 knock-downs: directional")
    rng = np.random.default_rng(2)
    shuffled = predictions_from(np.array([rng.permutation(values) for values in effects]), 0.5, rng)
    none = conclusion(validate(shuffled, truth, screen).comparison)
    assert none.startswith("No skill: on none of 5 metrics")
    assert "covers the value without skill of directional accuracy (0.5), AUROC of who responds (0.5)" in none
    few = good.comparison.assign(verdict="too few", n_knockdowns=3)
    assert "at least 5 genes" in conclusion(few)
    assert conclusion(good.comparison.iloc[:0]).startswith("Nothing could be judged")
    # Above 0.5 is no skill where a baseline does as well.
    level = good.comparison.assign(verdict="no difference", low=0.8, high=0.9)
    assert (
        conclusion(level)
        == "No skill: on none of 5 metrics does the circuit beat the best baseline over 20 knock-downs."
    )


def test_a_shuffled_screen_has_no_skill_and_the_sentence_says_so(planted):
    effects, screen, truth = planted
    rng = np.random.default_rng(2)
    shuffled = np.array([rng.permutation(values) for values in effects])
    result = validate(predictions_from(shuffled, 0.5, rng), truth, screen)
    for metric in ("direction", "auroc", "auroc_direction"):
        found = row(result, metric)
        assert found["low"] < 0.5 < found["high"]
        assert found["verdict"] != "better"
    sentence = next(s for s in result.sentences if s.startswith("Directional accuracy"))
    assert "covers 0.5, the value without skill" in sentence
    assert "no skill" in sentence


def test_predicting_the_common_direction_is_no_skill():
    """Most genes fall and most predictions are negative: accuracy far above 0.5, and nothing is known."""
    rng = np.random.default_rng(3)
    sign = np.where(rng.random((40, 200)) < 0.85, -1, 1) * (rng.random((40, 200)) < 0.5)
    scores = np.where(rng.random((40, 200)) < 0.8, -1.0, 1.0) * rng.random((40, 200))
    result = validate(scores_of(scores), truth_of(sign))
    found = row(result, "direction")
    assert found["low"] > 0.6
    assert found["verdict"] == "worse"
    assert found["best_baseline"] in ("always down", "gene-wise majority")
    assert found["baseline"] == pytest.approx(0.85, abs=0.02)
    assert "does worse" in result.sentences[0]
    # What does not profit from the common direction shows that nothing is known.
    assert row(result, "auroc_direction")["low"] < 0.5 < row(result, "auroc_direction")["high"]


def test_macro_averages_weigh_knock_downs_not_pairs():
    sign = np.zeros((2, 100))
    sign[0], sign[1, :2] = -1, 1
    scores = np.full((2, 100), -1.0)
    summary = validate(scores_of(scores), truth_of(sign)).summary.set_index(["method", "metric"])
    assert summary.loc[("circuit", "direction"), "estimate"] == pytest.approx(0.5)


def test_guides_of_one_gene_are_resampled_together():
    """Twenty guides of one gene are one knocked-down gene: no interval."""
    rng = np.random.default_rng(4)
    sign = rng.choice([-1, 0, 1], (20, 50))
    truth = truth_of(sign)
    same = Truth(truth.knockdowns.assign(gene="K0"), truth.genes, truth.sign, truth.score, False)
    predictions = scores_of(rng.normal(size=(1, 50)))
    summary = validate(predictions, same).summary
    assert summary.loc[summary["method"] == "circuit", "low"].isna().all()
    apart = validate(scores_of(rng.normal(size=(20, 50))), truth).summary
    assert apart.loc[(apart["method"] == "circuit") & (apart["metric"] == "auroc"), "low"].notna().all()


def test_the_interval_of_the_macro_average_covers():
    """Directional accuracy with a known expectation per knock-down: 95 % intervals hold it about as often."""
    covered = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        skill = rng.choice([0.5, 0.9], 40)[:, None]
        sign = rng.choice([-1, 1], (40, 30))
        scores = np.where(rng.random((40, 30)) < skill, sign, -sign).astype(float)
        accuracy = (np.sign(scores) == sign).mean(axis=1)
        table = pd.DataFrame(
            {"stratum": "all", "method": "circuit", "gene": range(40), **dict.fromkeys(METRICS, accuracy)}
        )
        found = summarise(table).iloc[0]
        covered.append(found["low"] <= 0.7 <= found["high"])
    assert 0.85 < np.mean(covered) <= 1


@pytest.mark.parametrize("n", [5, 8])
def test_few_genes_without_skill_are_seldom_called_skilled(n):
    """Any of five metrics counts as skill: the chance of one where there is none stays near 0.05 (a bootstrap: .2)."""
    claims = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        measured, said = rng.normal(size=(2, n, 120))
        sign = np.where(np.abs(measured) > 1, np.sign(measured), 0)
        claims.append(conclusion(validate(scores_of(said), truth_of(sign), seed=seed).comparison).startswith("Skill"))
    assert np.mean(claims) <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / len(claims))


def test_few_knock_downs_carry_no_verdict():
    rng = np.random.default_rng(10)
    sign = rng.choice([-1, 0, 1], (3, 60))
    result = validate(scores_of(sign * 1.0), truth_of(sign))
    assert set(result.comparison["verdict"]) == {"too few"}
    assert "too few knocked-down genes" in result.sentences[0]
    one = validate(scores_of(sign[:1] * 1.0), truth_of(sign[:1]))
    assert "over 1 knock-down is" in one.sentences[0]
    assert "no interval" in one.sentences[0]
    assert "nan" not in one.sentences[0]
    # Three knock-downs, two other genes each: eight assignments.
    assert result.comparison["p_permuted"].min() >= 1 / 9


def test_many_knock_downs_do_not_overflow():
    rng = np.random.default_rng(12)
    sign = rng.choice([-1, 0, 1], (220, 12))
    found = row(validate(scores_of(sign * 1.0), truth_of(sign)), "direction")
    assert found["p_permuted"] == pytest.approx(1 / 1001)


def test_the_majority_knows_knock_downs_the_circuit_is_silent_about():
    sign = np.tile([-1, 1, 0, 1, -1], (12, 1))
    scores = scores_of(np.random.default_rng(11).normal(size=(12, 5)))
    fewer = GenePredictions(scores.scores.iloc[:1], "x")
    summary = validate(fewer, truth_of(sign)).summary.set_index(["method", "metric"])
    assert summary.loc[("gene-wise majority", "direction"), "estimate"] == 1.0


def test_baselines_are_what_they_say():
    sign = np.array([[-1, 0, 1], [-1, 1, 1], [0, 1, -1]])
    truth = truth_of(sign)
    majority = baselines.gene_majority(truth)
    np.testing.assert_allclose(majority.signed, [[-0.5, 1.0, 0.0], [-0.5, 0.5, 0.0], [-1.0, 0.5, 1.0]])
    np.testing.assert_allclose(majority.magnitude, [[0.5, 1.0, 1.0], [0.5, 0.5, 1.0], [1.0, 0.5, 1.0]])
    paired = Truth(truth.knockdowns.assign(gene=["K0", "K0", "K2"]), truth.genes, truth.sign, truth.score, False)
    np.testing.assert_allclose(baselines.gene_majority(paired).signed, [[0, 1, -1], [0, 1, -1], [-1, 0.5, 1.0]])
    assert (baselines.always_down(truth).signed == -1).all()


def test_coexpression_equals_partial_correlation_within_batches(planted):
    _, screen, truth = planted
    signed, absolute = baselines.coexpression(screen, truth)
    control = screen.label < 0
    x = np.log1p(np.concatenate([block for _, block in screen.gene_blocks()]).T.astype(float)[control])
    for stratum in range(2):
        x[screen.stratum[control] == stratum] -= x[screen.stratum[control] == stratum].mean(axis=0)
    r = np.corrcoef(x.T)
    place = screen.genes.get_indexer(truth.knockdowns["gene"])
    np.testing.assert_allclose(signed.signed, -r[place], atol=1e-5)
    np.testing.assert_allclose(absolute.signed, -np.abs(r[place]), atol=1e-5)
    level = baselines.mean_expression(screen, truth)
    mean = np.concatenate([block for _, block in screen.gene_blocks()])[:, control].mean(axis=1)
    np.testing.assert_allclose(level.magnitude[3], mean, rtol=1e-4)


def test_a_better_supplied_baseline_takes_the_skill_away(planted):
    effects, screen, truth = planted
    predictions = predictions_from(effects, 2.0, np.random.default_rng(5))
    exact = predictions_from(effects, 0.0, np.random.default_rng(5)).table()
    result = validate(predictions, truth, screen, extra={"in-silico deletion": exact})
    found = row(result, "direction")
    assert found["best_baseline"] == "in-silico deletion"
    assert found["verdict"] == "worse"
    with pytest.raises(ScircuitError, match="no column 'score'"):
        validate(predictions, truth, extra={"deletion": exact.drop(columns="score")})
    with pytest.raises(ScircuitError, match="shares no"):
        validate(predictions, truth, extra={"deletion": exact.assign(gene="other")})


def test_direct_and_indirect_targets_are_apart():
    rng = np.random.default_rng(6)
    sign = rng.choice([-1, 1], (12, 80))
    direct = rng.random(sign.shape) < 0.4
    scores = np.where(direct, sign, rng.choice([-1, 1], sign.shape)).astype(float)
    pairs = [(f"K{k}", f"G{g}") for k, g in zip(*np.nonzero(direct), strict=True) if k < 10]
    network = pd.DataFrame(pairs, columns=["source", "target"])
    result = validate(scores_of(scores), truth_of(sign), network=network)
    assert row(result, "direction", "direct")["estimate"] == 1.0
    assert row(result, "direction", "indirect")["estimate"] == pytest.approx(0.5, abs=0.1)
    assert row(result, "direction", "direct")["n_knockdowns"] == 10
    assert any("among indirect targets" in sentence for sentence in result.sentences)
    with pytest.raises(ScircuitError, match="no column 'target'"):
        validate(scores_of(scores), truth_of(sign), network=network[["source"]])


def test_the_targeted_gene_itself_is_not_judged(planted):
    _, _, truth = planted
    own = truth.genes.get_indexer(truth.knockdowns["gene"])
    assert not truth.measured[np.arange(len(own)), own].any()
    assert (truth.sign[np.arange(len(own)), own] == 0).all()


def test_user_tables():
    table = pd.DataFrame({"target": ["A", "A", "B", "B"], "gene": ["x", "y", "x", "A"], "score": [-2.0, 0.5, 0.0, 1.0]})
    truth = truth_from_table(table)
    assert truth.sign[0, list(truth.genes).index("x")] == -1
    assert np.isnan(truth.score[1, list(truth.genes).index("y")])
    signs = truth_from_table(table.assign(sign=[-1, 0, 0, 1]))
    assert signs.sign[0, list(signs.genes).index("y")] == 0
    with pytest.raises(ScircuitError, match="more than once"):
        truth_from_table(pd.concat([table, table]))
    with pytest.raises(ScircuitError, match="sign or score"):
        truth_from_table(table[["target", "gene"]])
    with pytest.raises(ScircuitError, match="-1"):
        truth_from_table(table.assign(sign=[2, 0, 0, 1]))


def test_one_sided_truths_ask_who_rises():
    rng = np.random.default_rng(7)
    rises = {f"K{k}": [f"G{g}" for g in rng.choice(100, 20, replace=False)] for k in range(15)}
    truth = truth_from_gene_sets(rises, [f"G{g}" for g in range(100)])
    assert truth.one_sided
    columns = {f"G{g}": g for g in range(100)}
    scores = -rng.random((15, 100))
    for k in range(15):
        scores[k, [columns[g] for g in rises[f"K{k}"]]] = rng.random(20)
    result = validate(scores_of(scores), truth)
    assert set(result.comparison["metric"]) == {"auroc", "auprc"}
    assert row(result, "auroc")["estimate"] == 1.0
    flipped = validate(scores_of(-scores), truth)
    assert row(flipped, "auroc")["estimate"] == 0.0


def test_screens_that_cannot_judge_are_refused(planted):
    effects, _, truth = planted
    predictions = predictions_from(effects, 0.5, np.random.default_rng(8))
    renamed = GenePredictions(predictions.scores.rename(index=lambda name: "X" + name), "x")
    with pytest.raises(ScircuitError, match="none of the knocked-down genes"):
        validate(renamed, truth)
    foreign = GenePredictions(predictions.scores.rename(columns=lambda name: "X" + name), "x")
    with pytest.raises(ScircuitError, match="measures none of the genes"):
        validate(foreign, truth)
    silent = Truth(truth.knockdowns, truth.genes, np.zeros_like(truth.sign), truth.score, False)
    with pytest.raises(ScircuitError, match="nothing to judge"):
        validate(predictions, silent)


def test_knock_downs_without_prediction_are_counted(planted):
    effects, _, truth = planted
    predictions = predictions_from(effects, 0.5, np.random.default_rng(9))
    fewer = GenePredictions(predictions.scores.iloc[:15], "x")
    result = validate(fewer, truth)
    assert result.n_unpredicted == 5
    assert row(result, "auroc")["n_knockdowns"] == 15
