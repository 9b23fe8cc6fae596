"""Graders of notebook 1.1: first contact with a model's insides."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course.graders import Answer, Difference, Mistake, exercise, points, require

WORDS = [f"word{i}" for i in range(40)]
STREAM_KINDS = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
KINDS_IN = {"attn.": ("q", "k", "v", "attn_scores", "pattern", "z"), "mlp.": ("pre", "post"), "": STREAM_KINDS}
FULL_NAME = {kind: f"blocks.{{}}.{part}hook_{kind}" for part, kinds in KINDS_IN.items() for kind in kinds}


class SmallCache(dict):
    """Activations by full name; like TransformerLens's cache it also understands ``cache["pattern", 0]``."""

    def __getitem__(self, name):
        if isinstance(name, tuple):
            kind, layer = name[0], name[-1]
            name = FULL_NAME.get(kind, f"blocks.{{}}.hook_{kind}").format(layer)
        if name not in self.keys():
            raise KeyError(f"the cache has no activation called {name}")
        return super().__getitem__(name)


def random_cache(n_layers, batch=2, seq=5, width=6, heads=3, neurons=7):
    """A cache of unrelated random activations, every kind in every layer."""
    shapes = dict.fromkeys(STREAM_KINDS, (batch, seq, width)) | dict.fromkeys(("pre", "post"), (batch, seq, neurons))
    shapes |= dict.fromkeys(("q", "k", "v", "z"), (batch, seq, heads, width))
    shapes |= dict.fromkeys(("attn_scores", "pattern"), (batch, heads, seq, seq))
    cache = SmallCache({name: torch.randn(batch, seq, width) for name in ("hook_embed", "hook_pos_embed")})
    for layer in range(n_layers):
        cache.update({FULL_NAME[kind].format(layer): torch.randn(shape) for kind, shape in shapes.items()})
    cache["blocks.0.hook_resid_pre"] = cache["hook_embed"] + cache["hook_pos_embed"]
    return cache


# --- top_words


def by_hand(logits, k):
    """The k likeliest words at the last position, from exponentials and a sort."""
    last = [float(x) for x in logits[-1]]
    total = sum(math.exp(x) for x in last)
    order = sorted(range(len(last)), key=lambda i: -last[i])
    return [(WORDS[i], math.exp(last[i]) / total) for i in order[:k]]


def pairs_of(given, k):
    """What a learner returned, as a list of (word, probability)."""
    require(given is not None, "Your result is None. Is a `return` missing?")
    given = list(given.items()) if isinstance(given, dict) else given
    if not isinstance(given, list | tuple) or any(not hasattr(p, "__len__") or len(p) != 2 for p in given):
        raise Difference("Return a list of pairs, one for each word: [('Paris', 0.9), ('Rome', 0.05), ...].")
    if all(isinstance(second, str) and not isinstance(first, str) for first, second in given):
        raise Mistake("Your pairs are the wrong way round: the word comes first, then its probability.")
    require(len(given) == k, f"Your list has {len(given)} pairs; k = {k} were asked for.")
    return [tuple(pair) for pair in given]


def words_from(logits, index, probabilities=None):
    p = logits[-1].softmax(-1) if probabilities is None else probabilities
    return [(WORDS[i], float(p[i])) for i in index.tolist()]


