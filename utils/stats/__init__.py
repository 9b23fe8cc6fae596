"""How sure a number is: intervals, tests against chance, corrections for many tests, and the moment of a change.

Everything is seeded, and what is resampled is the first dimension: prompts, seeds, heads. For what is not here use
``scipy.stats``: ``bootstrap`` (bias-corrected intervals), ``false_discovery_control`` (Benjamini-Hochberg).
"""

from utils.stats.chance import Test, effect_size, holm, permutation_test, sign_flip_test
from utils.stats.change import ChangePoint, change_point
from utils.stats.intervals import Interval, bootstrap_interval, wilson_interval
from utils.stats.rank_correlation import ranks, spearman, spearman_interval

__all__ = [
    "ChangePoint",
    "Interval",
    "Test",
    "bootstrap_interval",
    "change_point",
    "effect_size",
    "holm",
    "permutation_test",
    "ranks",
    "sign_flip_test",
    "spearman",
    "spearman_interval",
    "wilson_interval",
]
