"""Every shipped model: whole, small, opened by one call, alike in every tool, and measured as its card says."""

import json
from dataclasses import dataclass, replace

import pytest
import torch

from utils.models import overview, verify
from utils.models.card import GENERATED, TEXT_CARD, Origin, write_card
from utils.models.load import CARD, available_models, load_model
from utils.models.measurement import Findings, Measurement, Table
from utils.models.recipe import MODELS, Recipe, all_recipes
from utils.sae import available_dictionaries

RECIPES = all_recipes()
HUGGING_FACE = [name for name in available_models() if name.startswith(("tiny-lm", "textbook-ioi"))]
LARGEST = 40_000_000


@dataclass(frozen=True)
class Settings:
    """The settings of the small recipe below."""

    steps: int


def test_every_shipped_model_and_dictionary_has_a_recipe():
    assert {*available_models(), *available_dictionaries()} == set(RECIPES)


def test_the_shipped_files_are_small():
    sizes = [file.stat().st_size for place in MODELS.glob("shipped*") for file in place.rglob("*") if file.is_file()]
    assert sum(sizes) <= LARGEST


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_model_is_what_its_card_says(name):
    assert verify.differences(RECIPES[name]) == []


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_card_is_complete(name):
    folder = RECIPES[name].folder
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    assert set(card["sha256"]) == {file.name for file in folder.iterdir()} - GENERATED
    text = (folder / TEXT_CARD).read_text(encoding="utf-8")
    for key, measurement in card["measurements"].items():
        assert f"| {key} | {measurement['value']:.3f} |" in text
        assert measurement["low"] <= measurement["value"] <= measurement["high"]
    assert RECIPES[name].about.strip() in text
    assert "/tmp" not in text + json.dumps(card)


def test_the_overview_is_written_from_the_cards():
    assert overview.PAGE.read_text(encoding="utf-8") == overview.overview(), "run python -m utils.models.overview"


@pytest.mark.parametrize("name", sorted(available_models()))
def test_one_call_opens_every_model_for_reading(name):
    model = load_model(name)
    assert type(model).__name__ == "TransformerBridge"
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_language_models_are_alike_in_three_tools(name):
    from nnsight import TransformersModel
    from transformers import AutoModelForCausalLM

    folder = str(RECIPES[name].folder)
    bridge = load_model(name)
    tokens = torch.randint(bridge.cfg.d_vocab, (2, bridge.cfg.n_ctx), generator=torch.Generator().manual_seed(0))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = plain(tokens).logits
    # The bridge centres the unembedding: its logits are the same up to one constant at each position.
    torch.testing.assert_close(bridge(tokens), expected - expected.mean(-1, keepdim=True), atol=1e-4, rtol=0)
    model = TransformersModel(plain, tokenizer=bridge.tokenizer)
    with torch.no_grad(), model.trace(tokens):
        logits = model.output.logits.save()
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@pytest.fixture
def small_recipe(tmp_path, monkeypatch):
    """A recipe whose folder holds one file, and whose measurements can be changed."""
    monkeypatch.setattr("utils.models.recipe.MODELS", tmp_path)
    found = {"score": Measurement(0.9, 0.8, 1.0, 100, "score of something", at_least=0.85)}
    tables = {"scores": Table("Scores", ("head", "score"), [["0.0", 0.5]])}
    settings = Settings(3)
    recipe = Recipe("small", 1, settings, None, None, lambda folder: Findings(found, tables), about="A small model.")
    recipe.folder.mkdir(parents=True)
    (recipe.folder / "model.safetensors").write_bytes(b"weights")
    write_card(recipe, Origin(1, 10, {"torch": "2"}, {"loss": [(0, 2.0), (10, 1.0)]}), Findings(found, tables))
    return recipe


def with_score(recipe, value, **changes):
    measurement = replace(recipe.measure(recipe.folder).measurements["score"], value=value, **changes)
    return replace(recipe, measure=lambda folder: Findings({"score": measurement}))


def test_a_model_that_is_as_its_card_says_holds(small_recipe):
    assert verify.differences(small_recipe) == []


def test_a_changed_number_is_named(small_recipe):
    assert verify.differences(with_score(small_recipe, 0.903)) == []
    assert verify.differences(with_score(small_recipe, 0.88)) == ["score is 0.8800; the card says 0.9000"]
    assert verify.differences(with_score(small_recipe, float("nan")))


def test_a_bar_that_no_longer_holds_is_named(small_recipe):
    wrong = verify.differences(with_score(small_recipe, 0.84, tolerance=0.1))
    assert wrong == ["score is 0.8400, but has to be at least 0.85"]


def test_a_changed_table_and_a_new_number_are_named(small_recipe):
    table = Table("Scores", ("head", "score"), [["0.0", 0.55]])
    more = Measurement(1, 1, 1, 1, "more")
    changed = replace(small_recipe, measure=lambda folder: Findings({"more": more}, {"scores": table}))
    assert verify.differences(changed) == [
        "more is measured, but the card does not have it",
        "the table 'Scores' differs from the card's",
    ]


def test_a_damaged_file_is_named(small_recipe):
    (small_recipe.folder / "model.safetensors").write_bytes(b"other")
    assert "git checkout" in verify.differences(small_recipe)[0]


def test_a_card_says_what_is_below_its_bar(small_recipe):
    below = with_score(small_recipe, 0.5)
    origin = Origin(1, 10, {"torch": "2"}, {})
    text = write_card(below, origin, below.measure(below.folder)).read_text(encoding="utf-8")
    assert "Below its bar: score." in text
    assert verify.differences(below) == []  # the card admits it


def test_two_recipes_of_one_name_are_refused(monkeypatch):
    recipe = next(iter(RECIPES.values()))
    module = type("module", (), {"RECIPES": (recipe, recipe)})
    monkeypatch.setattr("utils.models.recipe.importlib.import_module", lambda name: module)
    with pytest.raises(ValueError, match=recipe.name):
        all_recipes()
