"""The head of an upload: what comes, under which name, and whether its domain reads such files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from python_multipart.multipart import parse_options_header

from domains.compressed import PACKED
from domains.contract import (
    FROM_DATA,
    Domain,
    EncodingSpec,
    GroundworkError,
    domain_names,
    first_fault,
    load_domain,
)

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
SUFFIX = re.compile(rf"\.[a-z0-9]{{1,10}}({'|'.join(map(re.escape, PACKED))})?")


class UnnamedFormat(GroundworkError):
    """Nothing says which kind of file is coming, or its domain reads no such files."""


@dataclass(frozen=True)
class Incoming:
    """An upload as announced: where it goes and how its body is wrapped."""

    name: str
    domain: Domain
    settings: Mapping[str, str]
    """Of the domain's encoding, as the request wrote them."""
    encoding: EncodingSpec
    suffix: str | None
    """Known before the body only when the request says so; a multipart file names its own."""
    boundary: bytes | None
    """Of a multipart body; None for a raw one."""
    size: int
    """Declared bytes, 0 when not declared."""


def announce(
    name: str, domain: str, settings: Mapping[str, str], format: str | None, content_type: str, size: int
) -> Incoming:
    """Understand the head of an upload. Raises GroundworkError for a name or format that cannot be used.

    The format is, in this order: ``format``, a multipart file's own name, a telling content type, the
    end of ``name`` (which is then cut off, so that ``curl -T esol.csv …/datasets/esol.csv`` does what
    one expects). ``settings`` are those of the domain's encoding: the file must open with them, as it
    will when a form asks for them again.
    """
    known = load_domain(domain)
    kind, options = parse_options_header(content_type)
    suffix = _suffix_of(kind.decode("latin-1"), known)
    if format is not None:
        suffix = "." + format.lower().lstrip(".")
        if not SUFFIX.fullmatch(suffix):
            raise UnnamedFormat(
                f"format {format!r} is not the end of a file name; use one of {_listed(known)}"
            )
    boundary = options.get(b"boundary") if kind == b"multipart/form-data" else None
    if suffix is None and boundary is None:
        name, suffix = split_name(name)
    if boundary is None or suffix is not None:
        check_format(suffix or "", known)
    if not NAME.fullmatch(name):
        raise GroundworkError(
            f"{name!r} cannot name a dataset: use at most 64 of a-z, 0-9 and ._-, a letter or digit first"
        )
    if name in known.embedded():
        raise GroundworkError(f"{name!r} is a dataset that comes with {domain}; choose another name")
    return Incoming(name, known, settings, _encoding(known, settings), suffix, boundary, size)


def split_name(filename: str) -> tuple[str, str]:
    """``esol.v2.csv.gz`` -> ``esol.v2``, ``.csv.gz``; the suffix is "" when there is none."""
    match = re.fullmatch(rf"(.+?)({SUFFIX.pattern})", filename.lower())
    # The shortest stem would cut "esol.v2.csv" only at ".csv" because a suffix holds one word and maybe .gz.
    return (filename[: match.end(1)], match.group(2)) if match else (filename, "")


def _suffix_of(media_type: str, domain: Domain) -> str | None:
    known = (suffix for suffix, meant in domain.formats.items() if meant and meant == media_type)
    return next(known, None)


def check_format(suffix: str, domain: Domain) -> None:
    """Before a byte of the file is read. Raises UnnamedFormat with what to say instead."""
    if not suffix:
        raise UnnamedFormat(f"which kind of file is this? add ?format= one of {_listed(domain)}")
    if suffix not in domain.formats:
        others = [name for name in domain_names() if suffix in load_domain(name).formats]
        if others:
            raise UnnamedFormat(f"{domain.name} reads no {suffix} file: add ?domain={others[0]}, which does")
        raise UnnamedFormat(f"{domain.name} reads no {suffix} file; add ?format= one of {_listed(domain)}")


def _listed(domain: Domain) -> str:
    """Formats as they are, without those that a compressed file adds to them."""
    return ", ".join(suffix[1:] for suffix in domain.formats if suffix.count(".") == 1)


def _encoding(domain: Domain, settings: Mapping[str, str]) -> EncodingSpec:
    asked = {
        name for name, field in domain.encoding.model_fields.items() if field.json_schema_extra != FROM_DATA
    }
    if odd := sorted(settings.keys() - asked):
        raise GroundworkError(
            f"{odd[0]!r} is no setting; beside format and domain, {domain.name} has "
            f"{', '.join(sorted(asked))}"
        )
    try:
        return domain.encoding.model_validate(settings)
    except ValidationError as error:
        raise GroundworkError(first_fault(error)) from error
