"""Training in a run: several data sets by weight, and going on after being stopped, to the same bytes."""

from dataclasses import replace
from pathlib import Path

import anndata as ad
import pytest
import torch

from scircuit._io import read_json
from scircuit.cells.tokens import TokenStore
from scircuit.config import RunConfig
from scircuit.config_file import load_config
from scircuit.errors import ScircuitError
from scircuit.models.load import load_model
from scircuit.runs import saes as stage
from scircuit.runs.stages import run
from scircuit.sae.buffer import Position, ShuffleBuffer
from scircuit.sae.mixing import mix
from scircuit.sae.stack import Stack

MIXED = """
[[sae.mix]]
name = "first"
path = "cells.h5ad"
min_match = 0.1
where = {kind = "a"}
weight = 3
shares = {train = 0.3, catalogue = 0.2, discovery = 0.3, confirmation = 0.2}
[[sae.mix]]
name = "second"
path = "more.h5ad"
min_match = 0.1
n = 24
stratify = ["kind"]
shares = {train = 1.0}
[features]"""


@pytest.fixture(scope="module")
def mixed(project, scgpt_folder: Path, cells: ad.AnnData) -> RunConfig:
    def edit(text: str) -> str:
        shares = "shares = {train = 0.3, catalogue = 0.2, discovery = 0.3, confirmation = 0.2}"
        assert shares in text
        return text.replace("[features]", MIXED)

    folder = project(scgpt_folder, edit=edit)
    more = cells.copy()
    more.obs_names = [f"more{i}" for i in range(more.n_obs)]
    more.write_h5ad(folder / "more.h5ad")
    return load_config(folder / "run.toml")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_data_sets_are_mixed_by_weight_and_recorded(mixed: RunConfig) -> None:
    out = run(mixed, until="train-sae").root
    assert all(part.path.endswith(".h5ad") and Path(part.path).is_file() for part in mixed.sae.mix)
    stores = {name: TokenStore.read(out / "tokens" / "mix" / name) for name in ("first", "second")}
    assert {name: set(s.cells["_split"]) for name, s in stores.items()} == {"first": {"train"}, "second": {"train"}}
    assert set(stores["first"].cells["kind"]) == {"a"}
    assert stores["second"].cells["kind"].value_counts().to_dict() == {"a": 12, "b": 12}
    own = TokenStore.read(out / "tokens").cells
    kept_apart = own.loc[own["_split"] != "train", "_row"]
    assert not set(stores["first"].cells["_row"]) & set(kept_apart)
    data = read_json(out / "saes" / "manifest.json")["metadata"]["data"]
    assert [(d["name"], d["weight"], d["source"]) for d in data] == [
        ("first", 0.75, "cells.h5ad"), ("second", 0.25, "more.h5ad"),
    ]  # fmt: skip
    assert [d["cells"] for d in data] == [s.fingerprint for s in stores.values()]
    assert [d["n_train_cells"] for d in data] == [len(s) for s in stores.values()]
    assert sorted(p.name for p in (out / "saes").iterdir()) == ["layer_00", "layer_01", "layer_02", "manifest.json"]


def test_rows_come_in_the_proportion_of_the_weights(mixed: RunConfig) -> None:
    out = run(mixed, until="tokenize").root
    stores = {name: TokenStore.read(out / "tokens" / "mix" / name) for name in ("first", "second")}
    model = load_model(mixed.model.source, device="cpu")
    rows = dict.fromkeys(stores, 0)
    streams = {}
    for name, store in stores.items():

        def counted(epoch: int, name: str = name, store: TokenStore = store):
            for chunk in stage._stream(model, store, (0,), 3)(epoch):
                rows[name] += chunk.n_rows
                yield chunk

        streams[name] = counted
    for _ in mix(streams, {"first": 3.0, "second": 1.0})(0):
        pass
    assert rows["first"] / sum(rows.values()) == pytest.approx(0.75, abs=0.1)