@exercise("top_words", forbids=["utils.readout.top_words"])
class TestTopWords:
    @points(1, hint="Take the logits of the last position, softmax them over the vocabulary, keep the k largest.")
    @pytest.mark.parametrize(("seq", "vocab", "k"), [(6, 40, 3), (4, 17, 5), (1, 9, 2)])
    def test_words_and_probabilities(self, answer, seq, vocab, k):
        logits = 2 * torch.randn(seq, vocab)
        answer_of_pairs(answer).should_give(by_hand(logits, k), logits, WORDS[:vocab], k)

    @points(1, hint="The probabilities are shares of the whole vocabulary: softmax first, choose the k largest after.")
    def test_probabilities_are_shares_of_the_whole_vocabulary(self, answer):
        logits = torch.zeros(3, 30)
        logits[-1, 7] = 1.0
        (word, p), *_ = pairs_of(answer(logits, WORDS[:30], 4), 4)
        require(word == "word7", f"The likeliest word is 'word7', yours is {word!r}.")
        expected = math.e / (math.e + 29)
        renormalised = math.e / (math.e + 3)
        if abs(float(p) - renormalised) < 1e-3:
            raise Mistake("Your result is what you get when the function normalises over the k words it keeps.")
        require(abs(float(p) - expected) < 1e-3, f"Its probability is {expected:.3f}, yours is {float(p):.3f}.")

    mutants = {
        "reads the first position instead of the last": lambda logits, words, k: [
            (words[i], float(logits[0].softmax(-1)[i])) for i in logits[0].topk(k).indices.tolist()
        ],
        "returns logits, not probabilities": lambda logits, words, k: [
            (words[i], float(v)) for v, i in zip(*logits[-1].topk(k), strict=True)
        ],
        "normalises over the k words it keeps": lambda logits, words, k: [
            (words[i], float(v)) for v, i in zip(logits[-1].topk(k)[0].softmax(-1), logits[-1].topk(k)[1], strict=True)
        ],
        "gives the least likely words": lambda logits, words, k: words_from(logits, logits[-1].argsort()[:k]),
        "averages over the positions": lambda logits, words, k: words_from(
            logits, logits.softmax(-1).mean(0).topk(k)[1], logits.softmax(-1).mean(0)
        ),
        "sorts from small to large": lambda logits, words, k: words_from(logits, logits[-1].topk(k)[1].flip(0)),
        "softmaxes over positions, not over the vocabulary": lambda logits, words, k: words_from(
            logits, logits[-1].topk(k)[1], logits.softmax(0)[-1]
        ),
        "gives token ids instead of words": lambda logits, words, k: [
            (i, p) for i, (_, p) in zip(logits[-1].topk(k)[1].tolist(), by_hand(logits, k), strict=True)
        ],
    }
    alternatives = {
        "numpy and a sort": lambda logits, words, k: [
            (words[i], np.exp(logits[-1].numpy())[i] / np.exp(logits[-1].numpy()).sum())
            for i in np.argsort(-logits[-1].numpy())[:k]
        ],
        "a dictionary of 0-d tensors": lambda logits, words, k: {
            words[i]: p for p, i in zip(*logits.softmax(-1)[-1].topk(k), strict=True)
        },
        "lists in a list, in double precision": lambda logits, words, k: sorted(
            ([w, p] for w, p in zip(words, logits[-1].double().softmax(0).tolist(), strict=True)), key=lambda r: -r[1]
        )[:k],
    }


def answer_of_pairs(answer):
    """The same answer, its result and those of its mutants brought into one form."""

    def normal(function):
        return lambda logits, words, k: pairs_of(function(logits, words, k), k)

    mutants = {name: normal(mutant) for name, mutant in answer.mutants.items()}
    return Answer(normal(answer.function), mutants, answer.forbids)


# --- read_activation


@exercise("read_activation", forbids=["utils.readout.read_activation", "utils.readout.activation_name"])
class TestReadActivation:
    @points(1, hint="Print the cache's keys and look for one that ends in hook_pattern. The layer is a number in it.")
    def test_finds_the_attention_pattern(self, answer):
        self.compare(answer, ("pattern",))

    @points(1, hint="q, k, v, attn_scores and z live in the layer's attn part: blocks.<layer>.attn.hook_<kind>.")
    def test_finds_what_is_inside_attention(self, answer):
        self.compare(answer, ("q", "k", "v", "z", "attn_scores"))

    @points(1, hint="The stream and what is written into it belong to the block itself: blocks.<layer>.hook_<kind>.")
    def test_finds_the_residual_stream(self, answer):
        self.compare(answer, STREAM_KINDS)

    @points(1, hint="The neurons live in the layer's mlp part: blocks.<layer>.mlp.hook_<kind>.")
    def test_finds_the_neurons(self, answer):
        self.compare(answer, ("pre", "post"))

    def compare(self, answer, kinds):
        for n_layers in (2, 12):
            cache = random_cache(n_layers)
            for kind in kinds:
                for layer in (0, 1, n_layers - 1):
                    expected = dict.__getitem__(cache, FULL_NAME[kind].format(layer))
                    answer.should_give(expected, cache, layer, kind)

    mutants = {
        "always reads layer 0": lambda cache, layer, kind: cache[FULL_NAME[kind].format(0)],
        "counts layers from one": lambda cache, layer, kind: cache[FULL_NAME[kind].format(max(layer - 1, 0))],
        "drops the batch dimension": lambda cache, layer, kind: cache[FULL_NAME[kind].format(layer)][0],
        "looks for everything inside attention": lambda cache, layer, kind: cache[f"blocks.{layer}.attn.hook_{kind}"],
        "leaves out 'attn.' and 'mlp.'": lambda cache, layer, kind: cache[f"blocks.{layer}.hook_{kind}"],
        "writes the name as the popular quick start does": lambda cache, layer, kind: cache[f"attn.{layer}.{kind}"],
        "takes the first key that holds the kind's name": lambda cache, layer, kind: cache[
            next(key for key in cache if f".{layer}." in key and kind in key)
        ],
    }
    alternatives = {
        "searches the keys": lambda cache, layer, kind: next(
            value
            for key, value in cache.items()
            if key.startswith(f"blocks.{layer}.") and key.endswith(f".hook_{kind}")
        ),
        "TransformerLens's shorthand": lambda cache, layer, kind: cache[kind, layer],
        "tries the three parts": lambda cache, layer, kind: next(
            cache[name] for part in ("", "attn.", "mlp.") if (name := f"blocks.{layer}.{part}hook_{kind}") in cache
        ),
    }


