"""From final residual streams to metrics, with no more of the vocabulary than the metrics read."""

from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.metrics import Metric, logit_difference
from utils.patching.measuring import Metrics, Results, joined, measure
from utils.transformer import Transformer

LOGITS_BYTES = 2**27
"""Rows are unembedded in pieces whose logits take no more than this, or one by one."""


def answer(plain: Transformer, final: Float[Tensor, "row prompt d_model"], metric: Metrics) -> Results:
    """Every metric of every row of final residual streams, [row, prompt].

    A logit difference needs the logits of its own tokens alone. Where all metrics are logit differences, no others are
    computed: with a large vocabulary that saves most of the work.
    """
    columns = _columns(metric)
    if columns is not None:
        metric = _narrowed(metric, columns)
    width = plain.W_U.shape[1] if columns is None else len(columns)
    rows = max(1, LOGITS_BYTES // (final.element_size() * final.shape[1] * width))
    return joined([measure(metric, plain.unembed(piece, columns)) for piece in final.split(rows)])


def _columns(metric: Metrics) -> Int[Tensor, "column"] | None:
    """The tokens that the metrics read, in ascending order, if all of them are logit differences."""
    metrics = list(metric.values()) if isinstance(metric, Mapping) else [metric]
    if not all(_is_logit_difference(single) for single in metrics):
        return None
    return torch.cat([tokens for single in metrics for tokens in single.keywords.values()]).unique()


def _is_logit_difference(metric: Metric) -> bool:
    bound = isinstance(metric, partial) and metric.func is logit_difference and not metric.args
    return bound and set(metric.keywords) == {"right", "wrong"}


def _narrowed(metric: Metrics, columns: Int[Tensor, "column"]) -> Metrics:
    """The same logit differences, for logits of these columns alone."""
    if isinstance(metric, Mapping):
        return {name: _narrowed(single, columns) for name, single in metric.items()}
    return partial(logit_difference, **{name: torch.searchsorted(columns, at) for name, at in metric.keywords.items()})
