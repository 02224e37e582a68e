"""Robustness: in what share of the settings that an analyst might have chosen an edge stays (arXiv 2603.00523)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import need_edges
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.analysis.seed_stability import one_to_one
from scircuit.circuits.build import RETENTION
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.rule import DEFAULT, VOTES, EdgeRule, unskewed
from scircuit.circuits.schema import ENDS, GRADES, SIZED_BY, SOURCE, TARGET
from scircuit.circuits.size import sizes
from scircuit.circuits.specificity import is_decoy, n_made, of_family, q_specific, scores
from scircuit.errors import ScircuitError
from scircuit.stats.resampling import ratio_interval

CHOICES: Mapping[str, Sequence[Any]] = {
    "min_abs_d": (0.3, 0.5, 0.8),
    "min_consistency": (0.6, 0.7, 0.8),
    "consistency": tuple(VOTES),
    "max_q": (0.01, 0.05),
    "allow_for_skew": (False, True),
    "min_effect_sd": (0.05, 0.1, 0.2),
    "max_q_specific": (0.05, 0.1),
}
"""What another analyst might have set in place of the rule's own values, which are always among them."""
_OF_GRADE = {"sizeable": ("min_effect_sd",), "specific": ("max_q_specific",)}
NOISE = 0.25
"""Share of settings below which an edge is called noise."""


