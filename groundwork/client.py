"""The service from Python: ``from groundwork import Client``."""

from __future__ import annotations

import base64
import mimetypes
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from domains.contract import GroundworkError

INPUTS_PER_REQUEST = 10_000
"""What a service accepts by default; longer lists are sent in parts."""
TEXT_PER_REQUEST = 32 * 2**20
"""Characters of the inputs that are sent together: images are large, and a service takes 64 MiB."""
LARGEST_FILE = 24 * 2**20
"""Bytes of a file that is sent as one input."""


class ServiceError(GroundworkError):
    """The service refused or could not be reached; the message says why in one line."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status, or None when no answer came."""


class Client:
    """Speaks to a running service.

    Args:
        url: where it runs.
        api_key: needed when the service was started with one.
        timeout: seconds that one answer may take.
        patience: seconds for which a busy service (503 with Retry-After) is asked again.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        timeout: float = 300.0,
        patience: float = 60.0,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=httpx.Timeout(timeout, connect=5.0))
        self._patience = patience

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """Every registered name with its versions, newest first."""
        return self._ask("GET", "/v1/models")["models"]

    def datasets(self) -> list[dict[str, Any]]:
        """Every dataset that the service knows by name."""
        return self._ask("GET", "/v1/datasets")["datasets"]

    def predict(
        self, name: str, inputs: Sequence[Any], alias: str = "champion", version: int | None = None
    ) -> list[dict[str, Any]]:
        """One result for each input, in order.

        A result has ``index``, ``status`` (``ok`` or ``rejected``), ``reason`` (None unless rejected)
        and ``predictions`` by target. All results are of one version, also when another one becomes
        champion meanwhile. Raises ServiceError.

        Args:
            name: a registered name.
            inputs: values of the model's domain: SMILES strings, or images as data URIs. The file of a
                ``Path`` is read here and sent as a data URI; the service opens no paths.
            alias: which version answers.
            version: this version, whatever the aliases say.
        """
        results: list[dict[str, Any]] = []
        for part in _parts(map(_sendable, inputs)):
            start = len(results)
            answer = self._ask(
                "POST",
                f"/v1/models/{quote(name, safe='')}/predict",
                json={"inputs": part, "alias": alias, "version": version},
            )
            version = answer["model"]["version"]
            results += [{**result, "index": start + result["index"]} for result in answer["results"]]
        return results

    def upload(
        self, path: str | Path, name: str, domain: str = "molecules", **settings: str | int
    ) -> dict[str, Any]:
        """Send a file; forms and commands then know it as ``name``. Raises ServiceError.

        Args:
            path: a table, or for rasters a GeoTIFF, a NetCDF cube, or a zip archive of scenes.
            name: replaces what had that name.
            domain: what is to read it.
            settings: of that domain, where the file cannot be opened without (``sensor="hls"``).
        """
        path = Path(path)
        if path.is_dir():
            raise ServiceError(f"{path} is a folder; pack it as a zip archive")
        if not path.is_file():
            raise ServiceError(f"{path} is not a file; check the path")
        suffix = "".join(path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:])
        query = {"domain": domain, **{setting: str(value) for setting, value in settings.items()}}
        if suffix:
            query["format"] = suffix.lstrip(".")
        return self._ask("PUT", f"/v1/datasets/{quote(name, safe='')}", params=query, file=path)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, str] | None = None,
        file: Path | None = None,
    ) -> Any:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                if file is None:
                    response = self._http.request(method, path, json=json, params=params)
                else:
                    with file.open("rb") as content:
                        response = self._http.request(method, path, content=content, params=params)
            except httpx.ConnectError as error:
                raise ServiceError(
                    f"no service answers at {self._http.base_url}; start it with `groundwork up`"
                ) from error
            except httpx.HTTPError as error:
                raise ServiceError(f"the service at {self._http.base_url} broke off: {error!r}") from error
            wait = _retry_after(response)
            if response.status_code != 503 or wait is None or time.monotonic() + wait > deadline:
                break
            time.sleep(wait)
        if response.is_error:
            raise ServiceError(_problem(response), response.status_code)
        return response.json()


def _sendable(value: Any) -> Any:
    """An input as JSON can carry it: a file as a data URI."""
    if not isinstance(value, Path):
        return value
    if not value.is_file():
        raise ServiceError(f"{value} is not a file; check the path")
    if (size := value.stat().st_size) > LARGEST_FILE:
        raise ServiceError(
            f"{value} holds {size / 2**20:,.0f} MiB, and one input at most {LARGEST_FILE >> 20}: "
            "`groundwork predict` answers whole scenes"
        )
    kind = mimetypes.guess_type(value.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(value.read_bytes()).decode()}"


def _parts(inputs: Iterable[Any]) -> Iterator[list[Any]]:
    """What goes into one request each, read as it is sent."""
    part: list[Any] = []
    characters = 0
    for value in inputs:
        length = len(value) if isinstance(value, str) else 0
        if part and (len(part) == INPUTS_PER_REQUEST or characters + length > TEXT_PER_REQUEST):
            yield part
            part, characters = [], 0
        part.append(value)
        characters += length
    if part:
        yield part


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return float(response.headers["Retry-After"])
    except (KeyError, ValueError):  # absent, or a date: not worth waiting for
        return None


def _problem(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"the service answered {response.status_code} {response.reason_phrase}"
