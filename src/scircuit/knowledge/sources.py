"""The databases scircuit knows: where each comes from, its version, its licence and how it is read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scircuit.knowledge.disease import read_clingen, read_gwas, read_intogen, read_open_targets
from scircuit.knowledge.genes import read_hgnc
from scircuit.knowledge.gmt import read_gmt
from scircuit.knowledge.networks import read_chipseq, read_collectri, read_dorothea, read_string, read_trrust

READERS: dict[str, Callable[..., Any]] = {
    "gene sets": read_gmt,
    "STRING": read_string,
    "TRRUST": read_trrust,
    "CollecTRI": read_collectri,
    "DoRothEA": read_dorothea,
    "ChIP-seq": read_chipseq,
    "ClinGen": read_clingen,
    "IntOGen": read_intogen,
    "Open Targets": read_open_targets,
    "GWAS": read_gwas,
    "HGNC": read_hgnc,
}


@dataclass(frozen=True)
class Remote:
    """One file of a source."""

    url: str
    file: str
    """Name in the cache."""
    sha256: str | None = None
    """Pinned checksum. None where the publisher may renew the file under the same address: then the checksum of the
    first download is recorded, and the cached file is held to it."""
    member: str | None = None
    """File to take out of a zip archive."""


@dataclass(frozen=True)
class Source:
    """A database; title, version and licence as the publisher states them."""

    name: str
    title: str
    version: str
    licence: str
    reader: str
    """Key of `READERS`."""
    files: tuple[Remote, ...] = ()
    """The first is what the reader reads; empty where the user must bring the file."""
    note: str = ""
    """What to know or do."""

    def read(self, folder: Path, **options: Any) -> Any:
        """Read the files that lie in `folder`."""
        if self.reader == "STRING" and len(self.files) > 1:
            options.setdefault("info", folder / self.files[1].file)
        if self.reader == "gene sets":
            options = {"name": self.name, "version": self.version, **options}
        return READERS[self.reader](folder / self.files[0].file, **options)


def _enrichr(library: str, *, name: str, title: str, licence: str, reader: str = "gene sets") -> Source:
    url = f"https://maayanlab.cloud/Enrichr/geneSetLibrary?mode=text&libraryName={library}"
    version = library.rsplit("_", 1)[-1] if library[-4:].isdigit() else "2021"
    return Source(name, title, version, licence, reader, (Remote(url, f"{library}.gmt"),), "distributed by Enrichr")


_GO_2021 = (
    "https://raw.githubusercontent.com/zqfang/GSEApy/476d0aabb275ffd9b764b5035b085d8a2897fbee/tests/extdata/"
    "enrichr.GO_Biological_Process_2021.gmt"
)
_STRING = "https://stringdb-downloads.org/download"

KNOWN: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            "go_bp_2021", "Gene Ontology, biological process", "2021", "CC BY 4.0", "gene sets",
            (Remote(_GO_2021, "GO_Biological_Process_2021.gmt",
                    "5987ce789053fdd5533393cd65b9abdb5e08e4fade7b0625a1fe234a1207eea4"),),
        ),
        _enrichr("GO_Biological_Process_2023", name="go_bp_2023", title="Gene Ontology, biological process",
                 licence="CC BY 4.0"),
        _enrichr("Reactome_2022", name="reactome_2022", title="Reactome pathways", licence="CC0 1.0"),
        Source(
            "reactome", "Reactome pathways, current release", "current", "CC0 1.0", "gene sets",
            (Remote("https://reactome.org/download/current/ReactomePathways.gmt.zip", "ReactomePathways.gmt",
                    member="ReactomePathways.gmt"),),
            "the newest release at the time of the download",
        ),
        Source(
            "hallmark", "MSigDB hallmark gene sets", "2025.1.Hs", "CC BY 4.0", "gene sets",
            (Remote("https://data.broadinstitute.org/gsea-msigdb/msigdb/release/2025.1.Hs/h.all.v2025.1.Hs.symbols.gmt",
                    "h.all.v2025.1.Hs.symbols.gmt"),),
        ),
        Source("kegg", "KEGG pathways", "", "restricted: no redistribution", "gene sets",
               note="bring your own GMT: scircuit knowledge add kegg FILE"),
        _enrichr("PanglaoDB_Augmented_2021", name="panglaodb", title="PanglaoDB cell-type markers",
                 licence="see panglaodb.se"),
        Source(
            "string", "STRING protein links, human", "12.0", "CC BY 4.0", "STRING",
            (Remote(f"{_STRING}/protein.links.v12.0/9606.protein.links.v12.0.txt.gz", "links.txt.gz"),
             Remote(f"{_STRING}/protein.info.v12.0/9606.protein.info.v12.0.txt.gz", "info.txt.gz")),
        ),
        Source(
            "trrust", "TRRUST transcriptional regulation, human", "2", "CC BY-SA 4.0", "TRRUST",
            (Remote("https://www.grnpedia.org/trrust/data/trrust_rawdata.human.tsv", "trrust_rawdata.human.tsv",
                    "9b909319ccc8e36588b5a1bd3640e0dfba03936c6fc154cc4304d742bec11bed"),),
        ),
        Source(
            "collectri", "CollecTRI regulons", "zenodo 8192729", "see the record on Zenodo", "CollecTRI",
            (Remote("https://zenodo.org/records/8192729/files/CollecTRI_regulons.csv?download=1",
                    "CollecTRI_regulons.csv"),),
        ),
        Source("dorothea", "DoRothEA regulons", "", "GPL-3.0 carriers; confidence A-C", "DoRothEA",
               note="bring a table with source, confidence, target, weight: scircuit knowledge add dorothea FILE"),
        _enrichr("ENCODE_TF_ChIP-seq_2015", name="encode_chipseq", title="ENCODE TF ChIP-seq",
                 licence="ENCODE, unrestricted", reader="ChIP-seq"),
        Source(
            "clingen", "ClinGen gene-disease validity", "current", "CC0 1.0", "ClinGen",
            (Remote("https://search.clinicalgenome.org/kb/gene-validity/download", "gene-validity.csv"),),
            "the newest curation at the time of the download",
        ),
        Source(
            "intogen", "IntOGen cancer drivers", "2023-05-31", "CC0 1.0", "IntOGen",
            (Remote("https://www.intogen.org/download?file=IntOGen-Drivers-20230531.zip", "Compendium_Cancer_Genes.tsv",
                    member="Compendium_Cancer_Genes.tsv"),),
        ),
        Source("open_targets", "Open Targets associations", "", "CC0 1.0", "Open Targets",
               note="export a table with gene_symbol, disease_name, association_score from the platform: "
                    "scircuit knowledge add open_targets FILE"),
        _enrichr("GWAS_Catalog_2019", name="gwas_2019", title="GWAS catalogue",
                 licence="EMBL-EBI terms of use", reader="GWAS"),
        Source(
            "hgnc", "HGNC symbols, aliases and former symbols", "current", "CC0 1.0", "HGNC",
            (Remote("https://storage.googleapis.com/public-download-files/hgnc/tsv/tsv/hgnc_complete_set.txt",
                    "hgnc_complete_set.txt"),),
            "aliases for knowledge.genes.GeneNames",
        ),
    )
}  # fmt: skip
