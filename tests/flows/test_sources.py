"""What a name in a form may reach, and what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from domains.contract import GroundworkError, load_domain
from flows.home import Home
from flows.settings import DataSettings
from flows.sources import find_file, open_source

MOLECULES = load_domain("molecules")
ROWS = "smiles,logp\nCCO,1\nCCN,2\n"

SPEC = MOLECULES.encoding()


@pytest.fixture
def state(tmp_path: Path) -> Home:
    """A state folder, with a file beside it that no form may read."""
    (tmp_path / "secret.csv").write_text(ROWS)
    home = Home(tmp_path / "home").create()
    (home.root / "inner.csv").write_text(ROWS)
    return home


def test_uploads_and_the_inbox_are_found(state: Home) -> None:
    (state.datasets / "esol.csv").write_text(ROWS)
    (state.inbox / "today.csv").write_text(ROWS)
    (state.inbox / "week").mkdir()
    (state.inbox / "week" / "monday.csv").write_text(ROWS)
    assert find_file("esol", state, trusted=False) == state.datasets / "esol.csv"
    assert find_file("esol.csv", state, trusted=False) == state.datasets / "esol.csv"
    assert find_file("today", state, trusted=False) == state.inbox / "today.csv"
    assert find_file("week/monday.csv", state, trusted=False) == state.inbox / "week" / "monday.csv"
    inside = state.inbox / "today.csv"
    assert find_file(str(inside), state, trusted=False) == inside


def test_names_with_dots(state: Home) -> None:
    for name in ("set.v2.csv", "set.v10.csv.gz"):
        (state.datasets / name).write_text(ROWS)
    assert find_file("set.v2", state, trusted=False).name == "set.v2.csv"
    assert find_file("set.v10", state, trusted=False).name == "set.v10.csv.gz"
    with pytest.raises(GroundworkError, match="there is no dataset 'set'"):
        find_file("set", state, trusted=False)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.csv",
        "../../secret.csv",
        "../inner.csv",
        "week/../../../secret.csv",
        "{outside}",
        "/etc/passwd",
        "~/.ssh/id_rsa",
        "..",
        ".",
        "/",
        "",
    ],
)
def test_a_form_reaches_nothing_outside(state: Home, name: str) -> None:
    outside = str(state.root.parent / "secret.csv")
    with pytest.raises(GroundworkError, match="there is no dataset") as error:
        find_file(name.format(outside=outside), state, trusted=False)
    assert "\n" not in str(error.value)


def test_a_link_out_of_the_inbox_leads_nowhere(state: Home) -> None:
    (state.inbox / "innocent.csv").symlink_to(state.root.parent / "secret.csv")
    (state.inbox / "folder").symlink_to(state.root.parent)
    for name in ("innocent", "innocent.csv", "folder/secret.csv"):
        with pytest.raises(GroundworkError, match="there is no dataset"):
            find_file(name, state, trusted=False)
    assert find_file(str(state.inbox / "innocent.csv"), state, trusted=True).read_text() == ROWS


def test_declared_roots_are_reached_too(state: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = state.root.parent / "shelf"
    shelf.mkdir()
    (shelf / "esol.csv").write_text(ROWS)
    with pytest.raises(GroundworkError):
        find_file(str(shelf / "esol.csv"), state, trusted=False)
    monkeypatch.setenv("GROUNDWORK_ROOTS", str(shelf))
    assert find_file(str(shelf / "esol.csv"), state, trusted=False) == shelf / "esol.csv"
    assert find_file("esol", state, trusted=False) == shelf / "esol.csv"
    with pytest.raises(GroundworkError):
        find_file("../secret.csv", state, trusted=False)


def test_the_shell_reaches_any_file(state: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = state.root.parent / "secret.csv"
    assert find_file(str(secret), state, trusted=True) == secret
    monkeypatch.chdir(secret.parent)
    assert find_file("secret.csv", state, trusted=True).resolve() == secret
    with pytest.raises(GroundworkError, match=r"there is no file missing\.csv: check the path"):
        find_file("missing.csv", state, trusted=True)


def test_a_folder_is_found_and_left_to_the_domain(state: Home) -> None:
    (state.inbox / "week").mkdir()
    assert find_file("week", state, trusted=False) == state.inbox / "week"
    for trusted in (True, False):
        with pytest.raises(GroundworkError, match="is a folder"):
            open_source(
                MOLECULES, DataSettings(dataset=str(state.inbox / "week")), SPEC, state, trusted=trusted
            )


def test_the_inbox_itself_is_no_dataset(state: Home) -> None:
    with pytest.raises(GroundworkError, match="there is no dataset"):
        find_file(str(state.inbox), state, trusted=False)


def test_pasted_rows_become_a_dataset(state: Home) -> None:
    source = open_source(MOLECULES, DataSettings(pasted=ROWS), SPEC, state, trusted=False)
    assert [row.value for row in source.stream()] == ["CCO", "CCN"]
    again = open_source(MOLECULES, DataSettings(pasted=ROWS), SPEC, state, trusted=False)
    assert again.digest == source.digest
    assert Path(source.origin).parent == state.datasets
    assert len(list(state.datasets.iterdir())) == 1


@pytest.mark.parametrize("pasted", ["x", "a,b\n1,2\n", "\n\n", "smiles\n"])
def test_pasted_nonsense_is_one_line(state: Home, pasted: str) -> None:
    with pytest.raises(GroundworkError) as error:
        list(open_source(MOLECULES, DataSettings(pasted=pasted), SPEC, state, trusted=False).stream())
    assert "\n" not in str(error.value)


def test_wide_characters_count_as_the_bytes_they_take(state: Home) -> None:
    wide = DataSettings(pasted="smiles\n" + "é" * (300 * 1024))
    with pytest.raises(GroundworkError, match="larger than 512 KiB: upload them as a file"):
        open_source(MOLECULES, wide, SPEC, state, trusted=False)


def test_pasted_rows_go_before_the_dataset_that_a_form_has_filled_in(state: Home) -> None:
    pasted = open_source(
        MOLECULES, DataSettings(pasted=ROWS, dataset="chemicals"), SPEC, state, trusted=False
    )
    assert pasted.name.startswith("pasted-")


def test_no_dataset_names_what_there_is(state: Home) -> None:
    with pytest.raises(
        GroundworkError, match=r"no dataset is given: name a file, an upload or one of .*chemicals"
    ):
        open_source(MOLECULES, DataSettings(), SPEC, state, trusted=False)


def test_an_embedded_dataset_is_named_by_its_name(state: Home) -> None:
    source = open_source(MOLECULES, DataSettings(dataset="chemicals"), SPEC, state, trusted=False)
    assert next(source.stream()).value


def test_forms_reach_declared_hosts_only(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    geospatial = load_domain("geospatial")
    settings = DataSettings(dataset="http://127.0.0.1:9/scene.tif")
    spec = geospatial.encoding()
    with pytest.raises(GroundworkError, match=r"127.0.0.1:9 is not among the hosts .* \(none\)"):
        open_source(geospatial, settings, spec, home, trusted=False)
    monkeypatch.setenv("GROUNDWORK_HOSTS", "earth.org, 127.0.0.1:9")
    for trusted in (True, False):  # it is asked now, and is not there
        with pytest.raises(GroundworkError, match="cannot be reached"):
            open_source(geospatial, settings, spec, home, trusted=trusted)
    molecules = load_domain("molecules")
    with pytest.raises(GroundworkError, match="molecules are not read from web addresses: download"):
        open_source(molecules, settings, molecules.encoding(), home, trusted=True)
