"""Stages that ask the world outside: gene sets and networks, disease genes, a CRISPR screen. No torch of their own."""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from scircuit._io import write_json
from scircuit._tables import read_parquet
from scircuit.analysis.answers import Answers
from scircuit.analysis.disease import associate, disease_centrality
from scircuit.analysis.hierarchy import hierarchy
from scircuit.analysis.novelty import novelty
from scircuit.analysis.result import Measure, Result
from scircuit.analysis.tissue import tissue
from scircuit.knowledge.choosing import disease_sets
from scircuit.knowledge.registry import load_gene_sets
from scircuit.published.definitions import PAPER
from scircuit.published.screen import PublishedScreen
from scircuit.runs.run import Run
from scircuit.runs.screen import validate as judge
from scircuit.runs.screen_options import ScreenOptions
from scircuit.study.config import StudyCondition, StudyConfig


def knowledge(study: StudyConfig, condition: StudyCondition) -> None:
    """Stage `knowledge:NAME`: novelty, hierarchy and, where the trace was grouped, specificity to groups of cells."""
    run, tally = Run(condition.run.out), Answers(study.out / "knowledge" / condition.name)
    circuit, draws = run.circuit(), study.compare.draws
    sets: dict[str, list[str]] = {}
    for name in condition.run.features.gene_sets:
        sets |= {label: list(genes) for label, genes in load_gene_sets(name).genes.items()}
    for inside, of in (("", circuit), ("paper", run.circuit(PAPER))):
        tally.ask("novelty", partial(novelty, of, sets, draws=draws, seed=study.seed), inside)
        tally.ask("hierarchy", partial(hierarchy, of, draws=draws, seed=study.seed), inside)
    for column in condition.run.trace.groups:
        tally.ask("tissue", partial(tissue, run.table("groups"), circuit.tests, column), column)
    tally.write()


def disease(study: StudyConfig) -> None:
    """Stage `disease`: per condition, whether disease latents hold more edges than others like them."""
    sets = disease_sets(study.disease.sources)
    for condition in study.conditions:
        run, tally = Run(condition.run.out), Answers(study.out / "disease" / condition.name)
        tally.ask("disease", partial(_centrality, run, sets))
        tally.write()


def _centrality(run: Run, sets: Mapping[str, Sequence[str]]) -> Result:
    return disease_centrality(run.circuit(), associate(run.table("genes"), sets))


def validate(study: StudyConfig) -> None:
    """Stage `validate`: each condition's circuit against the screen, by our rules and by the published ones."""
    p = study.perturbation
    screen = Path(p.screen)
    options = ScreenOptions(
        perturbation=p.perturbation, control=(p.control,) if p.control else (), lines=p.lines, min_cells=p.min_cells
    )
    asked = p.conditions or tuple(c.name for c in study.conditions)
    for condition in study.conditions:
        if condition.name not in asked:
            continue
        out = Path(condition.run.out) / "validation" / "study"
        if not (out / "validation.json").is_file():
            shutil.rmtree(out, ignore_errors=True)
        judge(condition.run.out, screen, out, options=options, profile="paper", seed=study.seed)
        tally = Answers(study.out / "validate" / condition.name)
        tally.ask("validation", partial(_of_folder, out))
        published = PublishedScreen(Run(condition.run.out).circuit(PAPER))
        columns = {"perturbation": p.perturbation, "control": p.control}
        tally.ask("validation", partial(published.as_run, screen, bool(p.lines), columns, study.seed), "paper")
        tally.write()
    write_json(study.out / "validate" / "validate.json", {"format_version": 1, "screen": screen.name})


def _of_folder(out: Path) -> Result:
    """What `scircuit validate` found through gene loadings, each metric beside the best baseline."""
    table = read_parquet(out / "comparison.parquet")
    chosen = table[(table["definition"] == "loadings") & (table["stratum"] == "all")]
    knockdowns = read_parquet(out / "knockdowns.parquet", columns=["definition", "stratum", "label"])
    n = knockdowns[(knockdowns["definition"] == "loadings") & (knockdowns["stratum"] == "all")]["label"].nunique()
    columns = ["metric", "estimate", "low", "high", "baseline", "p_permuted"]
    measures = [Measure(*row)._replace(n=int(n), unit_of_n="knock-downs") for row in chosen[columns].to_numpy(object)]
    frame = pd.DataFrame(measures, columns=list(Measure._fields))
    return Result("validation", "validation/1", frame, chosen, "the best baseline without a circuit", "")
