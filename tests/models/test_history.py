"""The history of a name on a real MLflow database: every move, with its reason, whatever is deleted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mlflow.tracking import MlflowClient

from domains.contract import GroundworkError
from flows.home import Home
from models import registry
from models.registry import Promotion, UnknownModel, Version, promote, rollback

BETTER = Promotion(True, "mae 1 against 2: better", {"challenger": 1.0, "champion": 2.0})
WORSE = Promotion(False, "mae 3 against 1: not better")


@pytest.fixture
def make(home: Home) -> Callable[[], Version]:
    """Registers versions of ``m`` that have no files: aliases and tags are all that counts here."""
    client = MlflowClient()
    client.create_registered_model("m")
    run = client.create_run(client.create_experiment("e", home.mlflow_artifacts.as_uri())).info.run_id

    def make() -> Version:
        tags = {"metric": "mae", "value": "1", "flow_run_id": "flow-1"}
        made = client.create_model_version("m", home.mlflow_artifacts.as_uri(), run, tags=tags)
        return registry.resolve(f"m/{made.version}")

    return make


def told(name: str = "m") -> list[tuple[str, int | None, int | None]]:
    """Oldest first."""
    return [(entry.action, entry.champion_before, entry.version) for entry in registry.history(name)][::-1]


def test_every_move_is_written_down_with_its_reason(make: Callable[[], Version]) -> None:
    first = promote(make(), Promotion(True, "first version of m"))
    promote(make(), BETTER)
    promote(make(), WORSE)
    assert told() == [("first", None, 1), ("promoted", 1, 2), ("refused", 2, 3)]
    refused, promoted, begun = registry.history("m")
    assert (promoted.reason, promoted.metric) == (BETTER.reason, "mae")
    assert promoted.values == {"challenger": 1.0, "champion": 2.0}
    assert (promoted.flow_run, promoted.mlflow_run) == ("flow-1", first.run_id)
    assert refused.reason == WORSE.reason
    assert begun.at < promoted.at < refused.at


def test_it_survives_the_versions_it_speaks_of(make: Callable[[], Version]) -> None:
    promote(make(), Promotion(True, "first version of m"))
    promote(make(), BETTER)
    for number in ("1", "2"):
        MlflowClient().delete_model_version("m", number)
    assert told() == [("first", None, 1), ("promoted", 1, 2)]
    promote(make(), Promotion(True, "first again"))
    assert told()[-1] == ("first", None, 3)


def test_rolling_back_goes_to_the_champion_before(make: Callable[[], Version]) -> None:
    promote(make(), Promotion(True, "first version of m"))
    promote(make(), BETTER)
    promote(make(), WORSE)
    promote(make(), BETTER)
    back = rollback("m", reason="wrong unit in the new rows")
    assert (back.reference, back.aliases) == ("m/2", ("champion",))
    assert registry.history("m")[0].reason == "wrong unit in the new rows"
    assert rollback("m").version == 1  # one step further, not forward again
    assert told()[-2:] == [("rolled back", 4, 2), ("rolled back", 2, 1)]
    assert registry.history("m")[0].flow_run == ""
    with pytest.raises(GroundworkError, match="m/1 took no other version's place: name a version with --to"):
        rollback("m")


def test_rolling_back_steps_over_a_version_that_is_gone(make: Callable[[], Version]) -> None:
    promote(make(), Promotion(True, "first version of m"))
    promote(make(), BETTER)
    promote(make(), BETTER)
    MlflowClient().delete_model_version("m", "2")
    assert rollback("m").version == 1


def test_any_version_can_be_named(make: Callable[[], Version]) -> None:
    promote(make(), Promotion(True, "first version of m"))
    promote(make(), WORSE)
    forward = rollback("m", to=2)
    assert forward.aliases == ("champion",)
    with pytest.raises(GroundworkError, match="m/2 is the champion already"):
        rollback("m", to=2)
    with pytest.raises(UnknownModel, match="'m/9' is not registered"):
        rollback("m", to=9)
    with pytest.raises(UnknownModel, match="no model is called 'n'"):
        rollback("n")
    assert told()[-1] == ("rolled back", 1, 2)


def test_an_alias_that_somebody_moved_by_hand_is_not_guessed_about(make: Callable[[], Version]) -> None:
    promote(make(), Promotion(True, "first version of m"))
    MlflowClient().set_registered_model_alias("m", "champion", str(make().version))
    with pytest.raises(GroundworkError, match="does not tell which version of m came before m/2"):
        rollback("m")


def test_nights_without_a_change_are_one_entry(make: Callable[[], Version]) -> None:
    champion = promote(make(), Promotion(True, "first version of m"))
    for night in range(3):
        registry.note_unchanged(champion, f"same data (night {night})", f"flow-{night}")
    entry, begun = registry.history("m")
    assert (entry.action, entry.times, entry.version, begun.action) == ("unchanged", 3, 1, "first")
    assert (entry.reason, entry.flow_run) == ("same data (night 2)", "flow-2")
    assert entry.last is not None
    assert entry.last > entry.at
    promote(make(), WORSE)
    registry.note_unchanged(champion, "same data", "")
    assert [each.action for each in registry.history("m")] == ["unchanged", "refused", "unchanged", "first"]


def test_tags_of_others_are_left_alone(make: Callable[[], Version]) -> None:
    promote(make(), Promotion(True, "first version of m"))
    MlflowClient().set_registered_model_tag("m", "history.of the compound", "bought in 2019")
    assert told() == [("first", None, 1)]
