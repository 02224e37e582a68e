"""What became of the edges in cells that had no part in finding them. No torch."""

import numpy as np
import pandas as pd

from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.grades import at_least
from scircuit.circuits.schema import ENDS

ALPHA = 0.05
"""Level of the q of an edge that is found again."""


def found_again(confirmed: pd.DataFrame, alpha: float = ALPHA) -> np.ndarray:
    """Whether each edge that was measured again has its sign and q < `alpha` there, bool `[edge]`.

    One whose source is silent there is not found again. `confirmed` is `confirmation/edges.parquet`.
    """
    q = confirmed["q_value"].to_numpy()
    same = np.sign(confirmed["discovery_d"].to_numpy()) == np.sign(confirmed["cohens_d"].to_numpy())
    return same & (q < alpha)


def grades_found_again(run: Artefacts) -> list[dict[str, int]]:
    """Of every grade that the run told, `n_measured` edges again and `n_found`; empty without a confirmation."""
    if not run.has("confirmation"):
        return []
    told = run.provenance().get("grades", [])
    edges = run.circuit(grade=told[0]["grade"] if told else None, columns=()).edges
    confirmed = run.table("confirmation")
    found = pd.Series(found_again(confirmed), index=pd.MultiIndex.from_frame(confirmed[ENDS]))
    measured = pd.MultiIndex.from_frame(edges[ENDS])
    known, again = measured.isin(found.index), measured.isin(found.index[found])
    rows = [at_least(edges, row["grade"]) for row in told] or [np.ones(len(edges), dtype=bool)]
    return [{"n_measured": int((known & of).sum()), "n_found": int((again & of).sum())} for of in rows]