class Stopped(BaseException):
    """What a killed process looks like from inside."""


@pytest.fixture(scope="module", params=["one data set", "mixed"])
def whole(
    request: pytest.FixtureRequest,
    mixed: RunConfig,
    finished: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[RunConfig, Path]:
    """A config, and its training without a stop."""
    config = mixed if request.param == "mixed" else load_config(finished["scgpt"] / "run.toml")
    # A buffer far below an epoch, so that resuming has to find its place in the stream.
    config = replace(config, sae=replace(config.sae, buffer_rows=192, checkpoint_every=5, stability_seeds=1))
    return config, run(replace(config, out=str(tmp_path_factory.mktemp("whole") / "out")), until="train-sae").root


@pytest.mark.parametrize("moment", [3, 12, 31, "measuring"])
def test_stopped_training_goes_on_to_the_same_bytes(
    whole: tuple[RunConfig, Path], moment: int | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, unstopped = whole

    step, measure, steps = Stack.step, stage.measure_quality, []

    def stopping(self: Stack, batch: torch.Tensor):
        steps.append(1)
        if len(steps) == moment:
            raise Stopped
        return step(self, batch)

    def stopped(*args: object, **options: object):
        raise Stopped

    config = replace(config, out=str(tmp_path / "stopped"))
    with monkeypatch.context() as patch:
        patch.setattr(Stack, "step", stopping)
        if moment == "measuring":
            patch.setattr(stage, "measure_quality", stopped)
        with pytest.raises(Stopped):
            run(config, until="train-sae")
    left = tmp_path / "stopped" / "saes"
    assert (left / "training-3.safetensors").is_file() == (moment != 3)
    (left / ".training-3.safetensors.x.tmp").parent.mkdir(exist_ok=True)
    (left / ".training-3.safetensors.x.tmp").write_bytes(b"half")
    with monkeypatch.context() as patch:
        steps.clear()
        patch.setattr(Stack, "step", lambda self, batch: steps.append(1) or step(self, batch))
        run(config, until="train-sae")
    done = {3: 0, 12: 10, 31: 30, "measuring": 40}[moment]
    assert len(steps) == 40 - done + 40  # what was left of the training, and that of the other seed
    assert measure is stage.measure_quality
    for part in ("saes", "tokens"):
        assert content(tmp_path / "stopped" / part) == content(unstopped / part)


def test_a_resumed_stream_does_not_run_the_model_on_what_it_skips(
    finished: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "batch_size", lambda store: 1)
    config = load_config(finished["geneformer"] / "run.toml")
    model = load_model(config.model.source, device="cpu")
    store = TokenStore.read(finished["geneformer"] / "out" / "tokens")
    embedded = []

    class Counting:
        def __getattr__(self, name: str):
            return getattr(model, name)

        def embed(self, batch):
            embedded.append(len(batch.cell))
            return model.embed(batch)

    small = stage._stream(Counting(), store, (0,), 3)
    chunks = [len(c[0]) for c in small(0)]
    embedded.clear()
    buffer = ShuffleBuffer(
        small, (0,), model.d_model, buffer_rows=16, batch_rows=8, seed=0, position=Position(3, 0, len(chunks) - 1, 2, 0)
    )
    assert buffer.rows.shape[1] == 16
    assert sum(embedded) <= 2  # the chunk itself and, at most, the first of the next epoch


def test_a_folder_with_mixed_data_sets_is_known_again(mixed: RunConfig) -> None:
    """The recorded config, tables of data sets included, equals the one read anew, and differs from another."""
    before = content(run(mixed, until="train-sae").root)
    assert content(run(mixed, until="train-sae").root) == before
    other = replace(mixed, sae=replace(mixed.sae, mix=mixed.sae.mix[:1]))
    with pytest.raises(ScircuitError, match=r"holds a different run \(sae.mix is"):
        run(other, until="train-sae")
