"""Intervene on a model: put an activation of one run into another, and read what becomes of the answer.

Read in this order: ``plain`` (one patch, with hooks: the definition), ``grids`` (every layer, position and head), then
how the grids are computed: ``runs``, ``fast``, ``streams``, ``heads``, ``answers``. ``path_patching`` patches one
path between two components, ``ablation`` takes one away. ``inputs`` and ``measuring`` check what all of them are given.
"""

import importlib
import importlib.util
from typing import Any

_HOME_OF = {
    "ablate": "ablation",
    "ablation_effects": "ablation",
    "patch_activation": "plain",
    "patch_heads": "grids",
    "patch_residual": "grids",
    "path_patch_to_inputs": "path_patching",
    "path_patch_to_logits": "path_patching",
}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it, or a module, the first time it is asked for."""
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"utils.patching.{_HOME_OF[name]}"), name)
    if not name.startswith("_") and importlib.util.find_spec(f"utils.patching.{name}"):
        return importlib.import_module(f"utils.patching.{name}")
    raise AttributeError(f"module 'utils.patching' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
