"""Progress bars with rate and time left, silent when there is nobody to watch."""

import sys
from collections.abc import Iterable
from typing import Any


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """A `tqdm` bar that stays away from logs: off unless standard error is a terminal or a notebook.

    Bars shorter than two seconds never appear, so short work stays quiet. Time left needs a length: give one that
    has it, or `total=`.
    """
    from tqdm.auto import tqdm

    options.setdefault("delay", 2.0)
    options.setdefault("disable", not (sys.stderr.isatty() or "ipykernel" in sys.modules))
    options.setdefault("dynamic_ncols", True)
    return tqdm(iterable, **options)
