import pytest
import torch

from scircuit.errors import ScircuitError
from scircuit.models.load import load_model
from scircuit.models.untrained import untrain


def weights(model):
    return {name: weight.clone() for name, weight in model.named_parameters() if weight.numel() > 1}


@pytest.mark.parametrize("way", ["redrawn", "permuted"])
def test_an_untrained_copy_keeps_shapes_and_spreads(geneformer_folder, way):
    trained, model = (load_model(geneformer_folder, device="cpu") for _ in range(2))
    before = weights(trained)
    untrain(model, way, seed=1)
    assert model.fingerprint != trained.fingerprint
    for name, weight in weights(model).items():
        old = before[name]
        if way == "permuted":
            torch.testing.assert_close(weight.flatten().sort().values, old.flatten().sort().values, rtol=0, atol=0)
        elif weight.numel() > 1000:
            error = old.std() / weight.numel() ** 0.5
            assert abs(weight.mean() - old.mean()) < 5 * error, name
            assert abs(weight.std() / old.std() - 1) < 0.1, name
        if old.std() > 0:
            assert not torch.equal(weight, old), name


def test_the_seed_decides_and_trained_is_left_alone(geneformer_folder):
    first, again, other, own = (load_model(geneformer_folder, device="cpu") for _ in range(4))
    for model, seed in ((first, 1), (again, 1), (other, 2)):
        untrain(model, "redrawn", seed)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert torch.equal(first.blocks[0].up.weight, again.blocks[0].up.weight)
    before = own.fingerprint
    untrain(own, "trained")
    assert own.fingerprint == before


def test_what_cannot_be_drawn_anew_is_refused(geneformer_folder):
    model = load_model(geneformer_folder, device="cpu")
    with pytest.raises(ScircuitError, match="it may be trained, redrawn, permuted"):
        untrain(model, "random")

    class Hidden:
        name = "hidden"

    with pytest.raises(ScircuitError, match="shows no torch module"):
        untrain(Hidden(), "redrawn")
