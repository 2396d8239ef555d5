"""The molecular encoder sees the molecule and nothing else: not its spelling, nor its neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from small_models import AS_WRITTEN, MOLECULES, SPEC, embed, samples_of, small_encoder
from transformers import AutoModel

from models.molecules.graph_transformer import GraphTransformer, GraphTransformerConfig
from models.pretraining import PretrainingModel

STEREO = (
    "C[C@H](N)C(=O)O",
    "C/C=C/C(=O)O",
    "OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O",
    "CN1CC[C@]23c4c5ccc(O)c4O[C@H]2[C@@H](O)C=C[C@H]3[C@H]1C5",
    "C[C@]12CC[C@H]3[C@@H](CCC4=CC(=O)CC[C@]34C)[C@@H]1CC[C@@H]2O",
    "CC(C)=CCC/C(C)=C/CO",
    "O=C(O)/C=C\\C(=O)O",
    "C[N+](C)(C)CC(=O)[O-]",
    "[Na+].[Cl-].CC(=O)Oc1ccccc1C(=O)O",
)
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def encoder() -> GraphTransformer:
    return small_encoder()


@pytest.mark.parametrize("smiles", STEREO)
def test_spelling_changes_nothing(encoder: GraphTransformer, smiles: str) -> None:
    spellings = Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(smiles), 8, randomSeed=3)
    assert len(set(spellings)) > 1
    embedded = embed(encoder, [smiles, *spellings])
    np.testing.assert_allclose(embedded[1:], np.repeat(embedded[:1], 8, 0), atol=TOLERANCE)


def test_spelling_changes_nothing_for_real_compounds(encoder: GraphTransformer, molecules: list[str]) -> None:
    respelt = [
        Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(smiles), 1, randomSeed=place)[0]
        for place, smiles in enumerate(molecules)
    ]
    np.testing.assert_allclose(embed(encoder, molecules), embed(encoder, respelt), atol=TOLERANCE)


def test_batch_mates_and_padding_change_nothing(encoder: GraphTransformer, molecules: list[str]) -> None:
    together = embed(encoder, [*molecules[:20], "C" * 200])
    alone = np.concatenate([embed(encoder, [smiles]) for smiles in molecules[:20]])
    np.testing.assert_allclose(together[:20], alone, atol=TOLERANCE)


def test_tokens_beyond_a_molecule_are_zero_and_masked(encoder: GraphTransformer) -> None:
    batch = encoder.collate(samples_of(["CCO", "CCCCCC"]))
    with torch.no_grad():
        tokens, _, mask = encoder(batch)
    assert tokens.shape == (2, 6, 32)
    assert mask.sum(1).tolist() == [3, 6]
    assert not tokens[~mask].any()
    assert tokens[mask].abs().sum(-1).min() > 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"),
        ("O=C(O)/C=C/C(=O)O", "O=C(O)/C=C\\C(=O)O"),
        ("CCO", "CCN"),
        ("CC(=O)[O-]", "CC(=O)O"),
        ("C1CCCCC1", "C1CC1.C1CC1"),
        ("c1ccccc1CC", "c1ccc(C)cc1C"),
        ("CCO", "CCO.CCO"),
    ],
)
def test_different_molecules_embed_differently(encoder: GraphTransformer, one: str, other: str) -> None:
    first, second = embed(encoder, [one, other], AS_WRITTEN)
    assert np.abs(first - second).max() > 100 * TOLERANCE


@pytest.mark.parametrize("smiles", ["C", "[Na+].[Cl-]", "CCO.c1ccccc1.[K+].O", "CC(C)" * 100, "C1CC1" * 60])
def test_any_size_and_number_of_fragments(encoder: GraphTransformer, smiles: str) -> None:
    alone = embed(encoder, [smiles], AS_WRITTEN)
    assert np.isfinite(alone).all()
    np.testing.assert_allclose(embed(encoder, ["CCO", smiles], AS_WRITTEN)[1:], alone, atol=TOLERANCE)


def test_every_parameter_learns_in_pretraining(molecules: list[str]) -> None:
    encoder = small_encoder().train()
    model = PretrainingModel(encoder, MOLECULES.pretraining_targets(SPEC), mask_ratio=0.4)
    samples = samples_of(molecules[:32], described=True)
    model.fit_scaling(samples)
    torch.manual_seed(0)
    model(encoder.collate(samples))["loss"].backward()
    idle = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not idle


def hide(
    encoder: GraphTransformer, batch: dict[str, torch.Tensor], names: tuple[str, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and targets of what the same draw hides, whatever the codes are."""
    targets = [target for target in MOLECULES.pretraining_targets(SPEC) if target.name in names]
    with torch.no_grad():
        masked = encoder.masked_forward(batch, targets, 0.5, torch.Generator().manual_seed(5))
    return masked.features[names[0]], masked.targets[names[0]]


