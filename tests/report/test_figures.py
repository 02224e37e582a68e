"""Figures draw what the tables say, on the axes they are given, the same way every time."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from builders import behaviour_table
from scircuit.analysis.attenuation import attenuation
from scircuit.analysis.circuit_curve import circuit_curve
from scircuit.analysis.circuit_tests import circuit_tests
from scircuit.analysis.coactivation import coactivation
from scircuit.analysis.coexpression import coexpression
from scircuit.analysis.coherence import coherence
from scircuit.analysis.effect_comparison import compare_effect_sizes
from scircuit.analysis.effect_sizes import effect_sizes
from scircuit.analysis.faithfulness import faithfulness
from scircuit.analysis.group_stability import group_stability
from scircuit.analysis.hubs import hubs
from scircuit.analysis.interactions import interactions
from scircuit.analysis.layer_pairs import layer_pairs
from scircuit.analysis.mediation import mediation
from scircuit.analysis.registry import every_question, questions
from scircuit.analysis.replication import replication
from scircuit.analysis.result import Measure, Result
from scircuit.analysis.seed_stability import seed_stability
from scircuit.analysis.selection import selection
from scircuit.analysis.sign_balance import sign_balance
from scircuit.analysis.stability import stability
from scircuit.analysis.thresholds import threshold_sweep
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS
from scircuit.circuits.synthetic import Planted, planted_circuit
from scircuit.published.disease import QUESTION as DISEASE_AS_PUBLISHED
from scircuit.report import figures
from scircuit.report.canvas import COLUMN_INCHES, inline_svg
from scircuit.report.picture import strongest

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def planted() -> Planted:
    return planted_circuit(seed=1)


def cell_table(rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Per-cell responses of two sources on six targets, half of them real."""
    rows = [(0, s, 1, t, c, rng.normal(-1.5 if t < 3 else 0, 1)) for s in range(2) for t in range(6) for c in range(60)]
    cells = [(0, s, c) for s in range(2) for c in range(60)]
    return pd.DataFrame(rows, columns=[*ENDS, "cell", "delta"]), pd.DataFrame(cells, columns=[*ENDS[:2], "cell"])


def another_seed(circuit: Circuit, rng: np.random.Generator) -> Circuit:
    """Three quarters of the edges, with some noise in d."""
    kept = circuit.edges[rng.random(len(circuit.edges)) < 0.75]
    noise = rng.normal(0, 0.2, len(kept)).astype("float32")
    return replace(circuit, edges=kept.assign(cohens_d=kept["cohens_d"] + noise))


def same_latents(circuit: Circuit) -> pd.DataFrame:
    nodes = circuit.nodes
    return pd.DataFrame(
        {"layer": nodes["layer"], "feature_first": nodes["feature"], "feature_second": nodes["feature"]}
    ).assign(similarity=0.9)


