"""The commands that run flows, generated from the same settings as the forms in Prefect."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from domains.contract import GroundworkError
from flows.settings import FlowSettings, Kind, read_config, settings_class

# Rows are pasted into forms; on a command line one names a file.
NOT_OPTIONS = {"pasted"}
POSITIONAL = {"dataset": "FILE", "model": "MODEL"}
SHORT = {"output": "-o"}
REST = {"dataset": "also"}
"""Where further values of a positional go, in flows that have a setting for them."""

Run = Callable[[FlowSettings, bool], None]
"""Runs a flow with its settings; the second argument says whether through Prefect."""


def flow_command(kind: Kind, domain: str, run: Run) -> Callable[..., None]:
    """A function whose signature Typer turns into the command of one flow."""
    model = settings_class(kind, domain)

    def command(config: Path | None, set_: list[str], remote: bool, **options: Any) -> None:
        given = {name: value for name, value in options.items() if value is not None and value != []}
        for name, rest in REST.items():
            if isinstance(given.get(name), list):
                given[name], *more = given[name]
                given |= {rest: [*more, *given.get(rest, [])]} if more else {}
        run(_validated(model, {**_from_config(config), **_from_pairs(set_), **given}), remote)

    names = [name for name in model.model_fields if name not in NOT_OPTIONS]
    names.sort(key=lambda name: not _is_positional(name, model.model_fields[name]))
    several = {name for name, rest in REST.items() if rest in model.model_fields}
    parameters = [_parameter(name, model.model_fields[name], name in several) for name in names]
    parameters += [
        _keyword(
            "config",
            Path | None,
            typer.Option("--config", help="YAML file of settings, over the presets"),
            None,
        ),
        _keyword(
            "set_", list[str], typer.Option("--set", help="key=value, over --config; may be repeated"), []
        ),
        _keyword(
            "remote",
            bool,
            typer.Option("--remote", help="Run by the Prefect deployment of `groundwork up`"),
            False,
        ),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameter(name: str, info: FieldInfo, several: bool) -> inspect.Parameter:
    # Every value stays text here: the settings check it, so that all faces refuse it alike.
    described = f"{info.description or ''}{_range(info)}{_default(info)}"
    choices = _choices(info.annotation)
    shape: Any = str | None
    if choices:
        shape = Literal[choices] | None
    elif info.annotation is bool:
        shape = bool | None
    elif typing.get_origin(info.annotation) is list:
        shape = list[str] | None
    if _is_positional(name, info):
        required = info.is_required()
        if several:
            described = f"{described}; more of them as in --{REST[name]}"
            shown = typer.Argument(metavar=f"[{POSITIONAL[name]}]...", help=described)
            return _keyword(name, list[str] | None, shown, None)
        extra = typer.Argument(
            metavar=POSITIONAL[name] if required else f"[{POSITIONAL[name]}]", help=described
        )
        return _keyword(
            name, str if required else shape, extra, inspect.Parameter.empty if required else None
        )
    flags = [f"--{name.replace('_', '-')}"] + ([SHORT[name]] if name in SHORT else [])
    if info.annotation is bool:
        flags = [f"{flags[0]}/--no-{name.replace('_', '-')}"]
    option = typer.Option(*flags, help=described, show_default=False, metavar=_metavar(info.annotation))
    return _keyword(name, shape, option, None)


def _is_positional(name: str, info: FieldInfo) -> bool:
    return name in POSITIONAL and typing.get_origin(info.annotation) is not list


def _keyword(name: str, annotation: Any, extra: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, extra]
    )


def _choices(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()


def _metavar(annotation: Any) -> str | None:
    """What stands for the value in the help; Typer writes choices and flags itself."""
    kinds = {annotation, *typing.get_args(annotation)}
    if float in kinds:
        return "NUMBER"
    return "INTEGER" if int in kinds else "TEXT" if str in kinds else None


def _range(info: FieldInfo) -> str:
    bounds = {
        key: getattr(entry, key)
        for entry in info.metadata
        for key in ("ge", "gt", "le", "lt")
        if hasattr(entry, key)
    }
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return f" ({', '.join(f'{signs[key]} {value:,}' for key, value in bounds.items())})" if bounds else ""


def _default(info: FieldInfo) -> str:
    if info.default in (PydanticUndefined, None, "", []) or info.annotation is bool:
        return ""
    return f" (default {info.default})"


def _from_config(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    if not path.is_file():
        raise GroundworkError(f"there is no config file {path}: check the path")
    return read_config(path)


def _from_pairs(pairs: list[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise GroundworkError(f"--set needs key=value, not {pair!r}")
        given[key.strip().replace("-", "_")] = value
    return given


def _validated(model: type[FlowSettings], values: dict[str, Any]) -> FlowSettings:
    for name, value in values.items():
        info = model.model_fields.get(name)
        # `--set target=a,b` and a YAML scalar mean a list where the setting is one.
        if info is not None and typing.get_origin(info.annotation) is list and isinstance(value, str):
            values = {**values, name: [part.strip() for part in value.split(",")]}
        elif info is not None and value == "" and isinstance(info.annotation, types.UnionType):
            values = {**values, name: None}
    try:
        return model(**values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        if problem["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            raise GroundworkError(f"there is no setting {name!r}; settings: {known}") from error
        shown = str(problem.get("input"))[:60]
        field = model.model_fields.get(name)
        if problem["type"] == "string_pattern_mismatch" and field is not None:
            raise GroundworkError(f"--{name.replace('_', '-')}: {field.description}; not {shown}") from error
        raise GroundworkError(
            f"--{name.replace('_', '-')}: {problem['msg'][0].lower()}{problem['msg'][1:]}, not {shown}"
        ) from error