# --- token_log_probs and mean_loss


def random_logits(batch, seq, vocab):
    return 2 * torch.randn(batch, seq, vocab), torch.randint(0, vocab, (batch, seq))


def log_probs_by_loop(logits, tokens):
    """One token at a time: the logarithm of exp(its logit) over the sum of all."""
    batch, seq = tokens.shape
    rows = []
    for b in range(batch):
        row = []
        for position in range(1, seq):
            predicted = logits[b, position - 1].double()
            row.append(float(predicted[tokens[b, position]] - torch.logsumexp(predicted, 0)))
        rows.append(row)
    return torch.tensor(rows)


SHAPES = [(3, 5, 11), (1, 7, 6), (4, 2, 9)]


@exercise("token_log_probs", forbids=["utils.readout.token_log_probs", "utils.readout.mean_loss"])
class TestTokenLogProbs:
    @points(2, hint="The logits at position i are about token i + 1: pair logits[:, :-1] with tokens[:, 1:].")
    @pytest.mark.parametrize("shape", SHAPES)
    def test_matches_one_token_at_a_time(self, answer, shape):
        logits, tokens = random_logits(*shape)
        answer.should_give(log_probs_by_loop(logits, tokens), logits, tokens)

    @points(1, hint="Uniform logits give every token log(1 / vocabulary), whatever came.")
    def test_uniform_logits_give_the_logarithm_of_one_over_the_vocabulary(self, answer):
        expected = torch.full((2, 3), -math.log(50))
        answer.should_give(expected, torch.full((2, 4, 50), 3.0), torch.randint(0, 50, (2, 4)))

    @points(1, hint="Large logits must not overflow: use log_softmax, not log(softmax) or log(exp).")
    def test_survives_large_logits(self, answer):
        logits, tokens = torch.zeros(1, 3, 4), torch.tensor([[0, 1, 2]])
        logits[0, 0, 3], logits[0, 1, 2] = 500.0, 500.0
        answer.should_give(torch.tensor([[-500.0, 0.0]]), logits, tokens)

    mutants = {
        "forgets the shift: it scores each token with the logits at its own position": lambda logits, tokens: (
            logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        ),
        "forgets the shift, and then drops the first token": lambda logits, tokens: logits.log_softmax(-1).gather(
            -1, tokens[..., None]
        )[:, 1:, 0],
        "shifts the wrong way: it scores each token with the logits of the position after it": lambda logits, tokens: (
            logits[:, 1:].log_softmax(-1).gather(-1, tokens[:, :-1, None])[..., 0]
        ),
        "returns probabilities, not their logarithm": lambda logits, tokens: log_probs_by_loop(logits, tokens).exp(),
        "returns raw logits": lambda logits, tokens: logits[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0],
        "returns losses: the sign is flipped": lambda logits, tokens: -log_probs_by_loop(logits, tokens),
        "takes logarithms to base 2": lambda logits, tokens: log_probs_by_loop(logits, tokens) / math.log(2),
        "softmaxes over positions, not over the vocabulary": lambda logits, tokens: (
            logits[:, :-1].log_softmax(1).gather(-1, tokens[:, 1:, None])[..., 0]
        ),
        "gives the log-probability of the likeliest token, not of the one that came": lambda logits, tokens: (
            logits[:, :-1].log_softmax(-1).amax(-1)
        ),
        "takes the logarithm after the softmax": lambda logits, tokens: (
            logits[:, :-1].softmax(-1).log().gather(-1, tokens[:, 1:, None])[..., 0]
        ),
    }
    alternatives = {
        "torch's cross-entropy": lambda logits, tokens: (
            -F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
        ),
        "fancy indexing": lambda logits, tokens: logits.log_softmax(-1)[
            torch.arange(len(tokens))[:, None], torch.arange(tokens.shape[1] - 1), tokens[:, 1:]
        ],
        "a loop returning a list": lambda logits, tokens: [
            [row[i].log_softmax(-1)[ids[i + 1]] for i in range(len(ids) - 1)]
            for row, ids in zip(logits, tokens, strict=True)
        ],
        "one-hot in numpy": lambda logits, tokens: (
            logits[:, :-1].double().log_softmax(-1).numpy() * np.eye(logits.shape[-1])[tokens[:, 1:].numpy()]
        ).sum(-1),
    }


def shifted_cross_entropy(logits, tokens, pad=None):
    """Torch's own loss."""
    ignored = -100 if pad is None else pad
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=ignored)


