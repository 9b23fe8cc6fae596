"""The circuit that a shipped model is known to have: the truth that methods of circuit discovery are scored against."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from utils.models.load import SHIPPED, model_folder

FILE = "circuit.json"


class Edge(NamedTuple):
    """A way from one node to another; it equals the plain tuple of its parts.

    Nodes are "input" (token and position embedding together), "a2.0" (head 0 of layer 2, both from 0) and "logits".

    Attributes:
        source: The node that writes.
        target: The node that reads.
        channel: Which input of a head reads: "q", "k" or "v". Empty where the target is "logits".
    """

    source: str
    target: str
    channel: str


@dataclass(frozen=True)
class KnownCircuit:
    """The heads and edges of a known circuit.

    Attributes:
        heads: Role -> its heads, the most important first.
        edges: Edge -> its effect: the share of the clean logit difference that is lost when this edge alone carries
            what it carries on the corrupted prompt.
        corruption: The corruption that effects were measured with.
        threshold: Every recorded edge has an effect of at least this size, and every other edge a smaller one.
    """

    heads: Mapping[str, tuple[str, ...]]
    edges: Mapping[Edge, float]
    corruption: str
    threshold: float


def known_circuit(name: str | Path) -> KnownCircuit:
    """The recorded circuit of a shipped model, or of a model in a folder.

    Edges are triples (source, target, channel), such as ("a2.0", "a3.1", "q"): head 0 of layer 2 writes what the
    queries of head 1 of layer 3 read. See :class:`Edge` for the names.

    Raises:
        ValueError: if no circuit is recorded for the model.
    """
    file = (name if isinstance(name, Path) else model_folder(name)) / FILE
    if not file.is_file():
        recorded = sorted(found.parent.name for found in SHIPPED.glob(f"*/{FILE}"))
        raise ValueError(f"No circuit is recorded for {str(name)!r}. Recorded are: {', '.join(recorded) or 'none'}.")
    circuit = json.loads(file.read_text(encoding="utf-8"))
    return KnownCircuit(
        {role: tuple(heads) for role, heads in circuit["heads"].items()},
        {Edge(*edge): effect for *edge, effect in circuit["edges"]},
        circuit["corruption"],
        circuit["threshold"],
    )


def save_circuit(circuit: KnownCircuit, folder: Path) -> None:
    """Write ``circuit.json`` into a model's folder."""
    text = {
        "naming": "source, target, channel, effect; input = token + position embedding, a2.0 = layer 2 head 0",
        "corruption": circuit.corruption,
        "threshold": circuit.threshold,
        "heads": circuit.heads,
        "edges": [[*edge, round(effect, 4)] for edge, effect in circuit.edges.items()],
    }
    (folder / FILE).write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
