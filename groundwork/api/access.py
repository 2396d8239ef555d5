"""Who may speak to the service and how much they may send, decided before a request is parsed."""

from __future__ import annotations

import hmac
import ipaddress

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domains.contract import GroundworkError

OPEN_PATHS = frozenset({"/healthz"})
"""Answered without the key: a supervisor that asks whether the process lives knows no secret."""


def check_exposure(host: str, api_key: str | None) -> None:
    """Raises GroundworkError when other machines could reach ``host`` and no key protects it."""
    if not api_key and not is_loopback(host):
        raise GroundworkError(
            f"{host} can be reached from other machines: set GROUNDWORK_API_KEY to a secret of yours, "
            "or use --host 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def presents_key(headers: Headers, api_key: str) -> bool:
    """Whether ``Authorization: Bearer`` or ``X-API-Key`` holds the key."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    offered = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    return hmac.compare_digest(offered.encode(), api_key.encode())


class Guard:
    """ASGI middleware: the key, or without one a loopback Host, and the size of the body.

    The Host is checked because a web page can point a name of its own at 127.0.0.1 and then read what
    a service without a key answers to the visitor's browser (DNS rebinding).
    """

    def __init__(
        self, app: ASGIApp, *, api_key: str | None, max_request_bytes: int, max_upload_bytes: int
    ) -> None:
        self.app = app
        self.api_key = api_key
        self.max_request_bytes = max_request_bytes
        self.max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self.max_upload_bytes if scope["method"] == "PUT" else self.max_request_bytes
        refusal = self._refusal(scope["path"], headers, limit)
        if refusal is None:
            await self.app(scope, _limited(receive, limit), send)
        else:
            await refusal(scope, receive, send)

    def _refusal(self, path: str, headers: Headers, limit: int) -> JSONResponse | None:
        if self.api_key and path not in OPEN_PATHS and not presents_key(headers, self.api_key):
            return JSONResponse(
                {"error": "an API key is needed: send the header Authorization: Bearer KEY"},
                401,
                {"WWW-Authenticate": "Bearer"},
            )
        if not self.api_key and not is_loopback(_hostname(headers.get("host", ""))):
            return JSONResponse(
                {"error": "without GROUNDWORK_API_KEY only 127.0.0.1 and localhost are answered"},
                400,
            )
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            return JSONResponse({"error": _too_large(limit)}, 413, {"Connection": "close"})
        return None


def _limited(receive: Receive, limit: int) -> Receive:
    """``receive`` that counts the body while it streams in: a declared length may be absent or a lie."""
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, _too_large(limit), {"Connection": "close"})
        return message

    return counted


def _too_large(limit: int) -> str:
    return f"the request is larger than {limit / 2**20:g} MiB; send it in parts"


def _hostname(header: str) -> str:
    """``[::1]:8000`` -> ``::1``, ``localhost:8000`` -> ``localhost``."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
