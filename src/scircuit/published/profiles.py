"""Profiles: by what rule edges are called, and how questions, comparisons and screens are answered. No torch.

Whoever has a profile asks it and never for its name: that the published study answers otherwise is said here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from scircuit.analysis import registry
from scircuit.analysis.consensus import consensus
from scircuit.analysis.given import Sources
from scircuit.analysis.result import Result
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.rule import DEFAULT, EdgeRule
from scircuit.errors import ScircuitError
from scircuit.knowledge.registry import load_gene_sets
from scircuit.published import questions as published
from scircuit.published.definitions import PAPER
from scircuit.published.disease import disease_paper
from scircuit.published.screen import PublishedScreen


class Asked(NamedTuple):
    """What a comparison of several runs was asked with; see `scircuit.runs.compare.compare`."""

    draws: int
    seed: int
    min_models: int
    gene_sets: Sequence[str | Path] = ()


@dataclass(frozen=True)
class Profile:
    """A named set of definitions."""

    name: str
    rule: EdgeRule
    """What is an edge."""
    folder: str
    """Where its answers lie below those of the default profile."""
    analyze: Callable[..., Result]
    """`(question, run, second, sources, **options) -> Result`."""
    answerable: Callable[[Artefacts], list[str]]
    """Names of the questions whose tables a run holds."""
    between: Mapping[str, Callable[[Sequence[Artefacts], Asked], Result]] = field(default_factory=dict)
    """What it asks of several runs beside the default questions, on circuits of its rule."""
    screen: Callable[[Circuit], PublishedScreen] | None = None
    """What it says of a screen beside the default predictions, from the circuit of its rule."""


def profile(name: str) -> Profile:
    """The profile of that name; an unknown one is refused."""
    if name not in PROFILES:
        raise ScircuitError(f"there is no profile {name!r}; choose one of {', '.join(PROFILES)}.")
    return PROFILES[name]


def _as_published(
    name: str, run: Artefacts, second: Artefacts | None = None, sources: Sources | None = None, **options: Any
) -> Result:
    if options or second is not None:
        raise ScircuitError("the published definitions take no options and no second run; leave them out.")
    return published.analyze(name, run)


def _disease(conditions: Sequence[Artefacts], asked: Asked) -> Result:
    """By the sets that are given, or those that the runs were annotated with."""
    own = [c.circuit().provenance.get("config", {}).get("features", {}).get("gene_sets", []) for c in conditions]
    sets: dict[str, Sequence[str]] = {}
    for name in asked.gene_sets or dict.fromkeys(str(name) for listed in own for name in listed):
        sets |= load_gene_sets(name).genes
    return disease_paper(conditions, sets)


PROFILES: Mapping[str, Profile] = {
    "default": Profile("default", DEFAULT, "", registry.analyze, registry.answerable),
    "paper": Profile(
        "paper",
        PAPER,
        "paper",
        _as_published,
        published.answerable,
        {
            "consensus": lambda runs, asked: consensus(runs, asked.draws, asked.draws, asked.min_models, asked.seed),
            "disease_paper": _disease,
        },
        PublishedScreen,
    ),
}
"""`default`: calibrated tests over every response, silent cells abstain, no cap; `paper`: as published."""
