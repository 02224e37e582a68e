"""Disease genes: associations of genes with diseases, and a reader per database."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from scircuit._io import sha256_file
from scircuit.errors import ScircuitError
from scircuit.knowledge.gmt import GeneSets, read_gmt
from scircuit.knowledge.tables import read_table

CLINGEN_LEVELS = ("Definitive", "Strong", "Moderate")


@dataclass(frozen=True)
class DiseaseGenes:
    """Genes associated with diseases."""

    name: str
    """Name of the database."""
    table: pd.DataFrame
    """`gene` (symbol), `disease`, `evidence` (the database's own word or score), distinct pairs."""
    sha256: str
    """Hash of the file."""

    def __len__(self) -> int:
        return len(self.table)

    @property
    def genes(self) -> set[str]:
        """Every associated gene."""
        return set(self.table["gene"])

    def sets(self, *, min_genes: int = 3) -> GeneSets:
        """One gene set per disease with at least `min_genes` genes."""
        grouped = self.table.groupby("disease")["gene"].apply(list)
        chosen = {str(disease): genes for disease, genes in grouped.items() if len(genes) >= min_genes}
        if not chosen:
            raise ScircuitError(f"No disease of {self.name} has {min_genes} genes; lower min_genes.")
        return GeneSets.from_dict(self.name, chosen)


def read_clingen(path: str | Path, *, levels: tuple[str, ...] = CLINGEN_LEVELS) -> DiseaseGenes:
    """ClinGen gene-disease validity (Strande et al., American Journal of Human Genetics 2017).

    Reads the official export (a preamble, then `GENE SYMBOL, DISEASE LABEL, CLASSIFICATION`) and tables with
    `gene_name, disease_label, classification`. Separator rows (`++++`) are dropped; of the rest, classifications in
    `levels`.
    """
    table = _clingen_table(path).set_axis(["gene", "disease", "evidence"], axis=1).dropna()
    table = table[~table["gene"].str.startswith("+")]
    strange = sorted(set(levels) - set(table["evidence"]))
    if strange:
        known = ", ".join(sorted(set(table["evidence"])))
        raise ScircuitError(f"ClinGen's file has no classification {strange[0]!r}; it has {known}.")
    return _associations("ClinGen", table[table["evidence"].isin(levels)], path)


def _clingen_table(path: str | Path) -> pd.DataFrame:
    official = ["GENE SYMBOL", "DISEASE LABEL", "CLASSIFICATION"]
    start = Path(path).read_bytes()[:4096] if Path(path).is_file() else b""
    lines = start.decode("utf-8-sig", errors="replace").splitlines()
    header = next((i for i, line in enumerate(lines) if "GENE SYMBOL" in line), None)
    if header is not None:
        return read_table(path, official, skiprows=header)
    return read_table(path, ["gene_name", "disease_label", "classification"], sep="\t")


def read_intogen(path: str | Path) -> DiseaseGenes:
    """IntOGen cancer drivers (Martínez-Jiménez et al., Nature Reviews Cancer 2020), one disease per cancer type.

    `evidence` is the role: Act, LoF or ambiguous; a gene called in several cohorts of a type counts once.
    """
    table = read_table(path, ["SYMBOL", "CANCER_TYPE", "ROLE"], sep="\t")
    table = table.set_axis(["gene", "disease", "evidence"], axis=1).fillna({"evidence": "ambiguous"})
    return _associations("IntOGen", table, path)


def read_open_targets(path: str | Path, *, min_score: float = 0.1) -> DiseaseGenes:
    """Open Targets associations (Ochoa et al., Nucleic Acids Research 2023) with a score of at least `min_score`."""
    if not 0 <= min_score <= 1:
        raise ScircuitError(f"min_score={min_score} is no Open Targets score; they run from 0 to 1.")
    table = read_table(path, ["gene_symbol", "disease_name", "association_score"])
    table = table.set_axis(["gene", "disease", "evidence"], axis=1).dropna()
    return _associations("Open Targets", table[table["evidence"] >= min_score], path)


def read_gwas(path: str | Path) -> DiseaseGenes:
    """The GWAS catalogue as Enrichr's library (2019): traits with the genes reported for them."""
    sets = read_gmt(path, name="GWAS catalogue")
    rows = [(gene, trait, "reported") for trait, genes in sets.genes.items() for gene in genes]
    return _associations("GWAS catalogue", pd.DataFrame(rows, columns=["gene", "disease", "evidence"]), path)


def _associations(name: str, table: pd.DataFrame, path: str | Path) -> DiseaseGenes:
    table = table.drop_duplicates(["gene", "disease"]).sort_values(["disease", "gene"], ignore_index=True)
    if table.empty:
        raise ScircuitError(f"{path} leaves no association of {name} under these thresholds; loosen them.")
    return DiseaseGenes(name, table, sha256_file(path))
