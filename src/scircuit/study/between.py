"""Stages between conditions: what they share, and the numbers of their label pairs. No torch."""

import logging
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from scircuit.analysis.answers import Answers
from scircuit.analysis.conditions import traced_cells
from scircuit.circuits.artefacts import Artefacts
from scircuit.errors import ScircuitError
from scircuit.published.counts import disease_categories, gene_pair_numbers, label_numbers
from scircuit.published.definitions import PAPER
from scircuit.runs import compare as comparing
from scircuit.study.config import StudyConfig

log = logging.getLogger(__name__)


def compare(study: StudyConfig) -> None:
    """Stage `compare`: `compare/` as `scircuit compare --profile paper` writes it, and `labels/` beside it."""
    out = study.out / "compare"
    shutil.rmtree(out, ignore_errors=True)  # of other settings, or half done
    runs = [study.out / "conditions" / c.name for c in study.conditions]
    names, models = [c.name for c in study.conditions], [c.group for c in study.conditions]
    n_cells = fewest_cells(runs)
    try:
        comparing.compare(
            runs, out, names=names, models=models, profile="paper", n_cells=n_cells, disease=study.disease.sources,
            draws=study.compare.draws, min_models=study.compare.min_models, report=False, seed=study.seed,
        )  # fmt: skip
    except ScircuitError as error:  # a condition without edges: the study goes on, and its report says why
        log.warning("the conditions cannot be compared: %s", error)
        refusal = Answers(out)
        refusal.refuse("consensus", str(error))
        refusal.write()
    tally = Answers(study.out / "labels")
    ours, published = (
        comparing.open_conditions(runs, names, rule, n_cells, study.seed, models) for rule in (None, PAPER)
    )
    tally.ask("labels", partial(label_numbers, ours))
    tally.ask("labels", partial(label_numbers, published), "paper")
    tally.ask("gene_pairs", partial(gene_pair_numbers, published), "paper")
    tally.ask("disease_categories", lambda: disease_categories(out, label_numbers(published)), "paper")
    tally.write()


def fewest_cells(runs: Sequence[Path]) -> int | None:
    """Cells of the smallest trace, to which the others are subsampled; None where all are of one size."""
    sizes = [traced_cells(Artefacts(run).circuit(columns=())) for run in runs]
    if len(set(sizes)) == 1:
        return None
    log.info("the traces are of %s cells; all are compared in %d", ", ".join(map(str, sizes)), min(sizes))
    return min(sizes)