def padded_batch(lengths, vocab, pad=0):
    """Random logits and tokens; row r holds lengths[r] tokens, which start with the padding id (as BOS does)."""
    seq = max(lengths)
    tokens = torch.randint(1, vocab, (len(lengths), seq))
    tokens[:, 0] = 0
    if pad:
        tokens[tokens == pad] = 1
    for row, length in enumerate(lengths):
        tokens[row, length:] = pad
    return 2 * torch.randn(len(lengths), seq, vocab), tokens


def losses_of(logits, tokens):
    return -logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]


def mean_of_row_means(logits, tokens, pad=None):
    kept = tokens[:, 1:] != (-1 if pad is None else pad)
    return ((losses_of(logits, tokens) * kept).sum(-1) / kept.sum(-1)).mean()


@exercise("mean_loss", forbids=["utils.readout.mean_loss"])
class TestMeanLoss:
    @points(1, hint="The loss is minus the mean log-probability of the tokens that came.")
    @pytest.mark.parametrize("shape", SHAPES)
    def test_agrees_with_torch(self, answer, shape):
        logits, tokens = random_logits(*shape)
        answer.should_give(shifted_cross_entropy(logits, tokens), logits, tokens)

    @points(2, hint="A position counts only if the token it predicts, tokens[:, 1:], is not the padding token.")
    @pytest.mark.parametrize(("lengths", "pad"), [((7, 3, 5), 0), ((2, 6), 4)])
    def test_leaves_padding_out(self, answer, lengths, pad):
        logits, tokens = padded_batch(lengths, vocab=9, pad=pad)
        answer.should_give(shifted_cross_entropy(logits, tokens, pad), logits, tokens, pad)

    @points(1, hint="With pad=None every token counts, token 0 too. Compare with `is None`: 0 is a token id.")
    def test_counts_every_token_without_pad(self, answer):
        logits, tokens = padded_batch((6, 3), vocab=8)
        answer.should_give(shifted_cross_entropy(logits, tokens), logits, tokens, None)

    mutants = {
        "counts the padding": lambda logits, tokens, pad=None: losses_of(logits, tokens).mean(),
        "always leaves token 0 out": lambda logits, tokens, pad=None: shifted_cross_entropy(logits, tokens, pad or 0),
        "ignores pad when it is 0": lambda logits, tokens, pad=None: shifted_cross_entropy(logits, tokens, pad or None),
        "averages each row first, so that short rows weigh more": mean_of_row_means,
        "zeroes the padding but still divides by all positions": lambda logits, tokens, pad=None: (
            losses_of(logits, tokens) * (tokens[:, 1:] != (-1 if pad is None else pad))
        ).mean(),
        "sums instead of averaging": lambda logits, tokens, pad=None: F.cross_entropy(
            logits[:, :-1].flatten(0, 1),
            tokens[:, 1:].flatten(),
            ignore_index=-100 if pad is None else pad,
            reduction="sum",
        ),
        "returns the log-probability: the sign is flipped": lambda logits, tokens, pad=None: (
            -shifted_cross_entropy(logits, tokens, pad)
        ),
        "masks where the current token is padding, not the one it predicts": lambda logits, tokens, pad=None: losses_of(
            logits, tokens
        )[tokens[:, :-1] != (-1 if pad is None else pad)].mean(),
        "forgets the shift": lambda logits, tokens, pad=None: F.cross_entropy(
            logits.flatten(0, 1), tokens.flatten(), ignore_index=-100 if pad is None else pad
        ),
    }
    alternatives = {
        "torch's cross-entropy": shifted_cross_entropy,
        "a weighted mean": lambda logits, tokens, pad=None: (
            (losses_of(logits, tokens) * (kept := (tokens[:, 1:] != (-1 if pad is None else pad)).float())).sum()
            / kept.sum()
        ),
        "a loop returning a number": lambda logits, tokens, pad=None: float(
            np.mean(
                [
                    -float(row[i].double().log_softmax(-1)[ids[i + 1]])
                    for row, ids in zip(logits, tokens, strict=True)
                    for i in range(len(ids) - 1)
                    if pad is None or ids[i + 1] != pad
                ]
            )
        ),
    }


# --- stream_norms


def all_streams(cache, n_layers):
    return [cache["resid_pre", 0], *(cache["resid_post", layer] for layer in range(n_layers))]


def norms_by_loop(cache, n_layers):
    """Square, add, take the root; position by position."""
    means = []
    for stream in all_streams(cache, n_layers):
        vectors = [vector.double() for row in stream for vector in row[1:]]
        means.append(sum(float(sum(x * x for x in vector)) ** 0.5 for vector in vectors) / len(vectors))
    return torch.tensor(means)


