"""The notebook of answers: written, read again, replaced, refused, and said in words."""

import numpy as np
import pandas as pd
import pytest

from scircuit.analysis.answers import COLUMNS, Answers, beside, glossary, headlines, read_answers, sentence
from scircuit.analysis.result import Measure, Result
from scircuit.errors import ScircuitError


def result(question="hubs", estimate=0.5):
    rows = [Measure("share", estimate, 0.4, 0.6, 0.45, 0.01, 1200), Measure("other", 2.0, n=3, unit_of_n="cells")]
    return Result.of(question, f"{question}/1", rows, pd.DataFrame({"x": [1, 2]}), "nothing", ["d"])


def refuse():
    raise ScircuitError("no edges; trace more cells.")


def test_a_notebook_is_written_and_read_again(tmp_path):
    notebook = Answers(tmp_path, {"run_id": "r"})
    notebook.ask("hubs", result)
    notebook.ask("selection", refuse, "pairs/a--b", ["a", "b"])
    written = notebook.write()
    pd.testing.assert_frame_equal(read_answers(tmp_path), written)
    assert list(written) == list(COLUMNS)
    answered, refused = Answers(tmp_path, table=written).read()
    assert answered.result["share"] == result()["share"]
    pd.testing.assert_frame_equal(answered.result.table, result().table)
    assert (refused.names, refused.folder, refused.result) == ("a | b", "pairs/a--b", None)
    assert refused.refused == "no edges; trace more cells."


def test_an_answer_stays_until_its_question_is_asked_again(tmp_path):
    first = Answers(tmp_path)
    for question in ("hubs", "selection"):
        first.add(result(question))
    first.write()
    second = Answers(tmp_path, table=read_answers(tmp_path))
    second.add(result("hubs", 0.7))
    table = second.write(["hubs"])
    assert table["question"].tolist() == ["hubs", "hubs", "selection", "selection"]
    assert table["estimate"].tolist() == [0.7, 2.0, 0.5, 2.0]


def test_who_asks_at_the_same_time_loses_nothing(tmp_path):
    first = Answers(tmp_path)
    first.add(result("coherence", 0.1))
    first.write()
    both = [Answers(tmp_path, table=read_answers(tmp_path)) for _ in range(3)]
    for notebook, question, estimate in zip(both, ("hubs", "selection", "coherence"), (0.2, 0.3, 0.4), strict=True):
        notebook.add(result(question, estimate))
    for notebook in both:
        table = notebook.write(["coherence", "hubs", "selection"])
    pd.testing.assert_frame_equal(read_answers(tmp_path), table)
    shares = table[table["measure"] == "share"]
    assert dict(zip(shares["question"], shares["estimate"], strict=True)) == {
        "coherence": 0.4, "hubs": 0.2, "selection": 0.3,
    }  # fmt: skip


def test_a_notebook_of_the_first_format_is_read(tmp_path):
    old = pd.DataFrame([Measure("share", 0.5)]).assign(question="hubs", definition="hubs/1", run_id="r", refused=None)
    old.to_parquet(tmp_path / "answers.parquet")
    table = read_answers(tmp_path)
    assert table.loc[0, ["names", "folder"]].tolist() == ["", ""]
    assert read_answers(tmp_path / "elsewhere").empty


def test_words(tmp_path):
    notebook = Answers(tmp_path)
    notebook.add(result())
    notebook.ask("selection", refuse, "paper")
    notebook.ask("novelty", refuse)
    notebook.ask("feature_consensus", lambda: result("feature_consensus", np.nan), "", ["a", "b"])
    assert headlines(notebook.table) == [
        "hubs: share 0.5 (0.4 to 0.6, null 0.45, p 0.01), n = 1,200 edges",
        "feature_consensus [a | b]: share undefined (0.4 to 0.6, null 0.45, p 0.01), n = 1,200 edges",
        "not answered: selection (paper), novelty; no edges; trace more cells.",
    ]
    assert sentence(notebook.table.iloc[1]) == "hubs: other 2, n = 3 cells"
    assert beside(np.nan, np.nan, np.nan) == ""
    assert glossary(notebook.table) == [text for text in glossary(notebook.table) if text.startswith("d:")]
    assert len(glossary(notebook.table)) == 1


def test_what_is_no_answer_is_refused(tmp_path):
    (tmp_path / "hubs.json").write_text("{}")
    with pytest.raises(ScircuitError, match="it is not an answer"):
        Result.read(tmp_path / "hubs.json")
    result().write(tmp_path)
    (tmp_path / "hubs.parquet").unlink()
    with pytest.raises(ScircuitError, match="write the answer again"):
        Result.read(tmp_path / "hubs.json")
