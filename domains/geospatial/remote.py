"""Rasters at web addresses: which hosts may be asked, where an address leads, and what is there."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx

from domains.contract import GroundworkError, digest_of

MOST_REDIRECTS = 5
SECONDS = 30.0
"""Without an answer from a host."""
GDAL_OPTIONS = {
    # GDAL would look for files beside the one that is named.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_TIMEOUT": str(int(SECONDS)),
}


def is_url(text: str) -> bool:
    """Whether a text is a web address."""
    return text.startswith(("http://", "https://"))


def without_query(url: str) -> str:
    """An address without what follows ``?``, which may be a key that is nobody else's business."""
    return urlunsplit(urlsplit(url)._replace(query="", fragment=""))


def suffix_of(path: str) -> str:
    """Suffix of a file or of an address, in lower case."""
    name = (urlsplit(path).path if is_url(path) else path).rpartition("/")[2]
    return f".{name.rpartition('.')[2]}".lower() if "." in name else ""


def check_host(url: str, hosts: Collection[str] | None) -> None:
    """Raises GroundworkError unless ``url`` is on one of ``hosts`` (``name``, ``name:port``); None is any."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise GroundworkError(f"{url[:100]!r} is no web address: it must start with https://")
    if parts.username or parts.password:
        raise GroundworkError("an address with a name and a password in it is not read: leave them out")
    if hosts is None or parts.hostname in hosts or parts.netloc in hosts:
        return
    declared = ", ".join(sorted(hosts)) or "none"
    raise GroundworkError(
        f"{parts.netloc} is not among the hosts that may be asked ({declared}): whoever runs the service "
        "adds it to GROUNDWORK_HOSTS"
    )


@dataclass(frozen=True)
class Remote:
    """A file behind an address."""

    url: str
    """Where it lies in the end."""
    size: int
    version: str
    """Digest of the address and of what the host says of the content: its tag, date and size."""


def locate(url: str, hosts: Collection[str] | None) -> Remote:
    """Follow an address to a file whose parts can be asked for.

    Each host on the way must be one of ``hosts``. Raises GroundworkError where one is not, where there is no
    such file, and for a host that gives files only whole.
    """
    with _followed(url, hosts, {"Range": "bytes=0-0"}) as (url, answer):
        if answer.status_code == httpx.codes.OK:
            raise GroundworkError(
                f"{_shown(url)}: its host gives files only whole, not in parts (HTTP ranges): download it"
            )
        size = answer.headers.get("content-range", "").rpartition("/")[2]
        if answer.status_code != httpx.codes.PARTIAL_CONTENT or not size.isdigit():
            raise GroundworkError(f"{_shown(url)}: {_status(answer)}")
        said = [answer.headers.get(name, "") for name in ("etag", "last-modified")]
        return Remote(url, int(size), digest_of([without_query(url), *said, size]))


def fetch(url: str, hosts: Collection[str] | None, largest: int) -> bytes:
    """A small document of at most ``largest`` bytes; errors as ``locate``."""
    with _followed(url, hosts, {}) as (url, answer):
        if answer.status_code != httpx.codes.OK:
            raise GroundworkError(f"{_shown(url)}: {_status(answer)}")
        content = bytearray()
        for part in answer.iter_bytes():
            content += part
            if len(content) > largest:
                raise GroundworkError(f"{_shown(url)} is larger than {largest >> 20} MiB")
        return bytes(content)


@contextmanager
def _followed(
    url: str, hosts: Collection[str] | None, headers: dict[str, str]
) -> Iterator[tuple[str, httpx.Response]]:
    """Where an address leads in the end, and the answer there."""
    for _ in range(MOST_REDIRECTS + 1):
        check_host(url, hosts)
        with _asked(url, headers) as answer:
            if not answer.is_redirect:
                yield url, answer
                return
            url = urljoin(url, answer.headers["location"])
    raise GroundworkError(f"{_shown(url)}: more than {MOST_REDIRECTS} redirections")


@contextmanager
def _asked(url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
    """The answer to a GET, whose body is not read yet; what goes wrong on the way is one line."""
    try:
        with httpx.stream("GET", url, headers=headers, timeout=SECONDS, follow_redirects=False) as answer:
            yield answer
    except httpx.HTTPError as error:
        raise GroundworkError(f"{_shown(url)} cannot be reached: {error}") from error


def _status(answer: httpx.Response) -> str:
    meant = {404: "there is nothing", 401: "a key is needed", 403: "it may not be read"}
    return f"{meant.get(answer.status_code, 'its host answers')} (HTTP {answer.status_code})"


def _shown(url: str) -> str:
    return without_query(url)[:200]