@exercise("stream_norms", forbids=["utils.readout.stream_norms"])
class TestStreamNorms:
    @points(2, hint="One number before layer 0, then one after each layer; each the mean length of the vectors.")
    @pytest.mark.parametrize(("n_layers", "shape"), [(3, (2, 5, 6)), (1, (3, 4, 9))])
    def test_matches_the_definition(self, answer, n_layers, shape):
        cache = random_cache(n_layers, *shape)
        answer.should_give(norms_by_loop(cache, n_layers), cache, n_layers)

    @points(1, hint="Leave out position 0: it is [BOS], not text.")
    def test_leaves_out_the_first_position(self, answer):
        cache = random_cache(2)
        for value in cache.values():
            if value.ndim == 3:
                value[:, 0] *= 1000
        answer.should_give(norms_by_loop(cache, 2), cache, 2)

    mutants = {
        "counts position 0": lambda cache, n_layers: torch.stack(
            [s.norm(dim=-1).mean() for s in all_streams(cache, n_layers)]
        ),
        "leaves out the stream before layer 0": lambda cache, n_layers: torch.stack(
            [s[:, 1:].norm(dim=-1).mean() for s in all_streams(cache, n_layers)[1:]]
        ),
        "leaves out the stream after the last layer": lambda cache, n_layers: torch.stack(
            [cache["resid_pre", layer][:, 1:].norm(dim=-1).mean() for layer in range(n_layers)]
        ),
        "takes the length of the mean vector instead of the mean length": lambda cache, n_layers: torch.stack(
            [s[:, 1:].mean((0, 1)).norm() for s in all_streams(cache, n_layers)]
        ),
        "takes one norm of the whole tensor": lambda cache, n_layers: torch.stack(
            [s[:, 1:].norm() for s in all_streams(cache, n_layers)]
        ),
        "measures across positions, not across the stream's dimensions": lambda cache, n_layers: torch.stack(
            [s[:, 1:].norm(dim=1).mean() for s in all_streams(cache, n_layers)]
        ),
        "reads the stream in the middle of each layer": lambda cache, n_layers: torch.stack(
            [
                s[:, 1:].norm(dim=-1).mean()
                for s in [cache["resid_pre", 0], *(cache["resid_mid", layer] for layer in range(n_layers))]
            ]
        ),
        "takes the standard deviation instead of the norm": lambda cache, n_layers: torch.stack(
            [s[:, 1:].std(-1, correction=0).mean() for s in all_streams(cache, n_layers)]
        ),
        "reads the first prompt only": lambda cache, n_layers: torch.stack(
            [s[0, 1:].norm(dim=-1).mean() for s in all_streams(cache, n_layers)]
        ),
        "drops the first prompt, not the first position": lambda cache, n_layers: torch.stack(
            [s[1:].norm(dim=-1).mean() for s in all_streams(cache, n_layers)]
        ),
        "drops the last position, not the first": lambda cache, n_layers: torch.stack(
            [s[:, :-1].norm(dim=-1).mean() for s in all_streams(cache, n_layers)]
        ),
    }
    alternatives = {
        "numpy": lambda cache, n_layers: np.array(
            [np.linalg.norm(s.numpy()[:, 1:], axis=-1).mean() for s in all_streams(cache, n_layers)]
        ),
        "a stack and an einsum": lambda cache, n_layers: (
            torch.einsum("lbsd,lbsd->lbs", *([torch.stack(all_streams(cache, n_layers))[:, :, 1:]] * 2))
            .sqrt()
            .mean((1, 2))
        ),
        "a list of numbers": lambda cache, n_layers: [
            s[:, 1:].pow(2).sum(-1).sqrt().mean().item() for s in all_streams(cache, n_layers)
        ],
    }


# --- rebuild_stream


def writes(cache, layers, kinds=("attn_out", "mlp_out")):
    return sum(cache[kind, layer] for layer in layers for kind in kinds)


def adds_in_place(cache, layer):
    stream = cache["hook_embed"]
    stream += cache["hook_pos_embed"]
    for below in range(layer + 1):
        stream += cache["attn_out", below] + cache["mlp_out", below]
    return stream


def embeddings(cache):
    return cache["hook_embed"] + cache["hook_pos_embed"]


