"""Save a trained attention-only model as a Hugging Face GPT-2 folder, with MLPs that are one neuron wide and zero."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.models.textbook_gpt import TextbookConfig, TextbookGPT


def gpt2_config(config: TextbookConfig, bos_id: int) -> dict:
    """The arguments of ``GPT2Config`` for a model's shape."""
    return {
        "vocab_size": config.vocab_size,
        "n_positions": config.context,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": 1,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": bos_id,
        "eos_token_id": bos_id,
        "pad_token_id": bos_id,
    }


def gpt2_weights(model: TextbookGPT) -> dict[str, Tensor]:
    """The model's weights under GPT-2's names, without those of the MLPs and their norms.

    The mean embedding row moves from the words to the positions. Nothing changes but a constant in each position's
    logits: their mean over the vocabulary becomes zero, as TransformerLens's centring would make it.
    """
    mean_row = model.word_rows.mean(0)
    weights = {
        "transformer.wte.weight": model.word_rows - mean_row,
        "transformer.wpe.weight": model.position_rows + mean_row,
        "transformer.ln_f.weight": model.final_norm.weight,
        "transformer.ln_f.bias": model.final_norm.bias,
    }
    for layer, (norm, attention) in enumerate(zip(model.norms, model.attentions, strict=True)):
        columns = [F.pad(getattr(attention, name).weight, (attention.unread[name], 0)).T for name in "qkv"]
        biases = [getattr(attention, name).bias for name in "qkv"]
        prefix = f"transformer.h.{layer}"
        weights |= {
            f"{prefix}.ln_1.weight": norm.weight,
            f"{prefix}.ln_1.bias": norm.bias,
            f"{prefix}.attn.c_attn.weight": torch.cat(columns, 1),
            f"{prefix}.attn.c_attn.bias": torch.cat(biases),
            f"{prefix}.attn.c_proj.weight": F.pad(attention.out.weight, (0, 0, attention.unwritten, 0)).T,
            f"{prefix}.attn.c_proj.bias": F.pad(attention.out.bias, (attention.unwritten, 0)),
        }
    return {name: weight.detach().contiguous() for name, weight in weights.items()}


def save_gpt2(model: TextbookGPT, bos_id: int, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write ``config.json`` and ``model.safetensors`` into a folder."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from utils.models.load import _no_bars, _quiet

    with _quiet(), _no_bars(), torch.no_grad():
        gpt2 = GPT2LMHeadModel(GPT2Config(**gpt2_config(model.config, bos_id)))
        for name, parameter in gpt2.named_parameters():
            if ".mlp." in name:
                parameter.zero_()
        missing, unexpected = gpt2.load_state_dict(gpt2_weights(model), strict=False)
        kept = ("lm_head.weight", "ln_2.weight", "ln_2.bias")
        if unexpected or [name for name in missing if ".mlp." not in name and not name.endswith(kept)]:
            raise RuntimeError(f"the weights do not fit GPT-2: missing {missing}, unexpected {unexpected}")
        gpt2.to(dtype).save_pretrained(folder)
