"""``python -m groundwork.api``: serve until told to stop."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys

import uvicorn

from domains.contract import GroundworkError
from flows.home import Home
from groundwork.api.access import check_exposure
from groundwork.api.app import Limits, create_app
from groundwork.api.registry import MlflowRegistry

KEY_VARIABLE = "GROUNDWORK_API_KEY"


def main(arguments: list[str] | None = None) -> int:
    """Run the service; returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    home = Home.current()
    api_key = os.environ.get(KEY_VARIABLE, "").strip() or None
    _set_defaults(home)
    try:
        check_exposure(options.host, api_key)
        listener = _listen(options.host, options.port)
    except GroundworkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    app = create_app(
        MlflowRegistry(),
        datasets=home.datasets,
        api_key=api_key,
        limits=Limits(options.max_inputs, options.max_request_mib * 2**20, options.max_upload_mib * 2**20),
    )
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=10
    )
    logging.getLogger(__name__).info("http://%s:%d/docs", options.host, listener.getsockname()[1])
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _parser() -> argparse.ArgumentParser:
    limits = Limits()
    parser = argparse.ArgumentParser(prog="python -m groundwork.api", description=__doc__)
    parser.add_argument(
        "--host", default="127.0.0.1", help=f"other than loopback only with {KEY_VARIABLE} set"
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-inputs", type=int, default=limits.inputs, help="inputs in one request")
    parser.add_argument("--max-request-mib", type=int, default=limits.request_bytes >> 20)
    parser.add_argument("--max-upload-mib", type=int, default=limits.upload_bytes >> 20)
    return parser


def _set_defaults(home: Home) -> None:
    """What the launcher sets for its children, for a service that is started by hand."""
    defaults = {
        **home.environment(),
        "MLFLOW_TRACKING_URI": home.mlflow_database,
        # A registry that is away is asked again by the poll; waiting for it minutes long helps nobody.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    for variable, value in defaults.items():
        os.environ.setdefault(variable, value)


def _listen(host: str, port: int) -> socket.socket:
    """Bind before anything is loaded, so that a taken port is told at once and in one line."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        raise GroundworkError(
            f"cannot listen on {host}:{port} ({error.strerror or error}); choose another with --port"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
