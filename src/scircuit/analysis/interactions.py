"""Interactions: whether ablating sources together does more or less than their sum, in activation units."""

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import need_columns
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.schema import TARGET
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.stats.resampling import cluster_bootstrap, ratio, ratio_interval
from scircuit.stats.signflip import signflip_p

COLUMNS = ["set_id", "subset", "target_layer", "target_feature", "cell", "delta"]


def interactions(
    effects: pd.DataFrame, sets: pd.DataFrame, max_q: float = 0.05, draws: int = 2000, seed: int = 0
) -> Result:
    """Interaction of pairs and triples of sources on every target, cell by cell.

    I_AB = D_AB - D_A - D_B and, by inclusion and exclusion, I_ABC = D_ABC - D_AB - D_AC - D_BC + D_A + D_B + D_C, D
    being the response to the ablation of a subset. Norm ratio: ||mean D_S|| / ||mean sum of D_i|| over targets, 1 under
    independence (the published ratio of d's is 0.707 for independent pairs by construction). An interaction is
    *redundant* where its sign opposes that of the summed parts, *synergistic* where it agrees or the parts alone do
    nothing, *additive* where its q (over all with a non-zero interaction) exceeds `max_q`.

    Measures `norm_ratio_2`, `norm_ratio_3` (of pairs and triples; null 1), `redundant_share_2`, `synergistic_share_2`
    ... (of targets that respond to the subset at all; null 0), `mean_interaction_2` ...; intervals resample sets.
    Table: one row per (set, subset of at least two, target): `order, mean_response, mean_sum, interaction, p_value,
    q_value, effect`.

    `subset` is a bit mask over the members of the set (1 the first, 2 the second, 3 both, 4 the third ...). All subsets
    of a set must be read at the same positions, where any member fires. Rows with delta 0 may be left out.
    """
    _check(effects, sets)
    rng = np.random.default_rng(seed)
    members = sets.groupby("set_id")["member"].size().to_dict()
    n_cells = sets.groupby("set_id")["n_cells"].first().to_dict()
    tables = [_of_set(rows, members[name], n_cells[name], rng) for name, rows in effects.groupby("set_id")]
    table = pd.concat(tables, ignore_index=True)
    made = table["interaction"].to_numpy() != 0
    q = np.ones(len(table))
    q[made] = benjamini_hochberg(table.loc[made, "p_value"].to_numpy())
    opposes = np.sign(table["interaction"]) * np.sign(table["mean_sum"]) < 0
    table["q_value"] = q
    table["effect"] = np.where(q >= max_q, "additive", np.where(opposes, "redundant", "synergistic"))
    measures = []
    for order in sorted(table["order"].unique()):
        measures += _measures(int(order), table.loc[table["order"] == order], rng, draws)
    return QUESTION.answer(sorted(measures, key=lambda m: not m.measure.startswith("norm_ratio")), table)


def _check(effects: pd.DataFrame, sets: pd.DataFrame) -> None:
    need_columns("table interactions", effects, COLUMNS)
    need_columns("table interaction_sets", sets, ["set_id", "member", "n_cells"])
    members = sets.groupby("set_id").size()
    if members.empty or members.max() < 2:
        raise ScircuitError("no set has two members or more; ablate pairs or triples of sources.")
    lacking = [name for name in effects["set_id"].unique() if name not in members.index]
    if lacking:
        raise ScircuitError(f"set {lacking[0]} is in interactions but not in interaction_sets.")
    present = effects[["set_id", "subset"]].drop_duplicates()
    for set_id, n_members in members.items():
        subsets = set(present.loc[present["set_id"] == set_id, "subset"])
        full = (1 << int(n_members)) - 1
        if subsets and subsets != set(range(1, full + 1)):
            raise ScircuitError(
                f"set {set_id} of {n_members} members has subsets {sorted(subsets)}; every one of 1..{full} "
                "must have been ablated, and no other."
            )


def _of_set(rows: pd.DataFrame, n_members: int, n_cells: int, rng: np.random.Generator) -> pd.DataFrame:
    """Interactions of all subsets of one set, one row per (subset, target)."""
    ends = TARGET
    target = rows.groupby(ends).ngroup().to_numpy()
    names = rows[ends].drop_duplicates().sort_values(ends)
    cell, cells = pd.factorize(rows["cell"])
    responses = np.zeros((1 << n_members, len(names), len(cells)))
    np.add.at(responses, (rows["subset"].to_numpy(), target, cell), rows["delta"].to_numpy(np.float64))
    tables = []
    for subset in range(3, 1 << n_members):
        parts = [part for part in range(1, subset + 1) if part & subset == part]
        order = subset.bit_count()
        if order < 2:
            continue
        term = sum((-1) ** (order - part.bit_count()) * responses[part] for part in parts)
        single = sum(responses[part] for part in parts if part.bit_count() == 1)
        scale = np.abs(responses[parts]).max(axis=0)
        # What remains of a sum of floats that cancel is rounding, not interaction.
        term = np.where(np.abs(term) > 1e-6 * scale, term, 0.0)
        responds = (responses[parts] != 0).any(axis=(0, 2))
        table = pd.DataFrame(
            {
                "set_id": rows["set_id"].iloc[0],
                "subset": subset,
                "order": order,
                "target_layer": names["target_layer"].to_numpy(),
                "target_feature": names["target_feature"].to_numpy(),
                "mean_response": responses[subset].sum(axis=1) / n_cells,
                "mean_sum": single.sum(axis=1) / n_cells,
                "interaction": term.sum(axis=1) / n_cells,
                "p_value": signflip_p(term, rng),
            }
        )
        tables.append(table[responds])
    return pd.concat(tables, ignore_index=True)


def _measures(order: int, rows: pd.DataFrame, rng: np.random.Generator, draws: int) -> list[Measure]:
    squares = rows.assign(own=rows["mean_response"] ** 2, parts=rows["mean_sum"] ** 2)
    norms = squares.groupby("set_id")[["own", "parts"]].sum().to_numpy()
    interval = cluster_bootstrap(norms, _norm_ratio, rng, draws)
    n_sets, n = len(norms), len(rows)
    measures = [Measure.of(f"norm_ratio_{order}", interval, n_sets, 1.0, unit_of_n="sets")]
    counts = rows.groupby("set_id").size()
    for effect in ("redundant", "synergistic"):
        part = (rows["effect"] == effect).groupby(rows["set_id"]).sum()
        share = ratio_interval(part, counts, rng, draws)
        measures.append(Measure.of(f"{effect}_share_{order}", share, n, 0.0, unit_of_n="targets"))
    total = rows.groupby("set_id")["interaction"].sum()
    mean = ratio_interval(total, counts, rng, draws)
    measures.append(Measure.of(f"mean_interaction_{order}", mean, n, 0.0, unit_of_n="targets"))
    return measures


def _norm_ratio(totals: np.ndarray) -> np.ndarray:
    return np.sqrt(ratio(totals))


QUESTION = Question(
    asks="Do sources add up, or interact?",
    title="Interactions",
    function=interactions,
    definition="interactions/1",
    null_model="independent effects: interaction 0, norm ratio 1",
    terms=("interaction", "response"),
    needs=("interactions", "interaction_sets"),
    marks="Every mark is a target of a set; on the diagonal the effects add up. At most 3,000 are drawn.",
    words={"norm_ratio_2": "norm ratio of pairs", "norm_ratio_3": "norm ratio of triples"},
)
