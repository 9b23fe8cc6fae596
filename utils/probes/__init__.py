"""Linear probes: what can be read from activations, and the controls without which a reading means little.

A probe that finds a property shows that the property can be read there, not that the model uses it. Three controls
come with every score here: the share of the commonest class, a control task (a random label for every type of input,
Hewitt & Liang 2019, https://arxiv.org/abs/1909.03368) that a probe can only solve by learning types by heart, and the
same probe on models that were never trained (:func:`on_untrained`).
"""

from utils.probes.linear import Probe, linear_probe, mean_difference_probe
from utils.probes.scores import ProbeScore, control_labels, on_untrained, score_probe, split_by_group

__all__ = [
    "Probe",
    "ProbeScore",
    "control_labels",
    "linear_probe",
    "mean_difference_probe",
    "on_untrained",
    "score_probe",
    "split_by_group",
]
