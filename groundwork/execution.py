"""Running a flow: in this process, or by the deployment of a running Groundwork."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from domains.contract import FROM_DATA, GroundworkError, load_domain
from domains.tables import digest_of_file
from flows.dispatch import run
from flows.home import Home
from flows.journal import ConsoleJournal
from flows.settings import FlowSettings, Kind
from flows.sources import dataset_name
from groundwork.client import Client
from groundwork.database_upgrade import bring_up_to_date
from groundwork.databases import databases
from groundwork.packing import PACKED, pack
from groundwork.running import running
from groundwork.services import Addresses
from groundwork.state_folder import exclusive

UPLOAD_SECONDS = 3600.0
"""A dataset is opened before its upload is answered: thousands of images take minutes."""


def use_services(home: Home) -> Addresses | None:
    """Point this process at the servers of a running Groundwork, or at the state folder itself."""
    addresses = running(home)
    if addresses is not None:
        os.environ.update(addresses.environment())
    elif any(database.state() in {"older", "newer"} for database in databases(home)):
        # As `groundwork up` would: MLflow's client migrates by itself, and keeps no copy.
        with exclusive(home):
            bring_up_to_date(home, Console(stderr=True))
    from flows.tracking import connect

    # Migrations of a new database are of no interest on a terminal, and what fails is raised as well.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    connect(home)
    return addresses


def run_flow(kind: Kind, domain_name: str, settings: FlowSettings, remote: bool) -> None:
    """Run one flow with settings that were checked. Raises GroundworkError."""
    home = Home.current()
    addresses = use_services(home)
    if remote:
        if addresses is None:
            raise GroundworkError("--remote needs a running Groundwork: start it with `groundwork up`")
        _run_remotely(kind, domain_name, settings, home, addresses)
        return
    run(kind, load_domain(domain_name), settings, home, ConsoleJournal())


def _run_remotely(
    kind: Kind, domain_name: str, settings: FlowSettings, home: Home, addresses: Addresses
) -> None:
    """Hand the run to its deployment, wait for it, and fail as it fails."""
    from groundwork.remote import run_deployment

    parameters = settings.model_dump(mode="json")
    journal = ConsoleJournal()
    encoding: Mapping[str, Any] = parameters
    if kind == "predict":
        domain_name, encoding = _asked_model(parameters["model"])
    dataset = parameters.get("dataset", "")  # a retraining names none
    path = Path(dataset).expanduser()
    is_local = dataset not in ("", *load_domain(domain_name).embedded()) and path.exists()
    if is_local:
        slug = re.sub(r"[^a-z0-9._-]+", "-", _plain_name(path).lower()).strip("-._") or "dataset"
        parameters["dataset"] = _send(path, slug, domain_name, encoding, home, addresses, journal.console)
        if parameters.get("name") == "":
            parameters["name"] = slug
    finished = run_deployment(f"{kind}-{domain_name}", parameters, addresses, journal.console)
    for title, rows in finished.tables:
        journal.table("result", title, rows)


def _asked_model(reference: str) -> tuple[str, Mapping[str, Any]]:
    """Domain and encoding of a version: it knows what files that it is to answer may not tell."""
    from models.predictor import CONTRACT, VersionContract
    from models.registry import fetch, resolve

    folder = fetch(resolve(reference))
    contract = VersionContract.model_validate_json((folder / CONTRACT).read_text())
    return contract.domain, contract.encoding


def _plain_name(path: Path) -> str:
    name = path.name or path.resolve().name  # "." has none
    return name if path.is_dir() else dataset_name(name)


def _send(
    path: Path,
    slug: str,
    domain_name: str,
    encoding: Mapping[str, Any],
    home: Home,
    addresses: Addresses,
    console: Console,
) -> str:
    """Give a local file or folder to the service, since a deployment reads no path of the caller's.

    A folder is packed first. Gives the name that the service knows it by.
    """
    settings = _given(encoding, domain_name)
    if path.is_file():
        return _upload(path, slug, domain_name, settings, addresses)
    if PACKED not in load_domain(domain_name).formats:
        raise GroundworkError(f"{path} is a folder: give the path of a file in it")
    home.datasets.mkdir(parents=True, exist_ok=True)
    # Among the uploads that are under way: if this process is killed, the next start removes it.
    with tempfile.NamedTemporaryFile(prefix=".", suffix=f".part{PACKED}", dir=home.datasets) as packed:
        pack(path, Path(packed.name), console)
        return _upload(Path(packed.name), slug, domain_name, settings, addresses)


def _given(encoding: Mapping[str, Any], domain_name: str) -> dict[str, Any]:
    """Settings of the domain's encoding that are not its defaults, as an upload takes them."""
    fields = load_domain(domain_name).encoding.model_fields
    return {
        name: encoding[name]
        for name, field in fields.items()
        if field.json_schema_extra != FROM_DATA and name in encoding and encoding[name] != field.default
    }


def _upload(path: Path, slug: str, domain: str, settings: Mapping[str, Any], addresses: Addresses) -> str:
    """Upload a file; its content is part of its name there, so that it replaces nobody's dataset."""
    name = f"{slug[:50]}-{digest_of_file(path)[:8]}"
    key = os.environ.get("GROUNDWORK_API_KEY")
    with Client(addresses.api_url, api_key=key, timeout=UPLOAD_SECONDS) as client:
        client.upload(path, name, domain=domain, **settings)
    return name
