"""From metrics per knock-down to intervals, to a comparison with the best baseline, to sentences."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from scircuit.perturbation.metrics import METRICS
from scircuit.stats.multiple import holm
from scircuit.stats.resampling import Interval, clustered_mean, permutation_p, t_p

CIRCUIT = "circuit"
PERMUTED = "permuted sources"
MIN_GENES = 5
ALPHA = 0.05
"""Chance of calling any metric better, or worse, where none is."""
_NAMES = {
    "direction": "directional accuracy",
    "auroc": "AUROC of who responds",
    "auprc": "AUPRC of who responds",
    "auroc_direction": "AUROC of who rises among those that respond",
    "spearman": "Spearman correlation with the measured change",
}
_STRATA = {"all": "", "direct": " among direct targets", "indirect": " among indirect targets"}


def summarise(knockdowns: pd.DataFrame) -> pd.DataFrame:
    """Macro-average of every (stratum, method, metric) with its interval over knocked-down genes."""
    rows = []
    for (stratum, method), table in knockdowns.groupby(["stratum", "method"], sort=False):
        for metric in METRICS:
            interval = _interval(table["gene"], table[metric].to_numpy())
            rows.append(
                (stratum, method, metric, interval.estimate, interval.low, interval.high,
                 int(table[metric].notna().sum()))
            )  # fmt: skip
    columns = ["stratum", "method", "metric", "estimate", "low", "high", "n_knockdowns"]
    return pd.DataFrame(rows, columns=columns)


def compare(
    knockdowns: pd.DataFrame,
    summary: pd.DataFrame,
    nulls: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> pd.DataFrame:
    """The circuit beside the best baseline of each metric, difference paired by knock-down.

    The best baseline is the one with the highest macro-average, chosen on the same knock-downs: that favours it.
    `p_permuted` is (b + 1) / (m + 1) over 1,000 draws in which every knock-down is judged by another gene's prediction,
    and no less than 1 over the number of such assignments. `p_difference` is by t over knocked-down genes, adjusted for
    the metrics of the stratum (Holm), since any of them would be called skill. `verdict` is `better` or `worse` where
    it is below 0.05, else `no difference`; `too few` below five knocked-down genes.
    """
    rows = []
    for stratum, table in knockdowns.groupby("stratum", sort=False):
        wide = {method: part.set_index("label") for method, part in table.groupby("method", sort=False)}
        own = wide[CIRCUIT]
        for place, metric in enumerate(METRICS):
            values = summary[(summary["stratum"] == stratum) & (summary["metric"] == metric)].set_index("method")
            baselines = values["estimate"].drop(CIRCUIT).dropna()
            if not np.isfinite(values["estimate"][CIRCUIT]) or baselines.empty:
                continue
            best = str(baselines.idxmax())
            difference = (own[metric] - wide[best][metric]).to_numpy()
            interval = _interval(own["gene"], difference)
            rows.append(
                {
                    "stratum": stratum,
                    "metric": metric,
                    "n_knockdowns": int(values["n_knockdowns"][CIRCUIT]),
                    **values.loc[CIRCUIT, ["estimate", "low", "high"]].to_dict(),
                    "chance": _chance(metric, own),
                    "best_baseline": best,
                    "baseline": float(baselines[best]),
                    "difference": interval.estimate,
                    "difference_low": interval.low,
                    "difference_high": interval.high,
                    "p_permuted": _p_permuted(own[metric].to_numpy(), nulls[str(stratum)][..., place], rng),
                    "p_difference": t_p(interval, 0.0),
                    "n_genes": interval.n_clusters,
                }
            )
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    table["p_difference"] = table.groupby("stratum", sort=False)["p_difference"].transform(holm)
    verdict = np.where(table["difference"] > 0, "better", "worse")
    verdict = np.where(table["p_difference"] < ALPHA, verdict, "no difference")
    return table.assign(verdict=np.where(table["n_genes"] < MIN_GENES, "too few", verdict)).drop(columns="n_genes")


def sentences(comparison: pd.DataFrame) -> tuple[str, ...]:
    """One sentence per (stratum, metric): estimate, interval, chance, and the comparison with the best baseline."""
    return tuple(_sentence(row) for row in comparison.to_dict("records"))


def conclusion(comparison: pd.DataFrame) -> str:
    """What all metrics over all targets add up to: skill only where the circuit beats the best baseline."""
    every = comparison[comparison["stratum"] == "all"]
    if every.empty:
        return "Nothing could be judged: no metric is defined for the circuit and a baseline."
    n = f"over {int(every['n_knockdowns'].max())} knock-downs"
    if (every["verdict"] == "too few").all():
        return f"Too few knocked-down genes to speak of skill ({n}; at least {MIN_GENES} genes are needed)."
    better = every[every["verdict"] == "better"]
    if len(better):
        others = len(every) - len(better)
        rest = f"; none is shown by the other {others} of {len(every)} metrics" if others else ""
        return f"Skill beyond every baseline tried {n}: {', '.join(better['metric'].map(_NAMES))}{rest}."
    covering = every[(every["low"] <= every["chance"]) & (every["chance"] <= every["high"])]
    covered = ", ".join(f"{_NAMES[row['metric']]} ({row['chance']:.2g})" for row in covering.to_dict("records"))
    tail = f" The interval covers the value without skill of {covered}." if covered else ""
    return f"No skill: on none of {len(every)} metrics does the circuit beat the best baseline {n}.{tail}"


def _sentence(row: dict) -> str:
    covers = not (row["low"] > row["chance"] or row["high"] < row["chance"])
    chance = f"{row['chance']:.2g}"
    if np.isnan(row["low"]):
        bounds = f"one knocked-down gene gives no interval; without skill: {chance}"
    else:
        position = f"which covers {chance}, the value without skill" if covers else f"without skill: {chance}"
        bounds = f"95 % interval {row['low']:.3f} to {row['high']:.3f}, {position}"
    ending = {
        "better": "the circuit does better by {d}: skill beyond every baseline tried.",
        "worse": "the circuit does worse by {d}: no skill.",
        "too few": "the difference is {d}: too few knocked-down genes to say more.",
        "no difference": "the difference of {d} may be chance: no skill beyond that baseline is shown.",
    }[row["verdict"]]
    sign = -1 if row["verdict"] == "worse" else 1
    low, high = sorted((sign * row["difference_low"], sign * row["difference_high"]))
    difference = f"{sign * row['difference']:.3f}" + ("" if np.isnan(low) else f" ({low:.3f} to {high:.3f})")
    name = _NAMES[row["metric"]]
    return (
        f"{name[0].upper()}{name[1:]}{_STRATA[row['stratum']]} over {row['n_knockdowns']} "
        f"knock-down{'s' * (row['n_knockdowns'] != 1)} is "
        f"{row['estimate']:.3f} ({bounds}); the best baseline, "
        f"{row['best_baseline']}, reaches {row['baseline']:.3f}, and {ending.format(d=difference)}"
    )


def _interval(gene: pd.Series, values: np.ndarray) -> Interval:
    """Mean over knock-downs; guides of one gene count together."""
    finite = np.isfinite(values)
    if not finite.any():
        return Interval(np.nan, np.nan, np.nan, 0.95, 0)
    return clustered_mean(values[finite], gene.to_numpy()[finite])


def _chance(metric: str, table: pd.DataFrame) -> float:
    if metric == "auprc":
        return float((table["n_responding"] / table["n_genes"]).mean())
    return 0.0 if metric == "spearman" else 0.5


def _p_permuted(observed: np.ndarray, null: np.ndarray, rng: np.random.Generator, draws: int = 1000) -> float:
    """p of the macro-average when each knock-down is judged by another gene; `null` is `[knockdown, other]`."""
    usable = np.isfinite(observed) & np.isfinite(null).any(axis=1)
    if not usable.any():
        return np.nan
    picks = rng.integers(null.shape[1], size=(draws, int(usable.sum())))
    drawn = null[usable][np.arange(int(usable.sum())), picks]
    count = np.isfinite(drawn).sum(axis=1)
    means = np.nansum(drawn, axis=1) / np.maximum(count, 1)
    log_assignments = np.log(np.isfinite(null[usable]).sum(axis=1)).sum()
    return max(
        permutation_p(float(observed[usable].mean()), means[count > 0]), 1 / (np.exp(min(log_assignments, 50)) + 1)
    )
