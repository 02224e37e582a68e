"""The circuit as a whole: ten sizes of six orders, on 100 cells of a packaged model.

    python benchmarks/faithfulness.py        # some three minutes on two cores

The packaged Geneformer with its dictionaries, on cells that scanpy ships; a circuit of 200 random edges, for what is
kept does not change the cost. Integrated gradients in 50 cells, then every size of every order of latents and edges
(loss, mean ablation). Seconds are those of the processor, all threads: two idle cores take half of them.
"""

import time
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from _common import Row, write_rows
from _models import as_store, centred_saes, random_cells

from scircuit.analysis.circuit_variants import Variants
from scircuit.cells.tokens import tokenize
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS
from scircuit.circuits.variants import N_CELLS, N_VARIANTS
from scircuit.models.load import load_model
from scircuit.models.stack import BlockStack
from scircuit.sae.checkpoint import load_saes
from scircuit.tracing.costs import kept_madds
from scircuit.tracing.probes.attribution import attributions
from scircuit.tracing.probes.behaviours import behaviour
from scircuit.tracing.probes.faithfulness import trace_variants
from scircuit.tracing.setup import Setup

V2_LENGTH, V2_K = 2048, 32


def random_circuit(setup: Setup, n: int) -> Circuit:
    """`n` edges between random latents, scored at random."""
    rng = np.random.default_rng(0)
    size = setup.saes[0].n_latents
    ends = np.column_stack([rng.integers(0, 3, n), rng.integers(0, size, n), rng.integers(3, 6, n)])
    edges = pd.DataFrame(np.column_stack([ends, rng.integers(0, size, n)]), columns=ENDS)
    edges = edges.assign(cohens_d=rng.random(n), weight_effect=rng.random(n), specificity=rng.random(n))
    nodes = pd.MultiIndex.from_product([setup.saes, range(size)], names=["layer", "feature"]).to_frame(index=False)
    nodes = nodes.assign(frequency=rng.random(len(nodes)), mean_activation=1.0, n_firings=1, norm=1.0)
    return Circuit(edges, nodes, *[pd.DataFrame()] * 3)


def main() -> None:
    """Gradients and orders on the packaged model; the cost of one behaviour at the size of V2-316M by formula."""
    import scanpy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells = scanpy.datasets.pbmc68k_reduced()[:150].copy()
    model = load_model("geneformer-mini", device="cpu")
    store = tokenize(cells, model.tokenizer, counts="raw", scale="log1p")
    setup = Setup(model, load_saes("geneformer-mini"), store.subset(np.arange(N_CELLS)))
    others = store.subset(np.arange(N_CELLS, len(store)))
    means = {layer: torch.zeros(sae.n_latents) for layer, sae in setup.saes.items()}
    aside = replace(setup, cells=others)
    started = time.process_time()
    found = attributions(aside, behaviour("loss", aside, others), means)
    gradients = time.process_time() - started
    circuit = random_circuit(setup, 200)
    asked = behaviour("loss", setup, others)
    variants = Variants(circuit, circuit, circuit.nodes.merge(found), asked.below, np.random.default_rng(0))
    started = time.process_time()
    trace_variants(setup, "loss", asked, variants.orders(), means)
    orders = time.process_time() - started
    write_rows(
        "faithfulness",
        [
            Row("faithfulness_gradients_seconds", gradients, "s of processor time, 50 cells"),
            Row("faithfulness_orders_seconds", orders, "s of processor time, 10 sizes x 6 orders x 2 units, 100 cells"),
            Row("faithfulness_mini_minutes", (gradients + orders) / 120, "min on two idle cores"),
            Row("faithfulness_v2_316m_pflop", v2_pflop(), "PFLOP of one behaviour with the defaults"),
        ],
    )


def v2_pflop() -> float:
    """Counted on a model of the shape alone."""
    from _models import V2_316M

    from scircuit.models.geneformer import Geneformer

    tokenizer = load_model("geneformer-mini", device="cpu").tokenizer
    with torch.device("meta"):
        model = Geneformer(V2_316M, tokenizer, "shape")
    assert isinstance(model, BlockStack)
    small = load_model("geneformer-mini", device="cpu")
    assert isinstance(small, BlockStack)
    one = centred_saes(small, random_cells(1, 40, 6000), V2_K, 36)[0]  # 4,608 latents, as four times 1,152
    setup = Setup(model, dict.fromkeys(range(model.n_layers), one), as_store(random_cells(1, V2_LENGTH, 6000)))
    return 2e-15 * kept_madds(setup, V2_LENGTH) * N_CELLS * N_VARIANTS


if __name__ == "__main__":
    main()