def robustness(
    circuit: Circuit,
    effects: pd.DataFrame,
    tests: pd.DataFrame,
    scales: pd.DataFrame,
    rule: EdgeRule = DEFAULT,
    retention: float = RETENTION,
    second: Circuit | None = None,
    matches: pd.DataFrame | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Share of settings in which the circuit's edges stay edges of its grade: every combination of `CHOICES`.

    What the trace cannot tell (skewness not kept, q above its retention, claims that the grade does not make) is no
    choice. An edge is *core* where every setting keeps it, *noise* below a quarter, *contingent* between.

    Measures: `core_share`, `noise_share`, `mean_share` (null: edges of decoys under the rule, held to the same
    settings), `kept_CHOICE_VALUE`, the mean share within the settings of one value (its spread shows what matters), and
    with a second run (another decoy, ablation, dictionary seed) `in_second`, the share of edges that its circuit has
    too, latents matched. Intervals resample sources. Table: one row per edge: the ends, `share, class`, `in_second`.
    """
    need_edges(circuit)
    family = _Family.of(effects, tests, scales, rule, circuit.widest)
    settings = list(_settings(family, rule, retention, circuit.widest))
    kept = np.stack([family.kept(setting) for setting in settings])
    own = circuit.edges[ENDS].merge(family.place, on=ENDS, how="left", validate="one_to_one")
    if own["row"].isna().any():
        raise ScircuitError("the circuit has edges that the trace lacks; they must be of one run.")
    stays = kept[:, own["row"].astype(int)]
    table = own[ENDS].assign(share=stays.mean(axis=0))
    table["class"] = np.select([table["share"] == 1, table["share"] < NOISE], ["core", "noise"], "contingent")
    chance = kept[:, family.decoy & family.kept(rule)].mean(axis=0)
    rng = np.random.default_rng(seed)

    def share(name: str, value: np.ndarray, null: float = np.nan) -> Measure:
        of_source = table.assign(value=value).groupby(SOURCE)["value"].agg(["sum", "size"])
        interval = ratio_interval(of_source["sum"], of_source["size"], rng, draws)
        return Measure.of(name, interval, len(table), null)

    measures = [
        share("core_share", table["class"].to_numpy() == "core", _mean(chance == 1)),
        share("noise_share", table["class"].to_numpy() == "noise", _mean(chance < NOISE)),
        share("mean_share", table["share"].to_numpy(), _mean(chance)),
    ]
    for name in CHOICES:
        values = [getattr(setting, name) for setting in settings]
        for value in dict.fromkeys(values) if len(set(values)) > 1 else ():
            mine = [v == value for v in values]
            measures.append(share(f"kept_{name}_{value}", stays[mine].mean(axis=0)))
    if second is not None and matches is not None:
        table["in_second"] = _found_in(table[ENDS], second, matches)
        measures.append(share("in_second", table["in_second"].to_numpy()))
    return QUESTION.answer(measures, table)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _settings(family: "_Family", rule: EdgeRule, retention: float, grade: str) -> Iterator[EdgeRule]:
    """Every combination of choices that the trace can tell."""
    told = GRADES[: GRADES.index(grade) + 1]
    left_out = {name for later, names in _OF_GRADE.items() if later not in told for name in names}
    if family.q_unskewed is None:
        left_out.add("allow_for_skew")
    if rule.max_q is None:
        left_out |= {"max_q", "allow_for_skew"}
    choices = {}
    for name, values in CHOICES.items():
        own = getattr(rule, name)
        allowed = [v for v in values if name != "max_q" or v <= retention]
        choices[name] = [own] if name in left_out else list(dict.fromkeys([own, *allowed]))
    for values in product(*choices.values()):
        yield replace(rule, **dict(zip(choices, values, strict=True)))


@dataclass(frozen=True)
class _Family:
    """Tests of latents and decoys that the laxest setting might call, with all that no setting changes."""

    rows: pd.DataFrame
    tests: pd.DataFrame
    q: np.ndarray
    q_unskewed: np.ndarray | None
    """q by the larger p, where skewness is known."""
    score: np.ndarray
    decoy: np.ndarray
    grade: str

    @classmethod
    def of(
        cls, effects: pd.DataFrame, tests: pd.DataFrame, scales: pd.DataFrame, rule: EdgeRule, grade: str
    ) -> "_Family":
        rows = effects[of_family(effects, "latent") | is_decoy(effects)]
        rows = rows[rows["cohens_d"].abs() > min(rule.min_abs_d, *CHOICES["min_abs_d"])].reset_index(drop=True)
        if grade != GRADES[0]:
            if not set(SIZED_BY) <= set(rows):
                raise ScircuitError("this trace kept no intervals of sizes; trace again to ask how edges hold.")
            rows = rows.assign(**sizes(rows))
        known = "skewness" in rows and not np.isnan(unskewed(rows[of_family(rows, "latent")])).any()
        q = cls._q(effects, tests, rows, replace(rule, allow_for_skew=False))
        larger = cls._q(effects, tests, rows, replace(rule, allow_for_skew=True)) if known else None
        score = scores(rows, scales) if grade == GRADES[-1] else np.zeros(len(rows))
        return cls(rows, tests, q, larger, score, is_decoy(rows), grade)

    @staticmethod
    def _q(effects: pd.DataFrame, tests: pd.DataFrame, rows: pd.DataFrame, rule: EdgeRule) -> np.ndarray:
        """q over each whole family, of the rows kept here."""
        found = pd.Series(1.0, index=range(len(rows)))
        for name in ("latent", "random"):
            whole = effects[of_family(effects, name)]
            if name == "random" and rule.allow_for_skew and np.isnan(unskewed(whole)).any():
                rule = replace(rule, allow_for_skew=False)  # responses of decoys are not always kept
            kept = whole["cohens_d"].abs() > min(rule.min_abs_d, *CHOICES["min_abs_d"])
            found[of_family(rows, name)] = rule.q_values(whole, n_made(tests, name))[kept.to_numpy()]
        return found.to_numpy()

    @property
    def place(self) -> pd.DataFrame:
        """Row of each latent's test, by its ends."""
        return self.rows.loc[~self.decoy, ENDS].assign(row=np.flatnonzero(~self.decoy))

    def kept(self, rule: EdgeRule) -> np.ndarray:
        """Which rows are edges of the grade under a rule, bool `[row]`."""
        q = self.q_unskewed if rule.allow_for_skew and self.q_unskewed is not None else self.q
        passes = rule.passes(self.rows, q=q)
        if self.grade == GRADES[0]:
            return passes
        passes &= rule.sizeable(self.rows)
        if self.grade == GRADES[1] or rule.max_q_specific is None:
            return passes
        return passes & (q_specific(self.rows, self.score, passes, self.tests) < rule.max_q_specific)


def _found_in(ends: pd.DataFrame, second: Circuit, matches: pd.DataFrame, least: float = 0.7) -> np.ndarray:
    """Which edges the second circuit has between the latents that are the same as their ends, bool `[edge]`."""
    partner = one_to_one(matches, least)
    found = ends
    for side in (SOURCE, TARGET):
        layer, feature = side
        found = found.merge(
            partner.rename(columns={"layer": layer, "feature_first": feature, "feature_second": f"{feature}_2"})[
                [layer, feature, f"{feature}_2"]
            ],
            on=side, how="left",
        )  # fmt: skip
    there = found[["source_layer", "source_feature_2", "target_layer", "target_feature_2"]].fillna(-1).astype(int)
    known = pd.MultiIndex.from_frame(second.edges[ENDS].astype(int))
    return np.asarray(pd.MultiIndex.from_frame(there.set_axis(ENDS, axis=1)).isin(known))


QUESTION = Question(
    asks="Would another analyst, with other thresholds, have the same edges?",
    title="Robustness to an analyst's choices",
    function=robustness,
    definition="robustness/1",
    null_model="edges of decoys under the same rule, held to the same settings",
    terms=("d",),
    glossary="core edge: called by every combination of thresholds that was tried; noise: by fewer than a quarter; "
    "contingent: between.",
    needs=("circuit", "effects", "tests", "scales"),
    words={
        "core_share": "edges that every setting keeps",
        "noise_share": "edges that fewer than a quarter of the settings keep",
        "mean_share": "settings that keep an edge, mean share",
    },
    edge_columns=("grade",),
    second="second",
    matched=True,
    redraws=True,
    figure="measures",
)
