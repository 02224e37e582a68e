"""Several runs against each other: what their circuits share, with and without labels. No torch."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

from scircuit._io import read_json, sha256_of, write_json
from scircuit.analysis.answers import Answers
from scircuit.analysis.conditions import check_conditions
from scircuit.analysis.consensus import consensus
from scircuit.analysis.disease import associate, disease_conservation
from scircuit.analysis.effect_comparison import compare_effect_sizes
from scircuit.analysis.feature_matching import feature_consensus
from scircuit.analysis.result import Result
from scircuit.analysis.subsample import in_fewer_cells
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.rule import EdgeRule
from scircuit.errors import ScircuitError
from scircuit.knowledge.choosing import disease_sets
from scircuit.published.profiles import Asked
from scircuit.published.profiles import profile as named_profile
from scircuit.report.page import write_report

log = logging.getLogger(__name__)
RECORD = "compare.json"
_FORMAT = 1


def compare(
    runs: Sequence[str | Path | Artefacts],
    out: str | Path,
    *,
    names: Sequence[str] | None = None,
    profile: str = "default",
    rule: EdgeRule | None = None,
    n_cells: int | None = None,
    disease: Sequence[str | Path] = (),
    gene_sets: Sequence[str | Path] = (),
    draws: int = 1000,
    report: bool = True,
    seed: int = 0,
    models: Sequence[str] | None = None,
    min_models: int = 2,
) -> Path:
    """Compare finished runs and write tables and a report into the folder `out`, which it returns.

    Label pairs conserved between models (`consensus`, with the published null beside it), and for every pair of runs
    latents matched by their genes (`feature_consensus`) and effect sizes at equal cells, depth and firing rate
    (`compare_effect_sizes`); with disease sets, whether disease pairs are conserved (`disease_conservation`).

    Runs of one model (of `models`, by default that in which each was traced) are conditions of it; a label pair counts
    when `min_models` share it. All circuits are first built from their traces under a `rule`, or in `n_cells` from the
    stored per-cell responses, where one of them is given. `disease` are names in the knowledge cache, or GMT files. The
    profile `paper` adds the published definitions, on circuits of the published rule; the names of `gene_sets` (by
    default those that the runs were annotated with) are then searched for its disease categories. A publishable p takes
    1,000 `draws`.

    `out` holds `answers.parquet` (one row per number), `QUESTION.{json, parquet}`, `pairs/A--B/`, `paper/`,
    `index.html`, and `compare.json` last; a folder that holds this very comparison is left as it is. A single question
    that has no answer is recorded with the reason.
    """
    out, chosen = Path(out), named_profile(profile)
    if len(runs) < 2:
        raise ScircuitError(f"{len(runs)} run was given; a comparison needs at least two run folders.")
    conditions = open_conditions(runs, names, rule, n_cells, seed, models)
    check_conditions(conditions, 1)
    sets = disease_sets(disease) if disease else {}
    asked = {
        "profile": profile,
        "disease": [str(name) for name in disease],
        "gene_sets": [str(name) for name in gene_sets],
        "draws": draws,
        "report": report,
        "seed": seed,
        "min_models": min_models,
    }
    key = sha256_of([[c.name, c.model_name, c.circuit().run_id] for c in conditions], asked, _FORMAT)
    if _done(out, key):
        return out
    tally = Answers(out)
    tally.ask("consensus", lambda: consensus(conditions, draws, draws, min_models, seed))
    for a, b in combinations(conditions, 2):
        answer = partial(feature_consensus, a, b, draws=draws, seed=seed)
        tally.ask("feature_consensus", answer, _folder(a, b), (a.name, b.name))
        ask_effect_sizes(tally, a, b, draws, seed)
    if sets:
        tally.ask("disease_conservation", lambda: _conserved_diseases(conditions, sets, min_models))
    if chosen.between:
        rebuilt = open_conditions(runs, names, chosen.rule, n_cells, seed, models)
        for question, between in chosen.between.items():
            tally.ask(question, partial(between, rebuilt, Asked(draws, seed, min_models, gene_sets)), chosen.folder)
    tally.write()
    if report:
        reported = [Artefacts.of(run).called(c.name) for run, c in zip(runs, conditions, strict=True)]
        write_report(out, reported, comparison=out)
    record = {
        "format_version": _FORMAT,
        "key": key,
        "runs": [
            {"name": c.name, "model": c.model_name, "run_id": c.circuit().run_id, "n_edges": len(c.circuit().edges)}
            for c in conditions
        ],
        "thresholds": conditions[0].circuit().provenance.get("thresholds"),
        "n_cells": conditions[0].circuit().provenance.get("n_cells"),
        **asked,
    }
    write_json(out / RECORD, record)
    return out


def open_conditions(
    runs: Sequence[str | Path | Artefacts],
    names: Sequence[str] | None = None,
    rule: EdgeRule | None = None,
    n_cells: int | None = None,
    seed: int = 0,
    models: Sequence[str] | None = None,
) -> list[Artefacts]:
    """Finished runs as conditions: under one rule, in one number of cells; arguments as for `compare`."""
    opened = [Artefacts.of(run) for run in runs]
    for what, given in (("names", names), ("models", models)):
        if given is not None and len(given) != len(opened):
            raise ScircuitError(f"{len(given)} {what} were given for {len(opened)} runs; give one for each.")
    for i, run in enumerate(opened):
        opened[i] = run.called(names[i] if names else None, models[i] if models else None)
    called = [run.name for run in opened]
    if repeated := sorted({name for name in called if called.count(name) > 1}):
        raise ScircuitError(
            f"{called.count(repeated[0])} runs are called {repeated[0]!r}; give each its own name (--names)."
        )
    if n_cells is not None:
        return [run.holding(circuit=in_fewer_cells(run, n_cells, seed, rule)) for run in opened]
    return [run.holding(circuit=run.circuit(rule)) for run in opened]


def ask_effect_sizes(tally: Answers, a: Artefacts, b: Artefacts, draws: int = 1000, seed: int = 0) -> None:
    """Compare the effect sizes of two runs and write the answer into their folder of the notebook."""
    answer = partial(compare_effect_sizes, a.circuit(), b.circuit(), draws=draws, seed=seed)
    tally.ask("compare_effect_sizes", answer, _folder(a, b), (a.name, b.name))


def _folder(a: Artefacts, b: Artefacts) -> str:
    return f"pairs/{_slug(a.name)}--{_slug(b.name)}"


def _conserved_diseases(conditions: list[Artefacts], sets: Mapping[str, Sequence[str]], min_models: int) -> Result:
    associations = {condition.name: associate(condition.table("genes"), sets) for condition in conditions}
    return disease_conservation(conditions, associations, min_models)


def _done(out: Path, key: str) -> bool:
    record = out / RECORD
    if record.is_file():
        if read_json(record).get("key") == key:
            log.info("%s holds this comparison already", out)
            return True
        raise ScircuitError(f"{out} holds another comparison; choose another folder or delete this one.")
    if (out / "config.json").exists() or (out / "circuit").exists():
        raise ScircuitError(f"{out} holds a run; choose another folder for the comparison.")
    return False


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
