"""Commands that cannot go on: Ctrl-C, and output that cannot be written."""

import errno

import pytest

from scircuit.cli.app import main


@pytest.fixture
def called(monkeypatch, capsys):
    """`called(*arguments)`: exit code and what was said on stderr."""

    def call(*arguments) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["scircuit", "-q", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    return call


def test_ctrl_c_says_how_to_go_on(called, project, geneformer_folder, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("scircuit.runs.stages.run", interrupted)
    folder = project(geneformer_folder)
    assert called("run", folder / "run.toml") == (130, "\nscircuit: stopped; call it again to go on.\n")


def test_output_below_a_file_is_one_sentence(called, project, geneformer_folder, tmp_path):
    (tmp_path / "file").write_text("")
    folder = project(geneformer_folder, edit=lambda text: text.replace('out = "out"', f'out = "{tmp_path}/file/out"'))
    code, said = called("run", folder / "run.toml")
    assert code == 2
    assert said.count("\n") == 1
    assert "file/out" in said
    assert "cannot be written" in said
    code, said = called("init", tmp_path / "file" / "my.toml")
    assert (code, said.count("\n")) == (2, 1)


@pytest.mark.parametrize("kind", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_no_right_and_no_room_are_one_sentence(called, monkeypatch, tmp_path, kind):
    def full(*_, **__):
        raise OSError(kind, "no way", str(tmp_path / "out"))

    monkeypatch.setattr("scircuit.cli.app.write_new", full)
    code, said = called("init", tmp_path / "my.toml")
    assert code == 2
    assert said == f"scircuit: {tmp_path / 'out'} cannot be written (no way); name another place, or make room there.\n"
