"""Which obs columns name what cells have in common beyond their type: donors, samples, batches. No torch."""

import re

import pandas as pd

_NAMES = re.compile(
    r"(^|[^a-z])(donor|patient|subject|individual|participant|mouse|animal|sample|batch|library|channel|replicate|plate)"
    r"s?([^a-z]|id|name|number|$)",
    re.IGNORECASE,
)


def unit_columns(obs: pd.DataFrame) -> list[str]:
    """Columns that look like units of inference by their name, the coarsest first.

    Cells of one donor, sample or batch share its noise, so tests over cells call too much; where samples lie within
    donors it is the donors that are independent. A column counts with two values or more and at least two cells per
    value on average.
    """
    counts = {name: obs[name].nunique() for name in obs.columns if _NAMES.search(str(name))}
    return [str(name) for name in sorted(counts, key=counts.__getitem__) if 2 <= counts[name] <= len(obs) / 2]
