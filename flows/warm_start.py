"""Where a retraining begins: with the weights of the champion, and the rows that were held out for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from domains.contract import SplitSpec, Target
from domains.splits import CannotExtend
from flows.heldout import HeldOut, held_out_for
from models.encoder import Encoder
from models.predictor import Predictor
from models.registry import Version, fetch
from models.tuning import TaskModel


@dataclass(frozen=True)
class WarmStart:
    """A version that another one goes on from."""

    version: Version
    predictor: Predictor
    held_out: HeldOut | None

    @classmethod
    def load(cls, version: Version) -> WarmStart:
        """Fetch a version with what was held out for it. Raises GroundworkError where it cannot be read."""
        return cls(version, Predictor.load(fetch(version)), held_out_for(version))

    @property
    def foundation(self) -> str:
        """What the version itself began with, for where one cannot go on from it."""
        return self.predictor.contract.lineage.foundation

    def sides(self, spec: SplitSpec) -> Mapping[str, str]:
        """Side of each identity of the version's split. Raises CannotExtend where ``spec`` divides otherwise.

        The seed may differ: it only decides where new groups go.
        """
        task = self.predictor.contract.task
        if self.held_out is None:
            raise CannotExtend("which rows were held out for it is no longer known")
        if task is None or task.split.method != spec.method:
            raise CannotExtend(f"it was not made by the method {spec.method!r}")
        if task.split.fractions != spec.fractions:
            raise CannotExtend("other fractions were held out for it")
        return self.held_out.sides

    def model(self, member: int) -> Encoder | TaskModel:
        """The version's model that a member of the new version goes on from."""
        return self.predictor.models[member % len(self.predictor.models)]

    def hand_on_head(self, model: TaskModel, member: int) -> bool:
        """Give ``model`` the version's head and scaling, where it predicts the same; whether it does."""
        former = self.model(member)
        if not isinstance(former, TaskModel) or former.linear_head != model.linear_head:
            return False
        if (former.computed is None) != (model.computed is None):
            return False
        if [_predicted(target) for target in former.targets] != [_predicted(it) for it in model.targets]:
            return False
        model.head.load_state_dict(former.head.state_dict())
        if model.computed is not None and former.computed is not None:
            model.computed.load_state_dict(former.computed.state_dict())
        model.mean.copy_(former.mean)
        model.scale.copy_(former.scale)
        return True


def _predicted(target: Target) -> tuple[str, str, str, tuple[str, ...], str, str]:
    return target.name, target.kind, target.level, target.classes, target.transform, target.unit
