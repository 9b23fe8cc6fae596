"""What the prose of notebook 1.2 says is true of the shipped model."""

import json
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from utils import load_model, load_tokenizer
from utils.models import story_batch
from utils.models.load import model_folder
from utils.sampling import draw_tokens, generate_tokens, keep_top_p, temperature_probs
from utils.transformer_from_scratch import (
    MLP,
    Attention,
    Config,
    Transformer,
    attention_weights,
    causal_mask,
    embed_tokens,
    head_output,
)
from utils.transformer_weights import config_from_hugging_face, weights_from_hugging_face

FOLDER = model_folder("tiny-lm")
CONFIG = config_from_hugging_face(json.loads((FOLDER / "config.json").read_text()))


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def rebuild(**changes) -> Transformer:
    model = Transformer(Config(**{**vars(CONFIG), **changes}))
    model.load_state_dict(weights_from_hugging_face(load_file(FOLDER / "model.safetensors"), CONFIG))
    return model


@pytest.fixture
def model():
    return rebuild()


@pytest.fixture(scope="module")
def tokens():
    return story_batch(100).tokens


def losses(model: Callable, tokens: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(tokens)[:, :-1].mT, tokens[:, 1:], reduction="none").mean(-1)


def loss(model: Callable, tokens: torch.Tensor) -> float:
    return losses(model, tokens).mean().item()


@pytest.fixture(scope="module")
def target(tokens):
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()(tokens).logits


def test_the_logits_are_those_of_transformers(model, tokens, target):
    assert (model(tokens) - target).abs().max() < 1e-4


def test_the_heads_add_up_and_one_looks_one_step_back(model):
    sentence = "when Mary and John went to the store , John gave a drink to"
    tokens = torch.tensor([load_tokenizer("tiny-lm")(sentence).input_ids])
    layer, seq = model.blocks[0], tokens.shape[1]
    part, x, mask = layer.attn, layer.ln1(embed_tokens(tokens, model.W_E, model.W_pos)), causal_mask(seq, 3)
    total, back = part.b_O, []
    for h in range(CONFIG.n_heads):
        q, k = x @ part.W_Q[h] + part.b_Q[h], x @ part.W_K[h] + part.b_K[h]
        pattern = attention_weights(q, k, mask, CONFIG.scale)
        total = total + head_output(x, pattern, part.W_V[h], part.b_V[h], part.W_O[h])
        back.append(pattern[0].diagonal(-1).mean().item())
    assert (total - part(x)).abs().max() < 1e-5
    assert max(back) > 0.5
    assert back.index(max(back)) == 1


def test_the_bridge_shifts_all_logits_of_a_position_alike(tokens, target):
    difference = load_model("tiny-lm")(tokens) - target
    assert difference.abs().max() > 1
    assert (difference - difference[..., :1]).abs().max() < 1e-3


def test_the_exact_gelu_differs_by_up_to_half_a_thousandth():
    x = torch.linspace(-6, 6, 10001)
    assert 0.0004 < (F.gelu(x) - F.gelu(x, approximate="tanh")).abs().max() < 0.0005


def test_two_mistakes_do_not_show_in_the_loss(model, tokens, target):
    other_bend, other_eps = rebuild(), rebuild(eps=1e-3)
    for part in other_bend.modules():
        if isinstance(part, MLP):
            part.forward = lambda x, p=part: F.gelu(x @ p.W_in + p.b_in) @ p.W_out + p.b_out
    right = loss(model, tokens)
    for wrong in (other_bend, other_eps):
        assert abs(loss(wrong, tokens) - right) < 0.001
        assert (wrong(tokens) - target).abs().max() > 100 * 1e-4


def test_without_the_final_norm_the_model_is_confidently_wrong(model, tokens):
    model.ln_final.forward = lambda x: x
    assert loss(model, tokens) > 3 * math.log(CONFIG.d_vocab)
    assert model(tokens).softmax(-1).amax(-1).median() > 0.99


def parts_of(model):
    return {f"{name} {i}": getattr(block, name) for i, block in enumerate(model.blocks) for name in ("attn", "mlp")}


def cost_without(model, names, tokens) -> torch.Tensor:
    """What each story's loss gains when these parts add nothing."""
    right, parts = losses(model, tokens), parts_of(model)
    for name in names:
        parts[name].forward = torch.zeros_like
    cost = losses(model, tokens) - right
    for name in names:
        del parts[name].forward
    return cost


def shuffled(part, window, seed):
    generator = torch.Generator().manual_seed(seed)
    twin = Attention(CONFIG, window) if isinstance(part, Attention) else MLP(CONFIG)
    order = {name: torch.randperm(w.numel(), generator=generator) for name, w in part.named_parameters()}
    twin.load_state_dict({name: w.flatten()[order[name]].view_as(w) for name, w in part.named_parameters()})
    return twin.forward


@pytest.mark.slow
def test_a_broken_part_costs_more_than_a_missing_one(model, tokens):
    right = loss(model, tokens)
    for name, part in parts_of(model).items():
        removed = cost_without(model, [name], tokens).mean().item()
        broken = []
        for seed in range(3):
            part.forward = shuffled(part, CONFIG.windows[int(name[-1])], seed)
            broken.append(loss(model, tokens) - right)
            del part.forward
        assert sum(broken) / 3 > removed, name


