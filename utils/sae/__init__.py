"""Sparse dictionaries (SAEs and transcoders): train them, judge them, read them.

Read in this order: ``dictionary`` (what all share), ``l1``, ``topk``, ``gated``, ``jumprelu``, ``batch_topk``,
``matryoshka`` (a page each), ``training``, ``revival``; then ``activations``, ``evaluation``, ``matching`` and
``baselines``; then ``saelens`` and ``shipped`` (files), ``gallery``, ``dashboard``. ``active_pairs`` makes TopK fast.
"""

import importlib
import importlib.util
from typing import Any

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


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it, or a module, the first time it is asked for."""
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"utils.sae.{_HOME_OF[name]}"), name)
    if not name.startswith("_") and importlib.util.find_spec(f"utils.sae.{name}"):
        return importlib.import_module(f"utils.sae.{name}")
    raise AttributeError(f"module 'utils.sae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
