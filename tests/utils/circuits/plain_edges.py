"""Random small decoders, and a forward pass that computes every edge on its own: the oracle of edge methods."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.circuits import Edge, Graph
from utils.metrics import logit_difference
from utils.read_weights import Layer
from utils.transformer import Transformer

SHAPES = {
    "layer norm": {"seed": 1},
    "no layer norm": {"seed": 2, "norm": None},
    "folded layer norm": {"seed": 3, "norm": "folded"},
    "attention only": {"seed": 4, "d_mlp": None},
    "attention only, no layer norm": {"seed": 5, "d_mlp": None, "norm": None},
    "local attention": {"seed": 6, "windows": (2, None)},
    "one head, odd sizes": {"seed": 7, "n_heads": 1, "d_head": 5, "d_model": 11, "windows": (None,)},
    "three layers": {"seed": 8, "n_heads": 3, "d_model": 10, "windows": (None, 3, None)},
}


def random_model(
    seed: int = 0,
    windows: tuple[int | None, ...] = (None, None),
    n_heads: int = 2,
    d_head: int = 3,
    d_model: int = 8,
    d_mlp: int | None = 12,
    norm: str | None = "weights",
    vocab: int = 17,
    dtype: torch.dtype = torch.float32,
) -> Transformer:
    """A decoder with random weights, biases and gains, in which every component matters."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float | None = None) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=dtype) * (scale or 1.3 / shape[0] ** 0.5)

    def layer_norm() -> tuple[Tensor | None, Tensor | None] | None:
        if norm == "weights":
            return 1 + draw(d_model, scale=0.3), draw(d_model, scale=0.3)
        return (None, None) if norm == "folded" else None

    def layer(window: int | None) -> Layer:
        z = n_heads * d_head
        mlp = [None] * 4
        if d_mlp is not None:
            mlp = draw(d_model, d_mlp), draw(d_mlp, scale=0.3), draw(d_mlp, d_model), draw(d_model, scale=0.3)
        return Layer(
            draw(d_model, 3 * z),
            draw(3 * z, scale=0.3),
            draw(z, d_model),
            draw(d_model, scale=0.3),
            layer_norm(),
            layer_norm(),
            *mlp,
            activation=partial(F.gelu, approximate="tanh"),
            window=window,
        )

    return Transformer(
        n_heads,
        d_head,
        1e-5,
        [layer(window) for window in windows],
        draw(vocab, d_model, scale=1.0),
        draw(12, d_model, scale=0.5),
        layer_norm(),
        draw(d_model, vocab),
        draw(vocab, scale=0.3),
    )


def random_prompts(seed: int = 0, prompts: int = 3, seq: int = 6, vocab: int = 17) -> tuple[Tensor, Tensor, Tensor]:
    """Clean tokens, corrupted tokens that differ from the third position on, and an answering position each."""
    rng = torch.Generator().manual_seed(seed)
    clean = torch.randint(vocab, (prompts, seq), generator=rng)
    corrupted = clean.clone()
    corrupted[:, 2:] = torch.randint(vocab, (prompts, seq - 2), generator=rng)
    return clean, corrupted, torch.randint(3, seq, (prompts,), generator=rng)


def random_metric(seed: int = 0, prompts: int = 3, vocab: int = 17) -> Callable[[Tensor], Tensor]:
    """The logit difference between two random words of each prompt."""
    rng = torch.Generator().manual_seed(seed)
    right = torch.randint(vocab, (prompts,), generator=rng)
    return partial(logit_difference, right=right, wrong=(right + 1) % vocab)


def run_edge_by_edge(
    model: Transformer, embedded: Tensor, end: Tensor, carry: Callable[[Edge, Tensor], Tensor] = lambda _, x: x
) -> tuple[Tensor, dict[str, Tensor]]:
    """The answering logits, and what every node wrote, where ``carry`` says what each edge carries of it."""
    graph, written, biases = Graph.of(model), {"input": embedded}, torch.zeros_like(embedded)
    seq = embedded.shape[1]

    def read(destination: str) -> Tensor:
        n = graph.n_readable[graph.destination_place[destination]]
        return biases + sum(carry(Edge(source, destination), written[source]) for source in graph.sources[:n])

    def normed(x: Tensor, ln: tuple | None) -> Tensor:
        if ln is None:
            return x
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.pow(2).mean(-1, keepdim=True) + model.eps).sqrt()
        gain, bias = ln
        return x if gain is None else x * gain + bias

    for place, layer in enumerate(model.layers):
        W = layer.W_QKV.view(-1, 3, model.n_heads, model.d_head)
        b = layer.b_QKV.view(3, model.n_heads, model.d_head)
        hidden = torch.ones(seq, seq).triu(1).bool()
        if layer.window is not None:
            hidden |= torch.ones(seq, seq).tril(-layer.window).bool()
        for head in range(model.n_heads):
            q, k, v = (
                normed(read(f"a{place}.h{head}<{channel}>"), layer.ln1) @ W[:, part, head] + b[part, head]
                for part, channel in enumerate("qkv")
            )
            pattern = (q @ k.mT).masked_fill(hidden, -torch.inf).softmax(-1)
            W_O = layer.W_O.view(model.n_heads, model.d_head, -1)[head]
            written[f"a{place}.h{head}"] = pattern @ v @ W_O
        biases = biases + layer.b_O
        if layer.W_in is not None:
            inside = normed(read(f"m{place}"), layer.ln2) @ layer.W_in + layer.b_in
            written[f"m{place}"] = layer.activation(inside) @ layer.W_out + layer.b_out
    final = normed(read("logits"), model.ln_final)[torch.arange(len(end)), end]
    return final @ model.W_U + model.b_U, written
