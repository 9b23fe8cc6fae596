"""Read the weights of a Hugging Face GPT-2 or GPT-Neo into the transformer of :mod:`utils.transformer_from_scratch`."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from utils.transformer_from_scratch import Config


def split_heads(weight: Float[Tensor, "d_out d_in"], n_heads: int) -> Float[Tensor, "head d_in d_head"]:
    """Cut the weight of an ``nn.Linear`` that makes queries, keys or values into one matrix for each head."""
    return weight.view(n_heads, -1, weight.shape[1]).mT


def split_qkv(
    weight: Float[Tensor, "d_model 3*d_model"], bias: Float[Tensor, "3*d_model"], n_heads: int
) -> dict[str, Tensor]:
    """Cut GPT-2's ``c_attn``, which makes the queries, keys and values of all heads at once, into its six parts."""
    parts = zip("QKV", weight.chunk(3, dim=1), bias.chunk(3), strict=True)
    cut = [(name, split_heads(w.T, n_heads), b.view(n_heads, -1)) for name, w, b in parts]
    return {f"W_{name}": w for name, w, _ in cut} | {f"b_{name}": b for name, _, b in cut}


def config_from_hugging_face(config: Mapping[str, Any]) -> Config:
    """Read the ``config.json`` of a GPT-2 or of a GPT-Neo.

    Raises:
        ValueError: if it is of another kind of model.
    """
    if config["model_type"] == "gpt2":
        names = ("vocab_size", "n_positions", "n_embd", "n_inner", "n_head")
        scale, windows = (config["n_embd"] // config["n_head"]) ** -0.5, (None,) * config["n_layer"]
    elif config["model_type"] == "gpt_neo":
        names = ("vocab_size", "max_position_embeddings", "hidden_size", "intermediate_size", "num_heads")
        scale, kinds = 1.0, config["attention_layers"]
        windows = tuple(config["window_size"] if kind == "local" else None for kind in kinds)
    else:
        raise ValueError(f"Expected a model of type 'gpt2' or 'gpt_neo', got {config['model_type']!r}.")
    d_vocab, n_ctx, d_model, d_mlp, n_heads = (config.get(name) for name in names)
    return Config(d_vocab, n_ctx, d_model, d_mlp or 4 * d_model, n_heads, scale, windows, config["layer_norm_epsilon"])


def weights_from_hugging_face(weights: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Rename and reshape the weights of a Hugging Face GPT-2 or GPT-Neo for :class:`Transformer`, in float32."""
    theirs = {name.removeprefix("transformer."): weight.float() for name, weight in weights.items()}
    ours = {"W_E": theirs["wte.weight"], "W_pos": theirs["wpe.weight"]}
    ours |= {"ln_final.w": theirs["ln_f.weight"], "ln_final.b": theirs["ln_f.bias"]}
    for layer in range(len(config.windows)):
        block = {name.removeprefix(f"h.{layer}."): w for name, w in theirs.items() if name.startswith(f"h.{layer}.")}
        read = _block_from_gpt2 if "attn.c_attn.weight" in block else _block_from_gpt_neo
        ours |= {f"blocks.{layer}.{name}": weight for name, weight in read(block, config.n_heads).items()}
    return ours


def _block_from_gpt2(block: Mapping[str, Tensor], n_heads: int) -> dict[str, Tensor]:
    """GPT-2 stores matrices as [d_in, d_out], and queries, keys and values together."""
    attention = split_qkv(block["attn.c_attn.weight"], block["attn.c_attn.bias"], n_heads)
    d_model = len(block["attn.c_proj.weight"])
    attention["W_O"] = block["attn.c_proj.weight"].view(n_heads, -1, d_model)
    attention["b_O"] = block["attn.c_proj.bias"]
    W_in, W_out = block["mlp.c_fc.weight"], block["mlp.c_proj.weight"]
    return _block(block, attention, W_in, W_out)


def _block_from_gpt_neo(block: Mapping[str, Tensor], n_heads: int) -> dict[str, Tensor]:
    """GPT-Neo stores matrices as [d_out, d_in]; its queries, keys and values have no bias."""
    project = "attn.attention.{}_proj.weight".format
    attention = {f"W_{name.upper()}": split_heads(block[project(name)], n_heads) for name in "qkv"}
    d_model = len(block[project("out")])
    attention |= {f"b_{name}": torch.zeros(n_heads, d_model // n_heads) for name in "QKV"}
    attention["W_O"] = block[project("out")].T.reshape(n_heads, -1, d_model)
    attention["b_O"] = block["attn.attention.out_proj.bias"]
    return _block(block, attention, block["mlp.c_fc.weight"].T, block["mlp.c_proj.weight"].T)


def _block(block: Mapping[str, Tensor], attention: dict[str, Tensor], W_in: Tensor, W_out: Tensor) -> dict[str, Tensor]:
    ours = {f"attn.{name}": weight for name, weight in attention.items()}
    ours |= {"mlp.W_in": W_in, "mlp.b_in": block["mlp.c_fc.bias"]}
    ours |= {"mlp.W_out": W_out, "mlp.b_out": block["mlp.c_proj.bias"]}
    for norm, name in (("ln1", "ln_1"), ("ln2", "ln_2")):
        ours |= {f"{norm}.w": block[f"{name}.weight"], f"{norm}.b": block[f"{name}.bias"]}
    return ours
