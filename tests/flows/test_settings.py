"""One schema: what forms, YAML and the command line are made from."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.utilities.callables import parameter_schema
from pydantic import ValidationError

from domains.contract import GroundworkError, load_domain
from domains.molecules import MoleculeEncoding
from flows import settings
from flows.settings import DataSettings, FlowSettings, read_presets, settings_class, signature
from models.settings import TrainingSettings, TuningSettings

KINDS = [(kind, "molecules") for kind in settings.KINDS]


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of presets of the test's own."""
    monkeypatch.setattr(settings, "CONFIGS", tmp_path)
    settings_class.cache_clear()
    yield tmp_path
    settings_class.cache_clear()


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ({"chip": 60, "patch": 8}, "a chip of 60 pixels cannot be cut into patches of 8"),
        ({"use_bands": ","}, "use_bands: no name of a band stands between the commas"),
    ],
)
def test_what_only_a_room_can_judge_is_refused_in_a_line(told: dict[str, Any], fault: str) -> None:
    made = settings_class("finetune", "geospatial")(dataset="scenes", name="x", **told)
    with pytest.raises(GroundworkError) as error:
        made.part(load_domain("geospatial").encoding)
    assert str(error.value) == fault


def test_settings_are_what_the_rooms_declare() -> None:
    fields = set(settings_class("finetune", "molecules").model_fields)
    for part in (DataSettings, TuningSettings, TrainingSettings, MoleculeEncoding):
        assert set(part.model_fields) <= fields
    assert "max_records" not in fields
    assert "mask_ratio" in settings_class("pretrain", "molecules").model_fields


def test_each_room_gets_its_part_back() -> None:
    made = settings_class("finetune", "molecules")(mode="lora", epochs=7, max_atoms=99)
    assert made.part(TuningSettings).mode == "lora"
    assert made.part(TrainingSettings).epochs == 7
    assert made.part(load_domain("molecules").encoding).max_atoms == 99


@pytest.mark.parametrize(("kind", "domain"), KINDS)
def test_the_form_describes_every_field_with_its_default(kind, domain: str) -> None:
    model = settings_class(kind, domain)

    def body(**parameters: object) -> None: ...

    body.__signature__ = signature(model)
    schema = parameter_schema(flow(body)).model_dump()
    assert list(schema["properties"]) == list(model.model_fields)
    for name, shown in schema["properties"].items():
        info = model.model_fields[name]
        assert shown["description"] == info.description
        if not info.is_required():
            assert shown["default"] == info.default
    required = [name for name, info in model.model_fields.items() if info.is_required()]
    assert schema.get("required", []) == required


def test_the_form_knows_ranges_and_choices() -> None:
    def body(**parameters: object) -> None: ...

    body.__signature__ = signature(settings_class("finetune", "molecules"))
    shown = parameter_schema(flow(body)).model_dump()["properties"]
    assert (shown["epochs"]["minimum"], shown["epochs"]["maximum"]) == (0, 10_000)
    assert shown["head_dropout"]["exclusiveMaximum"] == 1
    assert shown["mode"]["enum"] == ["probe", "lora", "full", "ensemble"]
    assert shown["split"]["enum"] == [
        "auto", "scaffold", "random", "scaffold-balanced", "cluster", "time", "given",
    ]  # fmt: skip
    assert shown["transform"]["enum"] == ["none", "log10", "pIC50"]
    assert shown["replicates"]["enum"] == ["median", "mean", "first", "keep"]
    assert shown["task"]["enum"] == ["auto", "regression", "classification"]
    assert shown["size"]["enum"] == ["tiny", "small", "base"]
    assert shown["target"]["type"] == "array"
    assert shown["max_atoms"]["maximum"] == 2000
    assert shown["name"]["pattern"]


def test_a_signature_holds_keywords_only() -> None:
    kinds = {
        parameter.kind for parameter in signature(settings_class("predict", "molecules")).parameters.values()
    }
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("kind", "values", "field"),
    [
        ("finetune", {"epochs": -1}, "epochs"),
        ("finetune", {"batch_size": -1}, "batch_size"),
        ("finetune", {"mode": "magic"}, "mode"),
        ("finetune", {"head_dropout": 1.0}, "head_dropout"),
        ("finetune", {"name": "../etc"}, "name"),
        ("finetune", {"split": "by eye"}, "split"),
        ("finetune", {"pasted": "x" * (512 * 1024 + 1)}, "pasted"),
        ("finetune", {"no_such": 1}, "no_such"),
        ("pretrain", {"mask_ratio": 1.0}, "mask_ratio"),
        ("pretrain", {"learning_rate": 2.0}, "learning_rate"),
        ("predict", {"model": ""}, "model"),
        ("predict", {}, "model"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(kind, values: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError) as error:
        settings_class(kind, "molecules")(**values)
    assert [problem["loc"] for problem in error.value.errors()] == [(field,)]


def test_the_digest_says_what_is_done_and_not_how_it_came_about() -> None:
    model = settings_class("finetune", "molecules")
    assert model(resume=True).digest == model().digest
    assert model(epochs=3).digest != model(epochs=4).digest
    assert model(target=["a"]).digest != model(target=["b"]).digest


def test_settings_cannot_be_changed() -> None:
    made = settings_class("finetune", "molecules")()
    with pytest.raises(ValidationError):
        made.epochs = 5


def test_presets_are_the_defaults(presets: Path) -> None:
    (presets / "finetune-molecules.yaml").write_text("epochs: 77\nsplit: random\n")
    model = settings_class("finetune", "molecules")
    assert (model().epochs, model().split) == (77, "random")
    assert signature(model).parameters["epochs"].default.default == 77
    with pytest.raises(ValidationError, match="epochs"):
        model(epochs=-1)


def test_the_projects_presets_are_valid() -> None:
    for path in settings.CONFIGS.glob("*.yaml"):
        kind, _, domain = path.stem.partition("-")
        model = settings_class(kind, domain)
        values, when = read_presets(kind, domain)
        assert values
        assert model(**values) == model()
        assert bool(when) == (kind == "retrain")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch: 3", "sets 'epoch', which is not a setting of that flow"),
        ("- epochs", "must hold settings as `name: value` lines"),
        ("epochs: [1", "is not YAML"),
    ],
)
def test_a_wrong_preset_is_one_line(presets: Path, text: str, said: str) -> None:
    (presets / "finetune-molecules.yaml").write_text(text)
    with pytest.raises(GroundworkError, match=said) as error:
        settings_class("finetune", "molecules")
    assert "\n" not in str(error.value)


def test_a_preset_out_of_range_is_an_error(presets: Path) -> None:
    """Otherwise the form would show, and the run would take, what nobody may type."""
    (presets / "finetune-molecules.yaml").write_text("epochs: -1\n")
    with pytest.raises(GroundworkError, match="epochs"):
        settings_class("finetune", "molecules")


def test_an_unknown_domain_names_those_there_are() -> None:
    with pytest.raises(
        GroundworkError, match=r"no domain is called 'proteins'; installed domains: .*molecules"
    ):
        settings_class("finetune", "proteins")


def test_pretraining_reads_the_domains_corpus_unless_told_otherwise(presets: Path) -> None:
    made = settings_class("pretrain", "molecules")()
    assert made.part(DataSettings).dataset == load_domain("molecules").corpus
    assert isinstance(made, FlowSettings)
