"""A folder on the web, as an object store serves it: parts of files, tags of content, redirections."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class Web(ThreadingHTTPServer):
    """Serves ``folder``. ``/to?there=URL`` redirects; ``/whole/…`` knows no parts."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        web: Web = self.server  # type: ignore[assignment]
        web.asked.append(self.path)
        parts = urlsplit(self.path)
        if parts.path == "/to":
            self._say(302, {"Location": parse_qs(parts.query).get("there", ["/to"])[0]}, b"")
            return
        knows_parts = not parts.path.startswith("/whole/")
        file = web.folder / parts.path.removeprefix("/whole").lstrip("/")
        if not file.is_file():
            self._say(404, {}, b"")
            return
        content = file.read_bytes()
        tag = {"ETag": f'"{hashlib.md5(content).hexdigest()}"'}  # noqa: S324 - no secret
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked or not knows_parts:
            ranges = {"Accept-Ranges": "bytes"} if knows_parts else {}
            self._say(200, {**tag, **ranges}, content, with_body)
            return
        first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
        if first >= len(content):
            self._say(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            return
        head = {**tag, "Content-Range": f"bytes {first}-{last}/{len(content)}"}
        self._say(206, head, content[first : last + 1], with_body)

    def _say(self, status: int, head: dict[str, str], body: bytes, with_body: bool = True) -> None:
        self.send_response(status)
        for name, value in {**head, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[Web]:
    """A server of a folder, until the end of the block."""
    web = Web(folder)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.shutdown()
        web.server_close()
        thread.join()
