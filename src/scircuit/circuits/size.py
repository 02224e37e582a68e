"""How large an effect is: in SD of the target's clean activation, and as a share of it.

The model is deterministic, so d = mean / SD over cells says how far cells agree, never whether the response is worth
a name. Its size does: over the cells and positions where the source fires, effect_sd = mean response / SD of the
target's clean activation between cells, and share_lost = -mean response / the target's mean clean activation. In the
cells in which an edge was chosen for it, it is too large and its interval covers too seldom; the confirmation has it in
others.
"""

import numpy as np
import pandas as pd


def sizes(effects: pd.DataFrame) -> pd.DataFrame:
    """Columns of size, float32, one row per test of `mean_delta, ci_low, ci_high, clean_mean, clean_sd`.

    `effect_sd` with its 95 % interval `effect_sd_low, effect_sd_high`, `effect_sd_near` (the end of the interval that
    lies nearer to 0, as a distance; negative where the interval holds 0), and `share_lost`. NaN where the clean
    activation does not vary, or for `share_lost` is 0.
    """
    sd = effects["clean_sd"].to_numpy(np.float64)
    scale = np.where(sd > 0, sd, np.nan)
    mean, low, high = (effects[name].to_numpy(np.float64) / scale for name in ("mean_delta", "ci_low", "ci_high"))
    clean = effects["clean_mean"].to_numpy(np.float64)
    lost = -effects["mean_delta"].to_numpy(np.float64) / np.where(clean > 0, clean, np.nan)
    columns = {
        "effect_sd": mean,
        "effect_sd_low": low,
        "effect_sd_high": high,
        "effect_sd_near": np.where(mean > 0, low, -high),
        "share_lost": lost,
    }
    return pd.DataFrame(columns, index=effects.index).astype(np.float32)
