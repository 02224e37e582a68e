"""Write every measured number that a document shows: README's table, the page of calibration, the small models' cards.

python scripts/update_measured.py          # rewrite
python scripts/update_measured.py --check  # fail where a document does not match its source
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHOWN = {
    "demo_seconds": "`scircuit demo`, both models, cells to report",
    "demo_peak_gb": "its peak memory",
    "exact_speedup_mini": "exact engine over the published procedure, packaged model",
    "exact_speedup_v2_316m": "the same at Geneformer V2-316M size, 2,048 tokens, sources at layers 0, 5, 11, 15",
    "exact_speedup_v2_316m_fused": "the same, the published procedure given our fused attention",
    "local_forward_equivalents": "local engine, all latents of a layer, per cell",
    "local_madd_ratio": "multiply-adds, exact over local",
    "local_speedup_v2_316m": "local engine over exact, per latent, at V2-316M width",
    "local_r_min": "lowest correlation of d with the exact engine over all distances, packaged models",
    "local_sign_min": "lowest share of equal signs",
    "trace_seconds_per_cell_growth": "seconds per cell, eight times as many cells",
    "decoy_seconds_ratio": "an exhaustive trace with decoys over one without, processor time",
    "decoy_peak_gb_ratio": "the same, peak memory",
    "trace_peak_gb_growth": "peak memory, eight times as many cells",
    "condition_a_seconds_gpu": "condition A (120 latents, 200 cells, 37 layer pairs), exact",
    "exhaustive_seconds_gpu": "all latents of all source layers, 20 cells, local",
    "report_load_seconds": "the report of a circuit of 100,000 edges, from opening to its first screen",
    "report_search_ms": "a search in it, from the key to edges ranked and drawn",
    "report_draw_seconds": "every edge of it drawn",
    "report_page_mb": "its size",
    "annotate_seconds": "enrichment of 80,000 latents in 10,000 gene sets",
    "annotate_peak_gb": "its peak memory",
}


def measured() -> dict[str, dict]:
    """Rows of all benchmarks by measure."""
    rows = {}
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        rows |= {row["measure"]: row for row in json.loads(path.read_text())}
    return rows


def readme() -> tuple[Path, str]:
    """README with its table of measured numbers."""
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    head, rest = text.split("<!-- measured:start -->")
    _, tail = rest.split("<!-- measured:end -->")
    rows = measured()
    lines = ["", "| measured | value | unit | on |", "|---|---|---|---|"]
    for name, meaning in SHOWN.items():
        if name in rows:
            row = rows[name]
            lines.append(f"| {meaning} | {row['value']:,.4g} | {row['unit']} | {row['hardware']}, {row['date']} |")
    return path, head + "<!-- measured:start -->" + "\n".join(lines) + "\n<!-- measured:end -->" + tail


def card(folder: Path) -> tuple[Path, str]:
    """The card of one small model, from its `training.json`."""
    log = json.loads((folder / "training.json").read_text())
    weights = folder / "model.safetensors"
    family = "Geneformer" if folder.name.startswith("geneformer") else "scGPT"
    alone = "each gene's frequency" if family == "Geneformer" else "each gene's mean bin"
    tissue = log["tissue"]
    curve = "\n".join(f"| {p['step']} | {p['train']:.4f} | {p['held_out']:.4f} |" for p in log["curve"])
    text = f"""# {folder.name}

A small model of the {family} class that ships with scircuit so that any human AnnData runs without a download.

- **For**: trying the tool, tests, teaching. **Not for** biology: it has seen {log["n_train_cells"]:,} blood cells.
- **Data**: 10x Genomics PBMC 3k, PBMC 5k and sorted PBMC (Zheng et al. 2017), CC BY 4.0; the cells are not shipped.
- **Vocabulary**: the genes of the packaged programs that these cells express, then the genes found in most cells.
- **Training**: `scripts/train_mini.py`, seed {log["seed"]}, {log["steps"]:,} steps of 10 cells; embeddings start from
  gene factors of the training cells.
- **Size**: {weights.stat().st_size / 1e6:.1f} MB of float32 weights.
- **Held-out loss** ({log["n_held_out_cells"]} cells, {log["unit"]}): {log["curve"][-1]["held_out"]:.4f}, against
  {log["baseline_held_out"]:.4f} for what {alone} alone gives.
- **Another tissue** ({tissue["n_cells"]:,} gut cells, SCP1884, never trained on): {tissue["loss"]:.4f}, against
  {tissue["baseline"]:.4f}.

| step | training loss | held-out loss |
|---|---|---|
{curve}

