"""Path patching: the fast core against one run with hooks for each sender, and against what must hold exactly."""

from functools import partial

import pytest
import torch
from random_models import random_gpt2, random_native, random_neo, random_tokens

from utils import load_model
from utils.metrics import at_end, log_probability, logit_difference
from utils.models.ioi_world.prompts import textbook_ioi_prompts
from utils.models.known_circuit import known_circuit
from utils.patching import path_patching_plain
from utils.patching.path_patching import path_patch_to_inputs, path_patch_to_logits
from utils.transformer import Transformer

MODELS = {
    "GPT-2": lambda: random_gpt2(),
    "GPT-2, norms not folded": lambda: random_gpt2(folded=False, seed=1, heads=7),
    "GPT-Neo, window 2": lambda: random_neo(window=2),
    "native": lambda: random_native(normalization_type="LN", d_vocab_out=11),
    "native, attention only": lambda: random_native(normalization_type="LN", attn_only=True),
    "native, no norm": lambda: random_native(normalization_type=None, seed=2, n_layers=4, n_heads=2),
    "native, one layer": lambda: random_native(n_layers=1, n_heads=1, d_head=5, d_mlp=1),
}
SENDERS = {"heads", "mlps", "embedding"}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.fixture
def pair(model):
    """Prompts and their twins, which agree in the first two tokens; they answer at different positions."""
    original, new = random_tokens(model, seed=1), random_tokens(model, seed=2)
    new[:, :2] = original[:, :2]
    return original, new, torch.tensor([8, 4, 6])


@pytest.fixture
def metric(model, pair):
    n = model(pair[0]).shape[-1]
    right, wrong = torch.tensor([1, 5, 2]) % n, torch.tensor([4, 7, 9]) % n
    return {
        "difference": partial(logit_difference, right=right, wrong=wrong),
        "log p": partial(log_probability, right=right),
    }


def senders_of(model):
    return SENDERS - (set() if hasattr(model.blocks[0], "mlp") else {"mlps"})


def same(given, expected):
    assert given.keys() == expected.keys()
    for name in given:
        torch.testing.assert_close(given[name], expected[name], rtol=1e-4, atol=1e-4)


def test_paths_to_the_logits_are_those_of_hooks(model, pair, metric):
    original, new, end = pair
    for senders in senders_of(model):
        expected = path_patching_plain.path_patch_to_logits(model, original, new, metric, end, senders=senders)
        same(path_patch_to_logits(model, original, new, metric, end, senders=senders), expected)
        same(path_patch_to_logits(model, original, new, metric, end, senders=senders, max_bytes=1), expected)


