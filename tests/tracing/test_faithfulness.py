"""Circuits alone: against forward hooks on the whole model, on planted circuits, and their attributions in sum."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from planted import N_LAYERS, WIDTH, planted_cells, random_saes, wired_model

from scircuit.analysis.circuit_curve import circuit_curve
from scircuit.analysis.circuit_tests import circuit_tests
from scircuit.analysis.circuit_variants import Variants
from scircuit.analysis.faithfulness import faithfulness
from scircuit.cells.tokens import tokenize
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.variants import Variant
from scircuit.errors import ScircuitError
from scircuit.models.load import load_model
from scircuit.sae.jumprelu import JumpReLUSAE
from scircuit.tracing.planted import planted
from scircuit.tracing.probes.attribution import attributions
from scircuit.tracing.probes.behaviours import MASK_SHARE, behaviour
from scircuit.tracing.probes.faithfulness import trace_variants
from scircuit.tracing.probes.kept import KeptSets, read_kept
from scircuit.tracing.setup import Setup

ENDS = ["source_layer", "source_feature", "target_layer", "target_feature"]
WIRES = {
    ((0, 0), (1, 2)): 4.0, ((1, 2), (2, 4)): 0.9, ((2, 4), (3, 0)): 0.8,
    ((0, 1), (1, 3)): 4.0, ((1, 3), (2, 5)): 0.9, ((2, 5), (3, 0)): 0.8,
}  # fmt: skip
USEFUL = sorted(source for source, _ in WIRES)
OF = "latents:3:0"
TARGET, USELESS = 38, [(0, 20), (1, 25), (1, 33)]


@pytest.fixture(scope="module", params=["geneformer_folder", "scgpt_folder"])
def tiny(request, cells):
    """A tiny model of either kind in float64, random dictionaries, 12 cells."""
    model = load_model(request.getfixturevalue(request.param), device="cpu").double()
    saes = {layer: sae.double() for layer, sae in random_saes(model, 96, 8).items()}
    return Setup(model, saes, tokenize(cells[:12].copy(), model.tokenizer))


def by_hooks(setup, asked, variant, means, below):
    """One cell through the whole model, dictionaries applied by hooks, latent by latent; the last residual."""
    genes = np.flatnonzero(asked.batch.is_gene[0]).tolist()
    members = {tuple(latent) for latent in variant.members.tolist()}
    seen = {}

    def hook_of(layer):
        def hook(module, args, output):
            seen[layer] = output.clone()
            if layer >= below or layer not in setup.saes:
                return None
            sae, h = setup.saes[layer], output.clone()
            for position in genes:
                row = output[0, position]
                z = sae.encode(row[None]).dense(sae.n_latents)[0]
                new = row if variant.error == "kept" else sae(row[None])[0]
                for latent in range(sae.n_latents):
                    if ((layer, latent) in members) == variant.removed:
                        level = means[layer][latent] if variant.ablation == "mean" else 0.0
                        new = new + (level - z[latent]) * sae.W_dec[latent]
                h[0, position] = new
            return h

        return hook

    handles = [block.register_forward_hook(hook_of(i)) for i, block in enumerate(setup.model.blocks)]
    with torch.inference_mode():
        h = setup.model.embed(asked.batch)
        for block in setup.model.blocks:
            h = block(h, setup.model.key_mask(asked.batch))
    for handle in handles:
        handle.remove()
    return seen[below] if below < setup.model.n_layers else h


@pytest.mark.parametrize("of", ["loss", "embedding", "genes:GENE3,GENE7", "latents:2:5+17", "probe:kind"])
def test_fast_path_equals_hooks_on_the_whole_model(tiny, of):
    rng = np.random.default_rng(0)
    every = np.array([(layer, f) for layer in tiny.saes for f in range(96)])
    means = {layer: torch.from_numpy(rng.random(96) * 0.1) for layer in tiny.saes}
    variants = [
        Variant("order", every[rng.random(len(every)) < share], removed, ablation, error)
        for share, removed, ablation, error in (
            (0.3, False, "mean", "kept"), (0.3, False, "zero", "kept"), (0.6, True, "mean", "kept"),
            (0.5, False, "mean", "ablated"), (0.4, True, "zero", "ablated"), (0.0, False, "mean", "kept"),
        )
    ]  # fmt: skip
    asked_of = behaviour(of, tiny, tiny.cells)
    sets = KeptSets(tiny, variants, means, asked_of.below)
    n = 0
    for batch in tiny.cells.batches(1, by_length=False):
        asked = asked_of.ask(batch)
        if asked is None or n == 3:
            continue
        n += 1
        fast = read_kept(tiny.model, asked.batch, sets, asked.read, 4 * batch.tokens.shape[1])
        nothing = Variant("model", np.zeros((0, 2), dtype=np.int64), removed=True)
        clean = by_hooks(tiny, asked, nothing, means, asked_of.below)
        for value, variant in zip(fast, [nothing, *variants], strict=True):
            state = by_hooks(tiny, asked, variant, means, asked_of.below)
            slow = float(asked.read(torch.cat([clean, state]))[1])
            assert value == pytest.approx(slow, rel=1e-5, abs=1e-9), variant
    assert n == 3


def test_behaviours_are_what_they_say(tiny):
    """The loss and the genes' outputs by their own formulas."""
    model, batch = tiny.model, tiny.cells.batch(np.array([2]))
    asked = behaviour("loss", tiny, tiny.cells, seed=3).ask(batch)
    hidden = (asked.batch.tokens != batch.tokens) if batch.values is None else (asked.batch.values != batch.values)
    assert 0 < hidden.sum() <= 3 * MASK_SHARE * batch.is_gene.sum()
    h = model.embed(asked.batch)
    for layer in range(model.n_layers):
        h = model.layer(layer, h, asked.batch)
    said = model.logits(h[0][torch.from_numpy(hidden[0])])
    truth = torch.from_numpy((batch.tokens if batch.values is None else batch.values)[hidden])
    by_hand = (
        torch.nn.functional.cross_entropy(said.float(), truth)
        if batch.values is None
        else ((said[:, 0].float() - truth) ** 2).mean()
    )
    assert float(asked.read(h)[0]) == pytest.approx(float(by_hand), rel=1e-6)
    assert behaviour("loss", tiny, tiny.cells, seed=3).ask(batch).batch.tokens.tolist() == asked.batch.tokens.tolist()