def test_the_lowest_attention_carries_most_and_some_parts_little(model, tokens):
    costs = {name: cost_without(model, [name], tokens).mean().item() for name in parts_of(model)}
    assert max(costs, key=costs.get) == "attn 0"
    assert costs["attn 0"] > 2 * sorted(costs.values())[-2]
    assert sum(cost < 0.15 for cost in costs.values()) >= 3


def test_costs_do_not_add_up(model, tokens):
    middle = ["mlp 1", "mlp 2", "mlp 3"]
    alone = sum(cost_without(model, [name], tokens) for name in middle)
    together = cost_without(model, middle, tokens)
    excess = together - alone
    assert alone.mean() < 0.3
    assert together.mean() > 0.6
    assert excess.mean() - 1.96 * excess.std() / len(excess) ** 0.5 > 0


def test_top_p_adapts_to_the_context(model):
    text = "when Mary and John went to the store , John gave a drink to Mary . the capital of France is Paris ."
    kept = keep_top_p(model(torch.tensor([load_tokenizer("tiny-lm")(text).input_ids])), 0.9).isfinite().sum(-1)
    assert kept.min() == 1
    assert kept.max() > 200


def write(model, temperature, n=200, length=24):
    start = torch.full((n, 1), load_tokenizer("tiny-lm").bos_token_id)
    torch.manual_seed(5)
    return generate_tokens(model, start, length, lambda x: draw_tokens(temperature_probs(x, temperature)), CONFIG.n_ctx)


def test_greedy_text_goes_in_circles_and_does_not_surprise(model, tokens):
    greedy = write(model, 0, n=2, length=40)
    assert torch.equal(greedy[0], greedy[1])
    row = greedy[0, 1:].tolist()
    fours = [tuple(row[i : i + 4]) for i in range(len(row) - 3)]
    assert len(set(fours)) < 0.7 * len(fours)
    assert loss(model, greedy) < 0.6 * loss(model, tokens[:, :41])


@pytest.mark.slow
def test_temperature_one_is_nearest_to_real_text(model, tokens):
    real = losses(model, story_batch(400).tokens[:, :25])
    own = {t: losses(model, write(model, t, n=400)) for t in (0.5, 1, 1.5)}
    gaps = {t: abs(values.mean() - real.mean()).item() for t, values in own.items()}
    assert min(gaps, key=gaps.get) == 1
    assert gaps[1] < 0.1 * real.mean()
    assert min(gaps[0.5], gaps[1.5]) > 4 * gaps[1]


def test_the_first_loss_is_the_logarithm_of_the_vocabulary_for_small_weights_only(tokens):
    small = Config(CONFIG.d_vocab, n_ctx=64, d_model=64, d_mlp=256, n_heads=4, scale=0.25, windows=(None,))
    model = Transformer(small)
    assert abs(loss(model, tokens) - math.log(CONFIG.d_vocab)) < 0.05
    for name, weight in model.named_parameters():
        if name.split(".")[-1].startswith("W_"):
            weight.mul_(50)
    assert loss(model, tokens) > 2 * math.log(CONFIG.d_vocab)


def bigram_counts(tokens):
    counts, ones = torch.zeros(CONFIG.d_vocab, CONFIG.d_vocab), torch.ones(())
    return counts.index_put_((tokens[:, :-1].flatten(), tokens[:, 1:].flatten()), ones, accumulate=True)


def bigram_loss(counts, tokens, smoothing):
    log_probs = (counts + smoothing).log() - (counts.sum(1, keepdim=True) + smoothing * len(counts)).log()
    return -log_probs[tokens[:, :-1], tokens[:, 1:]].mean().item()


def unigram_loss(counts, tokens):
    log_probs = (counts.sum(0) + 1).log() - (counts.sum() + len(counts)).log()
    return -log_probs[tokens[:, 1:]].mean().item()


def test_the_bigram_model_has_the_best_of_four_smoothings(tokens):
    counts = bigram_counts(story_batch(3000, seed=1).tokens)
    by_smoothing = {s: bigram_loss(counts, tokens, s) for s in (0.001, 0.01, 0.03, 0.1)}
    assert min(by_smoothing, key=by_smoothing.get) == 0.03


@pytest.mark.slow
def test_a_short_training_beats_both_simple_models_and_shuffled_words_stop_at_the_unigram(tokens):
    text = story_batch(3000, seed=1).tokens
    order = torch.rand(text[:, 1:].shape, generator=torch.Generator().manual_seed(0)).argsort(1)
    shuffled_text = torch.cat([text[:, :1], text[:, 1:].gather(1, order)], dim=1)
    counts = bigram_counts(text)
    reached = [loss(short_training(train, 240), tokens) for train in (text, shuffled_text)]
    assert reached[0] < bigram_loss(counts, tokens, 0.03) - 0.1
    assert abs(reached[1] - unigram_loss(counts, tokens)) < 0.1


@torch.enable_grad()
def short_training(text, steps, seed=0):
    model = Transformer(Config(CONFIG.d_vocab, 64, 64, 256, 4, 0.25, (None,)), seed=seed)
    optimizer, generator = torch.optim.AdamW(model.parameters(), lr=3e-3), torch.Generator().manual_seed(seed)
    for _ in range(steps):
        batch = text[torch.randint(len(text), (16,), generator=generator)]
        step_loss = F.cross_entropy(model(batch)[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        step_loss.backward()
        optimizer.step()
    return model
