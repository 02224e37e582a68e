"""Interventions by word (`scale:2`, `matched`), for configs and the command line."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from scircuit.errors import ScircuitError
from scircuit.tracing.controls import matched_controls, resample
from scircuit.tracing.engines.interventions import Intervention
from scircuit.tracing.setup import Setup

WORDS = ("zero", "mean", "optimal", "scale:ALPHA", "set:VALUE", "activate:VALUE", "resample", "matched:N", "random:N")
"""What may be done to a latent: a word, with a number where one is needed (N counts latents or directions, default 1).

`mean` sets the latent to its mean over all gene positions, `optimal` to that over its firings: the constant that
changes the residual least, and the model's output where it answers linearly (Li & Janson 2024, arXiv 2409.09951); see
`Intervention` for the others.
"""
_VALUED = ("scale", "set", "activate")
_COUNTED = ("matched", "random")


class Word(NamedTuple):
    """One intervention asked for: its action and its number, NaN where it has none."""

    action: str
    number: float


def parse_words(words: Sequence[str]) -> list[Word]:
    """The words, checked."""
    found = [_parse(word) for word in words]
    twice = [word for i, word in enumerate(words) if found[i] in found[:i]]
    counted = [w.action for w in found if w.action in (*_COUNTED, "mean", "optimal", "resample", "zero")]
    if twice or len(set(counted)) < len(counted):
        raise ScircuitError(f"interventions {list(words)} name one of them twice; name each once.")
    return found


def _parse(word: str) -> Word:
    action, _, text = word.partition(":")
    if action not in {w.partition(":")[0] for w in WORDS}:
        raise ScircuitError(f"intervention {word!r} is unknown; it may be {', '.join(WORDS)}.")
    if action in _COUNTED:
        if text and not (text.isdigit() and int(text) > 0):
            raise ScircuitError(f"intervention {word!r} needs a count of at least 1, for example {action}:3.")
        return Word(action, float(text or 1))
    if (action in _VALUED) != bool(text):
        need = f"needs a number, for example {action}:2" if action in _VALUED else "takes no number"
        raise ScircuitError(f"intervention {word!r} {need}.")
    try:
        return Word(action, float(text) if text else float("nan"))
    except ValueError:
        raise ScircuitError(f"intervention {word!r} needs a number after the colon, not {text!r}.") from None


def build(
    words: Sequence[Word],
    groups: Sequence[tuple[int, ...]],
    setup: Setup,
    layer: int,
    features: pd.DataFrame,
) -> list[Intervention]:
    """Every word done to every group of latents of a layer; `draw` numbers those of one action.

    The latents of a group, most often one, are edited together. `resample` takes its values from the cells of the
    setup, whose seed decides every draw; `mean` and `matched` read `features` (`features/features.parquet`).
    """
    alone = [w.action for w in words if w.action in ("matched", "resample")]
    if alone and any(len(g) > 1 for g in groups):
        raise ScircuitError(f"{alone[0]} is done to one latent at a time; leave groups out, or ask for another word.")
    seed = setup.settings.seed
    out: list[Intervention] = []
    doses: dict[str, int] = {}
    for action, number in words:
        doses[action] = draw = doses.get(action, -1) + 1
        if action == "matched":
            out += matched_controls(features, setup.saes[layer], layer, [f for (f,) in groups], n=int(number))
        elif action == "resample":
            out += resample(setup, layer, [f for (f,) in groups], seed=seed)
        elif action == "random":
            out += [Intervention(g, "random", draw=n, seed=seed) for g in groups for n in range(1, int(number) + 1)]
        elif action in ("mean", "optimal"):
            out += [Intervention(g, action, value=_means(features, layer, g, action == "optimal")) for g in groups]
        elif action == "zero":
            out += [Intervention(g) for g in groups]
        else:
            out += [Intervention(g, action, value=number, draw=draw) for g in groups]
    return out


def stand_ins(words: Sequence[Word], groups: Sequence[tuple[int, ...]]) -> list[Intervention]:
    """As many interventions as `build` makes, and as costly, where there is no feature table to make them from."""
    actions = [w.action for w in words for _ in range(int(w.number) if w.action in _COUNTED else 1)]
    actions = [action if action == "activate" else "scale" for action in actions]
    return [Intervention(g, action, draw=draw) for g in groups for draw, action in enumerate(actions)]


def _means(features: pd.DataFrame, layer: int, group: tuple[int, ...], firing: bool) -> tuple[float, ...]:
    """Mean activation over all gene positions (rate times mean over firings), or over firings alone."""
    table = features[features["layer"] == layer]
    rate = 1.0 if firing else table["frequency"]
    means = dict(zip(table["feature"], rate * table["mean_activation"], strict=True))
    missing = [f for f in group if f not in means]
    if missing:
        raise ScircuitError(f"Latent {missing[0]} of layer {layer} is not in the feature table; describe it first.")
    return tuple(float(means[f]) for f in group)
