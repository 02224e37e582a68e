"""One writer at a time: a lock on a file in the folder that a run, a study or a notebook of answers writes.

The lock is the kernel's (`flock`), so that it goes with its holder, however that ends, and a zombie holds nothing. What
stands in the file is only told. On a network file system that keeps such locks to one machine (an NFS mount with
`nolock` or `local_lock`), and wherever the kind of file system is not known, the file of another host counts as held.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scircuit.errors import ScircuitError

NAME = ".scircuit.lock"
_LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay", "ramfs", "bcachefs"}
"""Kinds of file system that one kernel has to itself."""
_PAUSE = 0.05


@contextmanager
def locked(folder: str | Path, wait: float = 0.0) -> Iterator[None]:
    """Hold `folder` for this process; made if need be, and removed again when nothing was written into it.

    `wait`: seconds to wait for another process. Reading never takes the lock.

    Raises
    ------
    ScircuitError
        When another process holds it still, or a lock file of another host lies where that host cannot be seen.
    """
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = _take(folder / NAME, time.monotonic() + wait)
        try:
            yield
        finally:
            (folder / NAME).unlink(missing_ok=True)
            os.close(descriptor)  # last: whoever waits then sees that the file is another one
    finally:
        for path in made:
            try:
                path.rmdir()
            except OSError:  # it holds something by now
                break


def _take(file: Path, until: float) -> int:
    """The descriptor that holds the lock of `file`."""
    while True:
        descriptor = _open(file)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            told = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            if time.monotonic() >= until:
                raise ScircuitError(
                    f"{file.parent} is being written by {_holder(told)}; wait for it, or end it and call again."
                ) from None
            time.sleep(_PAUSE)
            continue
        if not _is_at(descriptor, file):  # released, and gone, in this moment
            os.close(descriptor)
            continue
        try:
            _refuse_unseen(file, os.pread(descriptor, 4096, 0))
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _open(file: Path) -> int:
    try:
        return os.open(file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        if file.is_symlink():
            raise ScircuitError(f"{file} is a link, which a lock must not be; delete it.") from None
        raise ScircuitError(f"{file} cannot be written ({error.strerror}), so the folder cannot be held.") from None


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False


def _record(told: bytes) -> dict[str, object]:
    """What a lock file says of its holder; nothing where it is no such record."""
    try:
        found = json.loads(told)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _holder(told: bytes) -> str:
    pid, host = (_record(told).get(name) for name in ("pid", "host"))
    return f"process {pid} on {'this machine' if host == socket.gethostname() else host}" if pid else "another process"


def _refuse_unseen(file: Path, told: bytes) -> None:
    """An error for what another host left, where the lock that we have need not be one for that host."""
    host = _record(told).get("host")
    if host not in (None, socket.gethostname()) and _kind_of(file) not in _LOCAL:
        raise ScircuitError(
            f"{file.parent} is held by {_holder(told)}, which cannot be seen from here; wait for it, or delete {file} "
            "if it no longer runs."
        )


def _kind_of(file: Path) -> str:
    """Kind of the file system that a file lies on; nothing where the machine does not tell."""
    device = os.stat(file).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    # "36 35 98:0 /root /at options - ext3 source ..."; see proc(5).
    kinds = {fields[2]: line.partition(" - ")[2].split()[0] for line in lines if len(fields := line.split()) > 6}
    return kinds.get(name, "")
