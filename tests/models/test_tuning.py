"""What learns when an encoder is tuned."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small_models import LOGP, MOLECULES, PHASE, SPEC, TOXIC, samples_of, small_encoder, task_model

from models.encoder import parameter_count
from models.pretraining import OUTLIER
from models.tuning import TaskModel, layer_rates, merge, prepare

SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN", "CCCCCC", "OCC(O)CO"]


def batch_of(model: TaskModel, smiles: list[str] = SMILES) -> dict[str, torch.Tensor]:
    return model.encoder.collate(samples_of(smiles))


def test_scaling_is_that_of_the_measured_labels() -> None:
    model = task_model(LOGP, TOXIC)
    model.fit_scaling(np.array([[10.0, 1], [14.0, 0], [np.nan, 1]]))
    assert model.mean.tolist() == [12, 0]
    assert model.scale.tolist() == [2, 1]
    logits = torch.tensor([[0.5, 0.0]])
    assert model.outputs(logits).tolist() == [[13.0, 0.5]]


def test_gaps_do_not_reach_the_gradient() -> None:
    model = task_model(LOGP, TOXIC, PHASE)
    logits = torch.randn(3, 5, requires_grad=True)
    labels = torch.tensor([[1.0, np.nan, 2], [np.nan, 1, np.nan], [np.nan, np.nan, np.nan]])
    model.loss(logits, labels).backward()
    touched = logits.grad != 0
    assert touched.tolist() == [
        [True, False, True, True, True],
        [False, True, False, False, False],
        [False, False, False, False, False],
    ]


def test_a_batch_without_labels_costs_nothing() -> None:
    model = task_model(LOGP)
    logits = torch.randn(3, 1, requires_grad=True)
    loss = model.loss(logits, torch.full((3, 1), np.nan))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_each_target_counts_the_same_however_many_labels_it_has() -> None:
    model = task_model(LOGP, LOGP)
    labels = torch.tensor([[1.0, 3.0]] + [[1.0, np.nan]] * 9)
    assert model.loss(torch.zeros(10, 2), labels).item() == pytest.approx((0.5 + 2.5) / 2)


def test_outputs_are_probabilities_and_values_in_units() -> None:
    model = task_model(PHASE, LOGP, TOXIC)
    model.fit_scaling(np.array([[0, 100.0, 1], [1, 300.0, 0]]))
    with torch.no_grad():
        outputs = model.outputs(model(batch_of(model))["logits"])
    assert outputs.shape == (len(SMILES), 5)
    torch.testing.assert_close(outputs[:, :3].sum(1), torch.ones(len(SMILES)))
    assert (outputs[:, 3] - 200).abs().max() < 500
    assert ((outputs[:, 4] > 0) & (outputs[:, 4] < 1)).all()


def learn(model: TaskModel, steps: int = 5) -> None:
    batch = batch_of(model)
    labels = torch.tensor([[0.1], [2.1], [-0.2], [0.0], [3.4], [-1.7]])
    model.fit_scaling(labels.numpy())
    learnable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learnable, lr=1e-2)
    model.train()
    for _ in range(steps):
        optimiser.zero_grad()
        model(batch, labels)["loss"].backward()
        optimiser.step()
    model.eval()


def test_a_probe_leaves_the_encoder_bit_by_bit_as_it_was() -> None:
    model = task_model(LOGP, linear_head=True)
    before = copy.deepcopy(model.encoder.state_dict())
    head = copy.deepcopy(model.head.state_dict())
    prepare(model, "probe", lora_rank=4)
    assert parameter_count(model, trainable_only=True) == parameter_count(model.head)
    learn(model)
    merge(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.encoder.state_dict().items())
    assert any(not torch.equal(head[name], tensor) for name, tensor in model.head.state_dict().items())


def test_full_tuning_moves_the_encoder() -> None:
    model = task_model(LOGP)
    before = copy.deepcopy(model.encoder.state_dict())
    prepare(model, "full", lora_rank=4)
    assert parameter_count(model, trainable_only=True) == parameter_count(model)
    learn(model)
    moved = [
        name for name, tensor in model.encoder.state_dict().items() if not torch.equal(before[name], tensor)
    ]
    assert len(moved) > 0.8 * len(dict(model.encoder.named_parameters()))


def test_lora_learns_few_weights_and_merges_into_the_same_outputs() -> None:
    model = task_model(LOGP)
    whole = parameter_count(model.encoder)
    names = set(model.encoder.state_dict())
    batch = batch_of(model)
    with torch.no_grad():
        untouched = model(batch)["logits"]
    prepare(model, "lora", lora_rank=2)
    with torch.no_grad():
        torch.testing.assert_close(model(batch)["logits"], untouched)
    assert parameter_count(model, trainable_only=True) - parameter_count(model.head) < 0.25 * whole
    frozen = copy.deepcopy(
        {name: value for name, value in model.encoder.named_parameters() if not value.requires_grad}
    )
    learn(model)
    assert all(torch.equal(frozen[name], dict(model.encoder.named_parameters())[name]) for name in frozen)
    with torch.no_grad():
        tuned = model(batch)["logits"]
        merge(model)
        torch.testing.assert_close(model(batch)["logits"], tuned, atol=1e-5, rtol=1e-5)
    assert (tuned - untouched).abs().max() > 1e-3
    assert set(model.encoder.state_dict()) == names
    assert all(parameter.requires_grad for parameter in model.encoder.parameters())


def test_a_model_is_prepared_once() -> None:
    model = task_model(LOGP)
    prepare(model, "lora", lora_rank=2)
    with pytest.raises(TypeError, match="prepared already"):
        prepare(model, "lora", lora_rank=2)


def computed_model(*, linear: bool = False) -> TaskModel:
    model = TaskModel(small_encoder(), [LOGP], linear_head=linear, computed=tuple(MOLECULES.computed(SPEC)))
    assert model.computed is not None
    model.computed.fit(samples_of(SMILES, described=True))
    return model.eval()


def test_computed_features_are_standardised_and_gaps_are_at_the_mean() -> None:
    model = computed_model()
    batch = model.encoder.collate(samples_of(SMILES, described=True))
    features = model.computed(batch)
    assert features.shape == (len(SMILES), model.computed.size)
    assert features.mean(0).abs().max() < 1e-3
    assert features.abs().max() <= OUTLIER
    batch["descriptors"][0, 0] = np.nan
    assert model.computed(batch)[0, 0] == 0
    # A property that no training molecule has shown says nothing later.
    constant = torch.isinf(model.computed.scale)
    assert constant.any()
    unseen = model.computed(model.encoder.collate(samples_of(["[Na+].[Cl-]"], described=True)))
    assert not unseen[:, constant].any()


@pytest.mark.parametrize("linear", [False, True])
def test_a_head_begins_with_the_embedding_and_learns_what_computed_features_tell(linear: bool) -> None:
    model = computed_model(linear=linear)
    batch = model.encoder.collate(samples_of(SMILES, described=True))
    plain = model.head(model.encoder(batch).pooled, torch.zeros(len(SMILES), model.computed.size))
    torch.testing.assert_close(model(batch)["logits"], plain)
    labels = torch.tensor([[float(len(smiles))] for smiles in SMILES])
    model(batch, labels)["loss"].backward()
    assert model.head.from_computed.weight.grad.abs().sum() > 0


def test_linear_head_is_one_layer_over_normalised_embeddings() -> None:
    model = task_model(LOGP, linear_head=True)
    batch = batch_of(model)
    pooled = model.encoder(batch).pooled
    head = model.head
    expected = head.norm(pooled) @ head.from_embedding.weight.T + head.from_embedding.bias
    torch.testing.assert_close(model(batch)["logits"], expected)


def test_a_prediction_beyond_a_bound_costs_nothing() -> None:
    model = task_model(LOGP)
    labels, signs = torch.full((4, 1), 2.0), torch.tensor([[1], [1], [-1], [-1]], dtype=torch.int8)
    logits = torch.tensor([[3.0], [1.0], [1.0], [3.0]], requires_grad=True)
    loss = model.loss(logits, labels, signs)
    loss.backward()
    assert loss.item() == pytest.approx((0 + 0.5 + 0 + 0.5) / 4)
    assert (logits.grad.flatten() != 0).tolist() == [False, True, False, True]
    assert model.loss(logits, labels).item() == pytest.approx(0.5)


def test_the_deeper_a_layer_the_less_it_learns() -> None:
    model = task_model(LOGP)
    rates = layer_rates(model, 0.5)
    assert rates.keys() == dict(model.named_parameters()).keys()
    assert {rate for name, rate in rates.items() if name.startswith("head.")} == {1.0}
    assert rates["encoder.read_out.weight"] == rates["encoder.norm.bias"] == 0.5
    layers = len(model.encoder.blocks)
    by_layer = [rates[f"encoder.blocks.{layer}.mixing_norm.weight"] for layer in range(layers)]
    assert by_layer == [0.5 ** (1 + layers - layer) for layer in range(layers)]
    assert rates["encoder.atom_embedding.table.weight"] == 0.5 ** (2 + layers)
    assert set(layer_rates(model, 1.0).values()) == {1.0}
