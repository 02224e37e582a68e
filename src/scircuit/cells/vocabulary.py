"""`Vocabulary`: the genes a model knows, by every name under which data may bring them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from scircuit._io import read_json, sha256_of, write_json
from scircuit._packed import read_delimited
from scircuit.cells.pickles import read_plain_pickle
from scircuit.errors import ScircuitError


@dataclass(frozen=True)
class Vocabulary:
    """Genes with their tokens, and the special tokens."""

    genes: pd.DataFrame
    """One row per gene, columns `ensembl_id` (empty where unknown), `symbol` (likewise), `token`."""
    special: Mapping[str, int]
    """Name of each special token (`<pad>`, `<mask>`, `<cls>`, `<eos>`, ...) to its id."""
    medians: np.ndarray | None = None
    """float64 `[gene]`: non-zero median expression of each gene over the model's pre-training corpus (Geneformer)."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Further ids or symbols, upper case, to Ensembl ids of the vocabulary (retired ids, synonyms)."""

    @property
    def size(self) -> int:
        """Number of token ids, genes and special ones."""
        return int(max(self.genes["token"].max(), max(self.special.values()))) + 1

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that decides how data become tokens."""
        table = self.genes[["ensembl_id", "symbol", "token"]].to_csv(index=False).encode()
        medians = b"" if self.medians is None else np.ascontiguousarray(self.medians)
        return sha256_of(table, dict(self.special), medians, sorted(self.aliases.items()))

    def rows_by_ensembl(self) -> dict[str, int]:
        """Row of each Ensembl id, retired ids that map to one included; upper case."""
        rows = {name.upper(): row for row, name in enumerate(self.genes["ensembl_id"]) if name}
        # Published mappings also list symbols, upper-cased: reading those here would let mouse symbols in.
        known = {a: rows[target] for a, target in self.aliases.items() if a.startswith("ENSG") and target in rows}
        return {**known, **rows}

    def rows_by_symbol(self) -> dict[str, int]:
        """Row of each symbol, case-sensitive: `C1orf112` is human, `Actb` is not."""
        by_ensembl = {name: row for row, name in enumerate(self.genes["ensembl_id"]) if name}
        known = {a: by_ensembl[g] for a, g in self.aliases.items() if not a.startswith("ENSG") and g in by_ensembl}
        return known | {name: row for row, name in enumerate(self.genes["symbol"]) if name}


def gene_names(genes: pd.DataFrame) -> np.ndarray:
    """Names of the rows of a gene table, `[gene]`: the symbol, or the Ensembl id where a gene has none."""
    return genes["symbol"].where(genes["symbol"] != "", genes["ensembl_id"]).to_numpy()


def from_geneformer(folder: str | Path, series: str) -> Vocabulary:
    """Geneformer's four dictionaries of one series (`gc104M` for V2, `gc30M` for V1).

    A gene's symbol is the one that `gene_name_id_dict` maps to it (the first, where several do; the others
    stay usable as aliases).
    """
    folder = Path(folder)
    tokens = read_plain_pickle(folder / f"token_dictionary_{series}.pkl")
    medians = read_plain_pickle(folder / f"gene_median_dictionary_{series}.pkl")
    names = read_plain_pickle(folder / f"gene_name_id_dict_{series}.pkl")
    mapping_file = folder / f"ensembl_mapping_dict_{series}.pkl"
    mapping = read_plain_pickle(mapping_file) if mapping_file.is_file() else {}

    special = {name: int(token) for name, token in tokens.items() if name.startswith("<")}
    _require(special, ("<pad>", "<mask>"), folder / f"token_dictionary_{series}.pkl")
    ids = [name for name in tokens if not name.startswith("<")]
    missing = [name for name in ids if name not in medians]
    if missing:
        raise ScircuitError(
            f"{len(missing)} genes of token_dictionary_{series}.pkl have no median (first: {missing[0]}); "
            "take both dictionaries from the same release."
        )
    known = set(ids)
    symbol: dict[str, str] = {}
    for name, ensembl in names.items():
        if ensembl in known:
            symbol.setdefault(ensembl, name)
    aliases = {str(key).upper(): value for key, value in mapping.items() if value in known}
    aliases |= {name: ensembl for name, ensembl in names.items() if ensembl in known}
    columns = {"ensembl_id": ids, "symbol": [symbol.get(i, "") for i in ids], "token": [int(tokens[i]) for i in ids]}
    return Vocabulary(pd.DataFrame(columns), special, np.array([float(medians[i]) for i in ids]), aliases)


def find_geneformer_files(folder: str | Path, dictionaries: str | Path | None, size: int) -> list[Path]:
    """The files that hold the vocabulary of `size` tokens of a checkpoint.

    Our own small models have a `vocabulary.json` in the folder. The four published dictionaries are looked for in
    `dictionaries`, or in the folder, its `geneformer/` and that of its parent, as the publisher's repository has them.

    Raises
    ------
    ScircuitError
        When there is none.
    """
    folder = Path(folder)
    if (folder / "vocabulary.json").is_file():
        return [folder / "vocabulary.json"]
    series = "gc30M" if size == 25426 else "gc104M"
    places = [Path(dictionaries)] if dictionaries else [folder, folder / "geneformer", folder.parent / "geneformer"]
    places += [place / "gene_dictionaries_30m" for place in places]
    for place in places:
        if (place / f"token_dictionary_{series}.pkl").is_file():
            names = ("token_dictionary", "gene_median_dictionary", "gene_name_id_dict", "ensembl_mapping_dict")
            return [place / f"{name}_{series}.pkl" for name in names]
    raise ScircuitError(
        f"token_dictionary_{series}.pkl is in none of {', '.join(map(str, places))}; pass dictionaries= the folder "
        "that holds the Geneformer token dictionaries."
    )


def open_geneformer_vocabulary(files: Sequence[Path], size: int) -> Vocabulary:
    """The vocabulary that lies in the files of `find_geneformer_files`.

    Raises
    ------
    ScircuitError
        When it has another size than the weights: dictionaries of another series.
    """
    first = files[0]
    if first.name == "vocabulary.json":
        return read_vocabulary(first)
    vocabulary = from_geneformer(first.parent, first.stem.rpartition("_")[2])
    if vocabulary.size != size:
        raise ScircuitError(
            f"{first.parent} holds a dictionary of {vocabulary.size} tokens, the weights have {size}; "
            "take the dictionaries of the same series."
        )
    return vocabulary


def _require(special: Mapping[str, int], names: Sequence[str], path: str | Path) -> None:
    """Refuse a vocabulary without the special tokens that its tokenizer writes."""
    absent = [name for name in names if name not in special]
    if absent:
        raise ScircuitError(f"{path} lacks the token {absent[0]}; take the vocabulary that belongs to the checkpoint.")


def from_scgpt(path: str | Path, gene_table: str | Path | None = None) -> Vocabulary:
    """scGPT's flat `{symbol: id}` vocabulary; `<...>` entries are the special tokens.

    `gene_table` is an optional tab-separated file with columns `ensembl_id` and `symbol` that lets data with
    Ensembl ids in; without it they need a symbol column. Symbols that are Ensembl ids count as both.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(v, int) for v in content.values()):
        raise ScircuitError(f"{path} is not a vocabulary: a flat JSON object of symbol to token id is needed.")
    special = {name: token for name, token in content.items() if name.startswith("<")}
    _require(special, ("<pad>", "<cls>"), path)
    symbols = [name for name in content if not name.startswith("<")]
    ensembl = {name: name for name in symbols if name.startswith("ENSG")}
    if gene_table is not None:
        table = read_delimited(gene_table, sep="\t", dtype=str).fillna("")
        ensembl = dict(zip(table["symbol"], table["ensembl_id"], strict=True)) | ensembl
    genes = pd.DataFrame({"ensembl_id": [ensembl.get(name, "") for name in symbols], "symbol": symbols})
    return Vocabulary(genes.assign(token=[content[name] for name in symbols]), special)


