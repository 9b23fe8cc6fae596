"""Models without a Hugging Face architecture: attention-only, without layer norm, or with an output of its own size.

They are saved with the weight names and shapes of HookedTransformer, the field's common tongue, and opened as native
bridges of TransformerLens.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

ARCHITECTURE = "TransformerLensNative"
_PLAIN = {
    "embed.W_E": "tok_embed.weight",
    "pos_embed.W_pos": "pos.weight",
    "ln_final.w": "ln_out.weight",
    "ln_final.b": "ln_out.bias",
}


def save_native(
    folder: Path, config: Mapping, weights: Mapping[str, Tensor], dtype: torch.dtype = torch.float16
) -> None:
    """Write ``config.json`` and ``model.safetensors`` into a folder.

    Args:
        folder: Where to write.
        config: Fields of TransformerLens's ``TransformerBridgeConfig``.
        weights: By HookedTransformer's names: ``embed.W_E`` [d_vocab, d_model], ``pos_embed.W_pos`` [n_ctx, d_model],
            ``blocks.0.attn.W_Q`` [head, d_model, d_head], ``blocks.0.attn.W_O`` [head, d_head, d_model],
            ``blocks.0.attn.b_Q`` [head, d_head], ``blocks.0.attn.b_O`` [d_model], ``blocks.0.ln1.w`` [d_model],
            ``blocks.0.mlp.W_in`` [d_model, d_mlp], ``ln_final.w`` [d_model], ``unembed.W_U`` [d_model, d_vocab_out],
            and so on. A bias that is left out is zero.
        dtype: How to store them.

    Raises:
        ValueError: if the weights are not those that the configuration needs.
    """
    from safetensors.torch import save_file

    _build(config, weights)  # raises if they do not fit
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"architectures": [ARCHITECTURE], **config}, indent=1)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    stored = {name: weight.detach().to(dtype).contiguous() for name, weight in weights.items()}
    save_file(stored, folder / "model.safetensors")


def is_native(folder: Path) -> bool:
    """Whether a folder holds a model written by :func:`save_native`."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config.get("architectures") == [ARCHITECTURE]


def open_native(folder: Path, weights: Mapping[str, Tensor], device: str = "cpu") -> "TransformerBridge":
    """Build the bridge of a folder's configuration around weights named as in :func:`save_native`."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config.pop("architectures")
    module, full_config = _build(config, weights)
    return build_bridge_from_module(module.to(device), architecture=ARCHITECTURE, tl_config=full_config, device=device)


def _build(config: Mapping, weights: Mapping[str, Tensor]) -> tuple:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources.native.model import NativeModel

    full_config = TransformerBridgeConfig.from_dict({"architecture": ARCHITECTURE, "init_weights": False, **config})
    module = NativeModel(full_config)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    needed = set(module.state_dict())
    given = {_native_name(name): _native_shape(name, weight).float() for name, weight in weights.items()}
    missing = {name for name in needed - set(given) if not name.endswith("bias")}
    if missing or set(given) - needed:
        raise ValueError(
            f"The weights do not fit the configuration: missing {sorted(missing) or 'none'}, "
            f"not expected {sorted(set(given) - needed) or 'none'}."
        )
    try:
        module.load_state_dict(given, strict=False)
    except RuntimeError as error:
        raise ValueError(f"The weights do not fit the configuration: {error}") from None
    return module.eval(), full_config


def _native_name(name: str) -> str:
    if name in _PLAIN:
        return _PLAIN[name]
    if name == "unembed.W_U":
        return "head.weight"
    parts = name.split(".")
    if len(parts) != 4 or parts[0] != "blocks":
        raise ValueError(f"{name!r} is not a weight of a native model; expected a name like 'blocks.0.attn.W_Q'.")
    _, layer, module, weight = parts
    if module == "attn":
        return f"layers.{layer}.attn.{weight[-1].lower()}.{'weight' if weight[0] == 'W' else 'bias'}"
    if module == "mlp":
        return f"layers.{layer}.mlp.fc_{weight[2:]}.{'weight' if weight[0] == 'W' else 'bias'}"
    return f"layers.{layer}.{module}.{'weight' if weight == 'w' else 'bias'}"


def _native_shape(name: str, weight: Tensor) -> Tensor:
    last = name.rsplit(".", 1)[1]
    if last in ("W_Q", "W_K", "W_V"):
        return weight.transpose(1, 2).flatten(0, 1)  # [head, d_model, d_head] -> [head * d_head, d_model]
    if last == "W_O":
        return weight.flatten(0, 1).T  # [head, d_head, d_model] -> [d_model, head * d_head]
    if last in ("W_in", "W_out", "W_U"):
        return weight.T
    return weight.flatten() if last in ("b_Q", "b_K", "b_V") else weight
