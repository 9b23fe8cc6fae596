"""Patching grids against TransformerLens's own functions, and what they do with unusual input."""

import warnings
from functools import partial

import pytest
import torch
from random_models import random_gpt2, random_native, random_neo, random_tokens

from utils import load_model
from utils.metrics import at_end, log_probability, logit_difference
from utils.patching import grids, patch_heads, patch_residual

MODELS = {
    "GPT-2": random_gpt2,
    "GPT-2 unfolded": lambda: random_gpt2(layers=2, heads=1, d_model=10, folded=False, seed=3),
    "GPT-Neo with windows": random_neo,
    "native attention only": lambda: random_native(attn_only=True, normalization_type="LN", d_vocab_out=9),
    "native without norm": lambda: random_native(normalization_type=None, n_layers=2, seed=4),
}
STREAM_FUNCTIONS = {
    "resid_pre": "get_act_patch_resid_pre",
    "attn_out": "get_act_patch_attn_out",
    "resid_mid": "get_act_patch_resid_mid",
    "mlp_out": "get_act_patch_mlp_out",
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]()


def two_prompts_that_differ(model, at=0):
    clean, corrupted = random_tokens(model, seed=1), random_tokens(model, seed=2)
    corrupted[:, :at] = clean[:, :at]
    return clean, corrupted


def first_token(logits):
    return logits[:, 1]


def with_their_cache(model, clean, function, corrupted, metric):
    """A TransformerLens patching function, on one prompt after the other: they give one number for a batch."""
    rows = []
    for i in range(len(clean)):
        _, cache = model.run_with_cache(clean[i : i + 1])
        rows.append(function(model, corrupted[i : i + 1], cache, lambda logits: metric(at_end(logits))[0]))
    return torch.stack(rows, -1)


def close(given, expected):
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stream", STREAM_FUNCTIONS)
def test_residual_patching_is_transformer_lens(model, stream):
    from transformer_lens import patching

    if stream in ("resid_mid", "mlp_out") and model.cfg.attn_only:
        pytest.skip("TransformerLens has no such hook in a model without MLPs")
    clean, corrupted = two_prompts_that_differ(model, at=4)
    theirs = with_their_cache(model, clean, getattr(patching, STREAM_FUNCTIONS[stream]), corrupted, first_token)
    close(patch_residual(model, clean, corrupted, first_token, stream=stream), theirs)


def test_all_heads_at_all_positions_are_transformer_lens(model):
    from transformer_lens import patching

    clean, corrupted = two_prompts_that_differ(model, at=2)
    theirs = with_their_cache(model, clean, patching.get_act_patch_attn_head_all_pos_every, corrupted, first_token)
    close(patch_heads(model, clean, corrupted, first_token, kinds=("z", "q", "k", "v", "pattern")), theirs)


def test_all_heads_at_each_position_are_transformer_lens():
    from transformer_lens import patching

    model = random_neo(layers=2)
    clean, corrupted = (tokens[:2, :6] for tokens in two_prompts_that_differ(model, at=1))
    theirs = with_their_cache(model, clean, patching.get_act_patch_attn_head_by_pos_every, corrupted, first_token)
    ours = patch_heads(model, clean, corrupted, first_token, kinds=("z", "q", "k", "v", "pattern"), per_position=True)
    close(ours, theirs.transpose(2, 3))  # theirs is [kind, layer, position, head]


def test_head_outputs_on_a_shipped_model():
    from transformer_lens import patching

    model = load_model("tiny-lm")
    clean, corrupted = two_prompts_that_differ(model, at=5)
    function = patching.get_act_patch_attn_head_out_all_pos
    close(
        patch_heads(model, clean, corrupted, first_token, kinds=["z"])[0],
        with_their_cache(model, clean, function, corrupted, first_token),
    )


def test_several_metrics_at_once_give_each_its_grid():
    model = random_gpt2()
    clean, corrupted = two_prompts_that_differ(model)
    right, wrong = torch.tensor([3, 1, 30]), torch.tensor([1, 3, 5])
    difference = partial(logit_difference, right=right, wrong=wrong)
    swapped = partial(logit_difference, right=wrong, wrong=right)
    log_prob = partial(log_probability, right=right)
    whole = lambda logits: logit_difference(logits, right, wrong)  # noqa: E731 - its tokens cannot be seen from outside
    results = patch_residual(model, clean, corrupted, {"a": difference, "b": log_prob, "c": whole})
    close(results["a"], results["c"])
    close(results["b"], patch_residual(model, clean, corrupted, log_prob))
    narrow = patch_heads(model, clean, corrupted, {"a": difference, "b": swapped})
    close(narrow["a"], patch_heads(model, clean, corrupted, whole))
    close(narrow["b"], -narrow["a"])


