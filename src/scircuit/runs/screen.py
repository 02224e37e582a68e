"""A run against a knock-down screen: open, filter, test, predict, judge beside baselines, write."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pandas as pd

from scircuit._io import read_json, sha256_file, sha256_of
from scircuit._packed import read_delimited
from scircuit._sealed import write_sealed
from scircuit._tables import read_parquet, records, write_parquet
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.circuit import Circuit
from scircuit.errors import ScircuitError
from scircuit.knowledge.choosing import open_network
from scircuit.knowledge.gmt import read_gmt
from scircuit.knowledge.networks import Network
from scircuit.perturbation import (
    GenePredictions,
    Screen,
    Truth,
    Validation,
    differential_expression,
    on_target,
    predict_from_loadings,
    predict_from_logits,
    truth_from_effects,
    truth_from_gene_sets,
    truth_from_table,
)
from scircuit.perturbation import validate as judge
from scircuit.perturbation.skill import conclusion
from scircuit.published.concordance import Concordance
from scircuit.published.profiles import profile as named_profile
from scircuit.published.screen import PublishedScreen
from scircuit.report.reading import RECORD
from scircuit.runs.screen_options import ScreenOptions

log = logging.getLogger(__name__)
DELETION = "in-silico deletion"
PUBLISHED = "paper"
"""The published weighting among the definitions by which genes are predicted."""
POOLED = "pooled pairs"
"""Stratum of the published sign accuracy in the table of scores."""
_POOLED_TABLE = "pooled.parquet"
_FORMAT = 2


def validate(
    run: str | Path | Artefacts,
    screen: str | Path | None = None,
    out: str | Path | None = None,
    *,
    truth: str | Path | None = None,
    options: ScreenOptions | None = None,
    profile: str = "default",
    network: Sequence[str | Path] = (),
    deletion: bool = True,
    logits: bool = False,
    model_cells: int = 50,
    draws: int = 2000,
    seed: int = 0,
) -> Path:
    """Judge what the circuit of a run predicts against measured knock-downs, beside every baseline; returns `out`.

    The truth are the effects of a `screen`, an h5ad of any size whose control cells give the expression baselines, or a
    table of one's own: CSV, TSV or Parquet with `target, gene` and `sign` or `score`, or a GMT of the genes that rise.
    `out` is by default `RUN/validation/NAME`, where the reports look.

    The profile `paper` judges the published weighting beside the default one, on the circuit of the published rule, and
    with a screen gives the published pooled sign accuracy beside its nulls (`pooled.parquet`; `draws` of its
    bootstrap). Targets of a `network` of direct regulation (CollecTRI, ENCODE binding) are judged apart. `deletion`
    takes each knocked-down gene's token from the traced cells in the same model, as a baseline. `logits` measures the
    change of the model's own outputs under ablation of every source; where it has been measured, predictions through it
    are judged in any case. Both need the model and take `model_cells` cells, per gene and in all.
    """
    run, options = Artefacts.of(run), options or ScreenOptions()
    circuit = run.circuit()
    chosen = named_profile(profile)
    if screen is None and truth is None:
        raise ScircuitError("there is nothing to judge by; give a screen (--screen) or a table of truths (--truth).")
    name = Path(str(truth or screen)).name.split(".")[0]
    out = run.root / "validation" / name if out is None else Path(out)
    opened = None if screen is None else options.open(screen)
    network_read = _networks(network)
    if logits:
        from scircuit.runs.outputs import run_logits

        run_logits(run.root, model_cells, seed)
    settings = {
        "run_id": circuit.run_id,
        "screen": None if opened is None else opened.key(),
        "truth": None if truth is None else sha256_file(_there(truth)),
        "options": asdict(options),
        "profile": profile,
        "network": [n.sha256 for n in network_read],
        "deletion": deletion,
        "logits": sha256_file(run.path("logits")) if run.has("logits") else None,
        "model_cells": model_cells,
        "draws": draws,
        "seed": seed,
    }
    key = sha256_of(settings, _FORMAT)
    if (out / RECORD).is_file() and read_json(out / RECORD)["key"] == key:
        log.info("%s holds this validation already", out)
        return out
    listed = None if truth is None else _read_truth(_there(truth), opened)
    # What the circuit cannot predict is refused before hours of differential expression, not after.
    published = None if chosen.screen is None else chosen.screen(run.circuit(chosen.rule))
    predictions = _predictions(run, circuit, published, _knocked(opened, listed))
    if listed is None:
        effects = differential_expression(cast(Screen, opened), options.method, cache=out)
        measured = truth_from_effects(effects, options.alpha, options.min_abs_log2_fold_change)
    else:
        measured = listed
    extra = _deletion(run, circuit, measured, out, model_cells, seed) if deletion else {}
    links = pd.concat([n.edges for n in network_read]) if network_read else None
    found: dict[str, Validation] = {}
    refused: dict[str, str] = {}
    for name, predicted in predictions.items():
        try:
            found[name] = judge(predicted, measured, opened, extra, links, seed=seed)
        except ScircuitError as error:
            if name == "loadings":
                raise
            refused[name] = str(error)  # few genes under one definition do not keep the others from being judged
            log.warning("through %s: not judged: %s", name, error)
    pooled = None if published is None or opened is None else published.concordance(opened, out, draws, seed)
    _write(out, predictions, found, opened, pooled)
    said = {name: _said(result) for name, result in found.items()}
    if pooled is not None and PUBLISHED in said:
        said[PUBLISHED]["sentences"].append(pooled.sentence())
    facts = _facts(opened, screen, truth, measured, options)
    write_sealed(out / RECORD, {"format_version": _FORMAT, "key": key, **facts, "profile": profile,
                                "network": [n.name for n in network_read],
                                "refused": refused, "definitions": said},
                 sorted(file.name for file in out.glob("*.parquet")))  # fmt: skip
    return out


def sentences(out: str | Path) -> list[str]:
    """What may be said about skill, per definition: the conclusion, then one sentence per metric."""
    record = read_json(Path(out) / RECORD)
    lines = []
    for name, said in record["definitions"].items():
        lines += [f"Through {name}: {said['conclusion']}", *(f"  {sentence}" for sentence in said["sentences"])]
    return lines + [f"Through {name}: not judged: {why}" for name, why in record["refused"].items()]


def score_table(out: str | Path) -> pd.DataFrame:
    """Mean and interval of every method on every metric, as text: `definition, stratum, method`, a column a metric.

    The published sign accuracy, where it was asked for, is the direction of the stratum `pooled pairs`.
    """
    summary = read_parquet(Path(out) / "summary.parquet")
    if (path := Path(out) / _POOLED_TABLE).is_file():
        pooled = read_parquet(path).assign(definition=PUBLISHED, stratum=POOLED, metric="direction")
        summary = pd.concat([summary, pooled[summary.columns.intersection(pooled.columns)]], ignore_index=True)
    text = [
        "" if pd.isna(row["estimate"]) else f"{row['estimate']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        for row in records(summary)
    ]
    index = ["definition", "stratum", "method"]
    wide = summary.assign(text=text).pivot_table(
        index=index, columns="metric", values="text", aggfunc="first", sort=False
    )
    return wide.reset_index()


def _knocked(screen: Screen | None, truth: Truth | None) -> pd.Index:
    """The genes that were knocked down."""
    table = truth.knockdowns if truth is not None else screen.labels if screen is not None else pd.DataFrame()
    return pd.Index(table["gene"].unique())


def _predictions(
    run: Artefacts, circuit: Circuit, published: PublishedScreen | None, knocked: pd.Index
) -> dict[str, GenePredictions]:
    """Predictions by definition: loadings, logits where measured, the published one under its profile."""
    loadings = run.table("genes")
    found = {"loadings": predict_from_loadings(circuit.edges, loadings, knocked)}
    if run.has("logits"):
        found["logits"] = predict_from_logits(run.table("logits"), loadings, knocked)
    if published is not None:
        found[PUBLISHED] = published.predictions(knocked)
    return found


def _read_truth(path: Path, screen: Screen | None) -> Truth:
    name = path.name.removesuffix(".gz")
    if name.endswith(".gmt"):
        sets = read_gmt(path).genes
        genes = {gene for members in sets.values() for gene in members} if screen is None else set(screen.genes)
        return truth_from_gene_sets(sets, genes)
    if name.endswith(".parquet"):
        return truth_from_table(pd.read_parquet(path))
    if name.endswith((".csv", ".tsv", ".txt")):
        return truth_from_table(read_delimited(path, sep="," if name.endswith(".csv") else "\t"))
    raise ScircuitError(
        f"{path} is no table of truths; give .csv, .tsv, .parquet (target, gene, sign or score) or .gmt."
    )


def _there(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise ScircuitError(f"{path} does not exist; give a table of truths.")
    return Path(path)


def _deletion(
    run: Artefacts, circuit: Circuit, truth: Truth, out: Path, n_cells: int, seed: int
) -> dict[str, pd.DataFrame]:
    """The baseline of the same model without a circuit; torch is loaded here."""
    from scircuit.runs.outputs import run_deletion

    genes = sorted(set(truth.knockdowns["gene"]))
    key = sha256_of(circuit.run_id, genes, n_cells, seed)
    path = out / f"deletion-{key[:16]}.parquet"
    if not path.is_file():
        write_parquet(path, run_deletion(run.root, genes, n_cells, seed))
    table = read_parquet(path)
    shared = table["target"].isin(truth.knockdowns["gene"]) & table["gene"].isin(truth.genes)
    if not shared.any():
        log.warning("no traced cell holds a knocked-down gene; there is no in-silico deletion to compare with")
        return {}
    return {DELETION: table}


def _networks(names: Sequence[str | Path]) -> list[Network]:
    found = [open_network(name) for name in names]
    undirected = next((n.name for n in found if not n.directed), None)
    if undirected:
        raise ScircuitError(
            f"{undirected} has no direction, so it names no direct targets; use CollecTRI or ENCODE binding."
        )
    return found


def _write(
    out: Path,
    predictions: Mapping[str, GenePredictions],
    found: Mapping[str, Validation],
    screen: Screen | None,
    pooled: Concordance | None,
) -> None:
    tables = {"predictions": {name: predictions[name].table() for name in found}}
    for kind in ("knockdowns", "summary", "comparison"):
        tables[kind] = {name: getattr(result, kind) for name, result in found.items()}
    for kind, parts in tables.items():
        table = pd.concat([part.assign(definition=name) for name, part in parts.items()], ignore_index=True)
        write_parquet(out / f"{kind}.parquet", table)
    if screen is not None:
        write_parquet(out / "on_target.parquet", on_target(screen))
    if pooled is None:
        (out / _POOLED_TABLE).unlink(missing_ok=True)  # of an earlier validation under the other profile
    else:
        write_parquet(out / _POOLED_TABLE, pooled.table())


def _facts(
    screen: Screen | None, path: str | Path | None, table: str | Path | None, truth: Truth, options: ScreenOptions
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "screen": None if path is None else Path(path).name,
        "truth": None if table is None else Path(table).name,
        "n_knockdowns": len(truth.knockdowns),
        "n_genes": len(truth.genes),
        "n_responding": int((truth.sign != 0).sum()),
        "share_falling": float((truth.sign < 0).sum() / max((truth.sign != 0).sum(), 1)),
        "one_sided": truth.one_sided,
        "options": asdict(options),
    }
    if screen is not None:
        facts |= {
            "line": screen.line,
            "scale": screen.scale,
            "n_cells": len(screen),
            "n_controls": screen.n_controls,
            "n_strata": len(screen.strata),
        }
    return facts


def _said(result: Validation) -> dict[str, Any]:
    everywhere = result.knockdowns[result.knockdowns["stratum"] == "all"]
    return {
        "conclusion": conclusion(result.comparison),
        "sentences": list(result.sentences),
        "n_knockdowns": int(everywhere["label"].nunique()),
        "n_unpredicted": result.n_unpredicted,
        "baselines": [m for m in dict.fromkeys(result.summary["method"]) if m != "circuit"],
    }
