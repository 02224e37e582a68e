"""Comparison of traces that were batched differently."""

import numpy as np
import pandas as pd


def assert_same_effects(a: pd.DataFrame, b: pd.DataFrame, keys: list[str], atol: float = 1e-5) -> None:
    """Two effect tables that hold the same but for rounding.

    Kernels may give a row other last bits in another batch, and then rounding decides whether a response is exactly
    0 and so in one of the tables only.
    """
    pair = [t.set_index(keys)["mean_delta"] for t in (a, b)]
    mine, theirs = pair[0].align(pair[1], join="outer", fill_value=0.0)
    np.testing.assert_allclose(mine, theirs, atol=atol)
    assert len(mine) - len(pair[0].index.intersection(pair[1].index)) <= 0.01 * len(mine)
