"""The ablation of pretraining targets leaves out what it says, and tells what that costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import ablation, pretraining_targets
from benchmarks.molecules import encode_all
from domains.molecules import MOLECULES


@pytest.fixture
def labelled(molecules: list[str], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    samples = encode_all(molecules[:140], describe=True)
    atoms = np.array([len(sample["atoms"]) for sample in samples], float)
    monkeypatch.setattr(pretraining_targets, "_labelled", lambda: (samples, atoms))
    for name, value in {"LABELLED": 60, "HELD_OUT": 60, "TO_CHOOSE_BY": 12, "TUNING_EPOCHS": 1}.items():
        monkeypatch.setattr(pretraining_targets, name, value)
    return samples


def test_an_arm_is_trained_on_what_is_left(labelled: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[set[str]] = []

    def watched(model: Any, *rest: Any) -> None:
        learnt.append({target.name for target in model.targets})
        ablation.pretrain(model, *rest)

    monkeypatch.setattr(pretraining_targets, "pretrain", watched)
    known = {target.name for target in MOLECULES.pretraining_targets(MOLECULES.encoding())}
    assert all(set(left_out) <= known for left_out in pretraining_targets.LEFT_OUT.values())
    for arm in ("no_descriptors", "masks_alone", "untrained"):
        found = pretraining_targets.ablate(arm, lambda seed: labelled[:64], 0, 1)
        # The number of atoms is what a sum over them tells at once.
        assert found["frozen_r2"] > 0.5
        assert -9 < found["tuned_r2"] <= 1
    assert learnt == [known - {"descriptors"}, known - {"descriptors", "fingerprint"}]


def test_losses_are_paired_by_seed() -> None:
    whole = [{"frozen_r2": 0.8 + noise, "tuned_r2": 0.9} for noise in (0.0, 0.1, -0.1)]
    less = [
        {"frozen_r2": line["frozen_r2"] - 0.02 - 0.001 * place, "tuned_r2": 0.9}
        for place, line in enumerate(whole)
    ]
    told = ablation.summary({"all": whole, "no_masks": less}, pretraining_targets.FIGURES)
    assert told["all"] == {"frozen_r2": 0.8, "tuned_r2": 0.9}
    assert told["no_masks"]["frozen_r2_lost"] == pytest.approx(0.021)
    assert told["no_masks"]["frozen_r2_p"] < 0.01