{dictionaries(folder / "saes")}"""
    return folder / "MODEL_CARD.md", text


def shown(value: float | None, digits: int = 3) -> str:
    """A number of a table; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def plain(value: float | None) -> str:
    """A number in four digits; a dash where there is none."""
    return "-" if value is None else f"{value:,.4g}"


def between(low: float | None, high: float | None) -> str:
    """An interval; a dash where there is none."""
    return "-" if low is None else f"{plain(low)} to {plain(high)}"


def table(titles: str, rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; `titles` parted by commas."""
    heads = [title.strip() for title in titles.split(",")]
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def dictionaries(folder: Path) -> str:
    """What a card says of the dictionaries that ship with the model, from their manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    made, layers = manifest["metadata"], manifest["layers"]
    training = made["training"]
    steps = f"{training['n_steps']:,} steps of {training['batch_rows']:,} positions"
    n_latents = " or ".join(str(n) for n in sorted({entry["n_latents"] for entry in layers.values()}))
    measures = ("explained_variance", "loss_recovered", "frac_alive", "seed_stability", "seed_stability_random")
    rows = [(layer, *(shown(entry["metrics"][name]) for name in measures)) for layer, entry in layers.items()]
    return f"""## Its dictionaries

TopK sparse autoencoders of {n_latents} latents, {training["k"]} of them at a position, one per layer. Name them as
`sae.path = "{manifest["model"]["name"]}"`.

- **Training**: `scripts/train_mini_saes.py`, seed {training["seed"]}, {steps}, from
  {made["n_train_cells"]:,} of the model's own training cells.
- **Measured** on {made["n_quality_cells"]} cells that no dictionary learnt from (the model did).
- **Seed stability**: mean cosine of a latent with its nearest under another seed, beside random directions.

{table("layer, variance explained, loss recovered, alive, seed stability, by chance", rows)}
"""


def both_profiles(parts: dict[str, list[dict]]) -> str:
    """The section on both profiles; nothing before they were measured."""
    if "profiles" not in parts:
        return ""
    numbers = table(
        "model, number, default, 95 % interval, null, as published",
        ([r["model"], r["number"], plain(r["default"]), between(r["default_low"], r["default_high"]),
          plain(r["default_null"]), plain(r["paper"])] for r in parts["profiles"]),
    )  # fmt: skip
    differences = {r["number"]: r["difference"] for r in parts["profiles"] if r["difference"]}
    told = "\n".join(f"- **{number}**: {difference}" for number, difference in differences.items())
    return f"""
## Both profiles, side by side

The demonstration (`scircuit demo`, seed 0, one run of each packaged model) under the default profile and as published
(`scircuit compare-profiles RUN`). Where nothing is specific, the default profile has no edge to give further numbers
of. The two differ by definition:

{told}

{numbers}
"""


JUDGED = ("size", "fdr", "power", "coverage", "coverage_chosen")


def calibration() -> tuple[Path, str]:
    """The page of what is known to be true, from `benchmarks/calibration.json`."""
    parts = json.loads((ROOT / "benchmarks" / "calibration.json").read_text())
    planted = table(
        "width, norm, cells, decoy, world, grade, edges, precision, recall, by decoys",
        ([r["width"], r["norm"], r["n_cells"], r["decoy"], r["world"], r["grade"], r["n_edges"], shown(r["precision"]),
          shown(r["recall"]), shown(r["n_by_decoys"], 1)] for r in parts["planted"]),
    )  # fmt: skip
    numbers = "p <= .05, FDR, power, coverage, coverage of edges"
    donors = table(
        f"donors, correlation, units, {numbers}",
        ([r["n_donors"], r["icc"], r["units"], *(shown(r[name]) for name in JUDGED)] for r in parts["donors"]),
    )
    skewed = table(
        f"responses, cells, rule, {numbers}",
        ([r["shape"], r["n_cells"], r["rule"], *(shown(r[name]) for name in JUDGED)] for r in parts["skewed"]),
    )
    nulls = table(
        "question, number, where there is nothing, draws, share below .05",
        ([r["question"], r["number"], r["data"], r["n_draws"], f"{r['share']:.3f} ± {r['error']:.3f}"]
         for r in parts["nulls"]),
    )  # fmt: skip
    dictionaries = table(
        "model, weights, dictionaries, cells, tests, grade, edges, by decoys",
        ([r["model"], r["weights"], r["dictionaries"], r["n_cells"], f"{r['n_tests']:,}", r["grade"],
          f"{r['n_edges']:,}", shown(r["n_by_decoys"], 1)] for r in parts["dictionaries"]),
    )  # fmt: skip
    paths = table(
        "norm, grade, dose, paths, found, share, 95 % interval",
        ([r["norm"], r["grade"], r["dose"], r["n"], r["n_found"], shown(r["recall"], 2), between(r["low"], r["high"])]
         for r in parts["paths"]),
    )  # fmt: skip
    text = f"""# Calibration: what a result is worth

Written by `scripts/update_measured.py` from `benchmarks/calibration.py`.

## Planted circuits: the grades of edges

Transformers whose circuits are planted by hand (`scircuit.tracing.planted`): 40 latents per layer, three layers, 32
drives through MLPs and attention; every edit also rescales every latent through the normalisation. Nothing is trained.
Precision is the share of edges that were planted (a latent passing itself on counts); recall is over planted pairs
whose mean response is at least 0.3 clean SD of the target; the last column is what held-out decoys give under the same
rule, brought to the number of tests of the latents.

**The default decoy** is radial: it leaves the residual the norm that the ablation leaves, so that what a normalisation
does to every direction alike is the same for both. A latent is scored by the larger of two: its response in units of
the decoys', and what its response leaves over the line through the decoys' responses to their direct path. By the first
alone a drive through attention is lost at small widths, where random directions overlap with every target.

Two decoys find nothing specific here, and should not: `encoder_cosine` says to the targets' encoders what the source
says, and every planted drive starts there; `dictionary` pushes along another latent, which here drives as much itself.
They ask what is special beyond the direct path, and beyond being a latent, and are no default.

This score was taken out of three, and the fewest decoys of a layer (96) out of four numbers, by what they gave in world
0 and in two others built alike; worlds 11, 12 and 13 were looked at only afterwards. The worlds are kind: latents are
orthogonal, every dictionary holds the true ones, and no TopK competes.

{planted}

## Cells of donors

20 cells of each donor, which share a part of the variance (the correlation within a donor); a tenth of 2,000 targets
has an effect of one SD. By cells, as without `trace.units`, and by donors, as with it. `p <= .05` is of targets without
an effect; FDR and power are at q < .05; the last column is the coverage of the 95 % intervals of those that were
called, which is what an edge shows, and why its size is to be read in other cells.

{donors}

## Skewed responses

Responses of mean 0 in all but a tenth of 2,000 targets, whose effect of one SD points along the tail or against it; in
the zero-inflated ones half of the cells do not answer. With mean 0 and a tail, the sign-flip p is too small where the
sample missed the tail. `edges.allow_for_skew` takes the larger of it and the p of Hall's t (1992), from which the
skewness is removed; it costs effects that point against a tail, and of very skewed responses in 20 cells it leaves
part of the error. Every run counts the edges that it would lose (`n_skewed` of `run.json`).

{skewed}

## Every analysis where there is nothing to find

Share of draws with p <= .05, or with an interval that misses the truth, beside .05 with its simulation error. The
simulations are those of `tests/simulations`, drawn anew. A question below its level is careful (`tissue` is: its p is
by the smaller side's degrees of freedom, an upper bound); one that is above it by more than twice the error claims
somewhat more than it says.

`threshold_sweep` is absent because it counts and tests nothing; `stability` because its bounds
are the spread over partitions of the same cells, and it gives no p.

{nulls}

## What the packaged models hold

Edges of each grade with the dictionaries that ship with a model, with random directions in their place, and with the
shipped dictionaries on an untrained copy of the model (each weight matrix redrawn from its own mean and SD), beside
what held-out decoys give under the same rule. In the last two nothing was learnt that a specific edge could be about:
what a rule calls there it calls of nothing, and what it finds in the first means as much as it exceeds them.

{dictionaries}

## Paths of known dose

What `scircuit positive-control` does in a user's own model, done in models planted by hand, whose dictionaries are the
true ones: paths of rank one planted at every source, their doses in clean SD of the target, and the share that the rule
finds in 50 cells. At dose 0 nothing is planted; what is found there is what the model holds anyway.

{paths}
{both_profiles(parts)}"""
    return ROOT / "docs" / "calibration.md", text


def main() -> None:
    """Rewrite or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    data = ROOT / "src" / "scircuit" / "data"
    documents = [readme(), calibration(), *(card(data / name) for name in ("geneformer-mini", "scgpt-mini"))]
    stale = [path for path, text in documents if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if options.check and stale:
        sys.exit(f"stale: {', '.join(str(p.relative_to(ROOT)) for p in stale)}; run scripts/update_measured.py")
    for path, text in documents:
        if not options.check:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
