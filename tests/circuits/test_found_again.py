"""Edges of each grade that are found again in other cells."""

import pandas as pd

from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.confirmation import found_again, grades_found_again
from scircuit.circuits.schema import ENDS, GRADES
from scircuit.stats.multiple import benjamini_hochberg

ROWS = [  # target, grade, d there, p there
    (0, "specific", 0.9, 1e-6),
    (1, "specific", -0.9, 1e-6),  # of the other sign
    (2, "sizeable", 0.8, 1e-6),
    (3, "reproducible", 0.1, 0.6),
    (4, "reproducible", 0.7, 1e-6),  # not measured again
]


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    ends = pd.DataFrame([(0, 7, 1, row[0]) for row in ROWS], columns=ENDS)
    edges = ends.assign(grade=pd.Categorical([row[1] for row in ROWS], categories=GRADES, ordered=True))
    again = ends.assign(discovery_d=1.0, cohens_d=[row[2] for row in ROWS], p_value=[row[3] for row in ROWS]).iloc[:4]
    return edges, again.assign(q_value=benjamini_hochberg(again["p_value"].to_numpy()))


def test_the_sign_must_be_that_of_discovery() -> None:
    assert found_again(tables()[1]).tolist() == [True, False, True, False]


def test_grades_hold_those_that_are_stricter() -> None:
    edges, again = tables()
    nothing = pd.DataFrame()
    told = {"grade": "specific", "grades": [{"grade": grade} for grade in GRADES]}
    circuit = Circuit(edges, nothing, nothing, edges.iloc[:0], nothing, told)
    run = Artefacts("run", held={"circuit": circuit, "confirmation": again})
    assert grades_found_again(run) == [
        {"n_measured": 4, "n_found": 2}, {"n_measured": 3, "n_found": 2}, {"n_measured": 2, "n_found": 1},
    ]  # fmt: skip
    assert grades_found_again(Artefacts("run", held={"circuit": circuit})) == []
