"""A folder on the web, as an object store serves it: parts of files, tags of content, redirections.

In a process of its own: GDAL may hold Python's lock while it waits for an answer, which a thread of the same
process could then never give. Usage: web_server.py FOLDER LOG
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Web:
    """A running server. ``/to?there=URL`` redirects, ``/to`` to itself; ``/whole/…`` knows no parts."""

    folder: Path
    url: str
    log: Path

    @property
    def asked(self) -> list[str]:
        """The paths that were asked for."""
        return self.log.read_text().splitlines()


@contextmanager
def serving(folder: Path) -> Iterator[Web]:
    """A server of a folder, until the end of the block."""
    with TemporaryDirectory() as scratch:
        log = Path(scratch, "asked")
        log.touch()
        command = [sys.executable, __file__, str(folder), str(log)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                yield Web(folder, f"http://127.0.0.1:{int(server.stdout.readline())}", log)
            finally:
                server.terminate()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    log: Path

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        with self.log.open("a") as log:
            log.write(f"{self.path}\n")
        parts = urlsplit(self.path)
        if parts.path == "/to":
            self._say(302, {"Location": parse_qs(parts.query).get("there", ["/to"])[0]}, b"")
            return
        knows_parts = not parts.path.startswith("/whole/")
        file = self.folder / parts.path.removeprefix("/whole").lstrip("/")
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


def _main() -> None:
    _Handler.folder, _Handler.log = Path(sys.argv[1]), Path(sys.argv[2])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _main()