def test_a_probe_says_how_good_it_is(tiny):
    told = behaviour("probe:kind", tiny, tiny.cells).told()
    assert set(told["kind"]) == {"held_out", "majority"}
    assert told["value"].isin([0, 1]).all()


def test_cells_without_a_label_are_no_category(tiny):
    kind = tiny.cells.cells["kind"].astype(object).mask(np.arange(len(tiny.cells)) % 4 == 0)
    some = replace(tiny, cells=replace(tiny.cells, cells=tiny.cells.cells.assign(kind=kind)))
    asked = behaviour("probe:kind", some, some.cells)
    assert list(asked.names) == sorted(kind.dropna().astype(str).unique())
    assert asked.ask(some.cells.batch(np.array([0]))) is None
    assert asked.ask(some.cells.batch(np.array([1]))) is not None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("growth", "there is no behaviour 'growth'; ask for loss"),
        ("loss:all", "takes nothing after it"),
        ("genes", "genes needs symbols"),
        ("genes:NOSUCH", "does not read the gene NOSUCH"),
        ("probe", "probe needs an obs column"),
        ("probe:colour", "no obs column 'colour'"),
        ("latents:3", "names none"),
        ("latents:0:1", "none lies below it"),
        ("latents:1:960", "has no latent 960"),
    ],
)
def test_wrong_behaviours_are_refused(tiny, text, says):
    with pytest.raises(ScircuitError, match=says):
        behaviour(text, tiny, tiny.cells)


def as_relu(sae):
    config = replace(sae.config, architecture="standard", k=None)
    level = torch.full_like(sae.b_enc, -0.5)
    return JumpReLUSAE(config, sae.W_enc, level, sae.W_dec * 0.2, sae.b_dec).double()


@pytest.mark.parametrize("of", ["loss", "embedding", "latents:2:5+17"])
def test_attributions_of_all_latents_add_up(tiny, of):
    """Over the path of the ablation they are m(model) - m(all silenced): with ReLU dictionaries there are no jumps."""
    saes = {layer: as_relu(sae) for layer, sae in tiny.saes.items()}
    few = replace(tiny, cells=tiny.cells.subset(np.arange(3)), saes=saes)
    means = {layer: torch.full((96,), 0.02, dtype=torch.float64) for layer in tiny.saes}
    asked = behaviour(of, few, tiny.cells)
    variants = [Variant("model", np.zeros((0, 2), dtype=np.int64), True), Variant("empty", np.zeros((0, 2), dtype=int))]
    table = trace_variants(few, of, asked, variants, means)
    mean = table.groupby("kind", observed=True)["value"].mean()
    found = attributions(few, asked, means, steps=200)
    gap = mean["model"] - mean["empty"]
    assert found["attribution"].sum() == pytest.approx(gap, rel=0.02)
    assert len(found) == 96 * asked.below


