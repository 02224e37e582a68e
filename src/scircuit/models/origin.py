"""`Origin`: which files a model was read from, by hash, and whether they are the published ones."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scircuit._io import sha256_file
from scircuit.errors import ScircuitError
from scircuit.models.registry import Checkpoint, recognise


@dataclass(frozen=True)
class Origin:
    """Where a model came from."""

    files: tuple[tuple[str, str], ...] = ()
    """Every file that was read, in the order of reading; names without folders, so that a copy elsewhere is equal."""
    checkpoint: Checkpoint | None = None
    """The published checkpoint whose weights these are; None for weights nobody registered."""

    def to_dict(self) -> dict[str, Any]:
        """What a run records: the files, and of a known checkpoint its name, repository, revision and licence."""
        known = self.checkpoint
        about = {} if known is None else {"checkpoint": known.name, "licence": known.licence}
        if known is not None and known.repo:
            about |= {"repo": known.repo, "revision": known.revision}
        return {**about, "files": dict(self.files)}

    def named(self, folder: Path) -> str:
        """The model's name: the checkpoint's, else the folder's."""
        return self.checkpoint.name if self.checkpoint else folder.name


def read_origin(paths: Iterable[Path], weights: Path, checkpoint: Checkpoint | None = None) -> Origin:
    """Hash every file that a model is about to be read from; with a `checkpoint` asked for, hold them to the registry.

    Of `paths`, those that do not exist are left to the reader, which names what it lacks; by `weights`, one of them, a
    checkpoint that was not asked for by name is recognised.
    """
    known = checkpoint.expected() if checkpoint else {}
    origin = Origin(checkpoint=checkpoint)
    for path in paths:
        if not path.is_file():
            continue
        expected = known.get(path.name)
        if checkpoint and expected and expected.bytes is not None and path.stat().st_size != expected.bytes:
            raise ScircuitError(_refusal(path, checkpoint, f"{path.stat().st_size:,} bytes, not {expected.bytes:,}"))
        digest = sha256_file(path)
        if checkpoint and expected and expected.sha256 is not None and digest != expected.sha256:
            raise ScircuitError(_refusal(path, checkpoint, f"sha256 {digest[:16]}..., not {expected.sha256[:16]}..."))
        origin = replace(origin, files=(*origin.files, (path.name, digest)))
        if checkpoint is None and path == weights:
            origin = replace(origin, checkpoint=recognise(digest))
    return origin


def _refusal(path: Path, checkpoint: Checkpoint, difference: str) -> str:
    again = (
        f"delete it and run `scircuit models fetch {checkpoint.name} --again`"
        if checkpoint.repo
        else f"download it again from {checkpoint.address}"
    )
    return (
        f"{path} is not the published file of {checkpoint.name} ({difference}), so it is truncated, changed or of "
        f"another release: {again}, or pass the folder's path instead of the name to use weights of your own."
    )
