"""Progress bars with rate and time left, silent when there is nobody to watch."""

import logging
import sys
import time
from collections.abc import Iterable
from typing import Any

log = logging.getLogger(__name__)
_LOG_EVERY = 60.0


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


class Watched:
    """Progress of long work with rate, time left and a few words on what was found so far.

    A bar where somebody watches; a line in the log once a minute where nobody does (a cluster's log file).

    Parameters
    ----------
    total, done
        Steps in all, and those that an earlier call had made.
    """

    def __init__(self, total: int, title: str, done: int = 0) -> None:
        self._total, self._title, self._first, self._done = total, title, done, done
        self._bar = progress(total=total, initial=done, desc=title, unit="block")
        self._started = self._logged = time.monotonic()
        self._words = ""

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def say(self, words: str | None) -> None:
        """What was found so far; None leaves the words that stand there."""
        if words is not None:
            self._words = words
            self._bar.set_postfix_str(words, refresh=False)

    def step(self, words: str | None = None) -> None:
        """One step more."""
        self.say(words)
        self._done += 1
        self._bar.update()
        now = time.monotonic()
        if self._bar.disable and now - self._logged >= _LOG_EVERY:
            self._logged = now
            rate = (self._done - self._first) / (now - self._started)
            left = (self._total - self._done) / rate
            found = f", {self._words}" if self._words else ""
            log.info(
                "%s: %d of %d blocks, %.3g a minute, %.3g min left%s",
                self._title, self._done, self._total, 60 * rate, left / 60, found,
            )  # fmt: skip
