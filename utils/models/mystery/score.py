"""Judge what a learner says about a mystery: a program that predicts its answers, and the components behind them."""

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from math import nan
from pathlib import Path

import torch
from torch import Tensor

from utils.models.measurement import Measurement, mean, proportion
from utils.models.mystery.ablation import answers
from utils.models.mystery.circuits import other_sets, set_effects
from utils.models.mystery.pool import Mystery
from utils.models.mystery.truth import unseal

N_BEHAVIOUR, N_CAUSAL = 1000, 256
OTHER_SETS = 100
SHOWN = 5
AS_GOOD_WITHIN = 0.01


@dataclass(frozen=True)
class BehaviourScore:
    """How well a program predicts a mystery's answers on inputs that the learner has not had.

    Attributes:
        agreement: The share of inputs with the same answer.
        constant: The same for the program that always gives the commonest answer.
        wrong: A few inputs where they differ: (input, the mystery's answer, the program's).
    """

    agreement: Measurement
    constant: Measurement
    wrong: tuple[tuple[list[int], int, int], ...]

    @property
    def score(self) -> float:
        """From 0, no better than the best constant, to 1, always right."""
        return max(0.0, (self.agreement.value - self.constant.value) / (1 - self.constant.value))

    @property
    def beats_constant(self) -> bool:
        """Whether the interval lies above the baseline's."""
        return self.agreement.low > self.constant.high


@dataclass(frozen=True)
class ComponentScore:
    """What a set of components does to the mean probability of the answers that the intact model gives.

    Attributes:
        kept: With all other components mean-ablated. 1 if the set suffices.
        removed: With the set mean-ablated. Low if the model needs it.
        floor: With everything mean-ablated.
        intact: With nothing ablated.
        others: ``kept - removed`` over other sets of the same size.
        as_good: The share of those sets whose ``kept - removed`` is as large as the claimed set's, or nearly.
    """

    kept: float
    removed: float
    floor: float
    intact: float
    others: Measurement
    as_good: float

    @property
    def sufficient(self) -> float:
        """From 0, keeps no more than nothing would, to 1, keeps all that the intact model has."""
        return max(0.0, (self.kept - self.floor) / (self.intact - self.floor))

    @property
    def necessary(self) -> float:
        """From 0, nothing changes without it, to 1, as bad as without everything."""
        return min(1.0, max(0.0, (self.intact - self.removed) / (self.intact - self.floor)))

    @property
    def holds(self) -> bool:
        """Whether the set suffices (90 %), is needed (50 %), and fewer than 5 % of other sets are as good."""
        return self.sufficient >= 0.9 and self.necessary >= 0.5 and self.as_good < 0.05


def behaviour_score(
    predict: Callable[[list[int]], int],
    mystery: Mystery,
    n: int = N_BEHAVIOUR,
    seed: int = 0,
    truths: Path | None = None,
) -> BehaviourScore:
    """Compare a program with a mystery on held-out inputs.

    The inputs are fresh ones of the mystery's own kind, none of them among those that come with it. While the program
    runs, PyTorch modules refuse to: the program has to say what the network does, not ask it.

    Args:
        predict: From an input, a list of token ids, to the answer, one token id.
        mystery: As ``load_mystery`` opens it.
        n: On how many inputs.
        seed: Which inputs.
        truths: The instructor's file, for a pool that was made with one.

    Raises:
        TypeError: if the program answers with something else than a whole number.
        RuntimeError: if the program runs a network.
    """
    tokens = held_out_inputs(mystery, n, seed, truths)
    truth = answers(mystery.network, tokens)
    with _networks_refuse():
        said = [_ask(predict, row) for row in tokens.tolist()]
    right = torch.tensor([mine == its for mine, its in zip(said, truth.tolist(), strict=True)])
    constant = truth == truth.mode().values
    wrong = tuple((tokens[i].tolist(), int(truth[i]), said[i]) for i in (~right).nonzero()[:SHOWN, 0].tolist())
    return BehaviourScore(proportion(right, "answers predicted"), proportion(constant, "the commonest answer"), wrong)


def component_score(
    components: Collection[str], mystery: Mystery, n: int = N_CAUSAL, seed: int = 0, truths: Path | None = None
) -> ComponentScore:
    """Test by mean ablation whether a set of components carries a mystery's behaviour.

    Args:
        components: Names out of ``mystery.components``.
        mystery: As ``load_mystery`` opens it.
        n: On how many held-out inputs.
        seed: Which inputs, and which other sets.
        truths: The instructor's file, for a pool that was made with one.

    Raises:
        ValueError: if the set is empty or names something that is no component.
    """
    unknown = set(components) - set(mystery.components)
    if unknown or not components:
        raise ValueError(
            f"Expected some of {', '.join(mystery.components)}; got {', '.join(sorted(map(str, unknown))) or 'none'}."
        )
    tokens, chosen = held_out_inputs(mystery, n, seed, truths), tuple(set(components))
    rivals = other_sets(mystery.components, chosen, OTHER_SETS, seed)
    (floor, intact), (kept, removed), *rest = set_effects(mystery.network, tokens, [(), chosen, *rivals])
    margins = torch.tensor([a - b for a, b in rest], dtype=torch.float64)
    if not rest:  # everything was named: that says nothing
        return ComponentScore(kept, removed, floor, intact, Measurement(nan, nan, nan, 0, "no other sets"), 1.0)
    as_good = (margins >= kept - removed - AS_GOOD_WITHIN).double().mean().item()
    return ComponentScore(kept, removed, floor, intact, mean(margins, "other sets of the same size"), as_good)


def held_out_inputs(mystery: Mystery, n: int, seed: int = 0, truths: Path | None = None) -> Tensor:
    """Draw inputs [n, position] of a mystery's kind, none of which comes with it."""
    public = set(map(tuple, mystery.inputs.tolist()))
    generator = torch.Generator().manual_seed(2**60 + seed)
    task, fresh = unseal(mystery, truths).task, {}
    while len(fresh) < n:
        drawn = map(tuple, task.sample(n, generator).tolist())
        fresh |= dict.fromkeys(row for row in drawn if row not in public)
    return torch.tensor(list(fresh)[:n])


def _ask(predict: Callable[[list[int]], int], row: list[int]) -> int:
    said = predict(list(row))
    with contextlib.suppress(TypeError, ValueError):
        if not isinstance(said, bool) and int(said) == said:
            return int(said)
    raise TypeError(f"predict has to return one token id; for {row} it returned {said!r}.")


@contextlib.contextmanager
def _networks_refuse() -> Iterator[None]:
    def refuse(module: torch.nn.Module, inputs: tuple) -> None:
        raise RuntimeError("predict ran a network: it has to be a program of its own.")

    handle = torch.nn.modules.module.register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()
