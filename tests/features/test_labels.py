import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scircuit.features.labels import UNLABELLED, label_features
from scircuit.knowledge.gmt import readable

COLUMNS = ["layer", "feature", "library", "term", "n_overlap", "information_content", "p_value", "q_value", "fold"]


def terms(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


FEATURES = pd.DataFrame(
    {"layer": [0, 0, 1], "feature": [0, 1, 0], "frequency": 0.1, "top_genes": [["A"], ["B"], ["C"]]}
)


def test_q_then_fold_then_information_then_name():
    """The smallest significant set would call HLA genes by a response that shares three of them."""
    table = terms(
        (0, 0, "l", "antigen presentation", 9, 4.0, 1e-9, 1e-8, 20.0),
        (0, 0, "l", "response to interferon", 3, 6.0, 1e-4, 1e-3, 40.0),
        (0, 0, "l", "as unlikely, weaker", 9, 6.0, 1e-9, 1e-8, 10.0),
        (0, 0, "l", "as strong, broader", 9, 3.0, 1e-9, 1e-8, 20.0),
        (0, 0, "k", "as strong, as narrow", 9, 4.0, 1e-9, 1e-8, 20.0),
        (1, 0, "l", "only", 3, 1.0, 1e-3, 1e-2, 2.0),
    )
    out = label_features(FEATURES, table)
    first, dead, other = out.to_dict("records")
    assert (first["label"], first["runner_up"]) == ("as strong, as narrow", "antigen presentation")
    assert (first["n_terms"], first["n_libraries"], first["best_q"]) == (5, 2, 1e-8)
    assert (dead["label"], dead["label_term_id"], dead["runner_up"], dead["n_terms"]) == (UNLABELLED, "", "", 0)
    assert (other["label"], other["runner_up"]) == ("only", "")
    assert list(out.columns[:4]) == ["layer", "feature", "label", "label_term_id"]
    pd.testing.assert_frame_equal(label_features(out, table), out)


@given(st.permutations(range(6)))
def test_order_of_the_terms_does_not_matter(order):
    rows = [(0, 0, "l", f"t{i}", 3 + i % 2, float(i % 3), 0.01, 0.02, 2.0) for i in range(6)]
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