def test_equal_prompts_leave_every_cell_as_it_was():
    model = random_gpt2()
    tokens = random_tokens(model)
    unpatched = first_token(at_end(model(tokens)))
    for given in (
        patch_residual(model, tokens, tokens, first_token),
        patch_heads(model, tokens, tokens, first_token),
        patch_heads(model, tokens, tokens, first_token, per_position=True),
    ):
        close(given, unpatched.expand_as(given))


def test_the_last_residual_patched_at_the_answer_gives_the_clean_answer():
    model = random_gpt2()
    clean, corrupted = two_prompts_that_differ(model)
    end = torch.tensor([5, 8, 2])
    grid = patch_residual(model, clean, corrupted, first_token, end, "resid_post")
    close(grid[-1, end, torch.arange(3)], first_token(at_end(model(clean), end)))
    noising = patch_residual(model, clean, corrupted, first_token, end, "resid_post", direction="noising")
    close(noising[-1, end, torch.arange(3)], first_token(at_end(model(corrupted), end)))


def test_the_budget_changes_the_batches_and_not_the_numbers():
    model = random_gpt2()
    clean, corrupted = two_prompts_that_differ(model)
    for patch in (patch_residual, patch_heads, partial(patch_heads, per_position=True)):
        whole = patch(model, clean, corrupted, first_token)
        for max_bytes in (1, 40_000):
            close(patch(model, clean, corrupted, first_token, max_bytes=max_bytes), whole)


def test_what_is_not_covered_is_patched_with_hooks_and_said_once():
    from transformer_lens import patching

    model = random_native(positional_embedding_type="rotary", n_layers=2, n_heads=2)
    clean, corrupted = (tokens[:2, :4] for tokens in two_prompts_that_differ(model))
    with pytest.warns(UserWarning, match="rotary positions.*hooks") as caught:
        grid = patch_residual(model, clean, corrupted, first_token)
    assert len(caught) == 1
    close(grid, with_their_cache(model, clean, patching.get_act_patch_resid_pre, corrupted, first_token))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        heads = patch_heads(model, clean, corrupted, first_token)
        by_position = patch_heads(model, clean, corrupted, first_token, per_position=True)
    every = patching.get_act_patch_attn_head_all_pos_every
    close(heads, with_their_cache(model, clean, every, corrupted, first_token))
    every = patching.get_act_patch_attn_head_by_pos_every
    close(by_position, with_their_cache(model, clean, every, corrupted, first_token).transpose(2, 3))


def test_an_interruption_keeps_what_was_done(monkeypatch):
    model = random_gpt2()
    clean, corrupted = two_prompts_that_differ(model, at=2)
    whole, calls = patch_residual(model, clean, corrupted, first_token), []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return answer(*args)

    answer = grids.answer
    monkeypatch.setattr(grids, "answer", interrupted)
    with pytest.warns(UserWarning, match="Interrupted"):
        part = patch_residual(model, clean, corrupted, first_token, max_bytes=1)  # one cell at a time
    done = 2  # the first call is for what no patch changes, and the fourth interrupts
    computed = part[:, 2:].flatten(0, 1)
    close(computed[:done], whole[:, 2:].flatten(0, 1)[:done])
    assert computed[done:].isnan().all()
    close(part[:, :2], whole[:, :2])


def test_bad_input_is_refused_with_the_remedy():
    model = random_gpt2()
    clean, corrupted = two_prompts_that_differ(model)
    for message, call in {
        r"\(3, 9\) and corrupted \(3, 8\)": lambda: patch_residual(model, clean, corrupted[:, :8], first_token),
        "corrupted holds the id 37": lambda: patch_heads(model, clean, torch.full_like(clean, 37), first_token),
        r"tokens\[None\]": lambda: patch_residual(model, clean[0], corrupted[0], first_token),
        "'resid'; known are: resid_pre": lambda: patch_residual(model, clean, corrupted, first_token, stream="resid"),
        "'result'; known are: z": lambda: patch_heads(model, clean, corrupted, first_token, kinds=["result"]),
        "one number for each of the 3 prompts": lambda: patch_residual(model, clean, corrupted, lambda x: x.mean()),
        "from 0 to 8 for each": lambda: patch_heads(model, clean, corrupted, first_token, torch.tensor([1, 2, 9])),
        "'denoising' or 'noising'": lambda: patch_residual(model, clean, corrupted, first_token, direction="both"),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
