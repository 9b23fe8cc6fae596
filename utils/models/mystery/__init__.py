"""Sealed small models whose task nobody tells you, the generator that makes them, and the judges of an answer.

``load_mystery(learner_id)`` opens a learner's mystery; ``behaviour_score`` and ``component_score`` judge what the
learner says about it; ``unseal`` tells the truth. ``python -m utils.models.mystery`` makes fresh pools.
"""

from utils.lazy import on_first_use

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
__getattr__, __dir__ = on_first_use(__name__, _HOME_OF)
