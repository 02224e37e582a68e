"""One writer at a time, whoever was killed before."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scircuit._lock import NAME, locked
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


def test_another_host_is_never_taken_over(tmp_path: Path):
    (tmp_path / NAME).write_text(json.dumps({"pid": 1, "host": "another", "started": None}))
    with (
        pytest.raises(ScircuitError, match=r"process 1 on another, which cannot be seen from here.*delete"),
        locked(tmp_path),
    ):
        pass
    assert (tmp_path / NAME).is_file()


def test_a_number_that_another_process_got_since_is_no_owner(tmp_path: Path):
    if not Path("/proc/self/stat").exists():
        pytest.skip("the start of a process is known on Linux only")
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "started": "another boot:1"}
    (tmp_path / NAME).write_text(json.dumps(owner))
    with locked(tmp_path):
        pass


def test_a_lock_without_a_name_is_taken_after_a_while(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("scircuit._lock._WAIT", 0.1)
    (tmp_path / NAME).write_text("")
    with locked(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


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
