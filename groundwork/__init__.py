"""Groundwork: foundation models of molecules and satellite rasters, on your own machine.

Importing this package is cheap: it pulls in neither torch nor the other rooms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groundwork.client import Client, ServiceError

__version__ = "0.1.0"
__all__ = ["Client", "ServiceError"]


def __getattr__(name: str) -> Any:
    # The launcher and the service import this package too, and have no use for the client.
    if name in __all__:
        from groundwork import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
