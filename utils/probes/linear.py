"""Two linear probes: logistic regression, and the difference of means."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

ITERATIONS = 1000


@dataclass(frozen=True)
class Probe:
    """A linear map from activations to one score for each class.

    Attributes:
        weight: One direction for each class.
        bias: One offset for each class.
    """

    weight: Float[Tensor, "class d_model"]
    bias: Float[Tensor, "class"]

    def scores(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch class"]:
        """The score of each class; for a logistic probe its softmax is a probability."""
        return x.to(self.weight.dtype) @ self.weight.T + self.bias

    def predict(self, x: Float[Tensor, "*batch d_model"]) -> Int[Tensor, "*batch"]:
        """The class with the largest score."""
        return self.scores(x).argmax(-1)

    @property
    def direction(self) -> Float[Tensor, "d_model"]:
        """Of a probe of two classes: the direction from class 0 to class 1.

        Raises:
            ValueError: if there are more classes.
        """
        if len(self.weight) != 2:
            raise ValueError(f"Only a probe of two classes has one direction; this one has {len(self.weight)}.")
        return self.weight[1] - self.weight[0]


def linear_probe(x: Float[Tensor, "example d_model"], labels: Int[Tensor, "example"], penalty: float = 1.0) -> Probe:
    """Logistic regression with an L2 penalty, as scikit-learn fits it, on standardised dimensions.

    It minimises the summed cross-entropy plus ``penalty / 2`` times the squared weights. Two classes share one weight
    vector; a class that no example has is never predicted.

    Args:
        x: Activations.
        labels: Classes from 0; True and False will do.
        penalty: Larger values suit fewer examples and more dimensions.

    Raises:
        ValueError: if the labels do not fit the examples, or there is only one class.
    """
    from sklearn.linear_model import LogisticRegression

    labels = checked_labels(x, labels)
    n_classes, x = int(labels.max()) + 1, x.double()
    centre, spread = x.mean(0), x.std(0, correction=0)
    spread = torch.where(spread > 1e-8 * spread.max(), spread, 1.0)  # a dimension that never changes says nothing
    fitted = LogisticRegression(C=1 / penalty, max_iter=ITERATIONS, tol=1e-6)
    fitted.fit(((x - centre) / spread).cpu().numpy(), labels.cpu().numpy())
    weight, bias = x.new_zeros(n_classes, x.shape[1]), x.new_full((n_classes,), -torch.inf)
    found = torch.as_tensor(fitted.classes_, device=x.device)
    rows = torch.as_tensor(fitted.coef_, device=x.device), torch.as_tensor(fitted.intercept_, device=x.device)
    if len(found) == 2:  # one row that says how much more the second class is meant than the first
        rows = tuple(torch.stack([-row[0] / 2, row[0] / 2]) for row in rows)
    weight[found], bias[found] = rows[0] / spread, rows[1]
    return Probe(weight, bias - weight @ centre)


def mean_difference_probe(x: Float[Tensor, "example d_model"], labels: Int[Tensor, "example"]) -> Probe:
    """A probe for two classes along the difference of their means, which decides halfway between them.

    It learns nothing but two means, so that it cannot fit noise as regression can.

    Raises:
        ValueError: if the labels do not fit the examples, or there are not two classes.

    Source: Marks & Tegmark 2023, https://arxiv.org/abs/2310.06824
    """
    labels = checked_labels(x, labels)
    if int(labels.max()) > 1:
        raise ValueError(f"A difference of means needs two classes, 0 and 1; the labels go up to {int(labels.max())}.")
    x = x.double()
    without, having = x[labels == 0].mean(0), x[labels == 1].mean(0)
    direction = having - without
    return Probe(
        torch.stack([torch.zeros_like(direction), direction]),
        torch.stack([x.new_zeros(()), -direction @ (having + without) / 2]),
    )


def checked_labels(x: Float[Tensor, "example d_model"], labels: Int[Tensor, "example"]) -> Int[Tensor, "example"]:
    """The labels as integers, once they are known to fit the examples.

    Raises:
        ValueError: if they do not, or are not classes, or are all the same.
    """
    if x.ndim != 2 or labels.shape != x.shape[:1]:
        raise ValueError(
            f"A probe wants activations [example, d_model] and one label for each; "
            f"got {list(x.shape)} and {list(labels.shape)}."
        )
    if labels.is_floating_point() or int(labels.min()) < 0:
        raise ValueError("Labels must be whole numbers from 0, or True and False.")
    if len(labels.unique()) < 2:
        raise ValueError("All labels are the same: there is nothing to tell apart.")
    return labels.long().to(x.device)
