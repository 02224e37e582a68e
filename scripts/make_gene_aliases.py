"""Write src/scircuit/data/gene_aliases.tsv: symbols that older data still carry, and today's symbols.

A gene is the same gene when its Ensembl id is the same: the table lists every gene whose symbol differs between
10x Genomics' hg19 reference (features.tsv, CC BY 4.0) and Geneformer's name dictionary (gc104M, Apache-2.0),
restricted to genes that have a Geneformer token. An old symbol that is another gene's symbol today is left out.

    python scripts/make_gene_aliases.py FEATURES.tsv.gz DICTIONARY_FOLDER
"""

import csv
import gzip
import sys
from pathlib import Path

from scircuit.cells.pickles import read_plain_pickle

OUT = Path(__file__).resolve().parents[1] / "src" / "scircuit" / "data" / "gene_aliases.tsv"


def main(features: str, folder: str) -> None:
    """Compare both sources and write the table, sorted by the old symbol."""
    names = read_plain_pickle(Path(folder) / "geneformer_gene_name_id_dict_gc104M.pkl")
    tokens = read_plain_pickle(Path(folder) / "geneformer_token_dictionary_gc104M.pkl")
    today = {ensembl: symbol for symbol, ensembl in names.items() if ensembl in tokens}
    rows = set()
    with gzip.open(features, "rt", encoding="utf-8") as file:
        for ensembl, old, *_ in csv.reader(file, delimiter="\t"):
            symbol = today.get(ensembl, "")
            if symbol and not symbol.startswith("ENSG") and old != symbol and old not in names:
                rows.add((old, symbol, ensembl))
    with OUT.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["alias", "symbol", "ensembl_id"])
        writer.writerows(sorted(rows))
    print(f"{len(rows)} aliases -> {OUT}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
