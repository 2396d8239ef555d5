"""Running a flow: in this process, or by the deployment of a running Groundwork."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from domains.contract import GroundworkError, load_domain
from domains.tables import digest_of_file
from flows.home import Home
from flows.journal import ConsoleJournal
from flows.settings import FlowSettings, Kind
from flows.sources import dataset_name
from groundwork.client import Client
from groundwork.running import running
from groundwork.services import Addresses


def use_services(home: Home) -> Addresses | None:
    """Point this process at the servers of a running Groundwork, or at the state folder itself."""
    addresses = running(home)
    if addresses is not None:
        os.environ.update(addresses.environment())
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
        _run_remotely(kind, domain_name, settings, addresses)
        return
    journal = ConsoleJournal()
    domain = load_domain(domain_name)
    if kind == "pretrain":
        from flows.pretrain import pretrain

        pretrain(domain, settings, home, journal)
    elif kind == "finetune":
        from flows.finetune import finetune

        finetune(domain, settings, home, journal)
    else:
        from flows.predict import predict

        predict(settings, home, journal)


def _run_remotely(kind: Kind, domain_name: str, settings: FlowSettings, addresses: Addresses) -> None:
    """Hand the run to its deployment, wait for it, and fail as it fails."""
    from groundwork.remote import run_deployment

    if kind == "predict":
        from models.registry import resolve

        domain_name = resolve(str(settings.model_dump()["model"])).tags["domain"]
    parameters = settings.model_dump(mode="json")
    path = Path(parameters["dataset"]).expanduser()
    if parameters["dataset"] not in load_domain(domain_name).embedded() and path.is_file():
        slug = re.sub(r"[^a-z0-9._-]+", "-", dataset_name(path.name).lower()).strip("-._") or "dataset"
        parameters["dataset"] = _upload(path, slug, domain_name, addresses)
        if parameters.get("name") == "":
            parameters["name"] = slug
    journal = ConsoleJournal()
    finished = run_deployment(f"{kind}-{domain_name}", parameters, addresses, journal.console)
    for title, rows in finished.tables:
        journal.table("result", title, rows)


def _upload(path: Path, slug: str, domain: str, addresses: Addresses) -> str:
    """Give a local file to the service, since a deployment reads no path of the caller's.

    Its content is part of its name there: a file of the same name must not replace somebody's dataset.
    """
    name = f"{slug[:50]}-{digest_of_file(path)[:8]}"
    with Client(addresses.api_url, api_key=os.environ.get("GROUNDWORK_API_KEY")) as client:
        client.upload(path, name, domain=domain)
    return name
