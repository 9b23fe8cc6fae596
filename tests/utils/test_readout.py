"""The reading functions against torch, TransformerLens, numpy and plain loops."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from utils import load_model, load_tokenizer, readout
from utils.models import gendered_prompts, story_batch

WORD_COUNT = 40


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-lm")


@pytest.fixture(scope="module")
def gpt2_shaped(tmp_path_factory):
    """A random model of GPT-2's architecture whose layer norms have gains and biases to be folded."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = load_tokenizer("tiny-lm")
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_positions=16, n_embd=24, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=0
        )
    )
    for name, weight in model.named_parameters():
        if "ln_" in name or name.endswith("bias"):
            torch.nn.init.normal_(weight, mean=float("ln_" in name and "weight" in name), std=0.3)
    folder = tmp_path_factory.mktemp("gpt2")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_model(folder)


@pytest.fixture(scope="module")
def stories(model):
    tokens = story_batch(6).tokens
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
    return tokens, logits, cache


def ids(model, words):
    return torch.tensor(model.tokenizer.convert_tokens_to_ids(list(words)))


@pytest.mark.parametrize(
    "kind",
    ["q", "k", "v", "z", "pattern", "attn_scores", "pre", "post", "resid_pre", "attn_out", "mlp_out", "resid_post"],
)
def test_names_are_those_of_transformer_lens(kind, stories):
    from transformer_lens.utilities import get_act_name

    assert readout.activation_name(3, kind) == get_act_name(kind, 3)
    assert torch.equal(readout.read_activation(stories[2], 3, kind), stories[2][kind, 3])


def test_top_words_are_the_likeliest():
    logits = torch.randn(5, WORD_COUNT)
    words = [f"w{i}" for i in range(WORD_COUNT)]
    total = sum(math.exp(x) for x in logits[-1].tolist())
    expected = sorted(
        ((math.exp(x) / total, word) for x, word in zip(logits[-1].tolist(), words, strict=True)), reverse=True
    )
    given = readout.top_words(logits, words, 7)
    assert [word for word, _ in given] == [word for _, word in expected[:7]]
    assert [p for _, p in given] == pytest.approx([p for p, _ in expected[:7]])


def test_log_probs_and_loss_are_torchs(stories, model):
    tokens, logits, _ = stories
    expected = -F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
    torch.testing.assert_close(readout.token_log_probs(logits, tokens), expected, atol=1e-4, rtol=0)
    assert readout.mean_loss(logits, tokens).item() == pytest.approx(model(tokens, return_type="loss").item(), abs=1e-5)


@pytest.mark.parametrize("pad", [0, 5])
def test_padding_does_not_count(pad):
    logits, tokens = torch.randn(4, 9, 12), torch.randint(0, 12, (4, 9))
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=pad)
    torch.testing.assert_close(readout.mean_loss(logits, tokens, pad), expected)


def test_norms_are_those_of_accumulated_streams(stories, model):
    streams = stories[2].accumulated_resid(layer=-1, incl_mid=False, apply_ln=False)[:, :, 1:]  # TransformerLens's own
    expected = torch.linalg.vector_norm(streams, dim=-1).mean((1, 2))
    torch.testing.assert_close(readout.stream_norms(stories[2], model.cfg.n_layers), expected)


@pytest.mark.parametrize("name", ["model", "gpt2_shaped"])
def test_the_stream_is_the_sum_of_what_was_written(name, request):
    model = request.getfixturevalue(name)
    _, cache = model.run_with_cache("when Mary went to the store , she bought a book .")
    for layer in range(model.cfg.n_layers):
        difference = readout.rebuild_stream(cache, layer) - cache["resid_post", layer]
        assert difference.abs().max() < 1e-4


@pytest.mark.parametrize("name", ["model", "gpt2_shaped"])
def test_reading_the_last_stream_gives_the_logits(name, request):
    model = request.getfixturevalue(name)
    logits, cache = model.run_with_cache("when Mary went to the store , she bought a book .")
    read = readout.read_stream(cache["resid_post", model.cfg.n_layers - 1], model)
    torch.testing.assert_close(read, logits, atol=1e-3, rtol=1e-4)


def test_streams_at_reads_every_point_at_its_own_position(model):
    asked = gendered_prompts(12)
    tokens = model.to_tokens(asked.texts, padding_side="right")
    ends = readout.end_positions(tokens, model.tokenizer.pad_token_id)
    _, cache = model.run_with_cache(tokens)
    streams = readout.streams_at(cache, model.cfg.n_layers, ends)
    assert len(streams) == len(readout.stream_points(model.cfg.n_layers)) == 2 * model.cfg.n_layers + 1
    for prompt, text in enumerate(asked.texts):
        _, alone = model.run_with_cache(text)  # no padding
        assert ends[prompt] == len(text.split())
        torch.testing.assert_close(streams[0, prompt], alone["resid_pre", 0][0, -1])
        for layer in range(model.cfg.n_layers):
            for point, kind in ((2 * layer + 1, "resid_mid"), (2 * layer + 2, "resid_post")):
                torch.testing.assert_close(streams[point, prompt], alone[kind, layer][0, -1], atol=1e-3, rtol=1e-3)


def test_share_right_counts_leads():
    logits, right, wrong = torch.randn(3, 9, 5), torch.randint(0, 5, (9,)), torch.randint(0, 5, (9,))
    expected = [sum(float(layer[p, right[p]] > layer[p, wrong[p]]) for p in range(9)) / 9 for layer in logits]
    assert readout.share_right(logits, right, wrong).tolist() == pytest.approx(expected)


def test_first_layer_above():
    assert readout.first_layer_above([0.1, 0.95, 0.2, 1.0]) == 1
    assert readout.first_layer_above(torch.tensor([0.5, 0.75]), 0.75) == 1
    assert readout.first_layer_above([0.5, 0.89]) is None


def test_attention_to_reads_one_entry_of_each_prompt():
    pattern, query, key = torch.rand(4, 3, 6, 6), torch.tensor([5, 2, 3, 4]), torch.tensor([1, 0, 3, 2])
    expected = [sum(float(pattern[p, head, query[p], key[p]]) for p in range(4)) / 4 for head in range(3)]
    assert readout.attention_to(pattern, query, key).tolist() == pytest.approx(expected)


def test_find_word():
    tokens = torch.tensor([[0, 3, 4, 3], [0, 5, 6, 7]])
    assert readout.find_word(tokens, torch.tensor([3, 7])).tolist() == [1, 3]
    with pytest.raises(ValueError, match="prompt 1 does not hold its token"):
        readout.find_word(tokens, torch.tensor([3, 9]))


def test_probe_is_ridge_regression():
    train, test = torch.randn(2, 60, 7).double(), torch.randn(2, 50, 7).double()
    labels, truth = train[1, :, 0] + 0.5 * torch.randn(60) > 0.4, test[1, :, 0] > 0.4
    expected = []
    for fitted, judged in zip(train.numpy(), test.numpy(), strict=True):  # least squares on rows that pull to zero
        centre, spread = fitted.mean(0), fitted.std(0, ddof=1)
        target = 2.0 * labels.numpy() - 1
        rows = np.concatenate([(fitted - centre) / spread, np.sqrt(10) * np.eye(7)])
        weights = np.linalg.lstsq(rows, np.concatenate([target - target.mean(), np.zeros(7)]), rcond=None)[0]
        said = (judged - centre) / spread @ weights + target.mean() > 0
        expected.append(float((said == truth.numpy()).mean()))
    assert readout.probe_shares(train, labels, test, truth).tolist() == pytest.approx(expected)
    assert expected[1] > expected[0]  # only the second point holds the label
