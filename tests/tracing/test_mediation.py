"""Mediation: planted chains are recovered end to end, and holding a latent equals a plain loop."""

import numpy as np
import pandas as pd
import pytest
import torch
from planted import WIDTH, planted_cells, planted_model, random_saes, wired_model

from scircuit.analysis.mediation import candidate_mediators, mediation
from scircuit.cells.tokens import tokenize
from scircuit.circuits.build import build_circuit
from scircuit.circuits.rule import EdgeRule
from scircuit.errors import ScircuitError
from scircuit.models.geneformer import load_geneformer
from scircuit.tracing.probes.mediation import trace_mediation
from scircuit.tracing.settings import TraceSettings
from scircuit.tracing.setup import Setup
from scircuit.tracing.tracer import trace

ENDS = ["source_layer", "source_feature", "target_layer", "target_feature"]
COLUMNS = [*ENDS, "mediator_layer", "mediator_feature", "kind"]


def candidates(*rows):
    return pd.DataFrame(list(rows), columns=COLUMNS)


def naive(model, saes, batch, source, held, target):
    """(delta, delta_held) of one cell by full forwards, None where the source does not fire."""
    genes = torch.from_numpy(batch.is_gene[0])

    def run(ablate, hold, clean=None):
        h, states = model.embed(batch), []
        for layer in range(model.n_layers):
            h = model.layer(layer, h, batch).clone()
            z = saes[layer].encode(h[0]).dense(saes[layer].n_latents)
            if ablate and layer == source[0]:
                h[0, genes] -= z[genes, source[1], None] * saes[layer].W_dec[source[1]]
            for at, feature in hold:
                if at == layer:
                    h[0, genes] += (clean[layer] - z)[genes, feature, None] * saes[layer].W_dec[feature]
            states.append(saes[layer].encode(h[0]).dense(saes[layer].n_latents))
        return states

    clean = run(False, [])
    fires = (clean[source[0]][:, source[1]] > 0) & genes
    if not bool(fires.any()):
        return None
    t, f = target
    return [
        float((run(True, hold, clean)[t][fires, f].double() - clean[t][fires, f].double()).mean())
        for hold in ([], held)
    ]


@pytest.mark.parametrize("tokens", [1, 100_000])
def test_holding_equals_a_plain_loop(geneformer_folder, cells, tokens):
    model = load_geneformer(geneformer_folder, device="cpu")
    saes = random_saes(model, 40, k=20)
    store = tokenize(cells, model.tokenizer, rows=np.arange(2))
    table = candidates(
        *((0, s, 3, t, layer, m, kind) for s in (3, 8) for t in (1, 9)
          for layer, m, kind in ((1, 4, "mediator"), (2, 7, "mediator"), (2, 11, "mediator"), (1, 30, "random"))),
    )  # fmt: skip
    found = trace_mediation(Setup(model, saes, store, settings=TraceSettings(tokens=tokens)), table)
    assert set(found["kind"]) == {"mediator", "random", "joint"}
    for row in found.itertuples():
        batch = store.batch(np.array([row.cell]))
        held = [(row.mediator_layer, row.mediator_feature)]
        if row.kind == "joint":
            held = [(1, 4), (2, 7), (2, 11)]
        expected = naive(model, saes, batch, (0, row.source_feature), held, (3, row.target_feature))
        assert (row.delta, row.delta_held) == (
            pytest.approx(expected[0], abs=2e-5),
            pytest.approx(expected[1], abs=2e-5),
        )
    assert (found["delta"] - found["delta_held"]).abs().max() > 1e-3
    firing = {s: sum(naive(model, saes, store.batch(np.array([c])), (0, s), [], (3, 1)) is not None for c in range(2))
              for s in (3, 8)}  # fmt: skip
    assert found.groupby("source_feature")["cell"].nunique().to_dict() == {s: n for s, n in firing.items() if n}


def test_a_mediator_carries_its_own_share_of_parallel_paths():
    # Direct -0.6; through (1, 2): 0.8 * 0.5; through (1, 3): -0.5 * 0.4. Total -0.4.
    model, saes = wired_model({((0, 0), (1, 2)): 0.8, ((1, 2), (2, 4)): 0.5, ((0, 0), (1, 3)): -0.5,
                               ((1, 3), (2, 4)): 0.4, ((0, 0), (2, 4)): -0.6})  # fmt: skip
    ends = (0, 0, 2, 4)
    table = candidates((*ends, 1, 2, "mediator"), (*ends, 1, 3, "mediator"), (*ends, 1, 5, "random"))
    found = trace_mediation(Setup(model, saes, planted_cells(model, 12)), table)
    share = mediation(found).table.set_index(["kind", "mediator_feature"])["share"]
    assert share["mediator", 2] == pytest.approx(0.4 / -0.4, rel=1e-6)
    assert share["mediator", 3] == pytest.approx(-0.2 / -0.4, rel=1e-6)
    assert share["joint", -1] == pytest.approx((0.4 - 0.2) / -0.4, rel=1e-6)
    assert share["random", 5] == 0.0


def test_planted_mediation_is_recovered_from_the_trace_to_the_answer(tmp_path):
    model, saes = planted_model()
    store = planted_cells(model, 30)
    sources = {layer: list(range(WIDTH)) for layer in range(3)}
    folder = trace(model, saes, store, sources, tmp_path / "trace", settings=TraceSettings(tokens=4000, n_random=4))
    features = pd.DataFrame(
        [{"layer": layer, "feature": f, "label": "", "frequency": 0.5, "mean_activation": 1.0, "top_genes": [],
          "n_terms": 0, "n_firings": 9} for layer in range(4) for f in range(WIDTH)]
    )  # fmt: skip
    names = ("layer", "feature", "term", "n_overlap", "set_size", "query_size", "fold", "p_value", "q_value")
    terms = pd.DataFrame({c: [] for c in (*names, "information_content")})
    tables = [pd.read_parquet(folder / f"{name}.parquet") for name in ("effects", "tests")]
    circuit = build_circuit(*tables, features, terms, EdgeRule())
    chosen = candidate_mediators(circuit, circuit.edges)
    result = mediation(trace_mediation(Setup(model, saes, store), chosen))
    own = result.table[result.table["kind"] == "mediator"].set_index([*ENDS, "mediator_layer", "mediator_feature"])
    # (0,0) -> (1,2) -> (2,4) -> (3,0) and (0,1) -> (1,3) -> (3,5): each link carries the whole of it.
    chains = [(0, 0, 2, 4, 1, 2), (0, 0, 3, 0, 1, 2), (0, 0, 3, 0, 2, 4), (0, 1, 3, 5, 1, 3), (1, 2, 3, 0, 2, 4)]
    assert set(own.index) == set(chains)
    np.testing.assert_allclose(own["share"], 1.0, atol=1e-4)
    assert (own["q_value"] < 0.05).all()
    measures = result.measures.set_index("measure")
    assert measures.loc["share_carried", "estimate"] == pytest.approx(1.0, abs=1e-4)
    assert measures.loc["share_carried", "null"] == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (candidates((0, 0, 2, 4, 1, 2, "mediator")).drop(columns="kind"), "lack kind"),
        (candidates(), "no candidate mediator"),
        (candidates((0, 0, 2, 4, 2, 2, "mediator")), "mediator in layer 2 does not lie between"),
        (candidates((0, 0, 2, 4, 1, 2, "guess")), "kind 'guess'"),
    ],
)
def test_wrong_candidates_are_refused(table, message):
    model, saes = planted_model()
    with pytest.raises(ScircuitError, match=message):
        trace_mediation(Setup(model, saes, planted_cells(model, 2)), table)