@pytest.mark.parametrize("field", range(len(MOLECULES.ATOM_FIELDS)))
def test_hidden_atoms_are_hidden(encoder: GraphTransformer, field: int) -> None:
    batch = encoder.collate(samples_of(["CCOC(=O)c1ccccc1N", "CN1CCCC1c1cccnc1"]))
    features, truth = hide(encoder, batch, ("element",))
    hidden = visible = 0
    for atom in range(len(batch["atoms"])):
        marked = {**batch, "atoms": batch["atoms"].clone()}
        marked["atoms"][atom, 0] = 118
        is_hidden = not torch.equal(hide(encoder, marked, ("element",))[1], truth)
        changed = {**batch, "atoms": batch["atoms"].clone()}
        size = MOLECULES.ATOM_FIELDS[field][1]
        changed["atoms"][atom, field] = (changed["atoms"][atom, field] + 1) % size
        moved = not torch.equal(hide(encoder, changed, ("element",))[0], features)
        assert not (is_hidden and moved)
        hidden += is_hidden
        visible += moved
    assert hidden == len(truth) > 0
    assert visible > 0


def test_hidden_bonds_are_hidden(encoder: GraphTransformer) -> None:
    batch = encoder.collate(samples_of(["CCOC(=O)c1ccccc1N", "CN1CCCC1c1cccnc1"]))
    features, truth = hide(encoder, batch, ("bond",))
    half = len(batch["bond_codes"]) // 2
    hidden = visible = 0
    for bond in range(half):
        marked = {**batch, "bond_codes": batch["bond_codes"].clone()}
        marked["bond_codes"][[bond, bond + half], 0] = 4
        moved_features, moved_truth = hide(encoder, marked, ("bond",))
        is_hidden = not torch.equal(moved_truth, truth)
        moved = not torch.equal(moved_features, features)
        assert not (is_hidden and moved)
        hidden += is_hidden
        visible += moved
    assert hidden == len(truth) > 0
    assert visible > 0


def test_sample_targets_are_learnt_from_whole_molecules(encoder: GraphTransformer) -> None:
    """What a sample-level target is scored on is the embedding that the encoder will serve."""
    samples = samples_of(["CCO", "CCN", "c1ccccc1", "CC(=O)O", "CCCC", "OCC"], described=True)
    batch = encoder.collate(samples)
    targets = MOLECULES.pretraining_targets(SPEC)
    [target] = [target for target in targets if target.name == "descriptors"]
    with torch.no_grad():
        masked = encoder.masked_forward(batch, [target], 0.9, torch.Generator().manual_seed(1))
        pooled = encoder(batch).pooled
    features, truth = masked.features["descriptors"], masked.targets["descriptors"]
    assert 0 < len(features) < 6
    for feature, values in zip(features, truth, strict=True):
        [place] = torch.nonzero((batch["descriptors"] == values).all(1) | (values.isnan().all())).T[0][:1]
        torch.testing.assert_close(feature, pooled[place], atol=TOLERANCE, rtol=0)


def test_saved_and_loaded_it_is_the_same(encoder: GraphTransformer, tmp_path: Path) -> None:
    unusual = small_encoder(walk_length=5)
    unusual.save_pretrained(tmp_path)
    loaded = GraphTransformer.from_pretrained(tmp_path).eval()
    assert loaded.config.to_diff_dict() == unusual.config.to_diff_dict()
    np.testing.assert_array_equal(embed(loaded, STEREO), embed(unusual, STEREO))
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_a_saved_configuration_keeps_its_alphabets(tmp_path: Path) -> None:
    """Codes mean what they meant when the weights were learnt, whatever the defaults become."""
    GraphTransformerConfig().save_pretrained(tmp_path)
    written = (tmp_path / "config.json").read_text()
    assert '"atom_fields"' in written
    assert '"bond_fields"' in written


def test_alphabets_are_the_domains() -> None:
    config = GraphTransformerConfig()
    assert [tuple(field) for field in config.atom_fields] == list(MOLECULES.ATOM_FIELDS)
    assert [tuple(field) for field in config.bond_fields] == list(MOLECULES.BOND_FIELDS)


def test_extreme_codes_have_an_embedding(encoder: GraphTransformer) -> None:
    sizes = [size for _, size in MOLECULES.ATOM_FIELDS]
    atoms = np.array([[size - 1 for size in sizes], [0] * len(sizes)], np.uint8)
    sample = {
        "atoms": atoms,
        "bonds": np.array([[0, 1]], np.uint16),
        "bond_codes": np.array([[size - 1 for _, size in MOLECULES.BOND_FIELDS]], np.uint8),
    }
    with torch.no_grad():
        assert torch.isfinite(encoder(encoder.collate([sample])).pooled).all()


def test_transformers_knows_it_by_its_name(tmp_path: Path) -> None:
    small_encoder().save_pretrained(tmp_path)
    assert isinstance(AutoModel.from_pretrained(tmp_path), GraphTransformer)
