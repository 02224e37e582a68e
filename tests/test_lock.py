"""One writer at a time, whoever was killed before."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scircuit._lock import NAME, _kind_of, locked
from scircuit.errors import ScircuitError

HOLD = """
import sys, time
from scircuit._lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_living_process_holds_and_a_killed_one_does_not(tmp_path: Path):
    process = holder(tmp_path)
    with (
        pytest.raises(ScircuitError, match=f"is being written by process {process.pid} on this machine"),
        locked(tmp_path),
    ):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / NAME).is_file(), "what SIGKILL leaves"
    with locked(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / NAME).exists()


def test_it_goes_with_an_error_and_takes_an_empty_folder_along(tmp_path: Path):
    folder = tmp_path / "a" / "b"
    with pytest.raises(ZeroDivisionError), locked(folder):
        1 / 0  # noqa: B018
    assert not (tmp_path / "a").exists()
    with locked(folder):
        (folder / "result").write_text("")
    assert [p.name for p in folder.iterdir()] == ["result"]


def test_another_host_is_taken_over_only_where_this_kernel_sees_all_locks(tmp_path: Path, monkeypatch):
    record = json.dumps({"pid": 1, "host": "another"})
    (tmp_path / NAME).write_text(record)
    monkeypatch.setattr("scircuit._lock._kind_of", lambda file: "nfs4")
    with (
        pytest.raises(ScircuitError, match=r"process 1 on another, which cannot be seen from here.*delete"),
        locked(tmp_path),
    ):
        pass
    assert (tmp_path / NAME).read_text() == record
    # A container that was killed leaves such a file behind, its name gone with it.
    monkeypatch.setattr("scircuit._lock._kind_of", lambda file: "ext4")
    with locked(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


def test_the_kind_of_a_file_system_is_known_here(tmp_path: Path):
    if not Path("/proc/self/mountinfo").exists():
        pytest.skip("told on Linux only")
    assert _kind_of(tmp_path) != ""


def test_a_zombie_holds_nothing(tmp_path: Path):
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not reaped
    os.kill(process.pid, 0)
    with locked(tmp_path):
        pass
    process.communicate()


@pytest.mark.parametrize("left", [b"", b"\xff\xfe", b"[1]", b'{"pid": "twelve", "host": 3}', b"[" * 9000])
def test_what_a_file_says_is_only_told(tmp_path: Path, left: bytes, monkeypatch):
    monkeypatch.setattr("scircuit._lock._kind_of", lambda file: "ext4")
    (tmp_path / NAME).write_bytes(left)
    with locked(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
        (tmp_path / NAME).write_bytes(left)
        with pytest.raises(ScircuitError, match="is being written by"), locked(tmp_path):
            pass


def test_a_link_is_no_lock(tmp_path: Path):
    (tmp_path / NAME).symlink_to(tmp_path / "nowhere")
    with pytest.raises(ScircuitError, match="is a link"), locked(tmp_path):
        pass
    assert not (tmp_path / "nowhere").exists()


def test_who_waits_gets_it(tmp_path: Path):
    with locked(tmp_path):
        order = []

        def wait() -> None:
            with locked(tmp_path, wait=20):
                order.append("second")

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_of_many_that_find_a_dead_ones_lock_one_gets_it(tmp_path: Path):
    process = holder(tmp_path)
    process.kill()
    process.communicate()
    start, inside, most, refused = threading.Barrier(8), [], [], []

    def attempt() -> None:
        start.wait()
        try:
            with locked(tmp_path):
                inside.append(1)
                most.append(len(inside))
                release.wait(5)
                inside.pop()
        except ScircuitError:
            refused.append(1)
            if len(refused) == 7:
                release.set()

    release = threading.Event()
    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(refused), most) == (7, [1])
