"""One writer at a time: a lock file in the folder that a run or a study writes."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scircuit.errors import ScircuitError

NAME = ".scircuit.lock"
_WAIT = 2.0
"""Seconds after which a lock file without an owner is one whose process died before it could write its name."""


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold `folder` for this process; made if need be, and removed again when nothing was written into it.

    The lock file names its process and host. It goes when the block ends, by an error too; what a killed process left
    is taken over by the next one on the same host. Reading never takes it.

    Raises
    ------
    ScircuitError
        When another process holds it, or when it is of another host, whose processes cannot be seen from here.
    """
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    file, owner = folder / NAME, _owner()
    try:
        _take(file, owner)
        try:
            yield
        finally:
            if _read(file) == owner:
                file.unlink(missing_ok=True)
    finally:
        for path in made:
            try:
                path.rmdir()
            except OSError:  # it holds something by now
                break


def _owner() -> str:
    pid = os.getpid()
    return json.dumps({"pid": pid, "host": socket.gethostname(), "started": _started(pid), "at": time.time_ns()})


def _take(file: Path, owner: str) -> None:
    waited = 0.0
    while True:
        try:
            descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            pass
        else:
            with os.fdopen(descriptor, "w") as out:
                out.write(owner)
            return
        theirs = _read(file)
        if theirs is None:  # released in this moment
            continue
        if not theirs and waited < _WAIT:  # made in this moment: its owner writes its name next
            time.sleep(0.05)
            waited += 0.05
            continue
        _refuse_living(file, theirs)
        if _take_over(file, theirs, owner):
            return


def _take_over(file: Path, stale: str, owner: str) -> bool:
    """Write ourselves into a dead process's lock, unless another process was faster.

    The kernel's own lock on that file lets one process at a time see whether it is still the dead one's.
    """
    import fcntl

    try:
        with open(file, "r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            if held.read() != stale or not _is_at(held.fileno(), file):
                return False
            held.seek(0)
            held.truncate()
            held.write(owner)
            return True
    except FileNotFoundError:
        return False


def _is_at(descriptor: int, file: Path) -> bool:
    return file.exists() and os.path.samestat(os.fstat(descriptor), os.stat(file))


def _read(file: Path) -> str | None:
    try:
        return file.read_text()
    except FileNotFoundError:
        return None


def _refuse_living(file: Path, text: str) -> None:
    """Nothing for the lock of a dead process of this host; an error for any other."""
    try:
        owner = json.loads(text) if text else {}
        pid, host, started = owner.get("pid"), owner.get("host"), owner.get("started")
    except (ValueError, AttributeError):
        pid, host, started = None, None, None
    if pid is None:
        return
    if host != socket.gethostname():
        raise ScircuitError(
            f"{file.parent} is held by process {pid} on {host}, which cannot be seen from here; wait for it, or delete "
            f"{file} if it no longer runs."
        )
    if _alive(pid, started):
        raise ScircuitError(
            f"{file.parent} is being written by process {pid} on this machine; wait for it, or end it and call again."
        )


def _alive(pid: int, started: str | None) -> bool:
    """Whether the process that took the lock still runs; another one may carry its number by now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    now = _started(pid)
    return started is None or now is None or started == now


def _started(pid: int) -> str | None:
    """When a process began, with the boot it began in: tells two processes of one number apart. None off Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The name in brackets may hold spaces; the state is the first field behind it, the start the 20th.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return f"{boot}:{fields[19]}"
