"""Progress where nobody watches: lines in the log with rate, time left and what was found."""

import logging

import pytest

from scircuit import _progress


def test_a_log_line_says_rate_time_left_and_what_was_found(monkeypatch, caplog):
    clock = iter(range(0, 1000, 30))
    monkeypatch.setattr(_progress.time, "monotonic", lambda: float(next(clock)))
    with caplog.at_level(logging.INFO, "scircuit._progress"), _progress.Watched(10, "trace", done=4) as bar:
        bar.say("0 edges so far")
        for words in (None, "7 edges so far", None):
            bar.step(words)
    assert caplog.messages == ["trace: 6 of 10 blocks, 2 a minute, 2 min left, 7 edges so far"]


@pytest.mark.parametrize("words", [None, "3 edges so far"])
def test_a_bar_shows_the_words(monkeypatch, capsys, words):
    monkeypatch.setattr(_progress.sys.stderr, "isatty", lambda: True, raising=False)
    with _progress.Watched(2, "trace") as bar:
        bar._bar.delay = 0
        bar.step(words)
        assert bar._bar.postfix == words
        assert bar._bar.n == 1
