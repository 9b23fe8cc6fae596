"""One training loop for all kinds of dictionary."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from utils.models.training import Training
from utils.sae.dictionary import Dictionary
from utils.sae.revival import aux_loss, resample

Batches = Callable[[int], tuple[Tensor, Tensor]]
SCALE_BATCHES = 8


@dataclass(frozen=True)
class TrainingSettings:
    """How a dictionary is trained.

    Attributes:
        steps: Optimiser steps.
        batch: Activations in a step.
        lr: Adam's learning rate.
        warmup: Over how many steps the learning rate rises.
        decay_share: Over which last share of the steps it falls to zero.
        sparsity_warmup: Over which first share of the steps the price of sparsity rises to the dictionary's.
        revive: What is done about dead latents: "aux" (an auxiliary loss at every step), "resample" (new weights, three
            times before the learning rate falls) or None.
        aux_price: The price of the auxiliary loss, in units of squared error. Gao et al. take 1 / 32; on tiny-lm 1
            leaves fewer latents dead and explains as much.
        dead_after: After how many steps without firing a latent counts as dead.
        normalise: Train on activations of mean length sqrt(width), from the mean of the targets on; the result reads
            and writes the activations as they were given.
        unit_norm: Keep the decoder's rows at length one.
        clip: The largest norm of the gradient.
    """

    steps: int = 3000
    batch: int = 1024
    lr: float = 2e-3
    warmup: int = 100
    decay_share: float = 0.2
    sparsity_warmup: float = 0.2
    revive: Literal["aux", "resample"] | None = "aux"
    aux_price: float = 1.0
    dead_after: int = 100
    normalise: bool = True
    unit_norm: bool = True
    clip: float = 1.0

    def lr_share(self, step: int) -> float:
        """The share of the full learning rate at a step."""
        left = (self.steps - step) / max(1.0, self.decay_share * self.steps)
        return min(1.0, (step + 1) / max(1, self.warmup), left)

    def price_share(self, step: int) -> float:
        """The share of the full price of sparsity at a step."""
        return min(1.0, (step + 1) / max(1.0, self.sparsity_warmup * self.steps))

    def resamples_at(self, step: int) -> bool:
        """Whether dead latents are resampled after a step."""
        flat = int((1 - self.decay_share) * self.steps)
        return self.revive == "resample" and step + 1 in (flat // 4, flat // 2, 3 * flat // 4)


def draw_batches(
    x: Float[Tensor, "n d_in"], y: Float[Tensor, "n d_out"] | None = None, size: int = 1024, seed: int = 0
) -> Batches:
    """A source of batches drawn with replacement from activations in memory: step -> (inputs, targets).

    Args:
        x: What the dictionary reads.
        y: What a transcoder writes; by default x itself.
        size: Rows in a batch.
        seed: With the step it decides the draw.

    Raises:
        ValueError: if x and y differ in length.
    """
    if y is not None and len(x) != len(y):
        raise ValueError(f"Inputs and targets must be the same tokens, got {len(x)} and {len(y)}.")

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows = torch.randint(len(x), (size,), generator=rng)
        inputs = x[rows]
        return inputs, inputs if y is None else y[rows]

    return batch


class DictionaryTraining(Training):
    """A run that trains a dictionary. ``run()`` does it; an interrupted run goes on when it is called again.

    Args:
        dictionary: With its first weights; it is trained in place, in normalised units.
        batches: step -> (inputs, targets).
        settings: How to train.
        name: Names the progress bar and the checkpoint.
        seed: Of the run; names the checkpoint.
        checkpoint: Whether to keep a checkpoint on disk. ``identity`` then says what else decides the run.
        identity: Anything printable.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        batches: Batches,
        settings: TrainingSettings,
        *,
        name: str = "dictionary",
        seed: int = 0,
        checkpoint: bool = False,
        identity: Any = None,
    ) -> None:
        self.batches, self.how, self.on_disk = batches, settings, checkpoint
        self.in_scale = self.out_scale = 1.0
        if settings.normalise:
            self._normalise(dictionary)
        super().__init__(
            name,
            seed,
            dictionary.train(),
            [torch.optim.Adam(dictionary.parameters(), lr=settings.lr, fused=True)],
            settings.steps,
            self._loss,
            lr_share=settings.lr_share,
            clip=settings.clip,
            settings=identity or settings,
        )

    @torch.no_grad()
    def _normalise(self, dictionary: Dictionary) -> None:
        x, y = (torch.cat(parts) for parts in zip(*map(self.batches, range(SCALE_BATCHES)), strict=True))
        self.in_scale = x.shape[1] ** 0.5 / x.norm(dim=1).mean().item()
        self.out_scale = y.shape[1] ** 0.5 / y.norm(dim=1).mean().item()
        dictionary.b_dec.copy_(y.mean(0) * self.out_scale)

    def _loss(self, step: int) -> Tensor:
        dictionary: Dictionary = self.model
        x, y = self.batch(step)
        passed = dictionary.training_pass(x)
        loss = sum(F.mse_loss(output, y, reduction="sum") for output in passed.outputs) / len(y)
        loss = loss + self.how.price_share(step) * dictionary.sparsity * passed.cost
        dictionary.idle_steps.add_(1).masked_fill_(passed.fired, 0)
        dead = dictionary.idle_steps > self.how.dead_after
        if self.how.revive == "aux" and dead.any():
            loss = loss + self.how.aux_price * aux_loss(dictionary, x, y - passed.outputs[-1], dead)
        return loss

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The inputs and targets of a step, in the units of training."""
        x, y = self.batches(step)
        device = self.model.W_dec.device
        inputs = self._scaled(x.to(device), self.in_scale)
        return inputs, inputs if y is x else self._scaled(y.to(device), self.out_scale)

    @staticmethod
    def _scaled(x: Tensor, scale: float) -> Tensor:
        return x if scale == 1.0 else x * scale

    def take_step(self) -> float:
        """One step, and what keeps the weights in bounds after it."""
        step, loss = self.step, super().take_step()
        if self.how.resamples_at(step):
            x, y = self.batch(step)
            resample(self.model, x, y, self.model.idle_steps > self.how.dead_after, self.optimizers[0], seed=step)
        if self.how.unit_norm:
            self.model.constrain_()
        return loss

    def trained(self) -> Dictionary:
        """A copy of the dictionary as it is now, in evaluation mode, for activations as they were given."""
        dictionary = copy.deepcopy(self.model)
        dictionary.rescale_(self.in_scale, self.out_scale)
        return dictionary.eval().requires_grad_(False)

    def save(self) -> None:
        """Write the checkpoint, if the run keeps one."""
        if self.on_disk:
            super().save()

    def resume(self) -> None:
        """Go on from the checkpoint, if the run keeps one."""
        if self.on_disk:
            super().resume()


def train_dictionary(
    dictionary: Dictionary,
    x: Float[Tensor, "n d_in"] | Batches,
    y: Float[Tensor, "n d_out"] | None = None,
    *,
    settings: TrainingSettings | None = None,
    seed: int = 0,
    **changes: Any,
) -> Dictionary:
    """Train a dictionary and return it in evaluation mode, without gradients.

    Args:
        dictionary: With its first weights.
        x: Activations, or a function step -> (inputs, targets) for what does not fit in memory.
        y: A transcoder's targets.
        settings: How to train.
        seed: Of the batches.
        changes: Fields of :class:`TrainingSettings` to change, such as ``steps=500``.

    Returns:
        A trained copy. If training is interrupted, what it has by then, with a warning.

    Raises:
        ValueError: if the activations' widths are not the dictionary's, or a transcoder lacks targets.
    """
    settings = replace(settings or TrainingSettings(), **changes)
    batches = x if callable(x) else draw_batches(x, y, settings.batch, seed)
    _check(dictionary, *batches(0), has_targets=callable(x) or y is not None)
    run = DictionaryTraining(dictionary, batches, settings, name=dictionary.kind, seed=seed)
    try:
        run.run()
    except KeyboardInterrupt:
        warnings.warn(f"Stopped after {run.step} of {run.steps} steps; this is what was learnt by then.", stacklevel=2)
    return run.trained()


def _check(dictionary: Dictionary, x: Tensor, y: Tensor, has_targets: bool) -> None:
    if (x.shape[1], y.shape[1]) != (dictionary.d_in, dictionary.d_out):
        raise ValueError(
            f"The dictionary reads width {dictionary.d_in} and writes width {dictionary.d_out}; "
            f"the activations have widths {x.shape[1]} and {y.shape[1]}."
        )
    if dictionary.is_transcoder and not has_targets:
        raise ValueError("A transcoder needs the activations that it should write: pass them as y.")
