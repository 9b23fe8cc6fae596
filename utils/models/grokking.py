"""Training on addition modulo p: the network memorises the pairs that it sees, and much later it groks the others.

    for moment, model in train_live(seed=0):
        print(moment.step, moment.train_loss, moment.test_loss)

Sources: Power et al. 2022, https://arxiv.org/abs/2201.02177; Nanda et al. 2023, https://arxiv.org/abs/2301.05217
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor
from tqdm import trange

from utils.models.modular_addition import ModularAddition, all_pairs, answer_loss, training_pairs
from utils.models.training import Training

MOMENTS = "moments.json"


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run but its seed.

    Attributes:
        p: The modulus.
        train_share: The share of all pairs that is trained on, all of them at each step.
        steps: Steps of AdamW at ``lr``, after a short ``warmup``. From the share ``decay_from`` of them on, the rate
            falls to zero in a straight line, and with it the weight decay, which works in proportion.
    """

    p: int
    train_share: float
    steps: int
    decay_from: float
    d_model: int = 128
    n_heads: int = 4
    d_mlp: int = 256
    lr: float = 1e-2
    weight_decay: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: int = 10

    def lr_share(self, step: int) -> float:
        """The share of the full learning rate at a step."""
        left = (self.steps - step) / (self.steps * (1 - self.decay_from))
        return min(1.0, (step + 1) / self.warmup, left)


LIVE = Settings(p=59, train_share=0.45, steps=1500, decay_from=0.6)
"""Groks within a minute on one core."""


@dataclass(frozen=True)
class Moment:
    """One look at a run: losses in nats, and the Euclidean norm of all weights together."""

    step: int
    train_loss: float
    test_loss: float
    train_accuracy: float
    test_accuracy: float
    weight_norm: float


@torch.no_grad()
def look(model: ModularAddition, trained_on: Bool[Tensor, "a b"], step: int) -> Moment:
    """Measure a network on its training pairs and on the others."""
    a, b = all_pairs(model.p)
    answers, seen = (a + b) % model.p, trained_on.flatten()
    logits = model.fast_logits(a, b)
    right = (logits.argmax(1) == answers).double()
    return Moment(
        step,
        answer_loss(logits[seen], answers[seen]).item(),
        answer_loss(logits[~seen], answers[~seen]).item(),
        right[seen].mean().item(),
        right[~seen].mean().item(),
        torch.cat([weight.flatten() for weight in model.parameters()]).norm().item(),
    )


def start_training(
    settings: Settings, seed: int, name: str = "modular addition", keep_at: Iterable[int] = (), look_every: int = 0
) -> Training:
    """A fresh run.

    Args:
        settings: What decides the run but its seed.
        seed: Of the first weights and of the training pairs.
        name: Of the run's checkpoint file.
        keep_at: Steps at which the run rounds its weights to half precision and keeps them, so that storing them as
            such loses nothing.
        look_every: After how many steps it looks at itself; 0 is never.
    """
    s, keep_at = settings, frozenset(keep_at)
    model = ModularAddition(s.p, seed, d_model=s.d_model, n_heads=s.n_heads, d_mlp=s.d_mlp)
    trained_on = training_pairs(s.p, s.train_share, seed)
    a, b = trained_on.nonzero().T.contiguous()
    answers = (a + b) % s.p

    def loss(step: int) -> Tensor:
        if step in keep_at:
            round_to_half(model)
        return answer_loss(model.fast_logits(a, b), answers)

    def probe() -> dict[str, float]:
        seen = asdict(look(model, trained_on, 0))
        return {name: value for name, value in seen.items() if name != "step"}

    return Training(
        name,
        seed,
        model,
        [torch.optim.AdamW(model.parameters(), s.lr, s.betas, weight_decay=s.weight_decay, fused=True)],
        s.steps,
        loss,
        lr_share=s.lr_share,
        keep_at=keep_at,
        probe=probe,
        probe_every=look_every,
        settings=settings,
    )


@torch.no_grad()
def round_to_half(model: ModularAddition) -> None:
    """Round every weight to the nearest number that half precision holds."""
    for weight in model.parameters():
        weight.copy_(weight.half())


def train_live(settings: Settings = LIVE, seed: int = 0, every: int = 25) -> Iterator[tuple[Moment, ModularAddition]]:
    """Train with a progress bar and stop every few steps for a look.

    Yields:
        What :func:`look` measures, before the first step, every ``every`` steps and after the last, and the network,
        which trains on when the next moment is asked for: copy what is to be kept.
    """
    training = start_training(settings, seed)
    trained_on = training_pairs(settings.p, settings.train_share, seed)
    for step in trange(settings.steps, desc=f"addition mod {settings.p}, seed {seed}"):
        if step % every == 0:
            yield look(training.model, trained_on, step), training.model
        training.take_step()
    yield look(training.model, trained_on, settings.steps), training.model


def save_moments(folder: Path, training: Training) -> None:
    """Keep with a model what its run saw each time it looked at itself, in ``moments.json``."""
    names = [field.name for field in fields(Moment) if field.name != "step"]
    looks = zip(*(training.history[name] for name in names), strict=True)
    moments = [
        {"step": look[0][0] + 1, **{name: value for name, (_, value) in zip(names, look, strict=True)}}
        for look in looks  # Training calls its probe after the step that it names
    ]
    (folder / MOMENTS).write_text(json.dumps(moments) + "\n", encoding="utf-8")


def load_moments(model: str | Path) -> list[Moment]:
    """What the run of a shipped model, or of the model in a folder, saw on its way.

    Raises:
        FileNotFoundError: if this is no model of modular addition.
    """
    from utils.models.load import model_folder

    file = (model if isinstance(model, Path) else model_folder(model)) / MOMENTS
    if not file.is_file():
        raise FileNotFoundError(f"{str(model)!r} has no {MOMENTS}: it is not a model of modular addition.")
    return [Moment(**moment) for moment in json.loads(file.read_text(encoding="utf-8"))]