@exercise("rebuild_stream", forbids=["utils.readout.rebuild_stream"])
class TestRebuildStream:
    @points(2, hint="Both embeddings, then attn_out and mlp_out of every layer from 0 up to and including this one.")
    @pytest.mark.parametrize(("n_layers", "shape"), [(4, (2, 5, 6)), (2, (3, 4, 9))])
    def test_adds_up_what_was_written(self, answer, n_layers, shape):
        cache = random_cache(n_layers, *shape)
        for layer in range(n_layers):
            expected = cache["hook_embed"] + cache["hook_pos_embed"]
            for below in range(layer + 1):
                expected = expected + cache["attn_out", below] + cache["mlp_out", below]
            answer.should_give(expected, cache, layer)

    @points(1, hint="`+=` on a tensor works in place. Write x = x + y.", aside=True)
    def test_leaves_the_cache_alone(self, answer):
        cache = random_cache(2)
        before = {name: value.clone() for name, value in cache.items()}
        answer(cache, 1)
        for name, value in before.items():
            require(
                torch.equal(value, cache[name]),
                f"Your function changed `{name}` in the cache: `+=` on a tensor works in place. Write x = x + y.",
            )

    mutants = {
        "forgets the positional embedding": lambda cache, layer: cache["hook_embed"] + writes(cache, range(layer + 1)),
        "forgets the word embedding": lambda cache, layer: cache["hook_pos_embed"] + writes(cache, range(layer + 1)),
        "forgets both embeddings": lambda cache, layer: writes(cache, range(layer + 1)),
        "stops one layer early": lambda cache, layer: embeddings(cache) + writes(cache, range(layer)),
        "adds one layer too many": lambda cache, layer: embeddings(cache) + writes(cache, range(layer + 2)),
        "adds this layer's writes only": lambda cache, layer: embeddings(cache) + writes(cache, [layer]),
        "leaves out the MLPs": lambda cache, layer: embeddings(cache) + writes(cache, range(layer + 1), ["attn_out"]),
        "leaves out attention": lambda cache, layer: embeddings(cache) + writes(cache, range(layer + 1), ["mlp_out"]),
        "looks the stream up instead of adding it up": lambda cache, layer: cache["resid_post", layer],
        "adds in place, into the cache": adds_in_place,
    }
    alternatives = {
        "starts from the stream before layer 0": lambda cache, layer: (
            cache["resid_pre", 0] + writes(cache, range(layer + 1))
        ),
        "a stack, summed": lambda cache, layer: torch.stack(
            [
                cache["hook_embed"],
                cache["hook_pos_embed"],
                *(cache[f"blocks.{i}.hook_{kind}"] for i in range(layer + 1) for kind in ("attn_out", "mlp_out")),
            ]
        ).sum(0),
        "numpy": lambda cache, layer: np.add(
            embeddings(cache).numpy(), np.sum([writes(cache, [i]).numpy() for i in range(layer + 1)], axis=0)
        ),
    }


# --- read_stream


def small_model(width, vocab):
    """What an answer may ask of a model: the final layer norm (its gain folded away), the unembedding, sizes."""
    model = SimpleNamespace(W_U=torch.randn(width, vocab), b_U=torch.randn(vocab))
    model.cfg = SimpleNamespace(eps=1e-5, d_model=width, d_vocab=vocab)
    model.ln_final = torch.nn.LayerNorm(width, elementwise_affine=False, eps=1e-5)
    model.unembed = lambda normed: normed @ model.W_U + model.b_U
    return model


def normed(stream, centre=True, correction=0):
    centred = stream - stream.mean(-1, keepdim=True) if centre else stream
    return centred / (centred.pow(2).sum(-1, keepdim=True) / (stream.shape[-1] - correction) + 1e-5).sqrt()