def read_vocabulary(path: str | Path) -> Vocabulary:
    """Read the JSON form in which our own small models ship their vocabulary."""
    content = read_json(path)
    first = len(content["special"])
    genes = pd.DataFrame({"ensembl_id": content["ensembl_id"], "symbol": content["symbol"]})
    genes["token"] = np.arange(first, first + len(genes))
    return Vocabulary(genes, content["special"], np.asarray(content["median"], dtype=np.float64))


def write_vocabulary(path: str | Path, vocabulary: Vocabulary) -> None:
    """Write the JSON form; tokens of genes follow the special ones without a gap."""
    if vocabulary.medians is None:
        raise ScircuitError("Only a vocabulary with medians is written in this form.")
    content = {
        "format_version": 1,
        "special": dict(vocabulary.special),
        "ensembl_id": vocabulary.genes["ensembl_id"].tolist(),
        "symbol": vocabulary.genes["symbol"].tolist(),
        "median": [float(m) for m in vocabulary.medians],
    }
    write_json(path, content)


def read_token_table(path: str | Path) -> Vocabulary:
    """A vocabulary from a tab-separated table, for models that bring no dictionaries of their own.

    Columns `token_id`, `ensembl_id`, `symbol` (either may be empty) and, optionally, `median`: the gene's non-zero
    median over the pre-training cells, by which counts are divided before they are ranked. Special tokens are rows
    whose symbol is in angle brackets: `<pad>`, `<mask>`, `<cls>`, `<eos>`.

    Raises
    ------
    ScircuitError
        When a column is missing, a token id is no whole number or comes twice, or a median is not positive.
    """
    path = Path(path)
    if not path.is_file():
        raise ScircuitError(f"{path} does not exist; write the model's tokens into it (token_id, ensembl_id, symbol).")
    table = read_delimited(path, sep="\t", dtype=str, keep_default_na=False)
    absent = [column for column in ("token_id", "ensembl_id", "symbol") if column not in table]
    if absent:
        raise ScircuitError(f"{path} has no column {absent[0]!r}; it needs token_id, ensembl_id and symbol.")
    token = pd.to_numeric(table["token_id"], errors="coerce")
    wrong = token.isna() | (token < 0) | (token % 1 != 0) | token.duplicated()
    if wrong.any():
        raise ScircuitError(
            f"{path}: token_id {table['token_id'][wrong].iloc[0]!r} is no whole number or comes twice; give each token "
            "its own."
        )
    special = table["symbol"].str.startswith("<")
    genes = table.loc[~special, ["ensembl_id", "symbol"]].reset_index(drop=True)
    genes["token"] = token[~special].to_numpy(dtype=np.int64)
    names = {name: int(i) for name, i in zip(table["symbol"][special], token[special], strict=True)}
    medians = np.ones(len(genes))
    if "median" in table:
        medians = pd.to_numeric(table["median"][~special], errors="coerce").to_numpy(dtype=np.float64)
    if not len(genes) or not (np.isfinite(medians) & (medians > 0)).all():
        raise ScircuitError(f"{path} has no gene, or a gene without a positive median; mend it or leave median out.")
    return Vocabulary(genes, names, medians)
