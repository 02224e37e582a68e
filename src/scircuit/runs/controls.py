"""Run-level nulls: the same road on untrained copies of the model, and through dictionaries that could learn but half.

Each control is a whole run below `controls/`, which goes on where it was stopped as any run does. Untrained copies:
Heap et al., arXiv 2501.17727; frozen dictionaries: Korznikov et al., arXiv 2602.14111.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._packaged import sae_folder
from scircuit._sealed import write_sealed
from scircuit._tables import records, write_parquet
from scircuit.analysis.answers import read_answers
from scircuit.analysis.registry import analyze, question
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.schema import GRADES
from scircuit.config import RunConfig, SaeSection
from scircuit.errors import ScircuitError
from scircuit.runs.inputs import is_ours
from scircuit.runs.run import Run
from scircuit.runs.stages import run as run_all
from scircuit.sae.checkpoint import read_manifest

log = logging.getLogger(__name__)
OWN = "this run"
CONTROLS: Mapping[str, tuple[str, str]] = {
    "redrawn": ("redrawn", "none"),
    "permuted": ("permuted", "none"),
    "frozen-decoder": ("trained", "decoder"),
    "frozen-encoder": ("trained", "encoder"),
}
"""Per control the weights of its model (`model.weights`) and what its dictionaries keep as drawn (`sae.freeze`)."""
OF_EDGES = ("coherence", "sign_balance", "attenuation")
"""Questions whose first number is a headline, of the circuit as the run shows it and of all its reproducible edges:
where nothing was learnt there may be no stricter edge to ask."""
ASKED = ("replication", "faithfulness")
"""Others, where a run was asked them."""


def controls(config: RunConfig, *, n_steps: int | None = None, cluster: str | None = None) -> Path:
    """Run every control of a finished run and file its headlines beside theirs; returns `controls/controls.parquet`.

    Call again to go on after an interruption. Where no latent of a control is annotated its sources are drawn at
    random, and that is filed; so is the reason where its road ends early. `n_steps` trains its dictionaries for fewer
    steps than the run's.

    Raises
    ------
    ScircuitError
        Where the run has no answers yet.
    """
    own = Run.open(config)
    own.need("analysis")
    parts = [headlines(own).assign(control=OWN)]
    for name, asked in control_configs(config, n_steps).items():
        log.info("control %s", name)
        parts.append(_run(asked, cluster).assign(control=name))
    path = own.path("controls")
    write_parquet(path, pd.concat(parts, ignore_index=True)[list(COLUMNS)])
    write_sealed(path.with_suffix(".json"), {"run_id": own.run_id, "controls": list(CONTROLS)}, [path.name])
    return path


def _run(asked: RunConfig, cluster: str | None) -> pd.DataFrame:
    """Headlines of a control, with a row without a number for what went otherwise than in the run."""
    try:
        return headlines(run_all(asked, until="analysis", cluster=cluster))
    except ScircuitError as error:
        log.warning("%s: %s", asked.name, error)
        noted = pd.DataFrame([{"number": "", "refused": str(error)}])
    if asked.sources.rule not in ANNOTATED or not Run(asked.out).done("features"):
        return noted
    trained = SaeSection(path=str(Path(asked.out) / "saes"), quality_cells=asked.sae.quality_cells)
    drawn = replace(asked, out=f"{asked.out}-any-source", sae=trained, sources=replace(asked.sources, rule="random"))
    return pd.concat([headlines(run_all(drawn, until="analysis", cluster=cluster)), noted])


ANNOTATED = ("annotated", "random_annotated")
"""Rules of sources that an untrained model may have none for."""


def control_configs(config: RunConfig, n_steps: int | None = None) -> dict[str, RunConfig]:
    """The run of each control: dictionaries that the run read are trained anew, as they say that they were."""
    sae = _trained_here(config.sae)
    sae = sae if n_steps is None else replace(sae, n_steps=n_steps)
    return {
        name: replace(
            config, name=f"{config.name}, {name}", out=str(Path(config.out) / "controls" / name),
            model=replace(config.model, weights=weights), sae=replace(sae, freeze=frozen),
        )
        for name, (weights, frozen) in CONTROLS.items()
    }  # fmt: skip


def _trained_here(sae: SaeSection) -> SaeSection:
    """The section that trains dictionaries like those that it reads."""
    if sae.path is None:
        return sae
    if not is_ours(sae.path):
        return replace(sae, path=None)
    manifest = read_manifest(sae_folder(sae.path))
    known = {f.name for f in fields(SaeSection)}
    training = {k: v for k, v in manifest.get("metadata", {}).get("training", {}).items() if k in known}
    training = {k: tuple(v) if isinstance(v, list) else v for k, v in training.items()}
    layers = sae.layers or tuple(sorted(int(layer) for layer in manifest["layers"]))
    return replace(sae, **{**training, "path": None, "layers": layers, "freeze": "none"})


COLUMNS = ("control", "number", "estimate", "low", "high", "null", "n", "unit_of_n", "refused")


def headlines(run: Artefacts) -> pd.DataFrame:
    """The headline numbers of a run: edges of each grade, annotated share, first numbers of questions."""
    return pd.DataFrame([*_counted(run.provenance()), *_of_edges(run), *_answered(run)]).reindex(columns=list(COLUMNS))


def _counted(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for row in record["grades"]:
        n = max(record["n_tests"], 1)
        null = None if row["n_by_decoys"] is None else 1000 * row["n_by_decoys"] / n
        rate = {"estimate": 1000 * row["n_edges"] / n, "null": null, "n": record["n_tests"], "unit_of_n": "tests"}
        yield {"number": f"{row['grade']} edges per 1,000 tests", **rate}
    known = record.get("annotation") or {}
    if "annotated" in known:
        share = {"estimate": known["annotated"], "null": known["control"], "n": known.get("n_annotated", 0)}
        yield {"number": "annotated share", **share, "unit_of_n": "annotated latents"}


def _of_edges(run: Artefacts) -> Iterator[dict[str, Any]]:
    for grade in dict.fromkeys((run.provenance()["grade"], GRADES[0])):
        for name in OF_EDGES:
            try:
                found = analyze(name, run, grade=grade, **question(name).brief).headline
            except ScircuitError as error:
                yield {"number": f"{name}, {grade} edges", "refused": str(error)}
            else:
                yield {"number": f"{name}, {grade} edges", **found._asdict()}


def _answered(run: Artefacts) -> Iterator[dict[str, Any]]:
    """The first measure of each question that was asked and answered."""
    answers = read_answers(run.root / "analysis").drop_duplicates("question")
    for row in records(answers[answers["question"].isin(ASKED) & answers["refused"].isna()]):
        yield {**row, "number": row["question"]}
