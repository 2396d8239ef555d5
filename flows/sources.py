"""From what a user names to rows that can be streamed, confined where a form named it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from domains.abilities import OpensDocuments
from domains.contract import Domain, EncodingSpec, GroundworkError, Source, digest_of
from flows.home import Home
from flows.settings import LARGEST_PASTE, DataSettings


def open_source(
    domain: Domain, settings: DataSettings, encoding: EncodingSpec, home: Home, *, trusted: bool
) -> Source:
    """Open the dataset that the settings name.

    ``trusted`` settings come from the user's own shell and may name any file and address; others reach
    embedded datasets, uploads, the inbox, the folders of ``GROUNDWORK_ROOTS`` and the hosts of
    ``GROUNDWORK_HOSTS`` (with commas between them) only. Pasted rows
    go before a dataset, which a form may have filled in. Raises GroundworkError for a dataset that is not
    there, lies elsewhere or cannot be read.
    """
    column = settings.input_column or None
    if settings.pasted:
        return domain.open(_keep_pasted(settings.pasted, home), encoding, column)
    if not settings.dataset:
        raise GroundworkError(
            f"no dataset is given: name a file, an upload or one of {', '.join(sorted(domain.embedded()))}"
        )
    if settings.dataset in domain.embedded():
        return domain.embedded()[settings.dataset](encoding)
    hosts = None if trusted else _hosts()
    if settings.dataset.startswith(("http://", "https://")):
        if not isinstance(domain, OpensDocuments):
            raise GroundworkError(
                f"{domain.noun}s are not read from web addresses: download the file, then name it"
            )
        return domain.open_document(settings.dataset, encoding, hosts, column)
    file = find_file(settings.dataset, home, trusted=trusted)
    if isinstance(domain, OpensDocuments) and file.suffix.lower() in domain.documents:
        return domain.open_document(str(file), encoding, hosts, column)
    return domain.open(file, encoding, column)


def find_file(name: str, home: Home, *, trusted: bool) -> Path:
    """The file or folder that a dataset's name or path means. Raises GroundworkError when there is none."""
    path = Path(name).expanduser()
    if trusted and path.exists():
        return path
    roots = [root.resolve() for root in _roots(home)]
    for candidate in _candidates(path, roots):
        resolved = candidate.resolve()
        if not any(resolved.is_relative_to(root) for root in roots):
            continue
        if resolved.is_file() or (resolved.is_dir() and resolved not in roots):
            return resolved
    if trusted and (path.suffix or path.is_absolute()):
        raise GroundworkError(f"there is no file {name}: check the path")
    shown = ", ".join(str(root) for root in roots)
    raise GroundworkError(
        f"there is no dataset {name!r}"
        + (", and no file or folder of that name" if trusted else "")
        + f": upload it, put its file into {home.inbox}, or name a file below one of {shown}"
    )


def _roots(home: Home) -> list[Path]:
    declared = os.environ.get("GROUNDWORK_ROOTS", "")
    return [home.datasets, home.inbox, *(Path(root) for root in declared.split(os.pathsep) if root)]


def _hosts() -> frozenset[str]:
    declared = os.environ.get("GROUNDWORK_HOSTS", "").split(",")
    return frozenset(host.strip().lower() for host in declared if host.strip())


def _candidates(path: Path, roots: list[Path]) -> Iterator[Path]:
    if path.is_absolute():
        yield path
        return
    for root in roots:
        yield root / path
        # An upload is named without its suffix.
        if len(path.parts) == 1 and root.is_dir():
            yield from sorted(entry for entry in root.iterdir() if dataset_name(entry.name) == path.name)


def dataset_name(name: str) -> str:
    """A file's or an embedded dataset's name without suffix: ``set.v2.csv.gz`` is ``set.v2``."""
    plain = name.removesuffix(".gz")
    return plain.rpartition(".")[0] or plain


def _keep_pasted(text: str, home: Home) -> Path:
    """Pasted rows become a dataset, so that the run can be repeated and its lineage read."""
    if len(text.encode()) > LARGEST_PASTE:
        raise GroundworkError(
            f"the pasted rows are larger than {LARGEST_PASTE // 1024} KiB: upload them as a file instead"
        )
    home.datasets.mkdir(parents=True, exist_ok=True)
    path = home.datasets / f"pasted-{digest_of(text)}.csv"
    path.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
    return path
