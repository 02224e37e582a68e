"""A run as data: its sections, their defaults and the profiles; every field's comment is its documentation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelSection:
    """The foundation model."""

    source: str = "geneformer-mini"
    """A folder, a name (geneformer-mini, scgpt-mini, see `scircuit models list`), or FILE.py:FUNCTION of your own."""
    protocol: str = "official"
    """How cells become tokens: official, or paper (arXiv 2603.01752)."""
    dictionaries: str | None = None
    """Folder of Geneformer's token dictionaries, when they are not beside the checkpoint."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: str = "float32"
    """float32, tf32 (CUDA), bfloat16 or float16; below float32 the trace reports what the precision costs."""
    compile: bool = False
    """Compile the blocks with torch.compile: faster on a GPU after a minute of compiling; other last bits."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the tokenizer (scGPT: binning = "sampled" | "midpoint", seed)."""


@dataclass(frozen=True)
class DataSection:
    """A data set and the cells taken from it."""

    path: str = ""
    """An .h5ad file of any size (read by rows), census:DATE (CELLxGENE Census), or scanpy:NAME that scanpy ships."""
    counts: str = "X"
    """Where raw counts lie: X, raw, or layer:NAME."""
    scale: str = "counts"
    """counts, or log1p for values normalised per cell and log1p-transformed."""
    gene_column: str | None = None
    """Column of var with Ensembl ids or symbols; by default the index and the usual columns are tried."""
    min_match: float = 0.2
    """Refuse when fewer of the genes are in the model's vocabulary."""
    where: dict[str, Any] = field(default_factory=dict)
    """Keep cells whose obs columns have these values, for example {cell_line = "k562", phase = ["G1", "S"]}."""
    n: int | None = None
    """Cells drawn at random (seeded), all splits together; by default all."""
    stratify: tuple[str, ...] = ()
    """obs columns (tissue, cell type) by which cells are drawn: in proportion to size, at least one of each."""
    equal: bool = False
    """Share n out equally among the values of the first of these columns (67, 67, 66)."""
    n_per: dict[str, int] = field(default_factory=dict)
    """Cells per value of the first of these columns, in place of n, for example {lung = 1000, kidney = 500}."""
    shares: dict[str, float] = field(
        default_factory=lambda: {"train": 0.5, "catalogue": 0.2, "discovery": 0.2, "confirmation": 0.1}
    )
    """Splits by seed and row: dictionaries learn, features are described, edges are found, edges are found again."""


@dataclass(frozen=True)
class CellsSection(DataSection):
    """The cells, and how they are split."""

    obs: tuple[str, ...] = ()
    """Categorical obs columns among which a feature's top cells are tested."""


@dataclass(frozen=True)
class MixSection(DataSection):
    """One of several data sets on which dictionaries are trained together."""

    name: str = ""
    """Names the data set in the manifest."""
    weight: float = 1.0
    """Positions taken from it, relative to the others."""


@dataclass(frozen=True)
class SaeSection:
    """The dictionaries: trained here, or read from a folder."""

    path: str | None = None
    """Folder of trained dictionaries, of a run or in any format that is read; by default they are trained."""
    layers: tuple[int, ...] = ()
    """Layers to train or load; by default all."""
    architecture: str = "topk"
    """topk, batchtopk or jumprelu."""
    expansion: int = 4
    """Latents per dimension of the residual stream."""
    k: int = 32
    """Active latents per position."""
    matryoshka: tuple[float, ...] = ()
    """Shares of the dictionary whose first latents must reconstruct on their own, e.g. [0.0625, 0.25]; none: plain."""
    n_steps: int = 2000
    """Optimiser steps."""
    batch_rows: int = 2048
    """Positions per step."""
    buffer_rows: int = 65_536
    """Positions per layer that are shuffled together; decides the memory of training."""
    lr: float | None = None
    """Learning rate; by default by the size of the dictionary."""
    warmup_share: float = 0.05
    """Share of the steps over which the learning rate rises from 0."""
    decay_share: float = 0.2
    """Share of the steps, at the end, over which the learning rate falls to 0."""
    aux_k: int | None = None
    """Dead latents that reconstruct the remaining error (AuxK); by default half of d_model."""
    aux_coefficient: float = 1 / 32
    """Weight of the AuxK loss; 0 leaves dead latents dead."""
    dead_after_rows: int = 50_000
    """A latent that has not fired for so many positions counts as dead."""
    sparsity_coefficient: float = 1.0
    """jumprelu only: weight of (L0 / k - 1)^2."""
    bandwidth: float = 0.1
    """jumprelu only: width of the window around the threshold that passes gradients, in units of the scaled input."""
    bf16: bool = False
    """Forward pass of the training in bfloat16 (parameters stay float32): faster on GPUs that have it."""
    quality_cells: int = 64
    """Cells of the catalogue split, which no dictionary learnt from, on which they are measured."""
    checkpoint_every: int = 500
    """Steps between two checkpoints of training; a run that was stopped goes on from the last."""
    mix: tuple[MixSection, ...] = field(default=(), metadata={"tables": True})
    """Data sets to train on in place of [cells]: [[sae.mix]] tables with name, weight and what [cells] takes."""
    stability_seeds: int = 0
    """Further dictionaries trained with other seeds, to see which latents are the data's; each costs a training."""


