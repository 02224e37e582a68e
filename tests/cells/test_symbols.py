"""Symbols listed in the published id mapping do not open a door for another species."""

import numpy as np
import pandas as pd

from scircuit.cells.vocabulary import Vocabulary


def test_symbols_among_the_aliases_are_matched_as_symbols_only():
    genes = pd.DataFrame({"ensembl_id": ["ENSG1", "ENSG2"], "symbol": ["ACTB", "GAPDH"], "token": [0, 1]})
    aliases = {"ENSG0000OLD": "ENSG1", "ACTB": "ENSG1", "BETA-ACTIN": "ENSG1"}
    vocabulary = Vocabulary(genes, {"<pad>": 2}, np.ones(2), aliases)
    assert set(vocabulary.rows_by_ensembl()) == {"ENSG1", "ENSG2", "ENSG0000OLD"}
    assert vocabulary.rows_by_symbol() == {"ACTB": 0, "BETA-ACTIN": 0, "GAPDH": 1}
    assert "Actb" not in vocabulary.rows_by_symbol()