@pytest.mark.parametrize("receiver_input", ["q", "k", "v"])
def test_paths_to_inputs_are_those_of_hooks(model, pair, metric, receiver_input):
    original, new, end = pair
    last, width = model.cfg.n_layers - 1, model.cfg.n_heads
    for receivers in ([(last, 0)], [(last // 2, width - 1), (last, 0), (last // 2, 0)]):
        for senders in senders_of(model):
            args = (model, original, new, sorted(set(receivers)), metric, receiver_input, end)
            expected = path_patching_plain.path_patch_to_inputs(*args, senders=senders)
            same(path_patch_to_inputs(*args, senders=senders), expected)
            same(path_patch_to_inputs(*args, senders=senders, max_bytes=1), expected)


class TestWhatMustHold:
    @pytest.fixture
    def model(self):
        return random_gpt2()

    def test_equal_prompts_change_nothing(self, model, pair, metric):
        original, _, end = pair
        intact = metric["difference"](at_end(model(original), end))
        for result in (
            path_patch_to_logits(model, original, original, metric, end)["difference"],
            path_patch_to_inputs(model, original, original, [(2, 1)], metric, "k", end)["difference"],
        ):
            torch.testing.assert_close(result, intact.expand_as(result), rtol=1e-4, atol=1e-5)

    def test_only_what_lies_below_a_receiver_reaches_it(self, model, pair, metric):
        original, new, end = pair
        intact = metric["difference"](at_end(model(original), end))
        result = path_patch_to_inputs(model, original, new, [(1, 2)], metric["difference"], "v", end)
        torch.testing.assert_close(result[1:], intact.expand_as(result[1:]), rtol=1e-4, atol=1e-5)
        assert (result[0] - intact).abs().max() > 1e-3

    def test_what_comes_after_the_answer_does_not_matter(self, model, pair, metric):
        original, new, end = pair
        padded = [torch.where(torch.arange(9) > end[:, None], 0, tokens) for tokens in (original, new)]
        same(path_patch_to_logits(model, *padded, metric, end), path_patch_to_logits(model, original, new, metric, end))

    def test_weights_may_be_read_once(self, model, pair, metric):
        plain = Transformer.from_model(model)
        original, new, end = pair
        same(path_patch_to_logits(plain, original, new, metric), path_patch_to_logits(model, original, new, metric))
        args = (original, new, [(2, 0)], metric, "q", end)
        same(path_patch_to_inputs(plain, *args), path_patch_to_inputs(model, *args))

    def test_one_metric_gives_a_tensor(self, model, pair, metric):
        result = path_patch_to_logits(model, *pair[:2], metric["log p"], pair[2])
        same({"log p": result}, {"log p": path_patch_to_logits(model, *pair[:2], metric, pair[2])["log p"]})
        assert result.shape == (3, 3, 3)


def test_a_model_that_the_plain_pass_does_not_cover_is_patched_with_hooks():
    model = random_native(positional_embedding_type="rotary")
    original, new = random_tokens(model, seed=1), random_tokens(model, seed=2)
    metric = partial(log_probability, right=torch.tensor([1, 2, 3]))
    with pytest.warns(UserWarning, match="uses hooks instead"):
        assert path_patch_to_logits(model, original, new, metric).shape == (3, 3, 3)
    with pytest.warns(UserWarning, match="uses hooks instead"):
        assert path_patch_to_inputs(model, original, new, [(2, 0)], metric, senders="mlps").shape == (3, 3)


@pytest.fixture(scope="module")
def study():
    prompts = textbook_ioi_prompts(60)
    corrupted = textbook_ioi_prompts(60, corruption="abc")
    metric = partial(logit_difference, right=prompts.answer_ids, wrong=prompts.wrong_ids)
    return load_model("textbook-ioi"), prompts.tokens, corrupted.tokens, metric, prompts.positions["END"]


class TestTextbookCircuit:
    """The recorded circuit, found step by step from the logits down: movers, S-inhibition, duplicate-token head."""

    @staticmethod
    def heads(role):
        names = known_circuit("textbook-ioi").heads[role]
        return [tuple(int(part) for part in name.removeprefix("a").split(".")) for name in names]

    @staticmethod
    def lost(result, study):
        model, tokens, _, metric, end = study
        intact = metric(at_end(model(tokens), end))
        return 1 - result.mean(-1) / intact.mean()  # [layer, head]

    def strongest(self, lost, n):
        return {divmod(place, lost.shape[1]) for place in lost.flatten().topk(n).indices.tolist()}

    def test_paths_to_the_logits_find_the_name_movers(self, study):
        model, tokens, corrupted, metric, end = study
        result, movers = path_patch_to_logits(model, tokens, corrupted, metric, end), self.heads("name mover")
        lost = self.lost(result, study)
        assert self.strongest(lost, len(movers)) == set(movers)
        assert sum(lost[head] for head in movers) > 0.7

    def test_paths_to_the_movers_queries_find_the_s_inhibition_heads(self, study):
        model, tokens, corrupted, metric, end = study
        result = path_patch_to_inputs(model, tokens, corrupted, self.heads("name mover"), metric, "q", end)
        lost, inhibition = self.lost(result, study), self.heads("S-inhibition")
        assert self.strongest(lost, len(inhibition)) == set(inhibition)
        others = lost.clone()
        for head in inhibition:
            others[head] = 0
        assert min(lost[head] for head in inhibition) > 5 * others.max()

    def test_paths_to_their_values_find_the_duplicate_token_head(self, study):
        model, tokens, corrupted, metric, end = study
        result = path_patch_to_inputs(model, tokens, corrupted, self.heads("S-inhibition"), metric, "v", end)
        lost, duplicate = self.lost(result, study), self.heads("duplicate token")
        assert self.strongest(lost, 1) == set(duplicate)
        assert lost[duplicate[0]] > 0.8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"receivers": []}, "receivers is empty"),
        ({"receivers": [(3, 0)]}, r"no head \(3, 0\).*layers 0 to 2"),
        ({"receiver_input": "z"}, "receiver_input must be 'q', 'k' or 'v', not 'z'"),
        ({"senders": "neurons"}, "senders must be one of heads, mlps, embedding"),
        ({"new": torch.zeros(3, 8, dtype=torch.long)}, r"original is \(3, 9\) and new \(3, 8\)"),
        ({"new": torch.full((3, 9), 37)}, "new holds the id 37.*ids 0 to 36"),
        ({"original": torch.zeros(9, dtype=torch.long)}, r"original must be token ids .*tokens\[None\]"),
        ({"end": torch.tensor([1, 2])}, "one position from 0 to 8 for each of 3 prompts"),
        ({"metric": lambda logits: logits.mean()}, "one number for each of the 3 prompts"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    model = random_gpt2()
    given = {
        "original": random_tokens(model),
        "new": random_tokens(model, seed=1),
        "receivers": [(1, 0)],
        "metric": lambda logits: logits[:, 0],
    }
    with pytest.raises(ValueError, match=message):
        path_patch_to_inputs(model, **{**given, **change})


def test_attention_only_has_no_mlps_to_send():
    model = random_native(attn_only=True)
    tokens = random_tokens(model)
    for module in (path_patching_plain.path_patch_to_logits, path_patch_to_logits):
        with pytest.raises(ValueError, match="attention only"):
            module(model, tokens, tokens, lambda logits: logits[:, 0], senders="mlps")
