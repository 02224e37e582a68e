import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scircuit.features.labels import UNLABELLED, label_features
from scircuit.knowledge.gmt import readable

COLUMNS = ["layer", "feature", "library", "term", "n_overlap", "information_content", "p_value", "q_value"]


def terms(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


FEATURES = pd.DataFrame(
    {"layer": [0, 0, 1], "feature": [0, 1, 0], "frequency": 0.1, "top_genes": [["A"], ["B"], ["C"]]}
)


def test_information_then_overlap_then_p_then_name():
    table = terms(
        (0, 0, "l", "broad", 9, 2.0, 1e-9, 1e-8),
        (0, 0, "l", "narrow, few", 3, 6.0, 1e-9, 1e-8),
        (0, 0, "l", "narrow, many, weak", 4, 6.0, 1e-4, 1e-3),
        (0, 0, "l", "narrow, many, b", 4, 6.0, 1e-5, 1e-4),
        (0, 0, "k", "narrow, many, c", 4, 6.0, 1e-5, 1e-4),
        (1, 0, "l", "only", 3, 1.0, 1e-3, 1e-2),
    )
    out = label_features(FEATURES, table)
    first, dead, other = out.to_dict("records")
    assert (first["label"], first["runner_up"]) == ("narrow, many, c", "narrow, many, b")
    assert (first["n_terms"], first["n_libraries"], first["best_q"]) == (5, 2, 1e-8)
    assert (dead["label"], dead["label_term_id"], dead["runner_up"], dead["n_terms"]) == (UNLABELLED, "", "", 0)
    assert (other["label"], other["runner_up"]) == ("only", "")
    assert list(out.columns[:4]) == ["layer", "feature", "label", "label_term_id"]
    pd.testing.assert_frame_equal(label_features(out, table), out)


@given(st.permutations(range(6)))
def test_order_of_the_terms_does_not_matter(order):
    rows = [(0, 0, "l", f"t{i}", 3 + i % 2, float(i % 3), 0.01, 0.02) for i in range(6)]
    shuffled = label_features(FEATURES, terms(*(rows[i] for i in order)))
    pd.testing.assert_frame_equal(shuffled, label_features(FEATURES, terms(*rows)))


def test_no_terms_at_all():
    out = label_features(FEATURES, terms())
    assert out["label"].tolist() == [UNLABELLED] * 3


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("DNA repair (GO:0006281)", "DNA repair"),
        ("Interleukin (IL-2) signalling", "Interleukin (IL-2) signalling"),
        ("Apoptosis", "Apoptosis"),
    ],
)
def test_readable(term, text):
    assert readable(term) == text
