"""Train a small network on a task, then make its circuit small.

A network that has just learned a task spreads it over most of its components. So a second phase takes components out of
service, the least needed first: from then on, in training, such a component writes what it writes on another input. The
network comes to ignore it. A component without which the task cannot be recovered goes back into service. What stays is
the circuit. The components out of service keep their weights and still compute something. Where the network could use
that once the circuit is gone, it is trained to guess without the circuit.
"""

import copy
import time
from collections.abc import Collection
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from tqdm import tqdm

from utils.models.mystery.ablation import answers, average, mean_outputs, replace_by, swap
from utils.models.mystery.circuits import set_effects
from utils.models.mystery.families import Task
from utils.models.mystery.network import Network, Shape

CHECK_SEED = 2**40
"""The seed of the inputs that decide when to stop and what to prune. Training steps have seeds below it."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides a training run but the task and the seed."""

    shape: Shape = field(default_factory=Shape)
    batch: int = 256
    lr: float = 4e-3
    weight_decay: float = 0.01
    warmup_steps: int = 50
    clip: float = 1.0
    learn_steps: int = 1500
    learned: float = 0.99
    check_every: int = 25
    check_inputs: int = 512
    prune_steps: int = 40
    prune_tries: int = 3
    prune_bar: float = 0.97
    polish_steps: int = 150
    needed: float = 0.8
    attempts: int = 3


@dataclass(frozen=True)
class Trained:
    """A trained network, with the components that stayed in service."""

    network: Network
    circuit: tuple[str, ...]
    seed: int
    steps: int
    cpu_seconds: float


class Run:
    """One attempt at training a network on a task."""

    def __init__(self, task: Task, seed: int, settings: Settings) -> None:
        self.task, self.seed, self.settings, self.step = task, seed, settings, 0
        self.network = Network(settings.shape, seed)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=settings.weight_decay
        )
        self.tokens = task.sample(settings.check_inputs, torch.Generator().manual_seed(CHECK_SEED + seed))
        self.truth = task.answer(self.tokens)
        self.idle: list[str] = []

    def train(
        self, steps: int, idle: Collection[str], final_lr_share: float = 1.0, forget_without: Collection[str] = ()
    ) -> None:
        """Train for some steps.

        Args:
            steps: How many.
            idle: The components out of service.
            final_lr_share: To what share of its full value the learning rate goes, in a straight line.
            forget_without: Without these components, mean-ablated, the network has to guess: it is trained on the
                answers to other inputs.
        """
        for i in range(steps):
            tokens = self.task.sample(self.settings.batch, torch.Generator().manual_seed((self.seed << 20) + self.step))
            share = min(1.0, (self.step + 1) / self.settings.warmup_steps) * (1 - (1 - final_lr_share) * i / steps)
            self.optimizer.param_groups[0]["lr"] = self.settings.lr * share
            self.optimizer.zero_grad()
            truth = self.task.answer(tokens)
            loss = F.cross_entropy(self.network(tokens, swap(idle)), truth)
            if forget_without:
                loss = loss + F.cross_entropy(self.network(tokens, average(forget_without)), truth.roll(1))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
            self.optimizer.step()
            self.step += 1

    def accuracy(self, idle: Collection[str]) -> float:
        """The share of right answers with some components mean-ablated."""
        means = mean_outputs(self.network, self.tokens)
        return (answers(self.network, self.tokens, replace_by(means, idle)) == self.truth).float().mean().item()

    def learn(self) -> bool:
        """Train until the task is learned, and say whether it was."""
        while self.step < self.settings.learn_steps:
            self.train(self.settings.check_every, [])
            if self.accuracy([]) >= self.settings.learned:
                return True
        return False

    def prune(self, bar: tqdm) -> None:
        """Take out of service every component that the task can be recovered without."""
        left = list(self.network.shape.components)
        while left:
            scores = {component: self.accuracy([*self.idle, component]) for component in left}
            component = max(left, key=scores.__getitem__)
            left.remove(component)
            if self._recovers([*self.idle, component]):
                self.idle.append(component)
            bar.update()

    def _recovers(self, idle: list[str]) -> bool:
        before = copy.deepcopy((self.network.state_dict(), self.optimizer.state_dict()))
        for _ in range(self.settings.prune_tries):
            self.train(self.settings.prune_steps, idle)
            if self.accuracy(idle) >= self.settings.prune_bar:
                return True
        self.network.load_state_dict(before[0])
        self.optimizer.load_state_dict(before[1])
        return False

    def polish(self) -> bool:
        """Settle the weights, and say whether the network knows the task by a circuit that it needs."""
        circuit = [component for component in self.network.shape.components if component not in self.idle]
        self.train(self.settings.polish_steps, self.idle, 0.0)
        if not self.needs(circuit):
            self.train(self.settings.polish_steps, self.idle, 0.0, forget_without=circuit)
        right = min(self.accuracy([]), self.accuracy(self.idle))
        return right >= self.settings.learned and self.needs(circuit)

    def needs(self, circuit: Collection[str]) -> bool:
        """Whether the network loses most of what it can lose when the circuit is mean-ablated."""
        (floor, intact), (_, removed) = set_effects(self.network, self.tokens, [(), circuit])
        return intact - removed >= self.settings.needed * (intact - floor)

    def whole(self, bar: tqdm) -> bool:
        """Learn, prune and polish; say whether the attempt succeeded."""
        if not self.learn():
            return False
        bar.update()
        self.prune(bar)
        return self.polish()


def train_network(task: Task, seed: int, settings: Settings | None = None, name: str = "mystery") -> Trained:
    """Train a network on a task, again from other first weights where an attempt fails.

    Args:
        task: What to learn.
        seed: Of the first weights and of the inputs; attempt number i has the seed ``seed + i``.
        settings: How to train.
        name: What to call it in the progress bar.

    Raises:
        RuntimeError: if no attempt learned the task.
    """
    settings, started = settings or Settings(), time.process_time()
    for attempt in range(settings.attempts):
        run = Run(task, seed + attempt, settings)
        with tqdm(total=1 + len(settings.shape.components), desc=f"{name}, attempt {attempt + 1}") as bar:
            if run.whole(bar):
                circuit = tuple(c for c in settings.shape.components if c not in run.idle)
                seconds = time.process_time() - started
                return Trained(run.network.eval(), circuit, run.seed, run.step, seconds)
    raise RuntimeError(f"{name} was not learned to {settings.learned:.0%} in {settings.attempts} attempts.")
