"""The check that every adapter must pass: passed by all of ours, failed by each way of being wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from test_scgpt_parity import Reference
from torch import nn

from builders import SCGPT_ARGS
from scircuit.cells.tokens import tokenize
from scircuit.errors import ScircuitError
from scircuit.models.base import FoundationModel
from scircuit.models.geneformer import load_geneformer
from scircuit.models.hooked import HookedModel
from scircuit.models.load import load_model
from scircuit.models.parity import check_adapter
from scircuit.models.scgpt import load_scgpt
from scircuit.models.stack import ReadsCells

NAMES = [
    "roles, genes and tokens agree", "resuming at a layer equals the full forward", "stopping early equals the prefix",
    "a layer leaves its input alone and answers twice alike", "padding does not reach a cell",
    "one cell alone equals the cell among others", "equals the reference",
    "an edit of the residual reaches the next layer", "the fingerprint names weights and protocol",
    "loaded again it computes the same", "genes are masked and the loss is a number",
]  # fmt: skip


def some(cells, model):
    return tokenize(cells, model.tokenizer).batch(np.array([0, 5, 9]))


def call_bert(module, batch):
    mask = torch.from_numpy((batch.role != 0).astype(np.int64))
    return module(input_ids=torch.from_numpy(batch.tokens), attention_mask=mask)


def bert_states(folder, batch):
    module = transformers.BertForMaskedLM.from_pretrained(folder).eval()
    mask = torch.from_numpy((batch.role != 0).astype(np.int64))
    with torch.no_grad():
        return module(torch.from_numpy(batch.tokens), mask, output_hidden_states=True).hidden_states[1:]


def test_geneformer(geneformer_folder, cells) -> None:
    model, twin = (load_geneformer(geneformer_folder, device="cpu") for _ in range(2))
    variants = [
        load_geneformer(geneformer_folder, device="cpu", protocol="paper"),
        load_geneformer(geneformer_folder, device="cpu", dtype="bfloat16"),
    ]
    batch = some(cells, model)
    checks = check_adapter(model, batch, bert_states(geneformer_folder, batch), twin=twin, variants=variants)
    assert [check.name for check in checks] == NAMES
    assert all(0 <= check.worst <= 1e-5 for check in checks)


def test_scgpt(scgpt_folder, cells) -> None:
    model, twin = (load_scgpt(scgpt_folder, device="cpu") for _ in range(2))
    variants = [
        load_scgpt(scgpt_folder, device="cpu", protocol="paper"),
        load_scgpt(scgpt_folder, device="cpu", options={"binning": "midpoint"}),
        load_scgpt(scgpt_folder, device="cpu", options={"seed": 1}),
    ]
    batch = some(cells, model)
    weights = torch.load(scgpt_folder / "best_model.pt", weights_only=True)
    states = Reference(weights, SCGPT_ARGS).eval()(
        torch.from_numpy(batch.tokens), torch.from_numpy(batch.values), torch.from_numpy(batch.role == 0)
    )
    checks = check_adapter(model, batch, [h.detach() for h in states], twin=twin, variants=variants)
    assert [check.name for check in checks] == NAMES


def test_hooked_model(geneformer_folder, cells) -> None:
    tokenizer = load_geneformer(geneformer_folder, device="cpu").tokenizer

    def wrap(module, **settings) -> HookedModel:
        return HookedModel(
            module, blocks="bert.encoder.layer", call=call_bert, tokenizer=tokenizer, name="foreign", d_model=32,
            settings=settings,
        )  # fmt: skip

    def fresh():
        return transformers.BertForMaskedLM.from_pretrained(geneformer_folder)

    changed = fresh()
    changed.bert.encoder.layer[2].output.dense.bias.data[3] += 0.01
    batch = some(cells, wrap(fresh()))
    states = bert_states(geneformer_folder, batch)
    variants = [wrap(changed), wrap(fresh(), heads=2)]
    checks = check_adapter(wrap(fresh()), batch, states, twin=wrap(fresh()), variants=variants)
    assert [check.name for check in checks] == NAMES[:-1], "a model without a loss is checked without it"


@pytest.mark.parametrize("name", ["geneformer-mini", "scgpt-mini"])
def test_packaged_models_on_real_genes(name: str) -> None:
    import anndata as ad

    model = load_model(name, device="cpu")
    rng = np.random.default_rng(0)
    x = rng.poisson(0.4, (4, 200)).astype(np.float32)
    x[1, 80:] = 0
    data = ad.AnnData(x)
    data.var_names = model.genes["ensembl_id"].head(200).to_numpy()
    check_adapter(model, tokenize(data, model.tokenizer).batch(np.arange(4)))


class Wrong(ReadsCells):
    """A right adapter with one thing wrong; each subclass says what."""

    def __init__(self, right) -> None:
        self.right = right
        self.tokenizer, self.n_layers, self.d_model = right.tokenizer, right.n_layers, right.d_model
        self.name, self.fingerprint, self.device, self.dtype = "wrong", right.fingerprint, right.device, right.dtype

    def embed(self, batch):
        return self.right.embed(batch)

    def layer(self, i, h, batch):
        return self.right.layer(i, h, batch)

    def mask(self, batch, share, generator):
        return self.right.mask(batch, share, generator)

    def masked_loss(self, h, masked):
        return self.right.masked_loss(h, masked)


class ForgetsPadding(Wrong):
    def layer(self, i, h, batch):
        return self.right.block(i)(h, None)


class InPlace(Wrong):
    def layer(self, i, h, batch):
        out = self.right.layer(i, h, batch)
        h.add_(0.5)
        return out


class DropsOut(Wrong):
    def layer(self, i, h, batch):
        return nn.functional.dropout(self.right.layer(i, h, batch), 0.1)


class NormalisesTheBatch(Wrong):
    def embed(self, batch):
        h = self.right.embed(batch)
        return h - h[:, 1].mean(dim=0)


class Remembers(Wrong):
    """Replays the clean forward whatever residual it is given: resuming looks perfect, no edit arrives."""

    def layer(self, i, h, batch):
        h = self.right.embed(batch)
        for j in range(i + 1):
            h = self.right.layer(j, h, batch)
        return h


class CountsCalls(Wrong):
    """Which layer runs depends on how often it was called: only right when it is walked from the start."""

    def embed(self, batch):
        self.next = 0
        return self.right.embed(batch)

    def layer(self, i, h, batch):
        self.next += 1
        return self.right.layer((self.next - 1) % self.n_layers, h, batch)


class TimeFirst(Wrong):
    def embed(self, batch):
        return self.right.embed(batch).transpose(0, 1)


class OffByOne(Wrong):
    """Layer i is the residual before block i: the numbering of packages that count the embeddings as layer 0."""

    def layer(self, i, h, batch):
        return h if i == 0 else self.right.layer(i - 1, h, batch)


class OtherTable(Wrong):
    @property
    def genes(self):
        return self.right.genes.assign(token=self.right.genes["token"][::-1].to_numpy())


class NoLoss(Wrong):
    def masked_loss(self, h, masked):
        return self.right.masked_loss(h, masked) * float("nan")


class MasksSpecials(Wrong):
    def mask(self, batch, share, generator):
        masked = self.right.mask(batch, share, generator)
        return masked._replace(positions=torch.zeros_like(masked.positions))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (ForgetsPadding, "padding does not reach a cell.*mask of padded keys"),
        (InPlace, "Not so: "),
        (DropsOut, "Not so: .*(dropout|depends on more)"),
        (NormalisesTheBatch, "one cell alone equals the cell among others.*whole batch"),
        (Remembers, "returns the same for an edited residual"),
        (CountsCalls, "resuming at a layer equals the full forward"),
        (TimeFirst, "batch first"),
        (OffByOne, "equals the reference.*layer i is after block i"),
        (OtherTable, "another token than genes.token"),
        (NoLoss, "one finite number"),
        (MasksSpecials, "only genes"),
    ],
)
def test_each_way_of_being_wrong_is_found(geneformer_folder, cells, kind, says: str) -> None:
    right = load_geneformer(geneformer_folder, device="cpu")
    batch = some(cells, right)
    states = bert_states(geneformer_folder, batch)
    check_adapter(Wrong(right), batch, states)
    torch.manual_seed(0)
    with pytest.raises(ScircuitError, match=says):
        check_adapter(kind(right), batch, states)


def test_fingerprints_that_do_not_tell_models_apart_are_found(geneformer_folder, cells) -> None:
    right = load_geneformer(geneformer_folder, device="cpu")
    other = load_geneformer(geneformer_folder, device="cpu", protocol="paper")
    batch = some(cells, right)
    with pytest.raises(ScircuitError, match="loaded twice"):
        check_adapter(right, batch, twin=other)
    with pytest.raises(ScircuitError, match="variant 1 has the same fingerprint"):
        check_adapter(right, batch, variants=[other, right])


def test_weights_drawn_at_random_are_found(geneformer_folder, cells) -> None:
    right, other = (load_geneformer(geneformer_folder, device="cpu") for _ in range(2))
    torch.nn.init.normal_(other.blocks[1].up.weight)  # after the fingerprint was taken of the files
    with pytest.raises(ScircuitError, match=r"loaded again it computes the same .*drawn at random"):
        check_adapter(right, some(cells, right), twin=other)


def test_batches_that_cannot_show_a_fault_are_refused(geneformer_folder, cells) -> None:
    right = load_geneformer(geneformer_folder, device="cpu")
    batch = some(cells, right)
    with pytest.raises(ScircuitError, match="different lengths"):
        check_adapter(right, batch.take(np.array([1, 1])))
    with pytest.raises(ScircuitError, match="iff its role is GENE"):
        check_adapter(right, replace(batch, gene=np.roll(batch.gene, 1, axis=1)))
    states = bert_states(geneformer_folder, batch)
    with pytest.raises(ScircuitError, match="leave the embeddings out"):
        check_adapter(right, batch, [states[0], *states])
    with pytest.raises(ScircuitError, match="lacks members"):
        check_adapter(object(), batch)
    assert isinstance(Wrong(right), FoundationModel)
