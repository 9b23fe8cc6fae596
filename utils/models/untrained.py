"""The control that every finding about a trained model should survive: the same architecture, never trained."""

import copy
import tempfile
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def untrained_twin(model_or_name: "TransformerBridge | str", seed: int = 0) -> "TransformerBridge":
    """A model of the same architecture with fresh random weights, drawn as before training.

    Args:
        model_or_name: a bridge from ``load_model``, or a name that ``load_model`` takes.
        seed: the same seed gives the same weights. The global random state is left as it was.

    Returns:
        A TransformerBridge in evaluation mode, with the model's tokenizer and on its device.
    """
    from utils.models.live_attention import make_attention_live
    from utils.models.load import _quiet, load_model
    from utils.models.native import ARCHITECTURE

    model = load_model(model_or_name) if isinstance(model_or_name, str) else model_or_name
    with _quiet():
        is_toy = model.cfg.architecture == ARCHITECTURE
        twin = _native_twin(model, seed) if is_toy else _transformers_twin(model, seed)
        make_attention_live(twin)
    twin.cfg.model_name = f"untrained {model.cfg.model_name}"
    twin.requires_grad_(False)
    return twin.eval()


def _native_twin(model: "TransformerBridge", seed: int) -> "TransformerBridge":
    from transformer_lens.model_bridge import TransformerBridge

    config = copy.deepcopy(model.cfg)
    config.init_weights, config.seed = True, seed
    return TransformerBridge.boot_native(config, device=model.cfg.device)


def _transformers_twin(model: "TransformerBridge", seed: int) -> "TransformerBridge":
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM

    config = model.original_model.config
    with tempfile.TemporaryDirectory() as folder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            random_weights = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        config.save_pretrained(folder)  # the bridge reads the architecture from a folder
        twin = TransformerBridge.boot_transformers(
            folder, hf_model=random_weights.to(model.cfg.device).eval(), tokenizer=model.tokenizer
        )
        twin.enable_compatibility_mode()
    return twin
