"""Sparse dictionaries (SAEs and transcoders): train them, judge them, read them.

Read in this order: ``dictionary`` (what all share), ``l1``, ``topk``, ``gated``, ``jumprelu``, ``batch_topk``,
``matryoshka`` (a page each), ``training``, ``revival``; then ``activations``, ``evaluation``, ``matching`` and
``baselines``; then ``saelens`` and ``shipped`` (files), ``gallery``, ``dashboard``. What makes TopK fast:
``active_pairs``, ``largest``, ``screening``.
"""

from utils.lazy import on_first_use

_HOME_OF = {
    "BatchTopK": "batch_topk",
    "Dashboard": "dashboard",
    "Dictionary": "dictionary",
    "DictionaryTraining": "training",
    "Gallery": "gallery",
    "Gated": "gated",
    "JumpReLU": "jumprelu",
    "L1": "l1",
    "Matryoshka": "matryoshka",
    "TrainingSettings": "training",
    "Site": "activations",
    "TopK": "topk",
    "available_dictionaries": "shipped",
    "both_signs": "baselines",
    "collect_activations": "activations",
    "draw_batches": "training",
    "evaluate": "evaluation",
    "from_saelens": "saelens",
    "linear_probe": "baselines",
    "load_dictionary": "shipped",
    "match": "matching",
    "open_dictionary": "saelens",
    "principal_directions": "baselines",
    "random_directions": "baselines",
    "save_dictionary": "saelens",
    "score": "matching",
    "spliced": "activations",
    "to_saelens": "saelens",
    "train_dictionary": "training",
}
__all__ = sorted(_HOME_OF)
__getattr__, __dir__ = on_first_use(__name__, _HOME_OF)
