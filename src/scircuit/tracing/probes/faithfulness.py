"""A behaviour with a circuit alone, without it, and with as many random latents: what three questions read."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scircuit._progress import progress
from scircuit.circuits.variants import Variant, table_of
from scircuit.errors import ScircuitError
from scircuit.tracing.probes.behaviours import Behaviour
from scircuit.tracing.probes.kept import KeptSets, Means, read_kept
from scircuit.tracing.setup import Setup


def trace_variants(
    setup: Setup, name: str, behaviour: Behaviour, variants: Sequence[Variant], means: Means
) -> pd.DataFrame:
    """Read the behaviour `name` of every cell under every variant; the table is `faithfulness.parquet`.

    Variants that keep the same latents are run once. Cells that cannot be asked (none of the genes stands in them) do
    not appear; `group` is the donor or batch where the trace takes such for units, else empty.
    """
    found = {variant.key: variant for variant in variants if variant.kind != "model"}
    row_of = {key: row for row, key in enumerate(found, 1)}
    sets = KeptSets(setup, list(found.values()), means, behaviour.below)
    cells, values = [], []
    batches = setup.cells.batches(1, by_length=False)
    for batch in progress(batches, total=len(setup.cells), desc=name, unit="cell"):
        asked = behaviour.ask(batch)
        if asked is not None:
            cells.append(int(batch.cell[0]))
            values.append(read_kept(setup.model, asked.batch, sets, asked.read, setup.settings.tokens))
    if not cells:
        raise ScircuitError(f"None of these cells can be asked for {name}; choose another behaviour, or other cells.")
    rows = [0 if variant.kind == "model" else row_of[variant.key] for variant in variants]
    table = table_of(name, list(variants), _groups(setup, cells), np.array(values).T[rows])
    told = _told(name, behaviour)
    return table if told.empty else pd.concat([table, told], ignore_index=True)


def _groups(setup: Setup, cells: list[int]) -> pd.DataFrame:
    column = setup.settings.units
    obs = setup.cells.cells.iloc[cells]
    return pd.DataFrame({"cell": cells, "group": obs[column].astype(str).to_numpy() if column else ""})


def _told(name: str, behaviour: Behaviour) -> pd.DataFrame:
    """What a fitted behaviour says of itself, as further rows."""
    told = behaviour.told()
    return pd.DataFrame(
        {
            "behaviour": name, "kind": told["kind"], "unit": "", "order": "", "share": np.nan, "n_latents": 0,
            "ablation": "", "error": "", "draw": 0, "layer": -1, "feature": -1, "cell": told["cell"], "group": "",
            "value": told["value"],
        }
    )  # fmt: skip
