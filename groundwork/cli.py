"""The ``groundwork`` command."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from domains.contract import GroundworkError, domain_names
from flows.home import Home
from models.progress import Interrupted

FLOWS = {
    "pretrain": "Learn from unlabelled data and register a foundation.",
    "finetune": "Learn a task from labelled data and register a version.",
    "retrain": "Train models again where their data, settings or code have changed.",
    "predict": "Answer the rows of a file with a registered version.",
}


USAGE = 2
"""Exit code of a command that was given nothing to do."""


class Commands(TyperGroup):
    """The commands that run flows are built only when asked for: what they import takes seconds."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*FLOWS, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name == "predict":
            # A model knows its domain, so the command names none; its settings are the same for all.
            return _flow_command("predict", domain_names()[0], name="predict")
        if cmd_name in FLOWS:
            return typer.main.get_group(_domains(cmd_name))
        return super().get_command(ctx, cmd_name)


def _domains(kind: str) -> typer.Typer:
    class Domains(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return list(domain_names())

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            return _flow_command(kind, cmd_name, name=cmd_name) if cmd_name in domain_names() else None

    group = typer.Typer(name=kind, cls=Domains, help=FLOWS[kind], no_args_is_help=True)
    group.callback()(lambda: None)
    return group


def _flow_command(kind: Any, domain: str, name: str) -> Any:
    from groundwork.commands import flow_command
    from groundwork.execution import run_flow

    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command = flow_command(kind, domain, lambda settings, remote: run_flow(kind, domain, settings, remote))
    single.command(name=name, help=FLOWS[kind], no_args_is_help=kind not in {"pretrain", "retrain"})(command)
    return typer.main.get_command(single)


app = typer.Typer(
    name="groundwork",
    cls=Commands,
    help="Pretrain, tune, serve and keep alive foundation models of molecules and satellite rasters.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

PrefectPort = Annotated[
    int, typer.Option("--prefect-port", min=1, max=65535, help="Port of the Prefect server")
]
MlflowPort = Annotated[int, typer.Option("--mlflow-port", min=1, max=65535, help="Port of the MLflow server")]
ApiPort = Annotated[int, typer.Option("--api-port", min=1, max=65535, help="Port of the prediction API")]


@app.command()
def up(prefect_port: PrefectPort = 4200, mlflow_port: MlflowPort = 5000, api_port: ApiPort = 8000) -> None:
    """Start Prefect, MLflow, the flow runner and the API, and keep them alive until Ctrl-C."""
    from groundwork.launcher import up as launch
    from groundwork.services import Ports

    raise typer.Exit(launch(Home.current(), Ports(prefect_port, mlflow_port, api_port)))


@app.command()
def status() -> None:
    """Show each service with its health: exit code 0 all well, 1 something is not, 3 nothing runs."""
    from groundwork.running import status as show

    raise typer.Exit(show(Home.current()))


@app.command()
def doctor(
    prefect_port: PrefectPort = 4200, mlflow_port: MlflowPort = 5000, api_port: ApiPort = 8000
) -> None:
    """Check versions, ports, disk, GPU and databases, and say what to do about what is wrong."""
    from groundwork.doctor import doctor as examine
    from groundwork.services import Ports

    raise typer.Exit(examine(Home.current(), Ports(prefect_port, mlflow_port, api_port)))


@app.command()
def backup(
    file: Annotated[
        Path | None, typer.Argument(help="Where to; by default a file named with the date, here")
    ] = None,
) -> None:
    """Save the state folder in one file, while the services run or not."""
    from groundwork.backup import backup as save

    save(Home.current(), file)


@app.command()
def restore(file: Annotated[Path, typer.Argument(help="A file that `groundwork backup` wrote")]) -> None:
    """Make a new state folder (GROUNDWORK_HOME) from a backup."""
    from groundwork.restore import restore as bring_back

    bring_back(Home.current(), file)


@app.command()
def demo() -> None:
    """Run the whole thread on embedded data through the services: pretrain, fine-tune, register, ask."""
    # Before Prefect is imported, which wants its folder in it.
    home = Home.current().create()
    from groundwork.demo import demo as run

    run(home, Console(soft_wrap=True))


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="One model, with all its versions")] = None,
) -> None:
    """List registered models: versions, aliases, figures, floors."""
    from groundwork.execution import use_services

    use_services(Home.current())
    from models import registry

    listed = registry.versions(name) if name else []
    if name is None:
        for known in registry.names():
            listed += [version for version in registry.versions(known) if version.aliases]
    if not listed:
        raise GroundworkError("no model is registered yet: run `groundwork finetune` or `make demo` first")
    table = Table(*("version", "alias", "predicts", "figure", "best floor", "beats_floor", "registered"))
    for version in listed:
        table.add_row(*_row(version))
    # A pipe has no width: a table cut at 80 columns would lose what scripts and colleagues look for.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="The model")],
    to: Annotated[
        int | None, typer.Option(min=1, help="Version to go to; by default the champion before this one")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the history")] = "",
) -> None:
    """Make an earlier version the champion again; the API answers with it within seconds."""
    from groundwork.execution import use_services

    use_services(Home.current())
    from models import registry

    version = registry.rollback(name, to, reason)
    Console(soft_wrap=True, highlight=False).print(f"{version.reference} is the champion of {name}")