@exercise("read_stream", forbids=["utils.readout.read_stream"])
class TestReadStream:
    @points(2, hint="Two steps: layer norm (subtract the mean, divide by the standard deviation), then W_U and b_U.")
    @pytest.mark.parametrize(("shape", "vocab"), [((2, 5, 6), 9), ((3, 4, 2, 7), 5)])
    def test_norm_then_unembed(self, answer, shape, vocab):
        model, stream = small_model(shape[-1], vocab), 3 * torch.randn(shape) + 2
        answer.should_give(F.layer_norm(stream, shape[-1:], eps=1e-5) @ model.W_U + model.b_U, stream, model)

    @points(1, hint="A single vector is a stream too: normalise over the last dimension, whatever stands before it.")
    def test_reads_a_single_vector(self, answer):
        model, stream = small_model(8, 11), torch.randn(8)
        answer.should_give(F.layer_norm(stream, (8,), eps=1e-5) @ model.W_U + model.b_U, stream, model)

    @points(1, hint="The final layer norm makes the reading blind to the stream's length.")
    def test_a_longer_stream_reads_the_same(self, answer):
        model, stream = small_model(6, 4), torch.randn(2, 3, 6)
        longer = answer(50 * stream, model)
        answer.should_give(F.layer_norm(stream, (6,), eps=1e-5) @ model.W_U + model.b_U, stream, model)
        require(
            torch.allclose(torch.as_tensor(longer).float(), torch.as_tensor(answer(stream, model)).float(), atol=1e-2),
            "A stream 50 times as long reads differently: the layer norm is missing.",
        )

    mutants = {
        "forgets the layer norm": lambda stream, model: stream @ model.W_U + model.b_U,
        "forgets the unembedding's bias": lambda stream, model: normed(stream) @ model.W_U,
        "divides by the length but does not subtract the mean": lambda stream, model: (
            normed(stream, centre=False) @ model.W_U + model.b_U
        ),
        "subtracts the mean but does not divide": lambda stream, model: (
            (stream - stream.mean(-1, keepdim=True)) @ model.W_U + model.b_U
        ),
        "divides by the variance, not by its root": lambda stream, model: (
            ((stream - stream.mean(-1, keepdim=True)) / (stream.var(-1, keepdim=True, correction=0) + 1e-5)) @ model.W_U
            + model.b_U
        ),
        "takes the standard deviation with n - 1": lambda stream, model: (
            normed(stream, correction=1) @ model.W_U + model.b_U
        ),
        "uses one mean and one standard deviation for the whole tensor": lambda stream, model: (
            ((stream - stream.mean()) / stream.std(correction=0)) @ model.W_U + model.b_U
        ),
        "normalises over the first dimension": lambda stream, model: (
            ((stream - stream.mean(0)) / (stream.std(0, correction=0) + 1e-5)) @ model.W_U + model.b_U
        ),
        "normalises after unembedding": lambda stream, model: normed(stream @ model.W_U + model.b_U),
        "returns probabilities, not logits": lambda stream, model: (normed(stream) @ model.W_U + model.b_U).softmax(-1),
    }
    alternatives = {
        "the model's own modules": lambda stream, model: model.unembed(model.ln_final(stream)),
        "torch's layer norm and an einsum": lambda stream, model: (
            torch.einsum("...d,dv->...v", F.layer_norm(stream, (model.cfg.d_model,), eps=model.cfg.eps), model.W_U)
            + model.b_U
        ),
        "numpy in double precision": lambda stream, model: (
            (x := stream.double().numpy() - stream.double().numpy().mean(-1, keepdims=True))
            / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
            @ model.W_U.numpy()
            + model.b_U.numpy()
        ),
    }


# --- share_right


def shares_by_loop(logits, right, wrong):
    return torch.tensor(
        [sum(bool(row[p, right[p]] > row[p, wrong[p]]) for p in range(len(right))) / len(right) for row in logits]
    )


def random_race(layers, prompts, vocab):
    """Logits, right and wrong words: the words differ from prompt to prompt and from each other."""
    right = torch.randint(0, vocab, (prompts,))
    return torch.randn(layers, prompts, vocab), right, (right + torch.randint(1, vocab, (prompts,))) % vocab


@exercise("share_right", forbids=["utils.readout.share_right"])
class TestShareRight:
    @points(2, hint="In each prompt compare the logit of its own right word with that of its own wrong word.")
    @pytest.mark.parametrize("shape", [(5, 30, 8), (3, 7, 20), (6, 6, 6)])
    def test_matches_the_definition(self, answer, shape):
        logits, right, wrong = random_race(*shape)
        answer.should_give(shares_by_loop(logits, right, wrong), logits, right, wrong)

    @points(1, hint="A tie is not a lead: the right word must be strictly ahead.")
    def test_a_tie_is_not_a_lead(self, answer):
        logits = torch.zeros(2, 4, 5)
        logits[:, 3, 3] = 1.0  # the only lead
        answer.should_give(torch.full((2,), 0.25), logits, torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 3, 4]))

    @points(1, hint="The right word need not be the likeliest of all, only likelier than the wrong one.")
    def test_only_the_two_words_compete(self, answer):
        logits = torch.zeros(1, 3, 6)
        logits[..., 5], logits[..., 0], logits[:, 2, 3] = 9.0, 1.0, 2.0
        answer.should_give(torch.tensor([2 / 3]), logits, torch.tensor([0, 0, 0]), torch.tensor([1, 2, 3]))

    mutants = {
        "counts ties": lambda logits, right, wrong: (
            (logits[:, torch.arange(len(right)), right] >= logits[:, torch.arange(len(right)), wrong]).float().mean(-1)
        ),
        "counts where the wrong word is ahead": lambda logits, right, wrong: shares_by_loop(logits, wrong, right),
        "asks that the right word is the likeliest of all": lambda logits, right, wrong: (
            (logits.argmax(-1) == right).float().mean(-1)
        ),
        "compares every prompt with the words of the first": lambda logits, right, wrong: (
            (logits[..., right[0]] > logits[..., wrong[0]]).float().mean(-1)
        ),
        "compares each prompt with the words of all prompts": lambda logits, right, wrong: (
            (logits[..., right] > logits[..., wrong]).float().mean((-2, -1))
        ),
        "averages over layers, not over prompts": lambda logits, right, wrong: (
            (logits[:, torch.arange(len(right)), right] > logits[:, torch.arange(len(right)), wrong]).float().mean(0)
        ),
        "compares the means instead of counting prompts": lambda logits, right, wrong: (
            logits[:, torch.arange(len(right)), right].mean(-1) > logits[:, torch.arange(len(right)), wrong].mean(-1)
        ).float(),
        "returns counts, not shares": lambda logits, right, wrong: len(right) * shares_by_loop(logits, right, wrong),
        "returns the mean lead, not a share": lambda logits, right, wrong: (
            logits[:, torch.arange(len(right)), right] - logits[:, torch.arange(len(right)), wrong]
        ).mean(-1),
    }
    alternatives = {
        "gather": lambda logits, right, wrong: (
            (
                logits.gather(-1, right[None, :, None].expand(len(logits), -1, 1))
                > logits.gather(-1, wrong[None, :, None].expand(len(logits), -1, 1))
            )
            .double()
            .mean((1, 2))
        ),
        "a loop returning a list": lambda logits, right, wrong: [
            float(np.mean([bool(layer[p, r] > layer[p, w]) for p, (r, w) in enumerate(zip(right, wrong, strict=True))]))
            for layer in logits
        ],
        "numpy": lambda logits, right, wrong: (
            logits.numpy()[:, np.arange(len(right)), right.numpy()]
            > logits.numpy()[:, np.arange(len(right)), wrong.numpy()]
        ).mean(1),
    }


