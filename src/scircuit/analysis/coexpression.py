"""Co-expression: how much of an effect's size is explained by correlation without intervention."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from scircuit.analysis.nodes import NodeIndex, need_columns, need_edges, sizes
from scircuit.analysis.question import Question
from scircuit.analysis.result import Measure, Result
from scircuit.circuits.circuit import Circuit
from scircuit.circuits.schema import ENDS
from scircuit.errors import ScircuitError
from scircuit.stats.resampling import cluster_bootstrap, correlation_interval

_PREDICTORS = ("gene_r", "latent_r")
_CHUNK = 1 << 18


def coexpression(
    circuit: Circuit,
    correlations: pd.DataFrame,
    unrestricted_sd: float | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Result:
    """Share of the variance of |d| explained by the correlation of genes and of activations.

    Edges are only the large |d|, and correlations with a quantity cut off below are too small. Thorndike's case 2
    corrects that: R u / sqrt(1 - R^2 + R^2 u^2), u being the spread of |d| over all tests by that over edges. The null
    is two useless predictors. The interval of R^2 is by bootstrap over sources; those of correlations are by t, over
    sources and targets, which both make their edges alike. Table: one row per edge with `abs_d, gene_r, latent_r`.

    `correlations`: of the edges; `pair_correlations` makes it.
    `unrestricted_sd`: standard deviation of |d| over all tests. Without it, it is taken from `n_sized, sum_abs_d,
      sum_sq_d` of the test table; where neither is there, the corrected share is left out.
    """
    need_edges(circuit)
    need_columns("correlation table", correlations, [*ENDS, *_PREDICTORS], "make it with pair_correlations")
    rng = np.random.default_rng(seed)
    index = NodeIndex.of(circuit.nodes)
    table = _aligned(circuit, index, correlations)
    n = len(table)
    if n < 10:
        raise ScircuitError(f"{n} edges have both correlations; at least 10 are needed.")
    values = np.abs(table[["abs_d", *_PREDICTORS]].to_numpy(np.float64))
    source, target = index.sources(table), index.targets(table)
    raw = cluster_bootstrap(_second_moments(values, source), _r_squared, rng, draws)
    null = 2 / (n - 1)
    measures = [Measure.of("r_squared", raw, n, null)]
    spread = unrestricted_sd or _spread_over_tests(circuit.tests)
    if spread is not None:
        u = spread / float(values[:, 0].std())
        estimate, low, high, chance = (_unrestricted(value, u) for value in (raw.estimate, raw.low, raw.high, null))
        measures.append(Measure("r_squared_corrected", estimate, low, high, chance, n=n))
    size, *predictors = values.T
    of_partial = {
        f"partial_{name}": (own, other)
        for name, own, other in zip(_PREDICTORS, predictors, predictors[::-1], strict=True)
    }
    for name, (own, other) in of_partial.items():
        interval = correlation_interval(_residual(size, other), _residual(own, other), source, target)
        measures.append(Measure.of(name, interval, n, 0.0))
    for name, own in zip(_PREDICTORS, predictors, strict=True):
        measures.append(Measure.of(f"marginal_{name}", correlation_interval(size, own, source, target), n, 0.0))
    return QUESTION.answer(measures, table)


def pair_correlations(
    circuit: Circuit,
    expression: Any,
    genes: Sequence[str],
    activations: Mapping[int, np.ndarray] | None = None,
) -> pd.DataFrame:
    """Correlations over cells of the two ends of every edge, for `coexpression`.

    Returns the edges' ends with `gene_r`, the correlation of the mean standardised expression of both ends' top genes
    (NaN where an end has none among `genes` or its score does not vary), and `latent_r`.

    `expression` `[cell, gene]`: log-normalised, of cells outside the trace or of the traced ones, dense or sparse.
    `genes` `[gene]`: symbols of its columns.
    `activations`: layer -> mean activation of each latent, `[cell, feature]`; without it `latent_r` is NaN.
    """
    scores = _gene_scores(circuit.nodes["top_genes"], expression, genes)
    index = NodeIndex.of(circuit.nodes)
    source, target = index.sources(circuit.edges), index.targets(circuit.edges)
    latent_r = np.full(len(source), np.nan)
    if activations is not None:
        standard = {layer: _standardise(np.asarray(a, np.float64)) for layer, a in activations.items()}
        layers, features = circuit.nodes["layer"].tolist(), circuit.nodes["feature"].tolist()
        columns = [standard[layer][:, feature] for layer, feature in zip(layers, features, strict=True)]
        latent_r = _paired(np.column_stack(columns), source, target)
    return circuit.edges[ENDS].assign(gene_r=_paired(scores, source, target), latent_r=latent_r)


def _gene_scores(top_genes: pd.Series, expression: Any, genes: Sequence[str]) -> np.ndarray:
    """Standardised mean expression of every node's top genes, `[cell, node]`."""
    from scipy import sparse

    used = sorted({g for row in top_genes for g in row} & set(genes))
    position = {gene: i for i, gene in enumerate(genes)}
    if not used:
        raise ScircuitError("no top gene of any latent is among the genes given; pass symbols, not ids.")
    block = expression[:, [position[gene] for gene in used]]
    dense = _standardise(np.asarray(block.todense() if sparse.issparse(block) else block, np.float64))
    column = {gene: i for i, gene in enumerate(used)}
    members = [[column[g] for g in row if g in column] for row in top_genes]
    sizes = np.array([len(m) for m in members])
    pointer = np.concatenate([[0], np.cumsum(sizes)])
    weight = np.repeat(1 / np.maximum(sizes, 1), sizes)
    shape = (len(used), len(members))
    member = sparse.csc_array((weight, np.concatenate([np.asarray(m, int) for m in members]), pointer), shape)
    return _standardise(np.nan_to_num(dense) @ member)


