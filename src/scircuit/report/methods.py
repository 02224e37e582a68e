"""A methods paragraph for a paper, every number of it read from the run, and the works that it rests on."""

from collections.abc import Mapping
from typing import Any

from scircuit._io import read_json
from scircuit.circuits.artefacts import Artefacts
from scircuit.report.provenance import grade_rows, rule, tested

_WORKS = {
    "study": "Causal circuit tracing between features of Geneformer and scGPT: arXiv 2603.01752.",
    "geneformer": "Theodoris et al., Transfer learning enables predictions in network biology, Nature 618 (2023).",
    "scgpt": "Cui et al., scGPT: toward a foundation model for single-cell multi-omics, Nat Methods 21 (2024).",
    "topk": "Gao et al., Scaling and evaluating sparse autoencoders, arXiv 2406.04093 (2024).",
    "batchtopk": "Bussmann et al., BatchTopK sparse autoencoders, arXiv 2412.06410 (2024).",
    "jumprelu": "Rajamanoharan et al., Jumping ahead with JumpReLU sparse autoencoders, arXiv 2407.14435 (2024).",
    "matryoshka": "Bussmann et al., Learning multi-level features with Matryoshka SAEs, arXiv 2503.17547 (2025).",
    "bh": "Benjamini and Hochberg, Controlling the false discovery rate, J R Stat Soc B 57 (1995).",
    "decoys": "Elias and Gygi, Target-decoy search strategy, Nat Methods 4 (2007); Barber and Candes, Controlling the "
    "false discovery rate via knockoffs, Ann Stat 43 (2015).",
}

_SPLITS = {
    "train": "to train dictionaries",
    "catalogue": "to describe latents",
    "discovery": "to find edges",
    "confirmation": "to find them again",
}


def methods(run: Artefacts) -> str:
    """The paragraph, a blank line, and the works, one per line.

    What the run did not record is left out, and what it did not do is not said.

    Raises
    ------
    ScircuitError
        Where the run has no circuit.
    """
    record = run.provenance()
    config: Mapping[str, Any] = record.get("config") or {}
    works = ["study"]
    said = [*_model(run, record, works), *_dictionaries(config, works), *_labels(run), *tested(run)]
    said += _rule(run, record, works)
    versions = record.get("versions") or {}
    made_with = ", ".join(f"{name} {versions[name]}" for name in ("scircuit", "torch", "anndata") if name in versions)
    if made_with:
        said.append(f"Made with {made_with}; run {run.run_id[:12]}, seed {record.get('seed', 'not recorded')}.")
    return "\n".join([" ".join(said), "", *(f"- {_WORKS[work]}" for work in dict.fromkeys(works))])


def _model(run: Artefacts, record: Mapping[str, Any], works: list[str]) -> list[str]:
    model = record.get("model") or {}
    works += [name for name in ("geneformer", "scgpt") if name in run.model_name.lower()]
    revision = f", revision {model['revision']}" if model.get("revision") else ""
    tokens = f"; cells were tokenised by the {model['protocol']} protocol" if model.get("protocol") else ""
    if not (run.root / "tokens" / "tokens.json").is_file():
        return [f"The model was {run.model_name}{revision}{tokens}."]
    info = read_json(run.root / "tokens" / "tokens.json")
    parts = {name: part["n"] if isinstance(part, dict) else part for name, part in (info.get("splits") or {}).items()}
    splits = ", ".join(f"{n:,} {_SPLITS.get(name, name)}" for name, n in parts.items() if n)
    return [f"The model was {run.model_name}{revision}{tokens}. Cells were kept apart by seed and row: {splits}."]


def _dictionaries(config: Mapping[str, Any], works: list[str]) -> list[str]:
    sae = config.get("sae") or {}
    if not sae:
        return []
    if sae.get("path"):
        return ["Sparse autoencoders were read, not trained."]
    works += [name for name in (sae["architecture"],) if name in _WORKS]
    works += ["matryoshka"] if sae.get("matryoshka") else []
    return [
        f"Sparse autoencoders ({sae['architecture']}, {sae['expansion']} times the width, k = {sae['k']}) were trained "
        f"for {sae['n_steps']:,} steps of {sae['batch_rows']:,} positions."
    ]


def _labels(run: Artefacts) -> list[str]:
    file = run.root / "features" / "labels.json"
    found = read_json(file).get("libraries", []) if file.is_file() else []
    sets = ", ".join(f"{part['name']} ({part['n_sets']:,} sets, version {part['version']})" for part in found)
    return (
        [f"Latents were named by over-representation of their top genes among the run's genes in {sets}."]
        if sets
        else []
    )


def _rule(run: Artefacts, record: Mapping[str, Any], works: list[str]) -> list[str]:
    limits = record.get("thresholds") or {}
    rows = grade_rows(run)
    said = [] if rows else [f"Edges are {rule(run)}."]
    if limits.get("max_q") is not None:
        said.append("p is by flipping signs of responses, q by Benjamini-Hochberg over all tests.")
        works.append("bh")
    if rows:
        kind = (record.get("settings") or {}).get("decoy", "random")
        said.append(f"Decoys were {kind}; a fourth of them was held out of the competition.")
        works.append("decoys")
    for row in rows:
        again = f", {row['of']} found again in other cells" if row["of"] else ""
        beside = f"{row['edges']} edges, {row['by_decoys']} by held-out decoys under the same rule"
        said.append(f"{row['grade'].capitalize()}: {row['claim']}; {beside}{again}.")
    return said
