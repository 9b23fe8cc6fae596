"""The interactive view of attention that circuitsvis draws."""

from collections.abc import Sequence
from typing import Any

from utils.plots.theme import as_numpy


class AttentionView:
    """The interactive circuitsvis view of several heads, with its JavaScript inside: it works offline."""

    def __init__(self, tokens: Sequence[str], patterns: Any):
        """
        Args:
            tokens: one label per position.
            patterns: [head, query, key].
        """
        import circuitsvis

        rendered = circuitsvis.attention.attention_patterns(
            tokens=[f"{token} " for token in tokens], attention=as_numpy(patterns)
        )
        self.html = rendered.local_src

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return "AttentionView (shown in notebooks)"
