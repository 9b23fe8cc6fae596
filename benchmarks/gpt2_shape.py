"""A model of GPT-2 small's shape with random weights: its own are on the hub, and times do not depend on them."""

import tempfile
import warnings
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def gpt2_shape(
    *, d_model: int = 768, vocab: int = 50257, layers: int = 12, heads: int = 12, device: str = "cpu"
) -> "TransformerBridge":
    """A TransformerBridge of GPT-2's architecture; by default as large as GPT-2 small."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=vocab, n_embd=d_model, n_layer=layers, n_head=heads, attn_implementation="eager")
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        network = GPT2LMHeadModel(config).to(device).eval()
        config.save_pretrained(folder)  # the bridge reads the architecture from a folder
        bridge = TransformerBridge.boot_transformers(folder, hf_model=network, tokenizer=None, device=device)
        bridge.enable_compatibility_mode()
    return bridge.requires_grad_(False).eval()
