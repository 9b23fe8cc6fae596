"""Numbers that say how well a model answers a prompt, one per prompt.

A metric takes the logits at the position that answers, [prompt, vocab], and gives one number per prompt, [prompt], so
that every result can carry an interval over prompts. Functions that intervene take such a metric; bind its other
arguments first: ``partial(logit_difference, right=data.right, wrong=data.wrong)``.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Metric = Callable[[Float[Tensor, "prompt vocab"]], Float[Tensor, "prompt"]]


def at_end(
    logits: Float[Tensor, "prompt seq vocab"], end: Int[Tensor, "prompt"] | None = None
) -> Float[Tensor, "prompt vocab"]:
    """The logits at the position that answers: ``end`` of each prompt, or the last one."""
    return logits[:, -1] if end is None else logits[torch.arange(len(logits), device=logits.device), end]


def logit_difference(
    logits: Float[Tensor, "prompt vocab"], right: Int[Tensor, "prompt"], wrong: Int[Tensor, "prompt"]
) -> Float[Tensor, "prompt"]:
    """Logit of the right answer minus logit of the wrong one, in nats of log-odds between the two."""
    return (logits.gather(-1, right[:, None]) - logits.gather(-1, wrong[:, None]))[:, 0]


def log_probability(logits: Float[Tensor, "prompt vocab"], right: Int[Tensor, "prompt"]) -> Float[Tensor, "prompt"]:
    """Log-probability of the right answer, in nats."""
    return logits.log_softmax(-1).gather(-1, right[:, None])[:, 0]


def probability_difference(
    logits: Float[Tensor, "prompt vocab"],
    right: Float[Tensor, "prompt vocab"],
    wrong: Float[Tensor, "prompt vocab"],
) -> Float[Tensor, "prompt"]:
    """Summed probability of all right answers minus that of all wrong ones (greater-than: the years above and below).

    Args:
        right: 1 where a token is a right answer of the prompt, else 0.
        wrong: The same for wrong answers.
    """
    return (logits.softmax(-1) * (right.to(logits.dtype) - wrong.to(logits.dtype))).sum(-1)


def kl_divergence(
    logits: Float[Tensor, "prompt vocab"], reference: Float[Tensor, "prompt vocab"]
) -> Float[Tensor, "prompt"]:
    """KL divergence of the model's answer from a reference's, KL(reference || answer), in nats.

    Args:
        reference: Logits of the run to stay close to, usually those of the whole model.
    """
    log_p = reference.log_softmax(-1)
    return (log_p.exp() * (log_p - logits.log_softmax(-1))).sum(-1)


def normalised(value: Tensor, corrupted: Tensor | float, clean: Tensor | float) -> Tensor:
    """Where a value lies between the corrupted run's (0) and the clean run's (1).

    Raises:
        ValueError: if the two runs do not differ, so that there is nothing to restore.
    """
    span = torch.as_tensor(clean) - torch.as_tensor(corrupted)
    if not (span != 0).all():
        raise ValueError("The clean and the corrupted run have the same value: there is nothing to restore.")
    return (value - corrupted) / span
