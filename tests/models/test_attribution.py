"""What each atom adds to an answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import LOGP, MOLECULES, PHASE, SIZES, SPEC, TOXIC, samples_of, small_encoder, task_model

from domains.contract import GroundworkError, Target
from models.encoder import Encoder
from models.molecules.attribution import attribute_atoms
from models.tuning import TaskModel

CAFFEINE = "Cn1c(=O)c2c(ncn2C)n(C)c1=O"
PHENOL = "Oc1ccccc1"


def grown(*targets: Target, seed: int = 0) -> TaskModel:
    """A model whose answers move: as initialised, embeddings and head are almost flat."""
    model = task_model(*targets, seed=seed)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "embedding" in name:
                weights.mul_(20)
    if targets[0].kind == "regression":
        model.fit_scaling(np.array([[-2.0], [0.0], [5.0]]))
    return model


def answer_of(model: TaskModel, smiles: str) -> np.ndarray:
    encoder = model.encoder
    assert isinstance(encoder, Encoder)
    with torch.no_grad():
        return model(encoder.collate(samples_of([smiles])))["logits"][0].numpy()


@pytest.mark.parametrize("smiles", [CAFFEINE, PHENOL, "C", "[Na+].[Cl-]", "C[C@H](N)C(=O)O"])
@pytest.mark.parametrize("target", [LOGP, TOXIC, PHASE], ids=lambda target: target.kind)
def test_attributions_add_up_to_the_difference_of_the_answers(smiles: str, target: Target) -> None:
    model = grown(target)
    [sample] = samples_of([smiles])
    found = attribute_atoms(model, sample, target)
    assert found.atoms.shape == (len(sample["atoms"]),)
    difference = found.output - found.baseline
    assert abs(difference) > 1e-3  # the sum of nothing would be met too
    assert found.atoms.sum() == pytest.approx(difference, rel=2e-3)


def test_what_is_shared_out_is_the_answer_in_the_unit_of_the_target() -> None:
    model = grown(LOGP)
    [sample] = samples_of([CAFFEINE])
    answered = float(answer_of(model, CAFFEINE)[0] * model.scale[0] + model.mean[0])
    assert attribute_atoms(model, sample, LOGP).output == pytest.approx(answered, rel=1e-5)


def test_the_most_probable_of_several_classes_is_explained_and_the_right_target() -> None:
    model = grown(LOGP, PHASE)
    [sample] = samples_of([PHENOL])
    logits = answer_of(model, PHENOL)
    assert attribute_atoms(model, sample, PHASE).output == pytest.approx(float(logits[1:].max()), rel=1e-5)
    assert attribute_atoms(model, sample, LOGP).output != pytest.approx(float(logits[1:].max()), rel=1e-5)


def test_atoms_that_are_alike_add_alike() -> None:
    model = grown(TOXIC)
    atoms = attribute_atoms(model, samples_of(["CCCC"])[0], TOXIC).atoms
    np.testing.assert_allclose(atoms, atoms[::-1], rtol=1e-3)  # the ends are alike, and so are the middles
    assert abs(atoms[0] - atoms[1]) > 1e-6


def test_what_the_head_sees_beside_the_embedding_stays() -> None:
    computed = tuple(MOLECULES.computed(SPEC))
    model = TaskModel(small_encoder(), [LOGP], linear_head=False, computed=computed).eval()
    torch.nn.init.normal_(model.head.from_computed.weight)
    [sample] = samples_of([CAFFEINE], described=True)
    found = attribute_atoms(model, sample, LOGP)
    assert found.atoms.sum() == pytest.approx(found.output - found.baseline, rel=2e-3)


def test_a_large_molecule_is_answered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = grown(PHASE)
    [sample] = samples_of([CAFFEINE])
    whole = attribute_atoms(model, sample, PHASE)
    monkeypatch.setattr("models.molecules.attribution.PAIRS", 1)
    parts = attribute_atoms(model, sample, PHASE)
    np.testing.assert_allclose(parts.atoms, whole.atoms, rtol=1e-4, atol=1e-5)
    assert (parts.output, parts.baseline) == pytest.approx((whole.output, whole.baseline), rel=1e-5)


def test_the_order_of_the_atoms_does_not_matter() -> None:
    model = grown(LOGP)
    forward, backward = (
        attribute_atoms(model, samples_of([smiles])[0], LOGP).atoms for smiles in ("OCCN", "NCCO")
    )
    np.testing.assert_allclose(forward, backward[::-1], rtol=1e-3, atol=1e-6)


def test_the_model_is_left_as_it_was() -> None:
    model = grown(TOXIC).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attribute_atoms(model, samples_of([PHENOL])[0], TOXIC)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(not module._forward_hooks for module in model.modules())


def test_only_molecules_have_atoms() -> None:
    from models.encoder import Embeddings, EncoderConfig

    class Dense(Encoder):
        config_class = EncoderConfig

        def forward(self, batch: dict[str, torch.Tensor]) -> Embeddings:
            raise NotImplementedError

    model = TaskModel(Dense(EncoderConfig(hidden_size=SIZES["hidden_size"])), [LOGP], linear_head=True)
    with pytest.raises(GroundworkError, match="only models of molecules"):
        attribute_atoms(model, samples_of(["CC"])[0], LOGP)
