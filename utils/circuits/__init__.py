"""Circuits: find the edges of a model's graph that carry a behaviour, and judge what was found.

Read in this order: ``graph`` (nodes and edges), ``circuit`` (a set of edges), ``patching`` (run the model with some
edges corrupted), ``effects`` (every edge alone, exactly), ``attribution`` (EAP and EAP-IG: every edge alone, to first
order) with ``recorded`` (its runs), ``discovery`` (ACDC: edge by edge) with ``decisions`` (its trace) and
``pruned_run`` (which makes it fast), ``known`` (the circuits that shipped models are known to have); then
``evaluation``, ``completeness``, ``overlap``, ``scrubbing``, ``drawing`` and ``report``. ``heads`` holds the parts of a
layer's attention that take one input per head.

Models that :class:`utils.transformer.Transformer` does not cover (rotary positions, gated MLPs, RMS norm, grouped
heads, attention and MLP side by side) run by their own modules instead (``plain``), which is slower.
"""

from utils.lazy import on_first_use

_HOME_OF = {
    "ACDCRun": "decisions",
    "Circuit": "circuit",
    "Claim": "scrubbing",
    "Edge": "graph",
    "EdgePatcher": "patching",
    "Graph": "graph",
    "CircuitReport": "report",
    "Finding": "report",
    "acdc": "discovery",
    "acdc_sequential": "discovery",
    "draw_circuit": "drawing",
    "eap": "attribution",
    "eap_ig": "attribution",
    "edge_effects": "effects",
    "edge_overlap": "overlap",
    "faithfulness": "evaluation",
    "faithfulness_curve": "evaluation",
    "minimality": "completeness",
    "node_overlap": "overlap",
    "patch_edges": "patching",
    "recorded_circuit": "known",
    "roc": "overlap",
    "scrub": "scrubbing",
    "shuffled_order": "discovery",
}
__all__ = sorted(_HOME_OF)
__getattr__, __dir__ = on_first_use(__name__, _HOME_OF)
