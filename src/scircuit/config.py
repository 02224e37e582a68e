"""A run as data: its sections, their defaults and the profiles; the docstring of a field is its documentation.

A section that is handed to a room is the room's own settings, with what the run decides beside them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scircuit._settings import as_table, ranged, values_of
from scircuit.circuits.rule import EdgeRule
from scircuit.published.definitions import PAPER
from scircuit.sae.settings import SaeTraining
from scircuit.tracing.settings import TraceSettings


@dataclass(frozen=True)
class ModelSection:
    """The foundation model."""

    source: str = "geneformer-mini"
    """A folder, a name (geneformer-mini, scgpt-mini, see `scircuit models list`), or FILE.py:FUNCTION, which is run."""
    protocol: str = "official"
    """How cells become tokens: official, or paper (arXiv 2603.01752)."""
    dictionaries: str | None = None
    """Folder of Geneformer's token dictionaries, when they are not beside the checkpoint."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: str = "float32"
    """float32, tf32 (CUDA), bfloat16 or float16; below float32 the trace reports what the precision costs."""
    weights: str = "trained"
    """trained; or as a null redrawn (each tensor anew from its own mean and SD) or permuted (within each tensor)."""
    compile: bool = False
    """Compile the blocks with torch.compile: faster on a GPU after a minute of compiling; other last bits."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the tokenizer (scGPT: binning = "sampled" | "midpoint", seed)."""


@dataclass(frozen=True)
class DataSection:
    """A data set and the cells taken from it."""

    path: str = ""
    """.h5ad, .zarr, .loom, 10x .h5 or folder with matrix.mtx, of any size; census:DATE; scanpy:pbmc68k_reduced."""
    counts: str = "X"
    """Where raw counts lie: X, raw, or layer:NAME."""
    scale: str = "counts"
    """counts, or log1p for values normalised per cell and log1p-transformed (checked)."""
    counts_kind: str = "whole"
    """whole, or estimated (SoupX, CellBender, DecontX, RSEM, kallisto, unlogged CPM): values are ranked as they are."""
    gene_column: str | None = None
    """Column of var with Ensembl ids or symbols, mixed or not; by default the index and the usual columns are tried."""
    min_match: float = ranged(0.2, 0, 1)
    """Refuse when fewer of the genes are in the model's vocabulary; below 0.8 is warned of."""
    where: dict[str, Any] = field(default_factory=dict)
    """Keep cells whose obs columns have these values, for example {cell_line = "k562", phase = ["G1", "S"]}."""
    n: int | None = ranged(None, 1)
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
class SaeSection(SaeTraining):
    """The dictionaries: trained here, or read from a folder."""

    path: str | None = None
    """Folder of trained dictionaries, of a run or in any format that is read, or the name of a packaged model for
    those that ship with it; by default they are trained."""
    layers: tuple[int, ...] = ()
    """Layers to train or load; by default all, of a folder all that it holds."""
    quality_cells: int = ranged(64, 1)
    """Cells of the catalogue split, which no dictionary learnt from, on which they are measured."""
    checkpoint_every: int = 500
    """Steps between two checkpoints of training; a run that was stopped goes on from the last."""
    mix: tuple[MixSection, ...] = field(default=(), metadata={"tables": True})
    """Data sets to train on in place of [cells]: [[sae.mix]] tables with name, weight and what [cells] takes."""
    stability_seeds: int = ranged(0, 0)
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
    min_firings: int = ranged(5, 1)
    """A gene counts among a latent's top genes only when it fired on it so often."""
    n_top_genes: int = ranged(20, 1)
    """Length of a latent's gene list."""
    alpha: float = ranged(0.05, 0, 1)
    """A gene set annotates a latent below this q value."""
    min_overlap: int = ranged(3, 1)
    """Fewest genes shared by a latent's list and a set."""
    control_draws: int = ranged(20, 0)
    """Times that random genes are annotated as the latents were, to tell the rate of chance; 0 for never."""
    coactivation: bool = True
    """Count which latents of a layer fire together, and find the modules they form."""
    modules: str = "louvain"
    """How modules are found: louvain, or leiden (needs the extra leiden, which is under the GPL)."""
    min_cosine: float | None = ranged(0.7, 0, 1)
    """Least |cosine| of decoder directions for latents of two layers to be matched; null for no matching."""
    pair_cells: int = ranged(200, 0)
    """Cells of the catalogue split over which sources and later latents are correlated; 0 for none."""


@dataclass(frozen=True)
class SourcesSection:
    """Which latents are ablated."""

    rule: str = "annotated"
    """annotated (best published score), attribution (largest integrated gradients of a behaviour, see of), random
    (stratified by firing rate), random_annotated, all, or list."""
    of: str = "loss"
    """attribution only: loss, embedding, genes:A,B, probe:COLUMN or latents:LAYER:F+F."""
    latents: tuple[tuple[int, ...], ...] = ()
    """list only: the sources as [layer, latent] pairs, e.g. [[0, 17], [2, 40]]."""
    n: int = ranged(30, 1)
    """Sources per layer."""
    layers: tuple[int, ...] = ()
    """Source layers; by default every layer but the last."""
    min_frequency: float = ranged(0.01, 0, 1)
    """Least firing rate of a source (annotated rules)."""
    min_top_genes: int = ranged(10, 0)
    """Fewest top genes of a source (annotated rules)."""


@dataclass(frozen=True)
class TraceSection(TraceSettings):
    """How effects are measured."""

    n_cells: int | None = ranged(200, 2)
    """Cells of the discovery split that are traced, drawn as the sample was; null for all of them."""
    interventions: tuple[str, ...] = ()
    """Done to every source beside its ablation: mean, optimal, resample, scale:ALPHA, set:VALUE, activate:VALUE,
    matched:N."""
    path_shares: bool = False
    """Split each edge by its paths: at the firing positions, through other positions, by weights alone."""


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
    edges: EdgeRule = field(default_factory=EdgeRule)
    confirmation: ConfirmationSection = field(default_factory=ConfirmationSection)

    def __post_init__(self) -> None:
        """The run has one seed and one rule of edges; the sections that compute with them hold them too."""
        object.__setattr__(self, "sae", replace(self.sae, seed=self.seed))
        object.__setattr__(self, "trace", replace(self.trace, seed=self.seed, rule=self.edges))

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict as a file has it, JSON-able."""
        return as_table(self)


PROFILES: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "paper": {
        "model": {"protocol": "paper"},
        "features": {"annotation": "published", "min_firings": 1},
        "edges": values_of(PAPER, EdgeRule),
        "trace": {"decoy": "random", "n_random": 1},
    },
}
"""Named sets of values; nothing in the science asks for a profile's name."""