# --- attention_to


def attention_by_loop(pattern, query, key):
    prompts, heads = pattern.shape[:2]
    return torch.tensor(
        [sum(float(pattern[p, h, query[p], key[p]]) for p in range(prompts)) / prompts for h in range(heads)]
    )


def random_patterns(prompts, heads, seq):
    hidden = torch.ones(seq, seq, dtype=torch.bool).triu(1)
    pattern = (2 * torch.randn(prompts, heads, seq, seq)).masked_fill(hidden, -torch.inf).softmax(-1)
    query = torch.randint(2, seq, (prompts,))
    key = torch.tensor([int(torch.randint(1, int(q), ())) for q in query])
    return pattern, query, key


@exercise("attention_to", forbids=["utils.readout.attention_to"])
class TestAttentionTo:
    @points(2, hint="Rows are queries, columns are keys: pattern[prompt, head, query, key]. Average over prompts only.")
    @pytest.mark.parametrize("shape", [(5, 3, 7), (2, 4, 6), (4, 4, 9)])
    def test_matches_the_definition(self, answer, shape):
        pattern, query, key = random_patterns(*shape)
        answer.should_give(attention_by_loop(pattern, query, key), pattern, query, key)

    @points(1, hint="Prompts differ in length: each has its own query and its own key.")
    def test_every_prompt_has_its_own_positions(self, answer):
        pattern = torch.zeros(3, 2, 6, 6)
        query, key = torch.tensor([5, 3, 4]), torch.tensor([1, 2, 3])
        for prompt in range(3):
            pattern[prompt, 0, query[prompt], key[prompt]] = 1.0
            pattern[prompt, 1, query[prompt], key[prompt] - 1] = 1.0
        answer.should_give(torch.tensor([1.0, 0.0]), pattern, query, key)

    mutants = {
        "swaps query and key": lambda pattern, query, key: attention_by_loop(pattern.mT, query, key),
        "reads the last row, where short prompts are padded": lambda pattern, query, key: attention_by_loop(
            pattern, torch.full_like(query, pattern.shape[-1] - 1), key
        ),
        "uses the first prompt's positions for all": lambda pattern, query, key: pattern[:, :, query[0], key[0]].mean(
            0
        ),
        "averages over heads, not over prompts": lambda pattern, query, key: pattern[
            torch.arange(len(query)), :, query, key
        ].mean(1),
        "does not average over the prompts": lambda pattern, query, key: pattern[
            torch.arange(len(query)), :, query, key
        ],
        "mixes the prompts: it pairs every prompt with the positions of all": lambda pattern, query, key: pattern[
            :, :, query, key
        ].mean((0, -1)),
        "looks one position too early": lambda pattern, query, key: attention_by_loop(pattern, query, key - 1),
        "sums over the prompts": lambda pattern, query, key: len(query) * attention_by_loop(pattern, query, key),
    }
    alternatives = {
        "one-hot vectors and an einsum": lambda pattern, query, key: (
            torch.einsum(
                "phqk,pq,pk->h",
                pattern,
                F.one_hot(query, pattern.shape[-1]).float(),
                F.one_hot(key, pattern.shape[-1]).float(),
            )
            / len(query)
        ),
        "numpy": lambda pattern, query, key: np.mean(
            [pattern.numpy()[p, :, q, k] for p, (q, k) in enumerate(zip(query.tolist(), key.tolist(), strict=True))], 0
        ),
        "a loop returning a list": lambda pattern, query, key: [
            sum(pattern[p, h, query[p], key[p]] for p in range(len(query))) / len(query)
            for h in range(pattern.shape[1])
        ],
    }
