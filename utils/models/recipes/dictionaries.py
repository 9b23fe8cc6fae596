"""The sparse dictionaries of tiny-lm: autoencoders at three sites, one of each other kind, and two transcoders."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from utils.models.load import load_model, model_folder, sha256
from utils.models.prompts import story_batch
from utils.models.recipe import Recipe
from utils.sae.activations import SKIP, Site, collect_activations
from utils.sae.batch_topk import BatchTopK
from utils.sae.dictionary import Dictionary
from utils.sae.gated import Gated
from utils.sae.jumprelu import JumpReLU
from utils.sae.l1 import L1
from utils.sae.matryoshka import Matryoshka
from utils.sae.saelens import save_dictionary
from utils.sae.topk import TopK
from utils.sae.training import DictionaryTraining, TrainingSettings, draw_batches

MODEL, SEED = "tiny-lm", 0
WIDTH, LATENTS = 128, 1024
TEXT_SEED = 7000

KINDS: dict[str, Callable[..., Dictionary]] = {
    kind.kind: kind for kind in (TopK, BatchTopK, Matryoshka, L1, Gated, JumpReLU)
}


@dataclass(frozen=True)
class Settings:
    """Everything that decides a training run but its seed."""

    kind: str
    site: Site
    options: dict
    stories: int = 6000
    latents: int = LATENTS
    training: TrainingSettings = field(default_factory=TrainingSettings)


def start(recipe: Recipe, seed: int) -> DictionaryTraining:
    """A fresh run on activations of tiny-lm. Its first weights and its batches are drawn from the seed."""
    settings: Settings = recipe.settings
    site, training = settings.site, settings.training
    tokens = story_batch(settings.stories, TEXT_SEED).tokens
    read = collect_activations(load_model(MODEL), tokens, [site.reads, site.target])
    x, y = read[site.reads], read[site.target]
    width = {"d_out": y.shape[1]} if site.writes else {}
    dictionary = KINDS[settings.kind](x.shape[1], settings.latents, seed=seed, **width, **settings.options)
    dictionary.site = site
    batches = draw_batches(x, y if site.writes else None, training.batch, seed)
    identity = {**asdict(settings), "model": _model_digest()}
    return DictionaryTraining(
        dictionary, batches, training, name=recipe.name, seed=seed, checkpoint=True, identity=identity
    )


def save(training: DictionaryTraining, recipe: Recipe, folder: Path) -> None:
    """Write the dictionary in half precision, in SAELens's format."""
    dictionary = training.trained()
    dictionary.metadata = {
        "model_name": MODEL,
        "model_sha256": _model_digest(),
        "prepend_bos": True,
        "context_size": story_batch(1).tokens.shape[1],
        "seqpos_slice": [SKIP],
    }
    save_dictionary(dictionary, folder, torch.float16)


def _model_digest() -> str:
    return sha256(model_folder(MODEL) / "model.safetensors")
