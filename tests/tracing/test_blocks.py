"""How the work of a trace is cut into blocks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.parts import most_at_once, plan_units, source_blocks


@given(st.lists(st.integers(0, 70), min_size=1, max_size=3), st.integers(1, 30), st.integers(1, 9))
def test_every_intervention_meets_every_cell_once(
    sizes: list[int], sources_per_block: int, cells_per_block: int
) -> None:
    todo = {layer: [Intervention((f,)) for f in range(size)] for layer, size in enumerate(sizes)}
    units = plan_units(todo, np.arange(20), sources_per_block, cells_per_block)
    assert len({unit.name for unit in units}) == len(units)
    met = [(u.layer, i.features[0], int(cell)) for u in units for i in u.interventions for cell in u.cells]
    wanted = [(layer, f, cell) for layer, size in enumerate(sizes) for f in range(size) for cell in range(20)]
    assert sorted(met) == wanted
    assert all(len(unit.interventions) <= most_at_once(sources_per_block) for unit in units)


def test_a_tenth_more_decoys_makes_no_further_block() -> None:
    """Each block runs the clean side of its cells again: 102 decoys as a third block cost as much as 500 sources."""
    blocks = source_blocks(plan_units({0: [Intervention((f,)) for f in range(1024 + 102)]}, np.arange(8), 512, 8))
    assert [len(units[0].interventions) for units in blocks] == [563, 563]
