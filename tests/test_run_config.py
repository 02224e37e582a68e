"""A run's config: its sections are the rooms' own settings, documented field by field, read back as written."""

import json
import tomllib
from dataclasses import replace

import pytest

from scircuit._settings import documentation, file_fields
from scircuit.circuits.rule import EdgeRule
from scircuit.config import PROFILES, RunConfig
from scircuit.config_file import SECTIONS, parse_config, template
from scircuit.errors import ScircuitError
from scircuit.published.profiles import profile
from scircuit.sae.settings import SaeTraining
from scircuit.tracing.settings import TraceSettings


def test_the_template_is_the_default_run_with_every_value_of_every_section() -> None:
    read = tomllib.loads(template())
    assert parse_config(read) == RunConfig()
    text = template()
    for name in SECTIONS:
        section = getattr(RunConfig(), name)
        for setting in file_fields(type(section)):
            value = getattr(section, setting.name)
            written = value is not None and not setting.metadata.get("tables")
            assert (setting.name in read[name]) == written, f"{name}.{setting.name}"
            assert f"\n# {documentation(type(section))[setting.name]}\n" in text, f"{name}.{setting.name}"


@pytest.mark.parametrize(("section", "room"), [("sae", SaeTraining), ("trace", TraceSettings), ("edges", EdgeRule)])
def test_a_section_is_the_settings_of_its_room(section: str, room: type) -> None:
    default = getattr(RunConfig(), section)
    assert isinstance(default, room)
    assert {name: getattr(default, name) for name in vars(room())} == vars(room())


def test_the_seed_and_the_rule_of_a_run_reach_its_sections() -> None:
    config = parse_config({"seed": 4, "edges": {"max_q": 0.2, "min_abs_d": 0.3}})
    assert (config.sae.seed, config.trace.seed, config.trace.rule) == (4, 4, config.edges)
    assert config.trace.retention == 0.2, "what is kept must hold every test that may become an edge"
    later = replace(config, seed=5, edges=replace(config.edges, min_abs_d=0.1))
    assert (later.sae.seed, later.trace.seed, later.trace.rule.min_abs_d) == (5, 5, 0.1)


@pytest.mark.parametrize("key", ["seed", "rule", "retention", "score_bytes"])
def test_what_follows_from_the_run_is_no_key_of_the_trace(key: str) -> None:
    with pytest.raises(ScircuitError, match=f"config: trace: unknown key '{key}'"):
        parse_config({"trace": {key: 1}})
    assert key not in RunConfig().to_dict()["trace"]


def test_a_config_is_read_back_as_it_was_recorded() -> None:
    content = {
        "seed": 3,
        "profile": "paper",
        "cells": {"stratify": ["a"], "n_per": {"x": 3}},
        "sae": {"matryoshka": [0.5], "mix": [{"name": "m", "weight": 2, "shares": {"train": 1}}]},
        "trace": {"memory": "8GB", "targets": [1]},
    }
    config = parse_config(content)
    assert parse_config(json.loads(json.dumps(config.to_dict()))) == config
    assert config.edges == profile("paper").rule


def test_the_paper_profile_yields_to_values_of_the_file() -> None:
    config = parse_config({"profile": "paper", "edges": {"top_k": 7}})
    assert (config.edges.top_k, config.edges.consistency) == (7, "zero_as_negative")
    assert config.trace.decoy == PROFILES["paper"]["trace"]["decoy"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"edges": {"max_q": 7}}, "run.toml: edges: max_q is 7.0; give a rate"),
        (
            {"edges": {"min_consistency": 2}},
            "edges.min_consistency = 2.0 is out of range; it must lie between 0 and 1",
        ),
        ({"sae": {"k": 0}}, "run.toml: sae.k = 0 is out of range; it must be at least 1"),
        ({"sae": {"lr": -1}}, "run.toml: sae: .*lr is -1.0; it must be positive"),
        ({"sae": {"mix": [{"name": "a"}, {"n": 0}]}}, r"run.toml: sae.mix\[1\].n = 0 is out of range"),
        ({"trace": {"engine": "fast"}}, "run.toml: trace: engine='fast' is unknown"),
        ({"trace": {"tokens": "many"}}, "run.toml: trace.tokens = 'many' is of the wrong type; int is needed"),
        ({"trace": 3}, "run.toml: trace must be a table"),
        ({"cells": {"min_match": None}}, "run.toml: cells.min_match cannot be null"),
    ],
)
def test_a_refusal_names_file_section_and_key(content: dict, says: str) -> None:
    with pytest.raises(ScircuitError, match=says):
        parse_config(content, "run.toml")