def mediation_table(rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for t in range(4):
        for kind, m, share in [("mediator", 1, 0.6), ("mediator", 2, 0.3), ("random", 7, 0.0), ("joint", -1, 0.8)]:
            for c in range(20):
                delta = rng.normal(-1, 0.2)
                held = delta * (1 - share) + rng.normal(0, 0.05)
                rows.append((0, 1, 3, t, -1 if m < 0 else 2, m, kind, c, delta, held))
    columns = [*ENDS, "mediator_layer", "mediator_feature", "kind", "cell", "delta", "delta_held"]
    return pd.DataFrame(rows, columns=columns)


def interaction_tables(rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = []
    for t in range(8):
        extra = 1.0 if t == 0 else 0.0
        for c in range(40):
            a, b = rng.normal(-1, 0.2), rng.normal(-1, 0.2)
            both = a + b + extra + rng.normal(0, 0.1)
            rows += [(0, mask, 2, t, c, delta) for mask, delta in ((1, a), (2, b), (3, both))]
    effects = pd.DataFrame(rows, columns=["set_id", "subset", "target_layer", "target_feature", "cell", "delta"])
    sets = pd.DataFrame({"set_id": [0, 0], "member": [0, 1], "layer": 0, "feature": [1, 2], "n_cells": 40})
    return effects, sets


def confirmation_table(circuit: Circuit, rng: np.random.Generator) -> pd.DataFrame:
    d = circuit.edges["cohens_d"].to_numpy()
    return circuit.edges[ENDS].assign(
        n_cells=30, n_nonzero=25, cohens_d=0.8 * d + rng.normal(0, 0.3, len(d)), p_value=0.01, discovery_d=d
    )


@pytest.fixture(scope="module")
def answers(planted: Planted) -> dict[str, Result]:
    rng = np.random.default_rng(0)
    circuit = planted.circuit
    found = {ask.__name__: ask(circuit, draws=50) for ask in (sign_balance, attenuation, hubs)}
    ends = circuit.edges[ENDS]
    correlations = ends.assign(gene_r=rng.uniform(-1, 1, len(ends)), latent_r=rng.uniform(-1, 1, len(ends)))
    groups = planted.effects[planted.effects["kind"] == "latent"].drop(columns=["kind", "draw"])
    two_groups = pd.concat([groups.assign(group_name="cell_type", group=name) for name in ("B", "T")])
    nodes = circuit.nodes.assign(n_terms=np.where(circuit.nodes["feature"] % 2, circuit.nodes["n_terms"], 0))
    half_annotated = replace(circuit, nodes=nodes)
    made = [
        effect_sizes(circuit),
        coherence(circuit, draws=50),
        threshold_sweep(planted.effects, planted.tests),
        coactivation(circuit, ends.assign(pmi=rng.normal(1, 1, len(ends)))),
        coexpression(circuit, correlations, draws=50),
        selection(half_annotated, draws=50),
        replication(confirmation_table(circuit, rng), draws=50, null_draws=50),
        stability(*cell_table(rng), n_cells=(10, 20, 40), n_draws=5),
        group_stability(two_groups),
        mediation(mediation_table(rng), draws=50),
        interactions(*interaction_tables(rng), draws=50),
        *(ask(behaviour_table(rng)) for ask in (faithfulness, circuit_curve, circuit_tests)),
        compare_effect_sizes(circuit, planted_circuit(seed=2).circuit, draws=50),
        seed_stability(circuit, another_seed(circuit, rng), same_latents(circuit), draws=5),
    ]
    return found | {result.question: result for result in made}


ANSWERED = [
    "sign_balance", "attenuation", "hubs", "coherence", "threshold_sweep", "coactivation", "coexpression",
    "selection", "replication", "stability", "group_stability", "mediation", "interactions",
    "faithfulness", "circuit_curve", "circuit_tests", "compare_effect_sizes", "seed_stability",
]  # fmt: skip


def world(planted: Planted) -> dict[str, Result | pd.DataFrame]:
    """Results between models and against the world, made by hand: what is drawn depends on their tables only."""
    measures = [
        Measure("fold", 1.2, 1.1, 1.3, 1.0), Measure("paper_fold", 9.0, null=1.0), Measure("odds_ratio", 2, 1, 3, 1),
        Measure("raw_odds_ratio", 4, 3, 5, 1), Measure("novel_share", 0.5, 0.4, 0.6, 0.55),
    ]  # fmt: skip
    matched = pd.DataFrame({"d_a": [1.0, -2.0, 0.5], "d_b": [0.8, -1.5, np.nan], "conserved": [True, True, False]})
    ranks = pd.DataFrame({"pagerank": [0.4, 0.6], "pagerank_null": [0.5, 0.5], "depth_q": [0.01, np.nan]})
    rows = [
        ("all", method, metric, 0.5 + 0.1 * i, 0.4, 0.8, 9)
        for i, method in enumerate(["circuit", "a baseline with quite a long name", "always down"])
        for metric in ("direction", "auroc", "spearman")
    ]
    columns = ["stratum", "method", "metric", "estimate", "low", "high", "n_knockdowns"]

    def made(table: pd.DataFrame) -> Result:
        return Result.of("q", "q/1", measures, table, "", [])

    return {
        "consensus": made(pd.DataFrame()), "feature_consensus": made(matched), "ratios": made(pd.DataFrame()),
        "shares": made(pd.DataFrame()), "hierarchy": made(ranks), "validation": pd.DataFrame(rows, columns=columns),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["consensus", "feature_consensus", "ratios", "shares", "hierarchy", "validation"])
def test_figures_of_the_world_fit_a_column(planted: Planted, name: str) -> None:
    ax = getattr(figures, name)(world(planted)[name])
    assert ax.get_xlabel()
    assert numbers(ax)
    ax.figure.draw_without_rendering()
    reach, width = ax.figure.get_tightbbox(), ax.figure.get_size_inches()[0]
    assert reach.x0 >= -0.01
    assert reach.x1 <= width + 0.01


def numbers(ax: Axes) -> list[float]:
    """Every y value that a reader can see: lines and points."""
    lines = [np.asarray(line.get_ydata(), dtype=float) for line in ax.lines]
    points = [np.asarray(c.get_offsets())[:, 1] for c in ax.collections if len(c.get_offsets())]
    return np.concatenate([*lines, *points]).tolist() if lines or points else []


@pytest.mark.parametrize("question", ANSWERED)
def test_every_answer_is_drawn_in_a_column(answers: dict[str, Result], question: str, tmp_path: Path) -> None:
    path = tmp_path / f"{question}.svg"
    ax = getattr(figures, question)(answers[question], save=path)
    assert ax.figure.get_size_inches()[0] == pytest.approx(COLUMN_INCHES)
    assert path.read_text(encoding="utf-8").count("<text") >= 3
    assert ax.get_xlabel()
    assert numbers(ax)
    # Nothing leaves the figure: at column width it would be cut off.
    ax.figure.draw_without_rendering()
    reach, width = ax.figure.get_tightbbox(), ax.figure.get_size_inches()[0]
    assert reach.x0 >= -0.01
    assert reach.x1 <= width + 0.01


def test_every_question_has_a_place_on_the_page() -> None:
    every = (*every_question().values(), DISEASE_AS_PUBLISHED)
    named = {q.figure or q.name for q in every if not callable(q.figure)}
    assert named <= set(figures.__all__)
    drawn = {name for name in ANSWERED if name in figures.__all__} | {"effect_sizes"}
    # Others are drawn as numbers beside their nulls, or by a function of their own.
    assert drawn == {name for name, q in questions().items() if q.by_itself and q.figure in ("", name)}


def test_a_narrow_logarithmic_axis_still_has_named_ticks(answers: dict[str, Result]) -> None:
    """Rates within one decade of each other hold no power of ten."""
    table = answers["selection"].table
    rates = np.linspace(0.021, 0.079, len(table))
    ax = figures.selection(replace(answers["selection"], table=table.assign(frequency=rates)))
    ax.figure.draw_without_rendering()
    low, high = ax.get_xlim()
    ticks = zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
    assert sum(low <= x <= high and bool(label.get_text()) for x, label in ticks) >= 2


def test_given_axes_are_used_and_pyplot_is_left_alone(planted: Planted, answers: dict[str, Result]) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    own = Figure().subplots()
    assert figures.hubs(answers["hubs"], ax=own) is own
    assert figures.effect_sizes(planted.circuit.edges).figure is not own.figure
    assert plt.get_fignums() == before
    assert matplotlib.rcParams["font.size"] == matplotlib.rcParamsDefault["font.size"]


def test_show_goes_through_pyplot(answers: dict[str, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()))
    figures.attenuation(answers["attenuation"], show=True)
    assert len(shown[0]) == 1
    plt.close("all")


def test_effect_sizes_are_uncapped_cumulative_shares(planted: Planted) -> None:
    d = planted.circuit.edges["cohens_d"].abs().to_numpy()
    ax = figures.effect_sizes(planted.circuit.edges, planted.circuit.controls)
    x, y = (np.asarray(v) for v in ax.lines[0].get_data())
    assert x.max() == d.max()
    assert y == pytest.approx([(d >= value).mean() for value in x])


def test_degrees_are_those_of_the_edges(planted: Planted, answers: dict[str, Result]) -> None:
    edges = planted.circuit.edges
    ax = figures.hubs(answers["hubs"])
    out = edges.groupby(ENDS[:2]).size()
    x, y = ax.lines[0].get_data()
    n = planted.circuit.nodes["is_source"].sum()
    assert dict(zip(x, y, strict=True)) == pytest.approx({k: (out >= k).sum() / n for k in out.unique()})


def test_layer_pairs_write_the_number_of_edges(planted: Planted) -> None:
    ax = figures.layer_pairs(layer_pairs(planted.circuit))
    counts = planted.circuit.edges.groupby(["source_layer", "target_layer"]).size()
    assert sorted(int(text.get_text().replace(",", "")) for text in ax.texts) == sorted(counts)


def test_sae_quality_draws_what_there_is() -> None:
    layers = pd.DataFrame({"layer": [0, 1], "explained_variance": [0.9, 0.8], "frac_alive": [1.0, 0.5]})
    ax = figures.sae_quality(layers)
    assert [list(line.get_ydata()) for line in ax.lines] == [[0.9, 0.8], [1.0, 0.5]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["variance explained", "alive latents"]


@pytest.mark.parametrize("draw", [figures.circuit, lambda e, n: figures.effect_sizes(e)])
def test_no_edges_still_draw(planted: Planted, draw: Callable[..., Axes]) -> None:
    assert draw(planted.circuit.edges.iloc[:0], planted.circuit.nodes).figure is not None


def test_the_picture_keeps_the_strongest_edges_apart(planted: Planted) -> None:
    circuit = planted.circuit
    drawn = strongest(circuit.edges, circuit.nodes, 50)
    kept = sorted(drawn.edges["cohens_d"].abs(), reverse=True)
    assert kept == sorted(circuit.edges["cohens_d"].abs(), reverse=True)[:50]
    assert (drawn.edges["x1"] > drawn.edges["x0"]).all()
    assert not drawn.nodes.duplicated(["x", "y"]).any()
    assert drawn.nodes["degree"].sum() == 100
    places = drawn.nodes.set_index(["layer", "feature"])["y"]
    ends = pd.MultiIndex.from_frame(drawn.edges[ENDS[:2]])
    assert (places.reindex(ends).to_numpy() == drawn.edges["y0"]).all()


def test_ordering_crosses_fewer_edges_than_chance() -> None:
    """Two bundles that need no crossing when each layer is ordered by its neighbours."""
    ends = [(0, s, 1, 2 * (s % 2) * 10 + s) for s in range(12)] + [(1, 2 * (s % 2) * 10 + s, 2, s) for s in range(12)]
    edges = pd.DataFrame(ends, columns=ENDS).assign(cohens_d=1.0)
    nodes = pd.concat(
        [edges[ENDS[:2]].set_axis(["layer", "feature"], axis=1), edges[ENDS[2:]].set_axis(["layer", "feature"], axis=1)]
    ).drop_duplicates()
    nodes = nodes.assign(label=None, n_terms=0, top_genes=None, is_source=True)
    drawn = strongest(edges, nodes, 100).edges
    crossings = 0
    for _, part in drawn.groupby("source_layer"):
        a = part[["y0", "y1"]].to_numpy()
        crossings += sum((p[0] - q[0]) * (p[1] - q[1]) < 0 for i, p in enumerate(a) for q in a[:i])
    assert crossings == 0


def test_inline_svg_is_deterministic_and_keeps_its_ids_to_itself(answers: dict[str, Result]) -> None:
    first, again = (inline_svg(figures.sign_balance(answers["sign_balance"]), "a", "Signs & <shares>") for _ in "12")
    other = inline_svg(figures.sign_balance(answers["sign_balance"]), "b", "Signs")
    assert first == again
    ids, others = (set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, other))
    assert ids
    assert not ids & others
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', first))
    assert used <= ids
    assert "<style" not in first
    assert "<metadata" not in first
    assert 'aria-label="Signs &amp; &lt;shares&gt;"' in first
    assert ">supporting share<" in first