@app.command()
def history(name: Annotated[str, typer.Argument(help="The model")]) -> None:
    """Show every decision on a model, newest first: what became champion, what was refused, and why."""
    from groundwork.execution import use_services

    use_services(Home.current())
    from models import registry

    entries = registry.history(name)
    if not entries:
        raise GroundworkError(f"nothing has been decided on {name} since histories are kept")
    table = Table(*entries[0].row(name))
    for entry in entries:
        table.add_row(*entry.row(name).values())
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _row(version: Any) -> list[str]:
    import json

    tags = version.tags
    targets = [target["name"] for target in json.loads(tags.get("targets") or "[]")]
    shown = ", ".join(targets[:3]) + (f" and {len(targets) - 3} more" if len(targets) > 3 else "")
    unit = f" {tags['unit']}" if tags.get("unit") and tags.get("metric") in {"mae", "rmse"} else ""
    return [
        version.reference,
        ", ".join(version.aliases),
        shown or f"a foundation of {tags.get('domain', '')}",
        f"{tags.get('metric', '')} {tags.get('value', '')}{unit}",
        f"{tags['floor_value']}{unit} {tags['floor']}" if tags.get("floor_value") else "–",
        tags.get("beats_floor", "–"),
        version.created.astimezone().strftime("%Y-%m-%d %H:%M"),
    ]


def main() -> None:
    """Entry point: errors that the user can mend are one line, without a traceback."""
    home = Home.current()
    os.environ.update(home.environment())
    try:
        with home.full_disk_explained():
            sys.exit(app(standalone_mode=False))
    except typer.TyperException as error:
        if not error.format_message():  # without arguments the help is shown, which says all
            sys.exit(USAGE)
        _fail(_said_of_usage(error))
    except typer.Abort:
        _fail("stopped", 130)
    except GroundworkError as error:
        _fail(str(error))
    except Interrupted as error:
        _fail(f"{error}; the checkpoint is saved: run the same command with --resume to go on", 130)


def _said_of_usage(error: Any) -> str:
    """What Typer says of options, in the words in which settings refuse their values."""
    said = error.format_message()
    if found := re.match(r"Invalid value for (.+?): (?:Value error, )?(.*)", said, re.DOTALL):
        said = f"{found[1]}: {found[2][:1].lower()}{found[2][1:]}".replace("'", "", 2)
    command = error.ctx.command_path if getattr(error, "ctx", None) else "groundwork"
    return f"{said[:1].lower()}{said[1:].rstrip('.')}; see {command} --help"


def _fail(message: str, code: int = 1) -> None:
    Console(stderr=True).print(
        f"[bold red]error:[/] {cast(Any, _escaped(message))}", highlight=False, soft_wrap=True
    )
    sys.exit(code)


def _escaped(message: str) -> str:
    from rich.markup import escape

    return escape(" ".join(message.split()))
