import pandas as pd
import pytest

from scircuit.cells.independence import unit_columns


def obs(**columns):
    return pd.DataFrame({name: (values * 40)[:40] for name, values in columns.items()})


@pytest.mark.parametrize(
    "name", ["donor", "donor_id", "Donor", "patient", "Sample", "orig.sample", "batch", "mouse.id", "subject_number"]
)
def test_names_of_units_are_known(name):
    assert unit_columns(obs(**{name: ["a", "b", "c"], "cell_type": ["T", "B"]})) == [name]


@pytest.mark.parametrize("name", ["cell_type", "n_genes", "resampled_score", "percent_mito", "batching", "donation"])
def test_others_are_not(name):
    assert unit_columns(obs(**{name: ["a", "b"]})) == []


def test_the_coarsest_comes_first_and_one_value_or_one_per_cell_is_no_unit():
    table = obs(
        sample=[f"s{i}" for i in range(8)], donor=["a", "a", "b", "b"], batch=["one"], library=list(map(str, range(40)))
    )
    assert unit_columns(table) == ["donor", "sample"]
