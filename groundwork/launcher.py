"""``groundwork up``: starts the services side by side, keeps them alive, and ends all of them with itself."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from domains.contract import GroundworkError
from flows.home import Home
from groundwork.database_upgrade import bring_up_to_date
from groundwork.processes import end, port_holder
from groundwork.running import LaunchRecord
from groundwork.services import Addresses, Ports, Service, default_services
from groundwork.state_folder import exclusive, prepare
from groundwork.supervisor import Supervisor

LEFTOVER_GRACE = 15.0  # seconds


def up(
    home: Home,
    ports: Ports | None = None,
    services: Sequence[Service] | None = None,
    console: Console | None = None,
) -> int:
    """Start the services on the state folder ``home`` and stay until asked to stop (Ctrl-C, SIGTERM).

    Returns 0 after a requested stop. Raises GroundworkError when the folder cannot be used or is in use by
    another ``groundwork up``, when a port is taken, when a database is of a newer version or cannot be
    upgraded, or when a service does not start; whatever was started has ended by then. Call it from the
    main thread: it handles signals.
    """
    ports = ports or Ports()
    services = default_services(home, ports) if services is None else services
    console = console or Console()
    prepare(home)
    with exclusive(home):
        _end_leftovers(home, console)
        check_ports(services)
        bring_up_to_date(home, console)
        return Supervisor(home, Addresses.on(ports), services, console).run()


def check_ports(services: Sequence[Service]) -> None:
    """Raises GroundworkError that names the taken ports, who holds them and the options that change them."""
    holders: dict[int, str] = {}
    taken = []
    for service in services:
        if service.port is None:
            continue
        holder = holders.get(service.port) or port_holder(service.port)
        if holder:
            taken.append(
                f"port {service.port} for the {service.title} is taken by {holder}, "
                f"choose another with --{service.name}-port"
            )
        holders[service.port] = f"the {service.title}"
    if taken:
        message = "; ".join(taken)
        raise GroundworkError(f"{message[0].upper()}{message[1:]}.")


def _end_leftovers(home: Home, console: Console) -> None:
    """End what a killed launcher has left. We hold the lock, so no living one looks after it."""
    record = LaunchRecord.read(home)
    if record and (count := end(record.launch, grace=LEFTOVER_GRACE)):
        console.print(f"Ended {count} process(es) that an earlier start had left behind.")
