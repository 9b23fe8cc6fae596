"""``protein-like``: a small causal transformer that reads made-up proteins residue by residue."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.models.export import save_neo
from utils.models.gpt import GPT, GPTConfig
from utils.models.muon import Muon
from utils.models.protein_family import BOS, UNKNOWN, VOCABULARY, family_fingerprint
from utils.models.proteins import LENGTH, sample_proteins
from utils.models.recipe import Recipe
from utils.models.recipes.protein_like_card import ABOUT, LIMITS
from utils.models.recipes.protein_like_measure import measure
from utils.models.recipes.protein_like_pairs import KINDS_OF_PAIR, pairs
from utils.models.tokenizer import save_tokenizer
from utils.models.training import Training

WATCHED, WATCHED_SEED, PROBE_EVERY = 150, [2**31, 2], 40


def _shape() -> GPTConfig:
    return GPTConfig(len(VOCABULARY), d_model=64, n_layers=2, n_heads=4, d_mlp=256, context=LENGTH, local_layers=0)


@dataclass(frozen=True)
class Settings:
    """Everything that decides a training run but its seed."""

    model: GPTConfig = field(default_factory=_shape)
    family: str = field(default_factory=family_fingerprint)
    steps: int = 2000
    batch: int = 64
    matrix_lr: float = 0.02
    matrix_weight_decay: float = 0.05
    other_lr: float = 6e-3
    other_weight_decay: float = 0.01
    warmup_steps: int = 100
    decay_from: float = 0.4
    final_lr_share: float = 0.02
    clip: float = 1.0

    def lr_share(self, step: int) -> float:
        """The share of the full learning rate at a step: up, flat, then down in a straight line."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        left = 1 - max(0.0, step / self.steps - self.decay_from) / (1 - self.decay_from)
        return warm * max(self.final_lr_share, left)


def make_optimizers(model: GPT, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for embeddings, norms and biases."""
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        Muon(matrices, lr=settings.matrix_lr, weight_decay=settings.matrix_weight_decay),
        torch.optim.AdamW(others, lr=settings.other_lr, weight_decay=settings.other_weight_decay, betas=(0.9, 0.98)),
    ]


def start(recipe: Recipe, seed: int) -> Training:
    """A fresh run: next-residue prediction on sequences that are drawn anew at every step."""
    settings: Settings = recipe.settings
    model = GPT(settings.model, seed)

    def loss(step: int) -> Tensor:
        tokens = sample_proteins(settings.batch, [seed, step], settings.model.context + 1).tokens
        return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    watched = sample_proteins(WATCHED, WATCHED_SEED)

    @torch.no_grad()
    def probe() -> dict[str, float]:
        right = model(watched.tokens)[:, :-1].argmax(-1) == watched.tokens[:, 1:]
        places = {kind: pairs(watched, kind)[:2] for kind in KINDS_OF_PAIR}
        return {f"accuracy, {kind}s": right[place].double().mean().item() for kind, place in places.items()}

    optimizers = make_optimizers(model, settings)
    schedule = {"lr_share": settings.lr_share, "clip": settings.clip, "settings": settings}
    followed = {"probe": probe, "probe_every": PROBE_EVERY}
    return Training(recipe.name, seed, model, optimizers, settings.steps, loss, **schedule, **followed)


def save_letters(folder: Path, context: int) -> None:
    """Save a tokenizer that makes every letter a token, and puts BOS first."""
    from tokenizers import Regex, decoders, pre_tokenizers
    from transformers import AutoTokenizer

    save_tokenizer(VOCABULARY, BOS, UNKNOWN, context, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.backend_tokenizer.decoder = decoders.Fuse()
    tokenizer.save_pretrained(folder)


def save(training: Training, recipe: Recipe, folder: Path) -> None:
    """Write a Hugging Face GPT-Neo folder with its tokenizer."""
    save_neo(training.model, VOCABULARY.index(BOS), folder)
    save_letters(folder, recipe.settings.model.context)


RECIPES = (Recipe("protein-like", 0, Settings(), start, save, measure, about=ABOUT, limits=LIMITS),)