@dataclass(frozen=True)
class FeaturesSection:
    """What latents respond to."""

    gene_sets: tuple[str, ...] = ("programs",)
    """GMT files, programs (they ship with the package), or sources in the cache: sets, signed regulons, diseases."""
    annotation: str = "corrected"
    """corrected (background of the run's genes, one label rule), or published (the study's rules, score and labels)."""
    link_score: int = 1
    """published only: what a network link adds to a source's score; 1 as the study for Geneformer, 2 for scGPT."""
    networks: tuple[str, ...] = ()
    """Networks in the cache (string, trrust) whose links within a latent's genes are tested against like degrees."""
    ranked: bool = False
    """Also test the sets over the whole loading profile (decoupler; needs the extra bio)."""
    min_firings: int = 5
    """A gene counts among a latent's top genes only when it fired on it so often."""
    n_top_genes: int = 20
    """Length of a latent's gene list."""
    alpha: float = 0.05
    """A gene set annotates a latent below this q value."""
    min_overlap: int = 3
    """Fewest genes shared by a latent's list and a set."""
    control_draws: int = 20
    """Times that random genes are annotated as the latents were, to tell the rate of chance; 0 for never."""
    coactivation: bool = True
    """Count which latents of a layer fire together, and find the modules they form."""
    modules: str = "louvain"
    """How modules are found: louvain, or leiden (needs the extra leiden, which is under the GPL)."""
    min_cosine: float | None = 0.7
    """Least |cosine| of decoder directions for latents of two layers to be matched; null for no matching."""
    pair_cells: int = 200
    """Cells of the catalogue split over which sources and later latents are correlated; 0 for none."""


@dataclass(frozen=True)
class SourcesSection:
    """Which latents are ablated."""

    rule: str = "annotated"
    """annotated (best published score), random (stratified by firing rate), random_annotated, all, or list."""
    latents: tuple[tuple[int, ...], ...] = ()
    """list only: the sources as [layer, latent] pairs, e.g. [[0, 17], [2, 40]]."""
    n: int = 30
    """Sources per layer."""
    layers: tuple[int, ...] = ()
    """Source layers; by default every layer but the last."""
    min_frequency: float = 0.01
    """Least firing rate of a source (annotated rules)."""
    min_top_genes: int = 10
    """Fewest top genes of a source (annotated rules)."""


