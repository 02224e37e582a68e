"""Self-repair: whether a latent does more when another is gone, which single ablations then understate."""

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import need_columns
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.schema import TARGET
from scircuit.errors import ScircuitError
from scircuit.stats.multiple import benjamini_hochberg
from scircuit.stats.resampling import ratio_interval
from scircuit.stats.signflip import signflip_p

_NEEDS = ["set_id", "subset", "target_layer", "target_feature", "cell", "delta"]


def self_repair(
    effects: pd.DataFrame, sets: pd.DataFrame, max_q: float = 0.05, draws: int = 2000, seed: int = 0
) -> Result:
    """How the effect of a latent u on a target changes once another latent S is ablated, over pairs.

    G(u|S) = (D_uS - D_S) - D_u, cell by cell, D being the response to an ablation. `gain` = sum of G along the sign of
    u's own effect, over the sum of the sizes of these: above 0 u does more when S is gone (it stands in for S), below 0
    less (they do the same work). `repaired_share`, `overlapping_share`: of the (u, S, target) at which u acts, those
    with G significant (q < `max_q`) along, or against, u's own effect. Null 0; intervals resample sets. Table: one row
    per (set, target, u): `own` (mean D_u), `given` (mean of D_uS - D_S), `g, p_value, q_value`.
    """
    need_columns("table interactions", effects, _NEEDS)
    rng = np.random.default_rng(seed)
    n_cells = sets.groupby("set_id")["n_cells"].first()
    parts = [_of_pairs(rows, int(n_cells[name]), rng) for name, rows in effects.groupby("set_id")]
    table = pd.concat([part for part in parts if len(part)] or [pd.DataFrame()], ignore_index=True)
    if table.empty:
        raise ScircuitError("no pair of sources moves a common target; ablate other pairs (`scircuit combine CONFIG`).")
    table["q_value"] = benjamini_hochberg(table["p_value"].to_numpy())
    along = np.sign(table["own"]) * table["g"]
    clear = table["q_value"] < max_q
    of_set = table.assign(
        along=along, size=table["own"].abs(), one=1, repaired=clear & (along > 0), overlapping=clear & (along < 0)
    ).groupby("set_id")[["along", "size", "one", "repaired", "overlapping"]].sum()  # fmt: skip
    gain = ratio_interval(of_set["along"], of_set["size"], rng, draws)
    measures = [Measure.of("gain", gain, len(of_set), 0.0, np.nan, "sets")]
    for name in ("repaired", "overlapping"):
        share = ratio_interval(of_set[name], of_set["one"], rng, draws)
        measures.append(Measure.of(f"{name}_share", share, len(table), 0.0, np.nan, "pairs at a target"))
    return QUESTION.answer(measures, table)


def _of_pairs(rows: pd.DataFrame, n_cells: int, rng: np.random.Generator) -> pd.DataFrame:
    """G of both members of every pair of a set, at the targets that the member moves."""
    names = rows[TARGET].drop_duplicates().sort_values(TARGET)
    target = rows.groupby(TARGET).ngroup().to_numpy()
    cell, cells = pd.factorize(rows["cell"])
    subsets = sorted(rows["subset"].unique().tolist())
    response = {subset: np.zeros((len(names), len(cells))) for subset in subsets}
    for subset in subsets:
        mine = (rows["subset"] == subset).to_numpy()
        np.add.at(response[subset], (target[mine], cell[mine]), rows["delta"].to_numpy(np.float64)[mine])
    parts: list[pd.DataFrame] = []
    for pair in (s for s in subsets if s.bit_count() == 2):
        members = [1 << bit for bit in range(pair.bit_length()) if pair >> bit & 1]
        for own, other in (members, members[::-1]):
            given = response[pair] - response[other]
            g = given - response[own]
            scale = np.maximum(np.abs(given), np.abs(response[own]))
            g = np.where(np.abs(g) > 1e-6 * scale, g, 0.0)  # what remains of floats that cancel is rounding
            acts = np.flatnonzero(response[own].any(axis=1))
            means = {"own": response[own], "given": given, "g": g}
            table = names.assign(set_id=rows["set_id"].iloc[0], member=own.bit_length() - 1, pair=pair)
            table = table.assign(**{name: value.sum(axis=1) / n_cells for name, value in means.items()})
            parts.append(table.assign(p_value=signflip_p(g, rng)).iloc[acts])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


QUESTION = Question(
    asks="Does a latent do more when another is gone?",
    title="Self-repair",
    function=self_repair,
    definition="self-repair/1",
    null_model="latents that do not know of one another: no change of an effect",
    terms=("response",),
    glossary="self-repair: another latent does more once one is ablated, so that the ablation of one alone shows less "
    "than it does; overlap: it does less, for both did the same work.",
    needs=("interactions", "interaction_sets"),
    figure="measures",
    words={
        "gain": "change of an effect once another latent is ablated, over its size",
        "repaired_share": "effects that grow once another latent is ablated",
        "overlapping_share": "effects that shrink once another latent is ablated",
    },
)
