"""What the answers of a run come to: whether what a question asks holds, does not, or cannot be told from this run."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from scircuit.analysis.answers import Answer
from scircuit.analysis.question import Question
from scircuit.analysis.registry import questions
from scircuit.analysis.result import Measure
from scircuit.circuits.artefacts import Artefacts
from scircuit.circuits.schema import GRADES
from scircuit.report import numbers
from scircuit.report.reading import notebook

HOLDS, NOT, OPEN, NUMBER = "holds", "does not", "cannot tell", "a number"
ALPHA = 0.05

CLAIMS: Mapping[str, str] = {
    "sign_balance": "Edges support their targets more often than those of random directions do.",
    "effect_sizes": "Edges are larger than those of random directions.",
    "coherence": "The ends of an edge share gene sets beyond chance.",
    "attenuation": "Edges thin out with depth faster than those of random directions.",
    "hubs": "Edges gather in few sources, beyond the tests that were made of each.",
    "coactivation": "Latents that fire together are connected more often than others.",
    "replication": "The edges are there again in other cells.",
    "stability": "Other cells give the same edges.",
    "robustness": "Another analyst's thresholds keep more of the edges than of the edges of decoys.",
    "self_repair": "A latent does more when another is gone.",
    "faithfulness": "The circuit carries more of a behaviour of the model than random ones of its size.",
    "mediation": "Single latents in between carry an edge.",
    "seed_stability": "Dictionaries of another seed give the same edges.",
}
"""What holds where the first number of an answer lies above its null; of other questions, that it differs from it."""


class Verdict(NamedTuple):
    """One question with what its answer comes to; `place` is the id of its section."""

    word: str
    claim: str
    said: str
    place: str
    refused: bool = False

    @property
    def look(self) -> str:
        """The word as a name in the style sheet."""
        return self.word.replace(" ", "-")


def verdicts(run: Artefacts) -> list[Verdict]:
    """Of every question that the run was asked, that of its decoys first."""
    asked = notebook(run)
    known = [(question, asked[name]) for name, question in questions().items() if name in asked]
    return [against_decoys(run), *(verdict(question, answer) for question, answer in known)]


def against_decoys(run: Artefacts) -> Verdict:
    """Whether silencing a latent does more than pushes without meaning: whether any edge is specific."""
    claim = "Silencing a latent does more than a push of the same size without meaning."
    rows = run.provenance().get("grades", [])
    if not rows or rows[-1]["grade"] != GRADES[-1] or rows[-1]["n_by_decoys"] is None:
        return Verdict(OPEN, claim, "No decoys were traced beside the latents, or none was held out.", "pairs")
    row = rows[-1]
    told = f"{row['n_edges']:,} specific edges; held-out decoys give {row['n_by_decoys']:,.0f} under the same rule."
    return Verdict(HOLDS if row["n_edges"] > row["n_by_decoys"] else NOT, claim, told, "pairs")


def verdict(question: Question, answer: Answer) -> Verdict:
    """What an answer comes to: its first number against its null, by its interval or else its p."""
    place = question.name.replace("_", "-")
    if answer.result is None:
        return Verdict(OPEN, question.asks, answer.refused, place, refused=True)
    first = answer.result.headline
    word = _word(first, question.name in CLAIMS)
    apart = question.asks if word == NUMBER else f"{question.title}: the number differs from its null."
    claim = CLAIMS.get(question.name, apart)
    name = question.words.get(first.measure, first.measure.replace("_", " "))
    said = f"{name[:1].upper()}{name[1:]}: {_number(first)}, n = {first.n:,} {first.unit_of_n}."
    return Verdict(word, claim, said, place)


def _number(first: Measure) -> str:
    """A number with what stands beside it."""
    around = [numbers.interval(first.low, first.high)] if math.isfinite(first.low) else []
    around += [f"null {numbers.significant(first.null)}"] if math.isfinite(first.null) else []
    around += [f"p {numbers.probability(first.p_value)}"] if math.isfinite(first.p_value) else []
    return numbers.significant(first.estimate) + (f" ({', '.join(around)})" if around else "")


def _word(first: Measure, above: bool) -> str:
    """`above`: the claim is that the number lies above its null, not only apart from it."""
    if not math.isfinite(first.null):
        return NUMBER
    side = 0
    if math.isfinite(first.low) and math.isfinite(first.high):
        side = 1 if first.low > first.null else -1 if first.high < first.null else 0
    elif math.isfinite(first.p_value) and first.p_value < ALPHA:
        side = 1 if first.estimate > first.null else -1
    if math.isfinite(first.p_value) and first.p_value >= ALPHA:
        side = 0
    if side == 0:
        return OPEN
    return HOLDS if side > 0 or not above else NOT
