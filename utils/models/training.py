"""One training run that can be interrupted: it goes on from its last checkpoint and ends in the same weights."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import trange

CHECKPOINTS = Path(__file__).parents[2] / ".course" / "training"
CHECKPOINT_EVERY = 200
LOSS_EVERY = 10


def no_schedule(step: int) -> float:
    """The full learning rate at every step."""
    return 1.0


class Training:
    """A training run.

    Args:
        name: The model's name; with ``seed`` it names the checkpoint.
        seed: What the run's weights and batches were drawn from.
        model: The module to train, with its first weights.
        optimizers: Their parameter groups hold the full learning rates.
        steps: How many steps the run has.
        loss: step -> scalar loss. It draws its batch from (seed, step) alone, so that a resumed run sees the same.
        lr_share: step -> the share of the full learning rates at that step.
        clip: The largest norm of the gradient, if there is one.
        keep_at: After how many steps to keep a copy of the weights; 0 is before training.
        probe: Numbers to follow during training, by name.
        probe_every: After how many steps to take them; 0 is never.
        settings: What decides the run but its seed. A checkpoint of other settings is not resumed.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        steps: int,
        loss: Callable[[int], Tensor],
        *,
        lr_share: Callable[[int], float] = no_schedule,
        clip: float | None = None,
        keep_at: Iterable[int] = (),
        probe: Callable[[], dict[str, float]] | None = None,
        probe_every: int = 0,
        settings: Any = None,
    ) -> None:
        self.name, self.seed, self.model, self.optimizers, self.steps = name, seed, model, optimizers, steps
        self.loss, self.lr_share, self.clip, self.keep_at = loss, lr_share, clip, frozenset(keep_at)
        self.probe, self.probe_every = probe, probe_every
        self.settings = asdict(settings) if is_dataclass(settings) else settings
        self.full_lr = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        self.step = 0
        self.history: dict[str, list[tuple[int, float]]] = {}
        self.kept: dict[int, dict[str, Tensor]] = {}

    @property
    def checkpoint(self) -> Path:
        """The run's checkpoint, under a name of its own for each name, seed and settings."""
        identity = hashlib.sha256(json.dumps([self.settings, self.steps], sort_keys=True, default=str).encode())
        return CHECKPOINTS / f"{self.name}-seed{self.seed}-{identity.hexdigest()[:8]}.pt"

    def run(self) -> nn.Module:
        """Train to the end, from the checkpoint if there is one, and return the model in evaluation mode."""
        self.resume()
        self._keep()
        bar = trange(self.step, self.steps, initial=self.step, total=self.steps, desc=f"{self.name}, seed {self.seed}")
        try:
            for _ in bar:
                loss = self.take_step()
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                if self.step % CHECKPOINT_EVERY == 0:
                    self.save()
        except KeyboardInterrupt:
            self.save()
            raise
        self.save()
        return self.model.eval()

    def take_step(self) -> float:
        """Train on the next batch and return its loss."""
        self._keep()
        share = self.lr_share(self.step)
        for optimizer, rates in zip(self.optimizers, self.full_lr, strict=True):
            optimizer.zero_grad()
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share
        loss = self.loss(self.step)
        loss.backward()
        if self.clip:
            self._clip()
        for optimizer in self.optimizers:
            optimizer.step()
        self._record(loss.item())
        self.step += 1
        self._keep()
        return loss.item()

    def _clip(self) -> None:
        """What ``clip_grad_norm_`` does, which also multiplies by one."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        if not norm + 1e-6 <= self.clip:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), self.clip, norm)

    def _record(self, loss: float) -> None:
        if self.step % LOSS_EVERY == 0:
            self.history.setdefault("loss", []).append((self.step, loss))
        if self.probe and self.probe_every and self.step % self.probe_every == 0:
            for name, value in self.probe().items():
                self.history.setdefault(name, []).append((self.step, value))

    def _keep(self) -> None:
        if self.step in self.keep_at and self.step not in self.kept:
            self.kept[self.step] = {name: weight.detach().clone() for name, weight in self.model.state_dict().items()}

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.checkpoint.with_suffix(".partial")
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "history": self.history,
            "kept": self.kept,
        }
        torch.save(state, unfinished)
        unfinished.replace(self.checkpoint)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one of the same name, seed and settings."""
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint)
        self.step, self.history, self.kept = state["step"], state["history"], state["kept"]
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
