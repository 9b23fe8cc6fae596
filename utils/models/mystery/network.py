"""The network of every mystery: one small transformer that is read at its last position, with replaceable components.

Its weights carry HookedTransformer's names and shapes, so that ``save_native`` can write them as they are. A component
is a head or an MLP: "0.3" is head 3 of layer 0, "1.mlp" the MLP of layer 1.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

EPS = 1e-5
Edit = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Shape:
    """The shape of a mystery's network. All shipped mysteries have the same one, so that it gives nothing away."""

    d_model: int = 48
    n_layers: int = 2
    n_heads: int = 4
    d_head: int = 12
    d_mlp: int = 96
    d_vocab: int = 32
    n_ctx: int = 13

    @property
    def config(self) -> dict:
        """The fields of TransformerLens's configuration."""
        return asdict(self) | {"d_vocab_out": self.d_vocab, "act_fn": "relu", "normalization_type": "LN", "eps": EPS}

    @property
    def components(self) -> tuple[str, ...]:
        """The names of all heads and MLPs, from the lowest layer up."""
        parts = (*(str(head) for head in range(self.n_heads)), "mlp")
        return tuple(f"{layer}.{part}" for layer in range(self.n_layers) for part in parts)


class Norm(nn.Module):
    """Layer norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(shape.d_model))
        self.b = nn.Parameter(torch.zeros(shape.d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return nn.functional.layer_norm(x, self.w.shape, self.w, self.b, EPS)


class Attention(nn.Module):
    """Causal attention that returns what each head writes, before the shared bias ``b_O`` is added."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        for name in ("Q", "K", "V"):
            setattr(self, f"W_{name}", nn.Parameter(torch.empty(shape.n_heads, shape.d_model, shape.d_head)))
            setattr(self, f"b_{name}", nn.Parameter(torch.zeros(shape.n_heads, shape.d_head)))
        self.W_O = nn.Parameter(torch.empty(shape.n_heads, shape.d_head, shape.d_model))
        self.b_O = nn.Parameter(torch.zeros(shape.d_model))

    def pattern(self, x: Tensor, queries: int) -> Tensor:
        """The attention [batch, head, query, key] of the last ``queries`` positions of x [batch, seq, d_model]."""
        seq = x.shape[1]
        q = torch.einsum("bqd,hde->bhqe", x[:, -queries:], self.W_Q) + self.b_Q[:, None]
        k = torch.einsum("bkd,hde->bhke", x, self.W_K) + self.b_K[:, None]
        hidden = torch.ones(queries, seq, dtype=torch.bool, device=x.device).triu(seq - queries + 1)
        scores = q @ k.mT / self.W_Q.shape[-1] ** 0.5
        return scores.masked_fill(hidden, -torch.inf).softmax(-1)

    def forward(self, x: Tensor, queries: int) -> Tensor:
        """What each head writes [head, batch, query, d_model] at the last ``queries`` positions."""
        v = torch.einsum("bkd,hde->bhke", x, self.W_V) + self.b_V[:, None]
        return torch.einsum("bhqe,hed->hbqd", self.pattern(x, queries) @ v, self.W_O)


class Mlp(nn.Module):
    """One hidden layer of ReLU neurons."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.W_in = nn.Parameter(torch.empty(shape.d_model, shape.d_mlp))
        self.b_in = nn.Parameter(torch.zeros(shape.d_mlp))
        self.W_out = nn.Parameter(torch.empty(shape.d_mlp, shape.d_model))
        self.b_out = nn.Parameter(torch.zeros(shape.d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Map the normalised stream to what the layer adds to it."""
        return torch.addmm(self.b_out, (x.flatten(0, 1) @ self.W_in + self.b_in).relu(), self.W_out).view(x.shape)


class Block(nn.Module):
    """One layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.ln1, self.attn = Norm(shape), Attention(shape)
        self.ln2, self.mlp = Norm(shape), Mlp(shape)


class Table(nn.Module):
    """One named matrix, for the embeddings and the unembedding."""

    def __init__(self, name: str, rows: int, columns: int) -> None:
        super().__init__()
        setattr(self, name, nn.Parameter(torch.empty(rows, columns)))


class Network(nn.Module):
    """The whole model. Only its last position is trained, so only that one is computed to the end."""

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.embed = Table("W_E", shape.d_vocab, shape.d_model)
        self.pos_embed = Table("W_pos", shape.n_ctx, shape.d_model)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        self.ln_final = Norm(shape)
        self.unembed = Table("W_U", shape.d_model, shape.d_vocab)
        self._initialise(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        """Draw matrices from normal distributions; those that write to the stream start smaller."""
        for name, parameter in self.named_parameters():
            last = name.rsplit(".", 1)[1]
            if not last.startswith("W_"):
                continue
            std = 0.5 if last in ("W_E", "W_pos") else parameter.shape[-2] ** -0.5
            if last in ("W_O", "W_out"):
                std = (self.shape.d_model * 2 * self.shape.n_layers) ** -0.5
            parameter.normal_(std=std, generator=generator)

    def forward(self, tokens: Tensor, edit: Edit | None = None) -> Tensor:
        """The logits [batch, d_vocab] at the last position of token ids [batch, n_ctx].

        ``edit(component, output)`` may change what a component writes [batch, query, d_model], from the lowest layer
        up. The queries are all positions, in the last layer only the last one.
        """
        x = self.embed.W_E[tokens] + self.pos_embed.W_pos
        for layer, block in enumerate(self.blocks):
            queries = 1 if layer == self.shape.n_layers - 1 else tokens.shape[1]
            heads = block.attn(block.ln1(x), queries)
            x = x[:, -queries:] + block.attn.b_O
            for head, output in enumerate(heads):
                x = x + (edit(f"{layer}.{head}", output) if edit else output)
            output = block.mlp(block.ln2(x))
            x = x + (edit(f"{layer}.mlp", output) if edit else output)
        return self.ln_final(x[:, -1]) @ self.unembed.W_U

    def patterns(self, tokens: Tensor) -> dict[str, Tensor]:
        """The attention pattern [batch, query, key] of every head on token ids [batch, n_ctx]."""
        found: dict[str, Tensor] = {}
        handles = []
        for layer, block in enumerate(self.blocks):

            def keep(attention: Attention, inputs: tuple, output: Tensor, layer: int = layer) -> None:
                for head, pattern in enumerate(attention.pattern(*inputs).unbind(1)):
                    found[f"{layer}.{head}"] = pattern

            handles.append(block.attn.register_forward_hook(keep))
        self(tokens)
        for handle in handles:
            handle.remove()
        return found


def open_network(folder: Path) -> Network:
    """Open the network of a mystery's folder."""
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    network = Network(Shape(**{field: config[field] for field in Shape.__dataclass_fields__}))
    network.load_state_dict({name: weight.float() for name, weight in load_file(folder / "model.safetensors").items()})
    return network.requires_grad_(False).eval()