def _standardise(values: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and norm 1; NaN where a column does not vary."""
    centred = values - values.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    return centred / np.where(norm > 1e-12, norm, np.nan)


def _paired(standard: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Dot products of pairs of columns, `[pair]`."""
    columns = np.ascontiguousarray(standard.T)
    step = max(1, _CHUNK // max(columns.shape[1], 1)) * 8
    blocks = [slice(i, i + step) for i in range(0, len(source), step)]
    return np.concatenate([np.einsum("ij,ij->i", columns[source[b]], columns[target[b]]) for b in blocks])


def _aligned(circuit: Circuit, index: NodeIndex, correlations: pd.DataFrame) -> pd.DataFrame:
    """The edges with all three numbers: the ends, `abs_d, gene_r, latent_r`."""
    own, other = (
        index.sources(table) * index.n_nodes + index.targets(table) for table in (circuit.edges, correlations)
    )
    order = np.argsort(other, kind="stable")
    position = np.minimum(np.searchsorted(other[order], own), max(len(other) - 1, 0))
    row = order[position] if len(other) else position
    found = other[row] == own if len(other) else np.zeros(len(own), dtype=bool)
    values = {"abs_d": sizes(circuit.edges)[found].astype(np.float32)}
    values |= {name: correlations[name].to_numpy(np.float32)[row[found]] for name in _PREDICTORS}
    known = np.isfinite(np.stack(list(values.values()))).all(axis=0)
    ends = {name: circuit.edges[name].to_numpy()[found][known] for name in ENDS}
    return pd.DataFrame(ends | {name: column[known] for name, column in values.items()})


def _second_moments(values: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Per-source sums of the outer products of (1, values), float64 `[source, 16]`."""
    names, code = np.unique(source, return_inverse=True)
    full = [np.ones(len(values)), *values.T]
    sums = np.empty((len(names), len(full), len(full)))
    for i, a in enumerate(full):
        for j, b in enumerate(full[: i + 1]):
            sums[:, i, j] = sums[:, j, i] = np.bincount(code, a * b, minlength=len(names))
    return sums.reshape(len(names), -1)


def _r_squared(totals: np.ndarray) -> np.ndarray:
    """Squared multiple correlation of |d| with both predictors, from totals `[..., 16]`; NaN where one is useless."""
    moment = totals.reshape(*totals.shape[:-1], 4, 4)
    moment = moment / moment[..., :1, :1]
    mean = moment[..., 0, 1:]
    covariance = moment[..., 1:, 1:] - mean[..., :, None] * mean[..., None, :]
    variance = np.maximum(np.diagonal(covariance, axis1=-2, axis2=-1), 0.0)
    r = covariance / _defined(np.sqrt(variance[..., :, None] * variance[..., None, :]))
    r_1, r_2, r_12 = r[..., 0, 1], r[..., 0, 2], r[..., 1, 2]
    return (r_1**2 + r_2**2 - 2 * r_1 * r_2 * r_12) / _defined(1 - r_12**2)


def _defined(divisor: np.ndarray) -> np.ndarray:
    """NaN in place of 0 and of what rounding makes of it, as in a bootstrap sample of few distinct edges."""
    return np.where(divisor > 1e-12, divisor, np.nan)


def _residual(values: np.ndarray, given: np.ndarray) -> np.ndarray:
    """What a straight line through `given` leaves of the values; NaN where it leaves only rounding."""
    centred, given = values - values.mean(), given - given.mean()
    left = centred - given * (centred @ given / _defined(given @ given))
    return left if left @ left > 1e-12 * (centred @ centred) else np.full_like(left, np.nan)


def _unrestricted(r_squared: float, u: float) -> float:
    """Thorndike's case 2 on the squared multiple correlation."""
    return r_squared * u**2 / (1 - r_squared + r_squared * u**2)


def _spread_over_tests(tests: pd.DataFrame) -> float | None:
    """Standard deviation of |d| over every test that was made, kept or not."""
    columns = ["n_sized", "sum_abs_d", "sum_sq_d"]
    if not set(columns) <= set(tests.columns):
        return None
    n, total, square = tests.loc[tests["kind"] == "latent", columns].sum()
    return float(np.sqrt(square / n - (total / n) ** 2))


QUESTION = Question(
    asks="How much of an effect is correlation?",
    title="Co-expression",
    function=coexpression,
    definition="coexpression/2",
    null_model="predictors without any relation to |d|",
    terms=("co-expression", "d"),
    needs=("circuit", "correlations"),
    marks="Medians and quartiles of |d| over twentieths of the edges, by the size of the correlation.",
    words={
        "r_squared": "variance of |d| that both correlations explain (R²)",
        "r_squared_corrected": "the same, corrected for edges being only the large |d|",
        "partial_gene_r": "correlation of |d| with that of the genes, given that of the latents",
        "partial_latent_r": "correlation of |d| with that of the latents, given that of the genes",
        "marginal_gene_r": "correlation of |d| with that of the genes",
        "marginal_latent_r": "correlation of |d| with that of the latents",
    },
    edge_columns=("cohens_d",),
)
