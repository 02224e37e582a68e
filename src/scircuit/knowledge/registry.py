"""The local library of databases: list, fetch, add, show, load.

One folder per source in the cache: its files, and `source.json` with version, licence, address and checksums. A folder
appears whole or not at all, and a file whose checksum has changed is refused when it is read.
"""

import difflib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from scircuit._io import cache_folder, sha256_file
from scircuit._optional import optional
from scircuit._packed import unpack_member
from scircuit.errors import ScircuitError
from scircuit.knowledge.disease import DiseaseGenes
from scircuit.knowledge.gmt import GeneSets, packaged_programs, read_gmt
from scircuit.knowledge.networks import Network, regulons
from scircuit.knowledge.record import RECORD, is_name, is_path, read_record, to_record, write_record
from scircuit.knowledge.sources import KNOWN, READERS, Remote, Source

PROGRAMS = "programs"


def knowledge_folder(cache: str | Path | None = None) -> Path:
    """Where the sources lie: in `cache`, by default the user's (`scircuit._io.cache_folder`)."""
    return cache_folder(cache) / "knowledge"


def list_sources(cache: str | Path | None = None) -> pd.DataFrame:
    """Every known and added source: `name, title, version, licence, kind, state, note`.

    `state` is `packaged`, `cached`, `to fetch`, `bring a file`, or `damaged`: then `note` says how.
    """
    rows = [(PROGRAMS, "Gene programs compiled by the developers", "1", "MIT", "gene sets", "packaged", "")]
    folder = knowledge_folder(cache)
    added = [p.parent.name for p in folder.glob(f"*/{RECORD}")] if folder.is_dir() else []
    for name in sorted({*KNOWN, *added}):
        try:
            source, state = _find(name, folder)
        except ScircuitError as error:
            source, state = Source(name, "", "", "", "", note=str(error)), "damaged"
        rows.append((name, source.title, source.version, source.licence, source.reader, state, source.note))
    return pd.DataFrame(rows, columns=["name", "title", "version", "licence", "kind", "state", "note"])


def fetch(name: str, *, cache: str | Path | None = None, again: bool = False) -> Path:
    """Download a known source once; returns its folder in the cache."""
    source = _known(name)
    target = knowledge_folder(cache) / name
    if (target / RECORD).is_file() and not again:
        return target
    if not source.files:
        raise ScircuitError(f"{source.title} cannot be downloaded ({source.licence}); {source.note}.")
    with _staged(target) as folder:
        files = tuple(_download(remote, folder, source) for remote in source.files)
        fetched = replace(source, files=files)
        fetched.read(folder)
        write_record(folder, fetched)
    return target


def add(
    name: str,
    path: str | Path,
    *,
    kind: str = "gene sets",
    title: str = "",
    version: str = "",
    licence: str = "",
    cache: str | Path | None = None,
) -> Path:
    """Put a file of the user's into the cache under a name; returns its folder.

    The name of a known source takes that source's kind and title. The file is read before it is accepted.
    """
    path = Path(path)
    if not is_name(name) or name == PROGRAMS:
        raise ScircuitError(f"{name!r} cannot name a source; use letters, digits, - and _ (and not {PROGRAMS!r}).")
    if not path.is_file():
        raise ScircuitError(f"{path} does not exist; give the path of the file to add.")
    base = KNOWN.get(name, Source(name, title or path.name, version, licence, kind))
    if base.reader not in READERS:
        raise ScircuitError(f"The kind {kind!r} is unknown; it may be {', '.join(READERS)}.")
    target = knowledge_folder(cache) / name
    with _staged(target) as folder:
        shutil.copyfile(path, folder / path.name)
        remote = Remote(str(path), path.name, sha256_file(folder / path.name))
        told = {"title": title or base.title, "version": version or base.version, "licence": licence or base.licence}
        source = replace(base, **told, files=(remote,), note="added from a file")
        source.read(folder)
        write_record(folder, source)
    return target


def show(name: str, *, cache: str | Path | None = None) -> dict[str, Any]:
    """Everything known about a source: version, licence, addresses, checksums, state, and how much it holds."""
    if name == PROGRAMS:
        sets = packaged_programs()
        return {"name": name, "state": "packaged", "sha256": sets.sha256, "n_sets": len(sets), "version": sets.version}
    source, state = _find(name, knowledge_folder(cache))
    about = to_record(source)
    about |= {"kind": about.pop("reader"), "state": state}
    return {**about, "n_entries": len(load(name, cache=cache))} if state == "cached" else about


