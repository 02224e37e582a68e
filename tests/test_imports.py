"""The order of the floors, over every import but those for types: those inside functions count as well."""

import tomllib
from pathlib import Path

import grimp
import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def imports() -> nx.DiGraph:
    found = grimp.build_graph("scircuit", exclude_type_checking_imports=True, cache_dir=None)
    return nx.DiGraph((a, b) for a in found.modules for b in found.find_modules_directly_imported_by(a))


@pytest.fixture(scope="module")
def rooms() -> list[str]:
    """From the lowest to the highest, as import-linter is told."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [layer.removeprefix("scircuit.") for layer in reversed(layers)]


def test_no_module_imports_itself_by_a_detour(imports: nx.DiGraph) -> None:
    assert imports.number_of_edges() > 1000
    assert [sorted(part) for part in nx.strongly_connected_components(imports) if len(part) > 1] == []


def test_nothing_imports_upwards(imports: nx.DiGraph, rooms: list[str]) -> None:
    """A module of no room (`errors`, `_io`, ...) lies under every room; only the public page lies above."""

    def floor(module: str) -> int:
        if module == "scircuit":
            return len(rooms)
        room = module.split(".")[1]
        return rooms.index(room) if room in rooms else -1

    upwards = [(a, b) for a, b in imports.edges if floor(a) < floor(b)]
    assert upwards == []
