"""Sealed small models whose task nobody tells you, the generator that makes them, and the judges of an answer.

``load_mystery(learner_id)`` opens a learner's mystery; ``behaviour_score`` and ``component_score`` judge what the
learner says about it; ``unseal`` tells the truth. ``python -m utils.models.mystery`` makes fresh pools.
"""

import importlib
from typing import Any

_HOME_OF = {
    "Mystery": "pool",
    "behaviour_score": "score",
    "component_score": "score",
    "draw_pool": "instance",
    "draw_task": "instance",
    "load_mystery": "pool",
    "make_pool": "make",
    "measure_pool": "measure",
    "mystery_names": "pool",
    "unseal": "truth",
}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it, the first time it is asked for."""
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"utils.models.mystery.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'utils.models.mystery' has no attribute {name!r}")
