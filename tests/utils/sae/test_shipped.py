"""The dictionaries that come with the course: they open here and in SAELens, and belong to tiny-lm."""

import pytest
import torch

from utils import load_model
from utils.models import story_batch
from utils.sae import available_dictionaries, collect_activations, evaluate, load_dictionary
from utils.sae.shipped import SHIPPED


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-lm")


@pytest.fixture(scope="module")
def tokens():
    return story_batch(20, 123).tokens


@pytest.mark.parametrize("name", available_dictionaries())
def test_it_opens_here_and_in_saelens_with_the_same_result(name, model, tokens):
    from sae_lens import SAE

    dictionary, sae = load_dictionary(name), SAE.load_from_disk(SHIPPED / name)
    x = collect_activations(model, tokens, [dictionary.site.reads])[dictionary.site.reads]
    shaped = x.view(len(x), model.cfg.n_heads, -1) if dictionary.site.reads.endswith("hook_z") else x
    torch.testing.assert_close(sae.encode(shaped), dictionary.encode(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sae(shaped).flatten(1), dictionary(x), atol=1e-4, rtol=1e-4)
    assert sae.cfg.metadata.model_name == "tiny-lm"
    assert sae.cfg.metadata.hook_name == dictionary.site.reads


@pytest.mark.parametrize("name", available_dictionaries())
def test_it_explains_most_of_the_activation_it_was_trained_on(name, model, tokens):
    found = evaluate(model, load_dictionary(name), tokens)
    assert found["fve"].value > 0.8
    assert found["ce_recovered"].value > 0.9


def test_names_lead_to_near_names_and_folders_open():
    names = available_dictionaries()
    assert len(names) >= 10
    with pytest.raises(ValueError, match=f"There is no dictionary '{names[0]}x'. Near names: .*{names[0]}"):
        load_dictionary(names[0] + "x")
    torch.testing.assert_close(load_dictionary(SHIPPED / names[0]).W_dec, load_dictionary(names[0]).W_dec)
    with pytest.raises(FileNotFoundError, match="There is no dictionary in"):
        load_dictionary("./nowhere/at/all")


def test_a_damaged_file_is_detected(tmp_path, monkeypatch):
    import shutil

    from utils.models.load import DamagedModel
    from utils.sae import shipped

    name = available_dictionaries()[0]
    shutil.copytree(SHIPPED / name, tmp_path / name)
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path)
    load_dictionary(name)
    weights = tmp_path / name / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(DamagedModel, match="missing or damaged"):
        load_dictionary(name)
