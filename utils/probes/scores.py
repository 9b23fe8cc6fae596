"""How well a probe reads examples it has not seen, beside what a control task and an untrained model give."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.probes.linear import Probe, checked_labels, linear_probe
from utils.stats import Interval, bootstrap_interval

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

CONTROL_TASKS = 5
Fit = Callable[[Float[Tensor, "example d_model"], Int[Tensor, "example"]], Probe]


def split_by_group(
    groups: Int[Tensor, "example"], test_share: float = 0.3, seed: int = 0
) -> tuple[Bool[Tensor, "example"], Bool[Tensor, "example"]]:
    """Divide examples into training and test so that no group (a text, a name, a template) is on both sides.

    Returns:
        Two masks, True where an example is for training, and for testing.

    Raises:
        ValueError: if there are fewer than two groups, or the share leaves one side empty.
    """
    names = groups.unique()
    n_test = round(test_share * len(names))
    if not 0 < n_test < len(names):
        raise ValueError(f"A test share of {test_share} of {len(names)} groups leaves one side empty.")
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    test = torch.isin(groups, names[order[:n_test].to(names.device)])
    return ~test, test


def control_labels(
    labels: Int[Tensor, "example"], types: Int[Tensor, "example"], seed: int = 0
) -> Int[Tensor, "example"]:
    """A control task: every type (a word, a name) gets one random label, drawn as often as the labels occur.

    Source: Hewitt & Liang 2019, https://arxiv.org/abs/1909.03368
    """
    place = types.unique(return_inverse=True)[1].to(labels.device)
    drawn = torch.randint(len(labels), (int(place.max()) + 1,), generator=torch.Generator().manual_seed(seed))
    return labels[drawn.to(labels.device)][place]


@dataclass(frozen=True)
class ProbeScore:
    """How well a probe reads test examples, with its controls and 95 % intervals over groups.

    Attributes:
        accuracy: The share of test examples that are read right.
        control: The same for control tasks, mean over several; None where no types were given.
        selectivity: Accuracy minus control.
        majority: The share of the commonest training class among the test examples.
        n_groups: How many groups were tested.
        probe: The probe that was fitted to the training examples.
    """

    accuracy: float
    accuracy_interval: Interval
    control: float | None
    selectivity: float | None
    selectivity_interval: Interval | None
    majority: float
    n_groups: int
    probe: Probe

    def __str__(self) -> str:
        low, high = (float(end) for end in self.accuracy_interval)
        text = f"accuracy {self.accuracy:.3f} [{low:.3f}, {high:.3f}], commonest class {self.majority:.3f}"
        if self.selectivity is not None:
            low, high = (float(end) for end in self.selectivity_interval)
            text += f", control task {self.control:.3f}, selectivity {self.selectivity:.3f} [{low:.3f}, {high:.3f}]"
        return f"{text}, {self.n_groups} test groups"


def score_probe(
    x: Float[Tensor, "example d_model"],
    labels: Int[Tensor, "example"],
    groups: Int[Tensor, "example"],
    types: Int[Tensor, "example"] | None = None,
    fit: Fit = linear_probe,
    test_share: float = 0.3,
    seed: int = 0,
) -> ProbeScore:
    """Fit a probe on some groups, read others, and do the same for control tasks.

    Args:
        x: Activations.
        labels: What to read, classes from 0.
        groups: What must not be on both sides of the split, such as the text that an example is from.
        types: What a control task gives a random label to, such as the token. Types have to occur in several groups:
            a type that is only in the test groups cannot be learned by heart, and the control is then at chance.
        fit: :func:`linear_probe`, :func:`mean_difference_probe`, or a ``partial`` of one.
        test_share: Share of the groups that are kept for the test.
        seed: Of the split, of the control tasks and of the intervals.

    Raises:
        ValueError: if the lengths differ, or one side of the split is empty or has one class only.
    """
    labels = checked_labels(x, labels)
    train, test = split_by_group(groups, test_share, seed)

    def right(target: Tensor) -> tuple[Tensor, Probe]:
        probe = fit(x[train], target[train])
        return (probe.predict(x[test]) == target[test]).double(), probe

    hits, probe = right(labels)
    columns = [hits]
    if types is not None:
        draws = [control_labels(labels, types, seed + task) for task in range(CONTROL_TASKS)]
        usable = [drawn for drawn in draws if len(drawn[train].unique()) > 1]
        if not usable:
            raise ValueError("Every control task gave all training examples one label: there are too few types.")
        control = torch.stack([right(drawn)[0] for drawn in usable]).mean(0)
        columns += [control, hits - control]
    means, interval = _over_groups(torch.stack(columns, -1), groups[test], seed)
    return ProbeScore(
        accuracy=means[0].item(),
        accuracy_interval=Interval(interval.low[0], interval.high[0]),
        control=means[1].item() if types is not None else None,
        selectivity=means[2].item() if types is not None else None,
        selectivity_interval=Interval(interval.low[2], interval.high[2]) if types is not None else None,
        majority=(labels[test] == labels[train].mode().values).double().mean().item(),
        n_groups=len(groups[test].unique()),
        probe=probe,
    )


def on_untrained(
    model: "TransformerBridge", measure: Callable[["TransformerBridge"], float], seeds: Sequence[int] = range(3)
) -> Float[Tensor, "seed"]:
    """The same measurement on untrained models of the same architecture, one for each seed.

    Args:
        measure: From a model to a number: for a probe, read the activations, fit, and give the accuracy.
    """
    from utils.models.untrained import untrained_twin

    return torch.tensor([float(measure(untrained_twin(model, seed))) for seed in seeds])


def _over_groups(
    values: Float[Tensor, "example column"], groups: Int[Tensor, "example"], seed: int
) -> tuple[Float[Tensor, "column"], Interval]:
    """The mean over examples, and its bootstrap interval with whole groups drawn anew."""
    place = groups.unique(return_inverse=True)[1].to(values.device)
    sums = values.new_zeros(int(place.max()) + 1, values.shape[1] + 1)
    sums.index_add_(0, place, torch.cat([values, torch.ones_like(values[:, :1])], -1))

    def ratio(drawn: Tensor) -> Tensor:
        return drawn[:, :-1].sum(0) / drawn[:, -1].sum()

    if len(sums) < 2:
        raise ValueError("The test side has one group only: an interval needs at least two.")
    return ratio(sums), bootstrap_interval(sums, ratio, seed=seed)
