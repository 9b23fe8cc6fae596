"""Intervene on a model: put an activation of one run into another, and read what becomes of the answer.

Read in this order: ``plain`` (one patch, with hooks: the definition), ``grids`` (every layer, position and head), then
how the grids are computed: ``runs``, ``fast``, ``streams``, ``heads``, ``answers``. ``path_patching`` patches one
path between two components, ``ablation`` takes one away. ``inputs`` and ``measuring`` check what all of them are given.
"""

from utils.lazy import on_first_use

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
__getattr__, __dir__ = on_first_use(__name__, _HOME_OF)
