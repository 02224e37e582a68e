"""The published study's `circuit_graph.json` (arXiv 2603.01752), so that its edges can be compared with ours."""

from pathlib import Path

import pandas as pd

from scircuit._io import read_json
from scircuit.circuits.export.parts import Graph, require_ends
from scircuit.circuits.schema import ENDS, LATENT, SOURCE, TARGET
from scircuit.errors import ScircuitError

COLUMNS = [*ENDS, "cohens_d", "consistency", "mean_delta", "source_label"]


def read_published(path: str | Path) -> Graph:
    """Read a published circuit graph.

    Its edges are the 50 largest |d| of each source and target layer, without p-values, and its consistency
    counts a cell without response as negative; sources carry a label, targets none.

    Returns edges with `cohens_d, consistency, mean_delta`; nodes with `layer, feature, label` (None for latents that
    only occur as targets); metadata is the rest of the file.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("edges"), list):
        raise ScircuitError(f"{path} has no list 'edges'; it is not a published circuit_graph.json.")
    table = pd.DataFrame(content["edges"], columns=None if content["edges"] else COLUMNS)
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise ScircuitError(f"the edges of {path} lack {', '.join(missing)}; it is not a published circuit_graph.json.")
    stated = content.get("n_edges", len(table))
    if stated != len(table):
        raise ScircuitError(f"{path} states {stated} edges and holds {len(table)}; the file is cut off or edited.")
    labels = table[[*SOURCE, "source_label"]].set_axis([*LATENT, "label"], axis=1)
    targets = table[TARGET].set_axis(LATENT, axis=1).assign(label=None)
    nodes = pd.concat([labels.astype({"label": object}), targets.astype({"label": object})])
    nodes = nodes.drop_duplicates(LATENT).sort_values(LATENT, ignore_index=True)
    metadata = {key: value for key, value in content.items() if key != "edges"}
    return Graph(require_ends(table.drop(columns="source_label")), nodes, metadata)
