"""Small models with random weights, large enough for every part to matter."""

import tempfile
import warnings

import torch


def random_gpt2(*, layers=3, heads=3, d_model=21, vocab=37, context=12, seed=0, folded=True, **more):
    """A bridge of GPT-2's architecture; every weight is random, those of layer norms and biases too."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocab,
        n_positions=context,
        n_embd=d_model,
        n_layer=layers,
        n_head=heads,
        bos_token_id=0,
        eos_token_id=0,
        **more,
    )
    return _bridge(config, GPT2LMHeadModel, seed, folded)


def random_neo(*, layers=4, heads=2, d_model=18, vocab=29, context=12, window=3, seed=0, folded=True):
    """A bridge of GPT-Neo's architecture, with local attention in every other layer."""
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    config = GPTNeoConfig(
        vocab_size=vocab,
        max_position_embeddings=context,
        hidden_size=d_model,
        num_layers=layers,
        num_heads=heads,
        attention_types=[[["local", "global"], layers // 2]],
        window_size=window,
        bos_token_id=0,
        eos_token_id=0,
    )
    return _bridge(config, GPTNeoForCausalLM, seed, folded)


def random_native(*, seed=0, **config):
    """A native bridge; ``config`` holds fields of TransformerBridgeConfig."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    from utils.models.live_attention import make_attention_live

    usual = {"d_model": 15, "d_head": 4, "n_heads": 3, "n_layers": 3, "n_ctx": 12, "d_vocab": 23, "act_fn": "relu"}
    bridge = TransformerBridge.boot_native(TransformerBridgeConfig(**{**usual, **config}))
    _randomise(bridge, seed)
    make_attention_live(bridge)
    return bridge.requires_grad_(False).eval()


def _bridge(config, architecture, seed, folded):
    from transformer_lens.model_bridge import TransformerBridge

    from utils.models.live_attention import make_attention_live

    config._attn_implementation = "eager"
    model = architecture(config).eval()
    _randomise(model, seed)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.save_pretrained(folder)  # the bridge reads the architecture from a folder
        bridge = TransformerBridge.boot_transformers(folder, hf_model=model, tokenizer=None)
        if folded:
            bridge.enable_compatibility_mode()
    make_attention_live(bridge)
    return bridge.requires_grad_(False).eval()


def _randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def random_tokens(model, prompts=3, seq=9, seed=0):
    """Random token ids [prompt, seq]."""
    return torch.randint(model.cfg.d_vocab, (prompts, seq), generator=torch.Generator().manual_seed(seed))
