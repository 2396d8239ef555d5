"""What the service asks of the model registry, and the real one, imported when it is first asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from domains.contract import GroundworkError

if TYPE_CHECKING:
    from models.history import Entry
    from models.predictor import Predictor
    from models.registry import Version

MAX_TORCH_THREADS = 8


class NotRegistered(GroundworkError):
    """No model, version or alias of that name is registered."""


class Registry(Protocol):
    """Blocking calls, made from threads. All raise NotRegistered for what there is not."""

    def names(self) -> list[str]:
        """Every registered name."""
        ...

    def versions(self, name: str) -> list[Version]:
        """Versions of a name, newest first."""
        ...

    def history(self, name: str) -> list[Entry]:
        """Decisions on a name, newest first."""
        ...

    def resolve(self, reference: str) -> Version:
        """The version that ``name@alias`` or ``name/number`` names now."""
        ...

    def load(self, version: Version) -> Predictor:
        """Fetch a version and bring it into memory. Raises GroundworkError when that fails."""
        ...


class MlflowRegistry:
    """``models.registry`` behind the protocol.

    It is imported inside the calls: torch and MLflow take seconds to import, in which the service would
    not answer, and which the services that start beside it need themselves.
    """

    def names(self) -> list[str]:
        from models import registry

        return registry.names()

    def versions(self, name: str) -> list[Version]:
        from models import registry

        try:
            return registry.versions(name)
        except registry.UnknownModel as error:
            raise NotRegistered(str(error)) from error

    def history(self, name: str) -> list[Entry]:
        from models import registry

        try:
            return registry.history(name)
        except registry.UnknownModel as error:
            raise NotRegistered(str(error)) from error

    def resolve(self, reference: str) -> Version:
        from models import registry

        try:
            return registry.resolve(reference)
        except registry.UnknownModel as error:
            raise NotRegistered(str(error)) from error

    def load(self, version: Version) -> Predictor:
        import torch

        from models import registry
        from models.predictor import Predictor

        # Batches are small: beyond a few cores the threads wait for each other longer than they compute.
        torch.set_num_threads(min(torch.get_num_threads(), MAX_TORCH_THREADS))
        return Predictor.load(registry.fetch(version))
