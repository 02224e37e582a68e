"""The grades of edges: reproducible, sizeable, specific; and how many of each decoys reach that no one looked for."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scircuit.circuits.rule import EdgeRule
from scircuit.circuits.schema import GRADES, PUSHED_BY, SIZED_BY
from scircuit.circuits.size import sizes
from scircuit.circuits.specificity import held_out, n_made, q_specific, scores

_GRADE = pd.CategoricalDtype(list(GRADES), ordered=True)


class Graded(NamedTuple):
    """Edges with `grade` and the columns that it rests on, and the strictest grade that could be told."""

    edges: pd.DataFrame
    grade: str


def graded(edges: pd.DataFrame, tests: pd.DataFrame, rule: EdgeRule, scales: pd.DataFrame | None) -> Graded:
    """Judge reproducible edges of latents and decoys by the further claims of a rule.

    `edges` have the columns of `effects`; where they lack those of size or of the push, the claims that need them are
    not made. `tests` count what the competition with decoys rests on, `scales` are `trace/scales.parquet`.
    """
    grade = np.zeros(len(edges), dtype=np.int8)
    reached = 0
    if set(SIZED_BY) <= set(edges.columns):
        edges = edges.assign(**sizes(edges))
        if rule.min_effect_sd is not None:
            grade[rule.sizeable(edges)] = reached = 1
    if reached and set(PUSHED_BY) <= set(edges.columns) and scales is not None and len(scales):
        score = scores(edges, scales)
        q = q_specific(edges, score, grade == 1, tests)
        edges = edges.assign(specificity=score.astype(np.float32), q_specific=q)
        if rule.max_q_specific is not None:
            grade[(grade == 1) & (q < rule.max_q_specific)] = reached = 2
    return Graded(edges.assign(grade=pd.Categorical.from_codes(grade, dtype=_GRADE)), GRADES[reached])


def at_least(edges: pd.DataFrame, grade: str) -> np.ndarray:
    """Which edges are of a grade or a stricter one, bool `[edge]`; a table without grades holds reproducible edges."""
    if "grade" not in edges.columns:
        return np.full(len(edges), grade == GRADES[0])
    return (edges["grade"].cat.codes >= GRADES.index(grade)).to_numpy()


SEEN = "How small an effect it could have seen, `scircuit positive-control RUN` tells."
"""What stands beside every sentence that nothing was found, until a positive control was run."""


def nothing_specific(provenance: Mapping[str, Any], seen: str = SEEN) -> list[str]:
    """The sentence on a circuit that was asked for specific edges and has none, with what may help; else nothing.

    `seen` says what the run could have seen (`analysis.positive_control.seen`).
    """
    rows = provenance.get("grades", [])
    if not rows or rows[-1]["grade"] != GRADES[-1] or rows[-1]["n_edges"]:
        return []
    return [
        "No edge is specific: pushes of the same size without meaning move these targets as far. More cells, better "
        "dictionaries or other decoys (trace.decoy) may tell them apart; `scircuit analyze QUESTION RUN --option "
        f"grade=sizeable` asks the wider circuit, `scircuit report RUN --grade sizeable` shows it. {seen}"
    ]


def sentences(provenance: Mapping[str, Any]) -> list[str]:
    """What a circuit holds, grade by grade beside decoys, and what to do where nothing is specific; for `run.json`."""
    rows = provenance.get("grades", [])
    said = []
    for row in rows:
        beside = "" if row["n_by_decoys"] is None else f" ({row['n_by_decoys']:,.0f} by held-out decoys)"
        said.append(f"{row['n_edges']:,} {row['grade']}{beside}")
    if not said:
        return []
    found = [f"Of {provenance['n_tests']:,} tests, edges: {', '.join(said)}.", *nothing_specific(provenance)]
    if provenance.get("n_skewed"):
        found.append(
            f"{provenance['n_skewed']:,} of the {rows[0]['n_edges']:,} reproducible edges rest on skewed responses, "
            "for which p is too small; edges.allow_for_skew = true leaves them out."
        )
    return found


def headline(edges: pd.DataFrame, controls: pd.DataFrame, tests: pd.DataFrame, told: str) -> list[dict[str, Any]]:
    """Edges of each grade up to `told`, beside what held-out decoys reach under the same rule.

    Per grade `grade, n_edges` and `n_by_decoys`: the edges of held-out decoys, brought to the number of tests of the
    latents (None where no decoy was held out).
    """
    of_latents = n_made(tests, "latent")
    of_decoys = int(tests.loc[held_out(tests), "n_tests"].sum())
    aside = controls.loc[controls["draw"].isin(tests.loc[held_out(tests), "draw"].unique())]
    rows = []
    for grade in GRADES[: GRADES.index(told) + 1]:
        by_decoys = int(at_least(aside, grade).sum()) * of_latents / of_decoys if of_decoys else None
        rows.append({"grade": grade, "n_edges": int(at_least(edges, grade).sum()), "n_by_decoys": by_decoys})
    return rows