def load(name: str, *, cache: str | Path | None = None, **options: Any) -> Any:
    """Read a source from the cache, never from the network: `GeneSets`, `Network`, `DiseaseGenes` or an alias table.

    `options` go to the reader (`min_score`, `levels`, ...).
    """
    if name == PROGRAMS:
        return packaged_programs()
    target = knowledge_folder(cache) / name
    source, state = _find(name, target.parent)
    if state != "cached":
        how = f"run `scircuit knowledge fetch {name}`" if source.files else source.note
        raise ScircuitError(f"{source.title} is not in the cache; {how}.")
    for remote in source.files:
        file = target / remote.file
        if not file.is_file() or sha256_file(file) != remote.sha256:
            raise ScircuitError(f"{file} is missing or no longer what was stored; fetch or add {name} again.")
    return source.read(target, **options)


def load_gene_sets(name_or_path: str | Path, *, cache: str | Path | None = None) -> GeneSets:
    """Gene sets by the name of a source, or from a GMT file.

    A directed network gives the targets of each regulator by sign (`regulons`), disease genes one set per disease.
    """
    text = str(name_or_path)
    if is_path(text):
        return read_gmt(text)
    found = load(text, cache=cache)
    if isinstance(found, Network) and found.directed:
        return regulons(found)
    if isinstance(found, DiseaseGenes):
        return found.sets()
    if not isinstance(found, GeneSets):
        raise ScircuitError(f"{text} holds no gene sets; take gene sets, a network of regulators, or disease genes.")
    return found


def load_network(name: str, *, cache: str | Path | None = None, **options: Any) -> Network:
    """A network by the name of its source in the cache; `options` go to its reader."""
    found = load(name, cache=cache, **options)
    if not isinstance(found, Network):
        raise ScircuitError(f"{name} holds no network; `scircuit knowledge list` shows which do, such as string.")
    return found


def _known(name: str) -> Source:
    if name in KNOWN:
        return KNOWN[name]
    folded = {n.lower(): n for n in (PROGRAMS, *KNOWN)}
    near = difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5)
    near = near or [n for n in folded if name.lower() in n or n in name.lower()]
    hint = f"did you mean {' or '.join(folded[n] for n in near)}?" if near else f"known are {', '.join(KNOWN)}."
    raise ScircuitError(f"There is no source called {name!r}; {hint}")


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A folder beside the target that takes its place when the block succeeds, and vanishes when it fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield folder
        if target.exists():
            shutil.rmtree(target)
        folder.chmod(0o755)
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download(remote: Remote, folder: Path, source: Source) -> Remote:
    """Fetch one file and pin its checksum (for an archive, that of the member)."""
    pooch = _pooch()
    pinned = f"sha256:{remote.sha256}" if remote.sha256 else None
    advice = f"try again, or download it by hand and run `scircuit knowledge add {source.name} FILE`"
    try:
        found = Path(pooch.retrieve(remote.url, pinned, fname="download", path=folder))
    except ValueError:
        raise ScircuitError(
            f"The file at {remote.url} does not have the checksum of {source.title} {source.version}; {advice}."
        ) from None
    except OSError as error:  # requests' errors are OSErrors
        reason = str(error).splitlines()[0][:200]
        raise ScircuitError(f"{source.title} could not be downloaded ({reason}); {advice}.") from None
    if remote.member is None:
        found.rename(folder / remote.file)
    else:
        _unpack(found, remote, folder, source)
    return replace(remote, sha256=sha256_file(folder / remote.file))


def _unpack(archive: Path, remote: Remote, folder: Path, source: Source) -> None:
    try:
        with zipfile.ZipFile(archive) as packed:
            names = [n for n in packed.namelist() if n.rsplit("/", 1)[-1] == remote.member]
            if len(names) != 1:
                raise ScircuitError(
                    f"The archive of {source.title} has no file {remote.member}; its layout has changed."
                )
            unpack_member(packed, names[0], folder / remote.file)
    except zipfile.BadZipFile:
        raise ScircuitError(f"What {remote.url} sent is no zip archive; try again later.") from None
    archive.unlink()


def _find(name: str, library: Path) -> tuple[Source, str]:
    """A source as the cache has it, else as it is known; and its state, as in `list_sources`."""
    if is_name(name) and (library / name / RECORD).is_file():
        return read_record(library / name), "cached"
    source = _known(name)
    return source, "to fetch" if source.files else "bring a file"


def _pooch() -> Any:
    pooch = optional("pooch", "Downloading needs pooch; install it with `pip install pooch`.")
    pooch.get_logger().setLevel("WARNING")
    return pooch