@dataclass(frozen=True)
class TraceSection:
    """How effects are measured."""

    n_cells: int | None = 200
    """Cells of the discovery split that are traced, drawn as the sample was; null for all of them."""
    engine: str = "auto"
    """exact (the rest of the model runs again for every ablation), local (edited rows only), or auto (by size)."""
    targets: tuple[int, ...] = ()
    """Target layers; by default every later layer."""
    decoy: str = "radial"
    """What a latent must beat to be specific: radial, random, covariance or dictionary."""
    n_random: int = 8
    """Decoys per source, a fourth of them held out; for a layer traced whole, one for every tenth source instead."""
    interventions: tuple[str, ...] = ()
    """Done to every source beside its ablation: mean, scale:ALPHA, set:VALUE, activate:VALUE, resample, matched:N."""
    path_shares: bool = False
    """Split each edge by its paths: at the firing positions, through other positions, by weights alone."""
    groups: tuple[str, ...] = ()
    """obs columns (cell type, donor) whose groups of cells get effects of their own, in the same pass."""
    units: str | None = None
    """obs column (donor, batch) whose cells share their noise: p by flipping whole units instead of cells."""
    context_rows: float | None = None
    """local: rows propagated beside each firing position; by default the least that meets the floors below."""
    check_sources: int = 8
    """local: sources per layer that are also measured exactly, before anything else."""
    check_cells: int = 16
    """local: cells in which they are."""
    min_r: float = 0.995
    """local: floor for the correlation of d with the exact one, at every layer distance."""
    min_sign: float = 0.995
    """local: floor for the share of effects of the same sign as the exact ones."""
    accept_approximation: bool = False
    """local: go on below the floors; the result says so."""
    confirm: str = "borderline"
    """local: edges measured again exactly: borderline (those the measured error could flip), all or none."""
    cells_per_block: int = 25
    """Cells between two checkpoints."""
    sources_per_block: int = 512
    """Sources whose sums are held in memory at once."""
    tokens: int = 16_384
    """Positions propagated at once; lower it when memory is short."""
    memory: str | None = None
    """Budget such as "8GB", from which tokens and sources_per_block follow; may change between calls."""


@dataclass(frozen=True)
class EdgesSection:
    """When a tested effect is an edge."""

    min_abs_d: float = 0.5
    """|Cohen's d| must exceed this."""
    min_consistency: float = 0.7
    """Share of responding cells that agree in sign must exceed this."""
    max_q: float | None = 0.05
    """Benjamini-Hochberg q over all tests must be below this; null for no test."""
    min_nonzero: int = 10
    """Fewest cells that respond."""
    consistency: str = "nonzero"
    """nonzero (cells without response abstain) or zero_as_negative (the published rule)."""
    top_k: int | None = None
    """Keep the k strongest per source and layer; null keeps all."""
    min_effect_sd: float | None = 0.1
    """Sizeable: the near end of the interval of the mean response, in clean SD of the target; null asks no size."""
    max_q_specific: float | None = 0.05
    """Specific: target-decoy q must be below this; null asks no specificity."""


@dataclass(frozen=True)
class ConfirmationSection:
    """The edges measured again, exactly, in cells that had no part in finding them."""

    n_cells: int | None = 100
    """Cells of the confirmation split, drawn as the sample was; null for all of them, 0 for no confirmation."""
    max_sources: int | None = 50
    """Most sources per layer whose edges are measured again, drawn at random; null for all that have an edge."""


@dataclass(frozen=True)
class RunConfig:
    """A whole run."""

    name: str = "run"
    """Name in the report."""
    out: str = "run"
    """Folder of the artefacts."""
    seed: int = 0
    """Seeds every draw: cells, splits, dictionaries, controls."""
    profile: str = "default"
    """default (corrected science) or paper (the published rules); explicit values win over a profile's."""
    model: ModelSection = field(default_factory=ModelSection)
    cells: CellsSection = field(default_factory=CellsSection)
    sae: SaeSection = field(default_factory=SaeSection)
    features: FeaturesSection = field(default_factory=FeaturesSection)
    sources: SourcesSection = field(default_factory=SourcesSection)
    trace: TraceSection = field(default_factory=TraceSection)
    edges: EdgesSection = field(default_factory=EdgesSection)
    confirmation: ConfirmationSection = field(default_factory=ConfirmationSection)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, JSON-able."""
        return asdict(self)


PROFILES: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "paper": {
        "model": {"protocol": "paper"},
        "features": {"annotation": "published", "min_firings": 1},
        "edges": {
            "max_q": None,
            "min_nonzero": 0,
            "consistency": "zero_as_negative",
            "top_k": 50,
            "min_effect_sd": None,
            "max_q_specific": None,
        },
        "trace": {"decoy": "random", "n_random": 1},
    },
}
"""Named sets of values; nothing in the science asks for a profile's name."""
