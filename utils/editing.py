"""Rank-one model editing (ROME): change one fact by a rank-one change of one MLP's output matrix.

An MLP's second matrix is read as a memory of keys (the neurons' activations) and values (what the MLP writes). To give
a subject another value, take its key ``k`` at its last token, find the value ``v`` that makes the model say the new
word, and add to the matrix ``W`` the smallest change that maps ``k`` to ``v``. Small means: to the keys of ordinary
text, whose second moments are ``C``. The answer is closed: ``W + C^-1 k (v - b - k W) / (k C^-1 k)``.

Source: Meng et al. 2022, https://arxiv.org/abs/2202.05262
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.editing_prompts import Contexts, Rewrite, in_contexts, target_ids

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

RIDGE = 1e-4
STEPS, LEARNING_RATE, DECAY = 40, 0.1, 0.2


@dataclass(frozen=True)
class RankOneEdit:
    """A change of one MLP's output matrix by ``outer(direction, change)``.

    Attributes:
        layer: Whose MLP.
        direction: What a key is compared with, [d_mlp]: the edited key gives 1.
        change: What is then added to the MLP's output, [d_model].
    """

    layer: int
    direction: Float[Tensor, "d_mlp"]
    change: Float[Tensor, "d_model"]

    @property
    def update(self) -> Float[Tensor, "d_mlp d_model"]:
        """What is added to the matrix."""
        return torch.outer(self.direction, self.change)

    @contextmanager
    def applied(self, model: "TransformerBridge") -> Iterator["TransformerBridge"]:
        """Edit a model inside a ``with`` block. Afterwards its weights are bit for bit what they were."""
        weight = output_matrix(model, self.layer)
        before = weight.detach().clone()
        with torch.no_grad():
            weight += self.update
        try:
            yield model
        finally:
            with torch.no_grad():
                weight.copy_(before)


def output_matrix(model: "TransformerBridge", layer: int) -> Float[Tensor, "d_mlp d_model"]:
    """The second matrix of a layer's MLP, as a view: to change it is to change the model.

    Raises:
        ValueError: if the layer does not exist or has no MLP.
    """
    if not 0 <= layer < model.cfg.n_layers:
        raise ValueError(f"layer must be between 0 and {model.cfg.n_layers - 1}, not {layer}")
    if not hasattr(model.blocks[layer], "mlp"):
        raise ValueError(f"layer {layer} has no MLP, and rank-one editing changes an MLP")
    return model.blocks[layer].mlp.W_out


@torch.no_grad()
def keys(
    model: "TransformerBridge", layer: int, tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, "batch position d_mlp"]:
    """The keys of a layer's MLP: its neurons' activations."""
    output_matrix(model, layer)
    name = f"blocks.{layer}.mlp.hook_post"
    return model.run_with_cache(tokens, names_filter=name)[1][name]


def key_covariance(
    model: "TransformerBridge", layer: int, tokens: Int[Tensor, "batch position"], ridge: float = RIDGE
) -> Float[Tensor, "d_mlp d_mlp"]:
    """The second moments of a layer's keys on text, not centred, in double precision.

    Args:
        model: A model with MLPs.
        layer: Whose MLP.
        tokens: Ordinary text. Position 0, the same in every row, is left out.
        ridge: Added to the diagonal, as a share of its mean: neurons that the text never uses would make the matrix
            singular.
    """
    seen = keys(model, layer, tokens)[:, 1:].flatten(0, 1).double()
    moments = seen.mT @ seen / len(seen)
    return moments + ridge * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype)


def rank_one_edit(
    layer: int, key: Float[Tensor, "d_mlp"], change: Float[Tensor, "d_model"], covariance: Float[Tensor, "d_mlp d_mlp"]
) -> RankOneEdit:
    """The edit that adds ``change`` to a key's output and, among all that do, moves other keys' outputs least.

    With U the update, it minimises the mean of ``|k' U|^2`` over the keys k' that have this covariance.

    Raises:
        ValueError: if the key is zero.
    """
    if not key.any():
        raise ValueError("the key must not be zero: no change of the matrix can change what a zero key gives")
    direction = torch.linalg.solve(covariance.double(), key.double())
    return RankOneEdit(layer, (direction / (direction @ key.double())).to(key.dtype), change)


def find_changes(
    model: "TransformerBridge",
    layer: int,
    contexts: Contexts,
    targets: Int[Tensor, "rewrite"],
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    decay: float = DECAY,
) -> Float[Tensor, "rewrite d_model"]:
    """What has to be added to a layer's MLP output at each subject's last token for the model to say the target.

    Adam on the mean of ``-log P(target)`` over a rewrite's contexts, plus ``decay`` times the squared length of the
    change relative to the output's own. ``learning_rate`` is the length of a step on the same scale. The rewrites are
    optimised side by side and do not touch one another.
    """
    output_matrix(model, layer)
    name = f"blocks.{layer}.hook_mlp_out"
    n, rows = len(targets), contexts.rows
    per_rewrite = len(rows) // n
    with torch.no_grad():
        output = model.run_with_cache(contexts.tokens, names_filter=name)[1][name][rows, contexts.subject]
        scale = output.norm(dim=-1).view(n, per_rewrite).mean(1)
    change = torch.zeros(n, output.shape[-1], requires_grad=True)

    def add(written: Tensor, hook: object) -> Tensor:
        written = written.clone()
        written[rows, contexts.subject] += (change * scale[:, None]).repeat_interleave(per_rewrite, 0)
        return written

    optimizer = torch.optim.Adam([change], lr=learning_rate / output.shape[-1] ** 0.5)
    for _ in range(steps):
        with torch.enable_grad():
            logits = model.run_with_hooks(contexts.tokens, fwd_hooks=[(name, add)])[rows, contexts.end]
            said = logits.log_softmax(-1)[rows, targets.repeat_interleave(per_rewrite)]
            loss = -said.view(n, per_rewrite).mean(1).sum() + decay * change.square().sum()
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
    return change.detach() * scale[:, None]


def edit_facts(
    model: "TransformerBridge",
    layer: int,
    rewrites: Sequence[Rewrite],
    covariance: Float[Tensor, "d_mlp d_mlp"],
    prefixes: Sequence[str] = ("",),
    **optimisation: float,
) -> list[RankOneEdit]:
    """One edit for each rewrite, each to be applied alone.

    Args:
        model: A model with MLPs. It is left as it is.
        layer: Whose MLP to change.
        rewrites: The facts to write.
        covariance: From :func:`key_covariance`, for this layer.
        prefixes: Texts to put before the prompt. Keys are averaged, and changes found, over all of them.
        optimisation: ``steps``, ``learning_rate`` and ``decay`` of :func:`find_changes`.

    Raises:
        ValueError: if the layer does not exist or has no MLP, a subject is not in its prompt, or a target is not a
            single token.
        UnknownWords: if a word is not in the model's vocabulary.

    Source: Meng et al. 2022, https://arxiv.org/abs/2202.05262
    """
    contexts = in_contexts(model, rewrites, prefixes)
    targets = target_ids(model, [rewrite.target for rewrite in rewrites])
    changes = find_changes(model, layer, contexts, targets, **optimisation)
    own = keys(model, layer, contexts.tokens)[contexts.rows, contexts.subject].view(len(rewrites), len(prefixes), -1)
    return [rank_one_edit(layer, *pair, covariance) for pair in zip(own.mean(1), changes, strict=True)]
