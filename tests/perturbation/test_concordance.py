"""The published pooled sign accuracy, counted by hand, and its nulls."""

import numpy as np
import pandas as pd
import pytest

from scircuit.errors import ScircuitError
from scircuit.perturbation.differential import Effects
from scircuit.published.concordance import pooled_concordance


def effects(change: dict[str, list[float]], genes: str, labels: list[str] | None = None) -> Effects:
    lfc = np.array(list(change.values()))
    nothing = np.full(lfc.shape, np.nan)
    table = pd.DataFrame({"label": labels or list(change), "gene": [name.split("-")[0] for name in change]})
    return Effects(
        perturbations=table.assign(n_cells=50, n_controls=99), genes=pd.Index(list(genes)), log2_fold_change=lfc,
        standard_error=nothing, p_value=nothing, q_value=nothing, mean_control=nothing, method="paper",
    )  # fmt: skip


def pairs(*rows: tuple[str, str, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["source_gene", "target_gene", "mean_d"])


def test_counted_by_hand():
    measured = effects({"P": [-1.0, 0.5, -0.02, 0.005], "Q": [-0.3, -0.3, 0.4, np.nan]}, "abcd")
    predicted = pairs(
        ("P", "a", -2.0), ("P", "b", -1.0), ("P", "c", -0.5), ("P", "d", 1.0),  # d: |change| below 0.01
        ("Q", "a", 3.0), ("Q", "c", 2.0), ("Q", "d", 1.0), ("R", "a", 1.0), ("P", "z", 1.0),
    )  # fmt: skip
    found = pooled_concordance(predicted, measured, draws=200)
    # Judged: Pa agrees, Pb not, Pc agrees, Qa not, Qc agrees: 3 of 5. Falls: 3 of 5 measured, 3 of 5 predicted.
    assert found.pairs["target_gene"].tolist() == ["a", "b", "c", "a", "c"]
    assert found.accuracy.estimate == pytest.approx(3 / 5)
    assert found.always_down.estimate == pytest.approx(3 / 5)
    assert found.sign_bias.estimate == pytest.approx((3 * 3 + 2 * 2) / 25)
    assert found.excess.estimate == pytest.approx(0.0)
    assert found.accuracy.n_clusters == 2
    # |d| 2, 1, .5, 3, 2 and |change| 1, .5, .02, .3, .4: ranks 3.5 2 1 5 3.5 and 5 4 1 2 3.
    assert found.rho == pytest.approx(np.corrcoef([3.5, 2, 1, 5, 3.5], [5, 4, 1, 2, 3])[0, 1])
    assert found.table()["method"].tolist() == ["circuit", "always down", "sign bias"]
    assert found.table()["n_pairs"].eq(5).all()


def drawn(rng: np.random.Generator, skill: float) -> tuple[pd.DataFrame, Effects]:
    """80 % of predictions fall, 70 % of measurements fall; a share `skill` of predictions copies the measured sign."""
    sources, genes = [f"S{i}" for i in range(40)], [f"G{i}" for i in range(50)]
    change = np.where(rng.random((40, 50)) < 0.7, -1.0, 1.0) * rng.uniform(0.1, 1, (40, 50))
    own = np.where(rng.random((40, 50)) < 0.8, -1.0, 1.0)
    d = np.where(rng.random((40, 50)) < skill, np.sign(change), own)
    table = pairs(*((s, g, d[i, j]) for i, s in enumerate(sources) for j, g in enumerate(genes)))
    measured = effects(dict(zip(sources, change.tolist(), strict=True)), "x")
    return table, Effects(**{**vars(measured), "genes": pd.Index(genes)})


def test_bias_alone_reaches_the_published_accuracy_without_skill():
    found = pooled_concordance(*drawn(np.random.default_rng(0), skill=0.0), draws=500)
    assert found.accuracy.estimate > 0.58
    assert found.accuracy.estimate == pytest.approx(found.sign_bias.estimate, abs=0.03)
    assert found.excess.high < 0
    assert "no skill is shown" in found.sentence()


def test_skill_beyond_the_shares_of_falls_is_seen():
    found = pooled_concordance(*drawn(np.random.default_rng(0), skill=0.8), draws=500)
    assert found.excess.low > 0
    assert "the circuit agrees more often" in found.sentence()


def test_the_first_label_of_a_gene_counts():
    measured = effects({"P-1": [-1.0], "P-2": [1.0]}, "a", ["P-1", "P-2"])
    found = pooled_concordance(pairs(("P", "a", -1.0)), measured)
    assert found.accuracy.estimate == 1.0
    assert "one knocked-down gene gives no interval" in found.sentence()


def test_nothing_measured_is_refused():
    with pytest.raises(ScircuitError, match="no pair of genes"):
        pooled_concordance(pairs(("P", "z", 1.0)), effects({"P": [1.0]}, "a"))