def circuit_of(paths, n_layers, width):
    edges = pd.DataFrame([(*source, *target) for source, target in paths], columns=ENDS)
    edges = edges.assign(cohens_d=1.0, weight_effect=np.linspace(1, 2, len(edges)))
    nodes = pd.DataFrame([(layer, f) for layer in range(n_layers) for f in range(width)], columns=["layer", "feature"])
    nodes = nodes.assign(
        label="", frequency=0.5, mean_activation=1.0, n_firings=100, is_source=False, n_terms=0, norm=1.0
    )
    none = pd.DataFrame()
    return Circuit(edges, nodes, none, none, none, {})


def measured(setup, circuit, of):
    """All variants of a circuit by zero ablation, and the attributions."""
    asked = behaviour(of, setup, setup.cells)
    means = {layer: torch.zeros(sae.n_latents) for layer, sae in setup.saes.items()}
    found = attributions(setup, asked, means)
    nodes = circuit.nodes.merge(found, how="left").fillna({"attribution": 0.0})
    variants = Variants(circuit, circuit, nodes, asked.below, np.random.default_rng(0), "zero")
    todo = [*variants.whole(), *variants.randomised(40), *variants.single(99, 40), *variants.orders()]
    return found, trace_variants(setup, of, asked, todo, means)


@pytest.fixture(scope="module", params=["post", "pre"])
def transformer(request):
    """The planted transformer: what drives a target of the last layer, and three latents that do not."""
    model = planted(64, request.param)
    members = [(layer, s) for layer in (0, 1) for s in np.flatnonzero(model.drives_between(layer, 2)[:, TARGET])]
    circuit = circuit_of([(latent, (2, TARGET)) for latent in [*members, *USELESS]], 3, 40)
    setup = Setup(model.model, model.saes, model.cells(30))
    return members, measured(setup, circuit, f"latents:2:{TARGET}")[1]


def test_the_planted_circuit_carries_the_behaviour_and_random_ones_do_not(transformer):
    result = faithfulness(transformer[1])
    assert 0.95 <= result["faithfulness"].estimate < 1.15  # post-norm blocks rescale a little what is left
    assert result["faithfulness"].null < 0.5
    assert result["faithfulness"].p_value < 0.05
    assert abs(result["completeness"].estimate) < 0.15 < result["completeness"].null


def test_minimality_names_the_planted_useless_members(transformer):
    members, table = transformer
    result = circuit_tests(table)
    matters = result.table.set_index(["layer", "feature"])["matters"]
    assert sorted(matters.index[~matters]) == USELESS
    assert sorted(matters.index[matters]) == members
    assert result["sufficient"].estimate >= 0.95
    assert result["sufficient"].p_value < 0.05
    assert result["necessary"].p_value < 0.05
    assert result["minimal"].estimate == pytest.approx(len(members) / len(matters))


@pytest.fixture(scope="module")
def wired():
    model, saes = wired_model(WIRES)
    return Setup(model, saes, planted_cells(model, 40)), circuit_of(WIRES, N_LAYERS, WIDTH)


def test_gradients_find_the_planted_latents_first(wired):
    found, table = measured(*wired, OF)
    strong = found[found["attribution"].abs() > 1e-6]
    assert sorted(zip(strong["layer"], strong["feature"], strict=True)) == USEFUL
    mean = table.groupby("kind", observed=True)["value"].mean()
    silenced = table.query("kind == 'empty' and ablation == 'zero' and error == 'kept'")["value"].mean()
    assert found["attribution"].sum() == pytest.approx(mean["model"] - silenced, rel=1e-6), "a polynomial in the steps"
    result = circuit_curve(table)
    assert result["cpr_gradient"].estimate > result["cpr_random"].estimate
    assert result["cmd_gradient"].estimate < result["cmd_random"].estimate
    whole = result.table[(result.table["share"] == 1.0) & (result.table["unit"] == "node")]
    np.testing.assert_allclose(whole["faithfulness"], 1.0, atol=1e-9)


def test_a_behaviour_that_nothing_moves_is_refused(wired):
    """No wire leads to this latent."""
    setup, circuit = wired
    asked = behaviour("latents:3:2", setup, setup.cells)
    variants = Variants(circuit, circuit, circuit.nodes.assign(attribution=0.0), 3, np.random.default_rng(0))
    means = {layer: torch.ones(WIDTH) for layer in setup.saes}
    table = trace_variants(setup, "latents:3:2", asked, [*variants.whole(), *variants.randomised(2)], means)
    with pytest.raises(ScircuitError, match="nothing that a circuit could carry"):
        faithfulness(table)
