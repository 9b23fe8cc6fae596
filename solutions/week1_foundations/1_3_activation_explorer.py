# ---
# jupyter:
#   course:
#     title: The activation explorer
#     minutes: 115
#     status: ready
# ---

# %% [markdown]
# # 1.3 · The activation explorer
#
# In 1.1 you read the residual stream with the logit lens. Today you ask how far that lens can be trusted, take the
# stream apart into everything that wrote into it, and look at single neurons. The parts that you write become a
# dashboard: choose a prompt, a layer, a head and a neuron, and see what they do.
#
# It is a tool for having ideas. So the last part is about how such a tool deceives, and by how much.
#
# By the end you can
#
# * **measure** how close a lens comes to the model's own answer, and **compare** it with a lens that sees nothing;
# * **fit** two better lenses by hand, and **explain** what a fitted lens no longer tells you;
# * **decompose** the residual stream into every head, bias and MLP, and **find** who writes what;
# * **build** a dashboard from functions of your own;
# * **test** whether a neuron's top examples tell you what the neuron does.

# %%
import math
from collections.abc import Sequence

import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils import hub_available, load_model, metrics, neurons
from utils.example_views import example_map
from utils.explorer import Explorer
from utils.models import story_batch
from utils.models.measurement import mean
from utils.models.untrained import untrained_twin
from utils.plots import GREY, attention_pattern, bars, lines
from utils.readout import read_stream, stream_points, top_words

torch.set_grad_enabled(False)
model = load_model("tiny-lm")
n_layers, n_heads, n_neurons = model.cfg.n_layers, model.cfg.n_heads, model.cfg.d_mlp
words = model.tokenizer.convert_ids_to_tokens(range(model.cfg.d_vocab))
points = stream_points(n_layers)

corpus, fresh = story_batch(300, seed=1), story_batch(300, seed=2)
print(f"{len(corpus)} stories to look at, {len(fresh)} others to test on. The first begins:")
print(" ".join(corpus.text(0).split()[:24]), "...")

# %% [markdown]
# ## Does the lens work in every layer?
#
# The logit lens reads an intermediate stream as if it were the last one. Demonstrations of it show a layer in which the
# answer appears, and it is easy to go home with "the lens works in all layers". Look at one sentence first.

# %%
sentence = "when Mary went to the store , she bought a"
tokens = model.to_tokens(sentence)


def all_streams(model, tokens: Int[Tensor, "text seq"]) -> Float[Tensor, "point text seq-1 d_model"]:
    """The stream at the embedding and after every attention and every MLP, [BOS] left out."""
    batches = []
    for some in tokens.split(50):
        _, cache = model.run_with_cache(some, names_filter=lambda name: "resid" in name)
        streams = [cache["resid_pre", 0]]
        for layer in range(model.cfg.n_layers):
            streams += [cache["resid_mid", layer], cache["resid_post", layer]]
        batches.append(torch.stack(streams)[:, :, 1:])
    return torch.cat(batches, dim=1)


asked = sentence.split()
print(f"{'':14}" + "".join(f"{word:>12}" for word in asked))
for point, stream in zip(points, all_streams(model, tokens), strict=True):
    said = [top_words(read_stream(stream[0, : i + 1], model), words, 1)[0][0] for i in range(len(asked))]
    print(f"{point:14}" + "".join(f"{word:>12}" for word in said))

# %% [markdown]
# Read the last row: that is what the model says after each word. Now read the first. At the embedding, the lens gives
# you **the word that was read**, not a guess about the next. There is a simple reason. In this model, as in GPT-2, the
# embedding and the unembedding are one matrix, so a word's vector points to the word itself.
#
# "It looks like nonsense in early layers" is not a measurement. Two things are needed: a distance between what the lens
# says and what the model says in the end, and something to compare that distance with.

# %%
predict(
    "lens_beats_blind",
    "From which point of the stream on is the lens closer to the model's answer than a lens that sees nothing?",
    kind="choice",
    choices=points,
    guess=None,
)

# %% [markdown]
# ### Exercise · `kl_divergence`
# difficulty 2/5 · importance 5/5 · 6 minutes
#
# The standard distance between two distributions is the Kullback-Leibler divergence. With p the model's answer and q
# the lens's: if words really came from p, how many more nats of surprise would you suffer by believing q?
#
# KL(p ‖ q) = Σ p · (log p − log q), summed over the vocabulary. It is zero when both agree, and it is not symmetric.
# You will use it as a metric in most weeks to come.


# %%
def kl_divergence(logits: Float[Tensor, "... vocab"], reference: Float[Tensor, "... vocab"]) -> Float[Tensor, "..."]:
    """KL(reference || answer) in nats, for each distribution over the vocabulary.

    Args:
        logits: the answer that is judged (q).
        reference: logits of the answer to stay close to (p): the model's own.

    Returns:
        One number, at least 0, for each pair of distributions; the last dimension is gone.
    """
    ### BEGIN SOLUTION
    log_p, log_q = reference.log_softmax(dim=-1), logits.log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    ### END SOLUTION


# %%
check(kl_divergence)

# %% [markdown]
# ### Hints · `kl_divergence`
# 1. Turn both sets of logits into log-probabilities first. Over which dimension?
# 2. The weight is the reference's probability, `log_p.exp()`. The difference of logarithms is reference minus answer.
# 3. `(log_p.exp() * (log_p - log_q)).sum(dim=-1)`. Use `log_softmax`: the logarithm of a probability that was rounded
#    to zero is minus infinity.

# %% [markdown]
# ### Exercise · `blind_guess`
# difficulty 2/5 · importance 4/5 · 5 minutes
#
# Is a distance of 4 nats much? You can only say so beside a baseline. The fairest one is a lens that does not look at
# the stream at all and gives the same distribution everywhere: the best one that there is. Whoever does worse is not
# reading the stream, or is reading it wrong.
#
# Of all constant guesses, the *average of the model's distributions* has the smallest mean KL. Return its logarithm:
# log-probabilities are logits too.


# %%
def blind_guess(logits: Float[Tensor, "... vocab"]) -> Float[Tensor, "vocab"]:
    """The best constant answer: the logarithm of the model's mean distribution.

    Args:
        logits: the model's answers on a corpus, with any dimensions before the vocabulary.

    Returns:
        Log-probabilities. No other constant has a smaller mean KL divergence from these answers.
    """
    ### BEGIN SOLUTION
    probabilities = logits.softmax(dim=-1).flatten(0, -2)
    return probabilities.mean(dim=0).log()
    ### END SOLUTION


# %%
check(blind_guess)

# %% [markdown]
# ### Hints · `blind_guess`
# 1. The mean of what: of logits, of log-probabilities, or of probabilities?
# 2. Softmax first, then the mean over everything but the vocabulary, then the logarithm.
# 3. `logits.softmax(dim=-1).flatten(0, -2).mean(dim=0).log()`.

# %%
judged = fresh.tokens[:100]
learnt_streams, streams = all_streams(model, corpus.tokens), all_streams(model, judged)
truth = read_stream(streams[-1], model)  # after the last layer, the lens gives the model's own logits
blind = blind_guess(read_stream(learnt_streams[-1], model))


def distance(logits: Float[Tensor, "text seq vocab"], reference: Float[Tensor, "text seq vocab"]):
    """The mean KL divergence with its 95 % interval. Words of one story are not independent: it counts stories."""
    return mean(metrics.kl_divergence(logits, reference).mean(-1), "KL from the model's answer, nats")


def show_lenses(lenses: dict[str, list], title: str, blind: float) -> go.Figure:
    """The distance of each lens at each point, with intervals; the dotted line is the lens that sees nothing."""
    figure = lines(
        {name: [m.value for m in measured] for name, measured in lenses.items()},
        title,
        x_title="where the stream is read",
        y_title="KL from the model's answer (nats)",
        x=points[: len(next(iter(lenses.values())))],
        intervals={name: ([m.low for m in measured], [m.high for m in measured]) for name, measured in lenses.items()},
    )
    line = go.Scatter(x=points, y=[blind] * len(points), name="sees nothing", mode="lines")
    figure.add_trace(line.update(line={"dash": "dot", "color": GREY})).update_layout(showlegend=True)
    return figure.update_xaxes(tickangle=-45)


raw = [distance(read_stream(stream, model), truth) for stream in streams]
sees_nothing = distance(blind.expand_as(truth), truth).value
first_useful = next(i for i, m in enumerate(raw) if all(later.high < sees_nothing for later in raw[i:]))

figure = show_lenses(
    {"logit lens": raw[:-1]},  # at the last point the distance is zero, and has no place on this axis
    f"Before '{points[first_useful]}', the lens is worse than one that sees nothing",
    sees_nothing,
)
figure.update_yaxes(type="log", range=[-1, 1.7], tickvals=[0.1, 0.3, 1, 3, 10, 30])

# %%
reveal("lens_beats_blind", points[first_useful])

# %% [markdown]
# So the popular sentence is false here, and not by a little: note the logarithmic axis. In the lower layers the lens is
# *confidently wrong*. A stream that points to the word just read gets read as a prediction of that word.
#
# Mind what this does *not* show. It does not show that the lower layers know nothing about the next word. It shows that
# they do not say it in the output's language.
#
# ## Tuning the lens by hand
#
# What differs between an early stream and the last one? The simplest suspects are its centre and its scale: the layers
# to come will move the mean and stretch each dimension. You can correct for both without any training.

# %% [markdown]
# ### Exercise · `match_moments`
# difficulty 2/5 · importance 3/5 · 6 minutes
#
# Move and stretch each dimension of an early stream so that its mean and its standard deviation become those of the
# last stream. Take the means and deviations from one corpus (`early` and `late`), and apply them to another
# (`stream`): what you fit and what you judge must be different texts.


# %%
def match_moments(
    stream: Float[Tensor, "... d_model"], early: Float[Tensor, "token d_model"], late: Float[Tensor, "token d_model"]
) -> Float[Tensor, "... d_model"]:
    """The stream, shifted and scaled in each dimension so that `early` would get the mean and deviation of `late`.

    Args:
        stream: streams to correct, at the early point.
        early: streams of a corpus at the early point.
        late: streams of the same corpus after the last layer.

    Returns:
        Corrected streams, of the same shape as `stream`.
    """
    ### BEGIN SOLUTION
    standard = (stream - early.mean(dim=0)) / early.std(dim=0)
    return standard * late.std(dim=0) + late.mean(dim=0)
    ### END SOLUTION


# %%
check(match_moments)

# %% [markdown]
# ### Hints · `match_moments`
# 1. Two steps: bring the stream to mean 0 and deviation 1, then to the mean and deviation of `late`.
# 2. Every dimension of the stream has a mean and a deviation of its own: average over tokens, `dim=0`.
# 3. `(stream - early.mean(0)) / early.std(0) * late.std(0) + late.mean(0)`.

# %% [markdown]
# ### Exercise · `fit_translator`
# difficulty 3/5 · importance 4/5 · 10 minutes
#
# The layers to come do more than move and stretch: they mix dimensions. The next step is a full matrix and a bias for
# each point, fitted so that the early stream predicts the last one. That is the idea of the **tuned lens** ([Belrose et
# al. 2023](https://arxiv.org/abs/2303.08112)). They train theirs by gradient descent on the KL divergence; yours has a
# closed form, because you ask for the least squared error.
#
# Centre both streams, solve, and put the means back into the bias. A small penalty keeps the matrix finite where a
# dimension hardly varies. The matrix that minimises the mean squared error plus `penalty` times its own sum of
# squares is
#
# W = (XᵀX / n + penalty · I)⁻¹ XᵀY / n, with X and Y centred. The bias is not punished.


# %%
def fit_translator(
    early: Float[Tensor, "token d_model"], late: Float[Tensor, "token d_model"], penalty: float = 1e-3
) -> tuple[Float[Tensor, "d_model d_model"], Float[Tensor, "d_model"]]:
    """The matrix and the bias with which an early stream predicts the late one: early @ matrix + bias.

    Args:
        early: streams of a corpus at an early point.
        late: streams of the same tokens after the last layer.
        penalty: the ridge penalty on the matrix, per mean squared error.

    Returns:
        The matrix [from, to] and the bias.
    """
    ### BEGIN SOLUTION
    x, y = early - early.mean(dim=0), late - late.mean(dim=0)
    ridge = penalty * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    matrix = torch.linalg.solve(x.T @ x / len(x) + ridge, x.T @ y / len(x))
    return matrix, late.mean(dim=0) - early.mean(dim=0) @ matrix
    ### END SOLUTION


# %%
check(fit_translator)

# %% [markdown]
# ### Hints · `fit_translator`
# 1. Without the penalty it is ordinary linear regression with an intercept. What makes the intercept disappear from the
#    problem?
# 2. Subtract both means: then only the matrix is left. `torch.linalg.solve(A, B)` gives A⁻¹B. The bias must send the
#    mean of `early` to the mean of `late`.
# 3. `matrix = torch.linalg.solve(x.T @ x / n + penalty * torch.eye(d), x.T @ y / n)` and
#    `bias = late.mean(0) - early.mean(0) @ matrix`.

# %% [markdown]
# Three lenses, one baseline, one control. The control is a translator fitted on *shuffled* pairs: the early stream of
# one token, the last stream of another. It has just as many parameters and nothing to learn.


# %%
def compare_lenses(model, learnt, judged) -> dict[str, list]:
    """The distance from the model's own answer for each lens at each point: fitted on one corpus, judged on another."""
    answer, late = read_stream(judged[-1], model), learnt[-1].flatten(0, 1)
    shuffled = late[torch.randperm(len(late), generator=torch.Generator().manual_seed(0))]
    lenses = {"logit lens": [], "mean and scale": [], "translator": [], "shuffled": []}
    for early, stream in zip(learnt.flatten(1, 2), judged, strict=True):
        corrected = {"logit lens": stream, "mean and scale": match_moments(stream, early, late)}
        for name, target in (("translator", late), ("shuffled", shuffled)):
            matrix, bias = fit_translator(early, target)
            corrected[name] = stream @ matrix + bias
        for name, read in corrected.items():
            lenses[name].append(distance(read_stream(read, model), answer))
    return lenses


lenses = compare_lenses(model, learnt_streams, streams)
half_way = next(i for i, m in enumerate(lenses["translator"]) if m.value < sees_nothing / 2)
figure = show_lenses(
    lenses,
    f"The translator is half as far off as a blind guess from '{points[half_way]}' on",
    sees_nothing,
)
figure.update_yaxes(range=[0, 9])

# %%
for point, *row in zip(points, *lenses.values(), strict=True):
    cells = "   ".join(
        f"{name} {m.value:5.2f} [{m.low:5.2f}, {m.high:5.2f}]" for name, m in zip(lenses, row, strict=True)
    )
    print(f"{point:12} {cells}")
print(f"sees nothing {sees_nothing:.2f}")

# %% [markdown]
# Read it from the control upwards. The shuffled translator knows nothing and lands a little above the blind guess.
# Correcting mean and scale alone beats the plain lens at every point but the last, where nothing is left to correct.
# The translator beats both, and it beats the blind guess **even at the embedding**, where no layer has run.
#
# Stop at that. Nothing has been computed at the embedding, so what does the translator read there? It sees which word
# was read, and it has *learnt* from the corpus what tends to follow that word. The knowledge sits in the lens. A
# fitted lens answers "what can be predicted linearly from here?"; the plain lens answers "what would the model say if
# it stopped here?". Neither is "what the layer knows".
#
# One more trap. Run the same comparison on an untrained twin.

# %%
twin = untrained_twin(model, seed=0)
twin_learnt, twin_judged = all_streams(twin, corpus.tokens), all_streams(twin, judged)
twin_truth = read_stream(twin_judged[-1], twin)
twin_raw = [distance(read_stream(stream, twin), twin_truth).value for stream in twin_judged]
twin_blind = distance(blind_guess(read_stream(twin_learnt[-1], twin)).expand_as(twin_truth), twin_truth).value

print("KL of the plain lens from the model's own answer, nats")
for point, trained, untrained in zip(points, raw, twin_raw, strict=True):
    print(f"  {point:12} tiny-lm {trained.value:6.2f}    untrained {untrained:6.3f}")
print(f"  {'sees nothing':12} tiny-lm {sees_nothing:6.2f}    untrained {twin_blind:6.3f}")

# %% [markdown]
# The lens is hundreds of times "better" on random weights, up to the last layer. An untrained model says nearly the
# same about everything, so every guess is close to it, the blind one included. **A distance means nothing without its
# baseline.**
#
# ## Who wrote the stream?
#
# You rebuilt the stream from layers in 1.1. Go one step finer. An attention layer's output is itself a sum: one vector
# for each head, and a bias that belongs to none.

# %% [markdown]
# ### Exercise · `residual_parts`
# difficulty 3/5 · importance 5/5 · 10 minutes
#
# Every analysis that says "head 2.1 contributed so much" needs this list. Return everything that was ever added to the
# stream, by name, so that the parts sum to the last stream exactly: `"embedding"`, `"position"`, and for each layer its
# heads `"0.0"`, `"0.1"` ..., its attention bias `"0 bias"` and its MLP `"0 MLP"`.
#
# A head's output is its mixed value z times its own block of `W_O`.


# %%
def residual_parts(cache, W_O: Float[Tensor, "layer head d_head d_model"], b_O: Float[Tensor, "layer d_model"]) -> dict:
    """Everything that the model has added to the residual stream, by name.

    Source: Elhage et al. 2021, https://transformer-circuits.pub/2021/framework/index.html

    Args:
        cache: activations by full name: "hook_embed", "hook_pos_embed", and for each layer l
            "blocks.{l}.attn.hook_z" [batch, seq, head, d_head] and "blocks.{l}.hook_mlp_out" [batch, seq, d_model].
        W_O: the output matrix of each head.
        b_O: the output bias of each attention layer.

    Returns:
        Tensors [batch, seq, d_model] under the names "embedding", "position", "0.0" (layer.head), "0 bias",
        "0 MLP", and so on. Their sum is the stream after the last layer.
    """
    ### BEGIN SOLUTION
    parts = {"embedding": cache["hook_embed"], "position": cache["hook_pos_embed"]}
    for layer, (W, b) in enumerate(zip(W_O, b_O, strict=True)):
        z = cache[f"blocks.{layer}.attn.hook_z"]
        for head in range(len(W)):
            parts[f"{layer}.{head}"] = z[:, :, head] @ W[head]
        parts[f"{layer} bias"] = b.expand_as(parts["embedding"])
        parts[f"{layer} MLP"] = cache[f"blocks.{layer}.hook_mlp_out"]
    return parts
    ### END SOLUTION


# %%
check(residual_parts)

# %% [markdown]
# ### Hints · `residual_parts`
# 1. How many parts are there? Two embeddings, and for each layer its heads, one bias and one MLP.
# 2. `z[:, :, head]` is [batch, seq, d_head]; times `W_O[layer, head]`, [d_head, d_model], it is what that head wrote.
# 3. `parts[f"{layer}.{head}"] = z[:, :, head] @ W_O[layer, head]`. The bias is the same everywhere:
#    `b_O[layer].expand_as(cache["hook_embed"])`. Add it once a layer, not once a head.

# %%
_, cache = model.run_with_cache(judged)
parts = residual_parts(cache, model.W_O, model.b_O)
last = cache["resid_post", n_layers - 1]
error = (sum(parts.values()) - last).abs().max().item()
print(f"{len(parts)} parts. The stream goes up to {last.max():.0f}, and their sum differs from it by {error:.0e}.")
assert error < 1e-3, "The parts do not sum to the stream yet."
stacked = torch.stack([part.expand_as(last)[:, 1:] for part in parts.values()])  # [part, story, position, d_model]

# %%
predict(
    "largest_part",
    "The part that makes up most of the last stream: what share of it is it, from 0 to 1?",
    kind="number",
    guess=None,
)

# %% [markdown]
# ### Exercise · `share_along`
# difficulty 2/5 · importance 4/5 · 6 minutes
#
# Parts can point anywhere, and lengths do not add up. What does add up is how far each part goes **along one
# direction**. Project every part onto the direction and measure in units of its length: ⟨part, d⟩ / ⟨d, d⟩. Along the
# stream itself these shares sum to one. A share can be negative: that part works against the direction.


# %%
def share_along(
    parts: Float[Tensor, "part ... d_model"], direction: Float[Tensor, "... d_model"]
) -> Float[Tensor, "part ..."]:
    """How far each part goes along a direction, in units of the direction's length.

    Args:
        parts: what is projected, one slice for each part.
        direction: one direction for each token, or one for all; of any length but zero.

    Returns:
        1 for a part that is the direction, 0 for one at right angles to it, -1 for its opposite.
    """
    ### BEGIN SOLUTION
    return (parts * direction).sum(dim=-1) / direction.pow(2).sum(dim=-1)
    ### END SOLUTION


# %%
check(share_along)

# %% [markdown]
# ### Hints · `share_along`
# 1. The inner product of each part with the direction, over `d_model`. Then: what would the direction itself get?
# 2. Dividing by the direction's *squared* length gives it the share 1.
# 3. `(parts * direction).sum(-1) / direction.pow(2).sum(-1)`.

# %%
names = list(parts)
shares = share_along(stacked, last[:, 1:])  # [part, story, position]
measured = [mean(share.mean(-1), name) for name, share in zip(names, shares, strict=True)]  # interval over stories
largest = max(range(len(names)), key=lambda i: measured[i].value)

figure = bars(
    [m.value for m in measured],
    names,
    f"'{names[largest]}' makes up {measured[largest].value:.0%} of the last stream; all {n_layers * n_heads} heads "
    f"together {sum(m.value for m in measured if '.' in m.what):.0%}",
    x_title="part",
    y_title="share along the last stream",
    intervals=([m.low for m in measured], [m.high for m in measured]),
)
figure.update_xaxes(tickangle=-60, tickfont_size=10).update_layout(width=820)

# %%
reveal("largest_part", measured[largest].value, tolerance=0.1)

# %% [markdown]
# The last MLP is most of the vector that gets read out. Before you make it the hero: a part can be large because it
# says much, or because it says the same thing every time.

# %%
wrote = parts[names[largest]][:, 1:].flatten(0, 1)
constant = (wrote.mean(dim=0).norm() ** 2 / wrote.pow(2).sum(dim=-1).mean()).item()
print(f"{constant:.0%} of the squared length of what '{names[largest]}' writes is the same vector for every token.")

# %% [markdown]
# A good part of it is a constant, then. That part says the same whatever was read, and a bias could have done it.
#
# And the embedding, the word itself, has all but vanished from the last stream. Where did it go? The first table
# above showed that the stream starts out pointing to that word. A stream is a sum, so nothing can be overwritten:
# either the rest drowns it out, or some part writes its *opposite*. Measure every part along the unembedding of the
# token's own word. The control is the word of another token.

# %%
own = model.W_U.T[judged[:, 1:]]
own = own / own.norm(dim=-1, keepdim=True)
other = own.flatten(0, 1)[torch.randperm(own[..., 0].numel(), generator=torch.Generator().manual_seed(0))].view_as(own)
along_own, along_other = share_along(stacked, own), share_along(stacked, other)  # unit vectors: lengths along them
extra = [mean(a.mean(-1) - b.mean(-1), name) for name, a, b in zip(names, along_own, along_other, strict=True)]

eraser = min(range(len(names)), key=lambda i: extra[i].value)
figure = bars(
    [m.value for m in extra],
    names,
    f"The embedding writes the word ({extra[0].value:+.1f}), "
    f"'{names[eraser]}' takes it out ({extra[eraser].value:+.1f})",
    x_title="part",
    y_title="length along the token's own word,<br>less that along another token's word",
    intervals=([m.low for m in extra], [m.high for m in extra]),
)
figure.update_xaxes(tickangle=-60, tickfont_size=10).update_layout(width=820)

# %% [markdown]
# Both happen. The embedding's arrow is short beside a stream that grows to some fifty times its length, and the last
# MLP takes back most of what the embedding wrote. It has a reason to: in these stories a word hardly ever follows
# itself.
#
# ## Neurons over a corpus
#
# Heads move things; between them sit the MLPs, with 256 neurons a layer here. A neuron is one number at each token. The
# oldest way to study one is to look where the number is large.

# %% [markdown]
# ### Exercise · `corpus_activations`
# difficulty 2/5 · importance 4/5 · 8 minutes
#
# A corpus does not fit through a model at once, not even through a small one: keep everything, and memory fills up.
# Run it in batches, and ask the model to keep the one activation that you need.
#
# `model.run_with_cache(tokens, names_filter=name)` returns the logits and a cache that holds `name` alone. The neurons
# of a layer, after their nonlinearity, are `blocks.{layer}.mlp.hook_post`.


# %%
def corpus_activations(model, tokens: Int[Tensor, "text seq"], layer: int, batch: int = 50) -> Tensor:
    """The activations of all neurons of one layer on every token of a corpus, after the nonlinearity.

    Args:
        model: has `run_with_cache`.
        tokens: the corpus.
        layer: the layer, from 0.
        batch: how many texts are run at a time; the last batch may be smaller.

    Returns:
        [text, seq, neuron], texts in their order.
    """
    ### BEGIN SOLUTION
    name = f"blocks.{layer}.mlp.hook_post"
    kept = [model.run_with_cache(some, names_filter=name)[1][name] for some in tokens.split(batch)]
    return torch.cat(kept)
    ### END SOLUTION


# %%
check(corpus_activations)

# %% [markdown]
# ### Hints · `corpus_activations`
# 1. `tokens.split(batch)` cuts the corpus into batches. What do you keep of each run?
# 2. Run each batch with `names_filter=name`, take `cache[name]`, collect them in a list, and join the list along texts.
# 3. `[model.run_with_cache(some, names_filter=name)[1][name] for some in tokens.split(batch)]`, then `torch.cat`.

# %% [markdown]
# ### Exercise · `top_examples`
# difficulty 3/5 · importance 5/5 · 8 minutes
#
# Which tokens excite a neuron most? Two traps. `[BOS]` is no text, and its activations are odd. And one story can
# hold a sentence that fires ten times in a row: ten copies of one example look like overwhelming evidence. So take at
# most one place from each text.


# %%
def top_examples(activations: Float[Tensor, "text seq"], k: int) -> list[tuple[int, int]]:
    """The k places with the largest activation, largest first.

    Args:
        activations: one neuron's activations on a corpus; position 0 is [BOS] and does not count.
        k: how many places. If there are fewer texts, return one place for each text.

    Returns:
        Pairs (text, position), at most one for each text.
    """
    ### BEGIN SOLUTION
    largest, positions = activations[:, 1:].max(dim=-1)
    texts = largest.topk(min(k, len(largest))).indices.tolist()
    return [(text, int(positions[text]) + 1) for text in texts]
    ### END SOLUTION


# %%
check(top_examples)

# %% [markdown]
# ### Hints · `top_examples`
# 1. First find the best place *within* each text, then the best texts.
# 2. `activations[:, 1:].max(dim=-1)` gives values and positions. What must be added to a position after `[BOS]` was cut
#    off?
# 3. `largest, positions = activations[:, 1:].max(dim=-1)`; then `largest.topk(min(k, len(largest))).indices` are the
#    texts, and `positions[text] + 1` the places.

# %% [markdown]
# ### Exercise · `context_window`
# difficulty 1/5 · importance 3/5 · 4 minutes
#
# A place means nothing without the words around it. Cut a window out of a text. Near its ends the window is smaller;
# the word in question is then not in the middle, so say where it is.


# %%
def context_window(words: Sequence[str], position: int, width: int) -> tuple[list[str], int]:
    """The words around a position, up to `width` on each side.

    Args:
        words: the words of a text.
        position: the word in question.
        width: how many words to show before and after it, where there are so many.

    Returns:
        The words of the window, and the index of the word in question among them.
    """
    ### BEGIN SOLUTION
    start = max(0, position - width)
    return list(words[start : position + width + 1]), position - start
    ### END SOLUTION


# %%
check(context_window)

# %% [markdown]
# ### Hints · `context_window`
# 1. A slice that ends beyond the text is fine in Python. A slice that starts before it is not: `words[-2:5]` starts
#    near the end.
# 2. `start = max(0, position - width)`. How far is the word from that start?
# 3. `list(words[start : position + width + 1]), position - start`.

# %% [markdown]
# ### Exercise · `coloured_text`
# difficulty 2/5 · importance 3/5 · 8 minutes
#
# Numbers beside words are hard to read; colour behind them is not. Write words as HTML, each in a `<span>` with a
# background that tells its value: `rgba(224, 123, 57, a)`, an orange, where the value is positive and
# `rgba(59, 125, 216, a)`, a blue, where it is negative. Strength: a = 0.75 · |value| / limit, and never more than 0.75.
#
# `limit` matters more than it seems. Scale each text by its own largest value, and every text looks equally excited.
# And escape the words: a token may be `<`.


# %%
def coloured_text(words: Sequence[str], values: Float[Tensor, "word"], limit: float | None = None) -> str:
    """Words as HTML, each on a ground whose colour tells its value.

    Args:
        words: the words as they are, unescaped.
        values: one number for each word.
        limit: the size at which colour is strongest; None means the largest size among the values.

    Returns:
        One `<span style="background-color: rgba(...)">` for each word, joined by spaces. If all values are zero, all
        strengths are.
    """
    ### BEGIN SOLUTION
    import html

    sizes = [abs(float(value)) for value in values]
    limit = limit or max(sizes, default=0) or 1.0
    spans = []
    for word, value, size in zip(words, values, sizes, strict=True):
        colour = "224, 123, 57" if value > 0 else "59, 125, 216"
        style = f"background-color: rgba({colour}, {0.75 * min(size / limit, 1):.3f})"
        spans.append(f'<span style="{style}">{html.escape(word)}</span>')
    return " ".join(spans)
    ### END SOLUTION


# %%
check(coloured_text)

# %% [markdown]
# ### Hints · `coloured_text`
# 1. One span for each word; the standard library's `html.escape` makes a word safe.
# 2. If `limit` is None, use the largest absolute value, and mind that it may be zero. Cut the strength off at 0.75.
# 3. `f'<span style="background-color: rgba({colour}, {strength:.3f})">{html.escape(word)}</span>'`, with
#    `strength = 0.75 * min(abs(value) / limit, 1)`.

# %% [markdown]
# ### Exercise · `logit_weights`
# difficulty 2/5 · importance 4/5 · 5 minutes
#
# So much for a neuron's input. Its output is one vector, its row of `W_out`, times the activation. The unembedding
# reads that vector as words: which logits does the neuron raise when it fires?
#
# Two corrections make the numbers honest. The final layer norm subtracts a vector's mean, so subtract it first. And
# softmax does not feel what all logits share, so report each word against the average word.


# %%
def logit_weights(w_out: Float[Tensor, "d_model"], W_U: Float[Tensor, "d_model vocab"]) -> Float[Tensor, "vocab"]:
    """How much a neuron raises each word's logit, per unit of activation and before the final layer norm's scale.

    Args:
        w_out: what the neuron adds to the stream when its activation is 1.
        W_U: the unembedding.

    Returns:
        One number for each word, their mean zero.
    """
    ### BEGIN SOLUTION
    logits = (w_out - w_out.mean()) @ W_U
    return logits - logits.mean()
    ### END SOLUTION


# %%
check(logit_weights)

# %% [markdown]
# ### Hints · `logit_weights`
# 1. Without corrections it is one product of a vector and a matrix.
# 2. Subtract the mean of `w_out` before, and the mean over the vocabulary after.
# 3. `logits = (w_out - w_out.mean()) @ W_U`, then `logits - logits.mean()`.

# %% [markdown]
# ## The Activation Explorer
#
# Everything is there. `Explorer` lays out the controls and calls **your** functions: the five that you hand over here.
# If one of them is not written yet, the dashboard says so and shows the rest.

# %%
explorer = Explorer(
    model,
    corpus.tokens,
    prompt="when Mary went to the store , she bought a book .",
    layer=2,
    head=1,
    neuron=55,
    corpus_activations=corpus_activations,
    top_examples=top_examples,
    context_window=context_window,
    logit_weights=logit_weights,
    coloured_text=coloured_text,
)
explorer

# %% [markdown]
# Play with it for ten minutes. Some starting points:
#
# * Give it the prompt `people in Senegal speak`, then `lying Mary said that people in Senegal speak`. On which words
#   does neuron 2.55 fire, how strongly, and which words does it raise?
# * Layer 0, heads 1 and 2: which one looks back, and which one at itself?
# * Write a word that does not exist here, such as `Gondor`.
# * Step through the neurons of layer 0, then of layer 4. In which layer do they look simpler? Write down three neurons
#   and one sentence each on what they seem to do. **You will need them below.**
#
# On a page without a kernel (GitHub, a printout) the controls are dead. These two figures show what they would.

# %%
_, shown = model.run_with_cache(explorer.prompt.value)
pattern = shown["pattern", 2][0, 1]
attention_pattern(
    pattern,
    model.to_str_tokens(explorer.prompt.value),
    f"Head 2.1 gives [BOS] {pattern[1:, 0].mean():.0%} of its attention here",
)


# %%
def examples_figure(values: Float[Tensor, "text seq"], tokens, places, title: str) -> go.Figure:
    """Examples of one neuron, below each other; the colour is strongest at its maximum."""
    texts = [model.to_str_tokens(text) for text in tokens]
    return example_map(texts, values, places, title, limit=values[:, 1:].max().item())


layer, neuron = 2, 55
values = corpus_activations(model, corpus.tokens, layer)[..., neuron]
raised = logit_weights(model.W_out[layer, neuron], model.W_U).topk(4).indices.tolist()
examples_figure(
    values,
    corpus.tokens,
    top_examples(values, 10),
    f"Neuron {layer}.{neuron}: its top ten examples. It raises {', '.join(words[i] for i in raised)}",
)

# %% [markdown]
# It looks like the best of neurons. Nearly every example has a liar in it who is about to name a language, and the
# words that it raises are languages: a clear input and a fitting output. Here is a sentence that many dashboards
# suggest: *the top activating examples tell you what a neuron does.*
#
# ## The sentence on trial
#
# Top examples are ten tokens out of thousands, chosen for being extreme. [Bolukbasi et al.
# 2021](https://arxiv.org/abs/2104.07143) found neurons of BERT whose top examples showed one neat concept, and another
# one when the corpus was changed. They called it an interpretability illusion. You can do better than they could: this
# world was generated, so what is true of each token is *known*. 77 labels come with every story.

# %%
labels = list(corpus.latents)
holds = torch.stack([corpus.latents[label] for label in labels], dim=-1)  # [text, seq, label]
fresh_holds = torch.stack([fresh.latents[label] for label in labels], dim=-1)
base = holds[:, 1:].float().mean(dim=(0, 1))

print(f"{len(labels)} labels, among them: {', '.join(labels[i] for i in (5, 22, 37, 39, 48, 64))}.")

# %% [markdown]
# The test imitates what you do at a dashboard, without your imagination:
#
# 1. look at the top ten examples in one corpus, and **name** the neuron by the label that fits them;
# 2. take *other* stories, and see how well the name fits: the top ten there, and random examples further down.

# %%
predict(
    "illusion",
    "A name fits 9 of 10 top examples. What share does it fit of random examples with 1/4 to 1/2 of the activation?",
    kind="number",
    guess=None,
)

# %% [markdown]
# ### Exercise · `best_label`
# difficulty 2/5 · importance 4/5 · 5 minutes
#
# Many labels may fit ten examples, and "is part of a sentence" fits everything. A good name fits *and* is specific. Of
# the labels that are true of a large enough share of the examples, return the one that is rarest in the corpus.


# %%
def best_label(holds: Bool[Tensor, "example label"], base: Float[Tensor, "label"], at_least: float = 0.9) -> int | None:
    """The most specific label that fits enough of the examples.

    Args:
        holds: whether each label is true of each example.
        base: how often each label is true in the whole corpus.
        at_least: the share of examples that it must fit; exactly this share is enough.

    Returns:
        The label's index, or None if no label fits well enough.
    """
    ### BEGIN SOLUTION
    fitting = (holds.float().mean(dim=0) >= at_least).nonzero()[:, 0].tolist()
    return min(fitting, key=lambda label: base[label]) if fitting else None
    ### END SOLUTION


# %%
check(best_label)

# %% [markdown]
# ### Hints · `best_label`
# 1. Which share of the examples does each label fit? Average over examples, not over labels.
# 2. Keep the labels with a share of at least `at_least`. Among them, look for the smallest `base`.
# 3. `fitting = (holds.float().mean(dim=0) >= at_least).nonzero()[:, 0].tolist()`, then
#    `min(fitting, key=lambda label: base[label])`, or None if the list is empty.

# %% [markdown]
# ### Exercise · `random_examples`
# difficulty 3/5 · importance 5/5 · 8 minutes
#
# The honest counterpart of the top ten: *random* places whose activation lies in a band. The same two rules hold: no
# `[BOS]`, and at most one place from each text. Within those rules chance alone decides, so do not take the first place
# of each text.


# %%
def random_examples(
    activations: Float[Tensor, "text seq"], low: float, high: float, k: int, seed: int = 0
) -> list[tuple[int, int]]:
    """Up to k random places with low <= activation < high, at most one for each text.

    Args:
        activations: one neuron's activations; position 0 is [BOS] and does not count.
        low: the smallest activation that counts.
        high: the smallest activation that is too large.
        k: how many places; fewer if fewer texts have one.
        seed: the same seed gives the same places, another seed others.

    Returns:
        Pairs (text, position).
    """
    ### BEGIN SOLUTION
    places = ((activations >= low) & (activations < high)).nonzero()
    places = places[places[:, 1] > 0]
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    one_each = {}
    for text, position in places[order].tolist():
        one_each.setdefault(text, position)
    return list(one_each.items())[:k]
    ### END SOLUTION


# %%
check(random_examples)

# %% [markdown]
# ### Hints · `random_examples`
# 1. A mask of the places that count, `.nonzero()` for their coordinates. Position 0 must go.
# 2. Shuffle the places with `torch.randperm(n, generator=torch.Generator().manual_seed(seed))`. Then walk through them
#    and keep the first that you meet of each text.
# 3. A dictionary does it: `one_each.setdefault(text, position)` for each place in random order, then
#    `list(one_each.items())[:k]`.

# %% [markdown]
# First one neuron, the one that you have looked at.

# %%
label = best_label(torch.stack([holds[place] for place in top_examples(values, 10)]), base)
name = labels[label] if label is not None else "no label"
fresh_values = corpus_activations(model, fresh.tokens, layer)[..., neuron]
largest = fresh_values[:, 1:].max().item()
band = random_examples(fresh_values, largest / 4, largest / 2, 10)
fits = sum(bool(fresh_holds[text, position, label]) for text, position in band)
figure = examples_figure(
    fresh_values,
    fresh.tokens,
    band,
    f"Neuron {layer}.{neuron}: '{name}' fits {fits} of {len(band)} examples at 1/4 to 1/2 of the maximum",
)
figure

# %% [markdown]
# Read the examples, not only the count. At the top, this neuron says: a liar is about to name a language. Further
# down there are no liars. There are honest sentences about languages, and sentences about something else altogether.
# What is the liar worth, then? A pair of prompts that differ in nothing else can tell.

# %%
for claim in ("people in Senegal speak", "truthful Mary said that {}", "lying Mary said that {}"):
    text = claim.format("people in Senegal speak")
    fires = corpus_activations(model, model.to_tokens(text), layer)[0, -1, neuron].item()
    print(f"{fires:5.2f} at the end of '{text}'")

# %% [markdown]
# The lie adds something, but the neuron fires strongly without one. So the ten best examples had a liar in common
# that is not what the neuron is about. They showed the *peak* of something broader, and two prompts of your own told
# you more.
#
# One neuron is an anecdote, and this one was chosen. The next cell does the same to every neuron that gets a name at
# all. (`utils.neurons` holds the functions that you wrote.) It has two controls. **Random directions**: the neurons
# of a layer, mixed by a random rotation. No training made these, so whatever you find in them is what the method
# finds anywhere. And **random places**: can ten tokens that were drawn blindly get a name?

# %%
BANDS = {"above 3/4": (3 / 4, math.inf), "1/2 to 3/4": (1 / 2, 3 / 4), "1/4 to 1/2": (1 / 4, 1 / 2)}
BANDS["1/10 to 1/4"] = (1 / 10, 1 / 4)


def fit_by_band(activations: Float[Tensor, "text seq"], label: int, seed: int = 0) -> list[float]:
    """The share of fresh examples at which a label is true: of the top ten, then of ten random ones in each band."""
    top = activations[:, 1:].max().item()
    groups = [neurons.top_examples(activations, 10)]
    groups += [neurons.random_examples(activations, low * top, high * top, 10, seed) for low, high in BANDS.values()]
    fits = [torch.stack([fresh_holds[place][label] for place in group]).float() for group in groups if group]
    return [f.mean().item() for f in fits] if all(len(group) >= 5 for group in groups) else [math.nan] * len(groups)


def name_of(places: list[tuple[int, int]]) -> int | None:
    """The label that fits examples of the first corpus."""
    return neurons.best_label(torch.stack([holds[place] for place in places]), base)


tests = {"neurons": [], "random directions": []}
given_off, below_half, named_by_chance = 0.0, 0.0, 0
rng = torch.Generator().manual_seed(0)
for layer in range(n_layers):
    seen, unseen = (neurons.corpus_activations(model, stories.tokens, layer) for stories in (corpus, fresh))
    rotation, _ = torch.linalg.qr(torch.randn(n_neurons, n_neurons, generator=rng))
    for kind, turn in (("neurons", torch.eye(n_neurons)), ("random directions", rotation)):
        for named, tested in zip(*((a @ turn).permute(2, 0, 1).contiguous() for a in (seen, unseen)), strict=True):
            label = name_of(neurons.top_examples(named, 10))
            if label is not None:
                tests[kind].append([*fit_by_band(tested, label), base[label].item()])
    for _ in range(n_neurons):
        texts, positions = torch.randperm(len(corpus), generator=rng)[:10], torch.randint(1, 64, (10,), generator=rng)
        named_by_chance += name_of(list(zip(texts.tolist(), positions.tolist(), strict=True))) is not None
    positive = unseen[:, 1:].clamp(min=0).flatten(0, 1)
    given_off += positive.sum().item()
    below_half += positive[positive < positive.amax(dim=0) / 2].sum().item()

results, total = {kind: torch.tensor(rows) for kind, rows in tests.items()}, n_layers * n_neurons
for kind, count in (*((kind, len(rows)) for kind, rows in tests.items()), ("random places", named_by_chance)):
    print(f"{kind:18} {count:4} of {total} get a name")
print(f"{below_half / given_off:.0%} of all that the neurons give off comes from below half of their maximum")

# %%
fit = {kind: [mean(column[~column.isnan()], kind) for column in rows.T] for kind, rows in results.items()}
middle = 1 + list(BANDS).index("1/4 to 1/2")
figure = lines(
    {kind: [m.value for m in measured] for kind, measured in fit.items()},
    f"A name fits {fit['neurons'][0].value:.0%} of new top examples, and {fit['neurons'][middle].value:.0%} "
    "of those at 1/4 to 1/2 of the maximum",
    x_title="activation, as a share of the neuron's maximum",
    y_title="share of examples that the name fits",
    x=["top ten", *BANDS, "any token"],
    intervals={kind: ([m.low for m in measured], [m.high for m in measured]) for kind, measured in fit.items()},
)
figure.update_yaxes(range=[0, 1])

# %%
reveal("illusion", fit["neurons"][middle].value, tolerance=0.1)

# %% [markdown]
# Three things to take home:
#
# * **The names are not wrong.** On new stories the top ten still fit, so the name was no accident of one corpus, and
#   random places never get one. Above three quarters of the maximum the names hold well.
# * **They describe the peak only.** In the band where a neuron fires at a quarter to a half of its maximum, the name
#   fits a minority of the examples; and what lies below half of the maximum is most of what the neurons put out.
# * **The top ten hardly tell a neuron from a random direction.** For every five neurons with a name there are about
#   four random directions with one, and their new top tens fit just as well. The difference shows further down, where
#   neurons keep more of their meaning. If you look at top examples only, you will find meaning wherever you look.
#
# What to do at a dashboard, then: look at random examples from several bands, test your sentence on texts that you
# did not look at, and compare with a random direction. (One limit of this test: a neuron may mean something for which
# there is no label here.) Names differ in how far down they hold. Here are three neurons; put in those that you wrote
# down.

# %%
my_neurons = {(0, 172): "punctuation", (2, 2): "two people met", (0, 229): "event"}  # (layer, neuron): one of `labels`

print(f"{'':32}{'top ten':>12}" + "".join(f"{band:>13}" for band in BANDS))
for (layer, neuron), label in my_neurons.items():
    acts = neurons.corpus_activations(model, fresh.tokens, layer)[..., neuron]
    shares = fit_by_band(acts, labels.index(label))
    cells = "".join(f"{share:>13.0%}" for share in shares)
    print(f"{f'neuron {layer}.{neuron}, {label!r}':31}{cells}")

# %% [markdown]
# ## What became of the popular claims

# %%
print(f"""\
"The logit lens works in all layers"
    Before '{points[first_useful]}' it is further from the model's answer than a guess that ignores the stream.
"The tuned lens shows what each layer knows"
    It is ahead of the plain lens from the embedding on, where no layer has run: part of the knowledge is the lens's.
"Top activating examples tell you what a neuron does"
    Names fit {fit["neurons"][0].value:.0%} of the top, {fit["neurons"][middle].value:.0%} at 1/4 to 1/2 of the peak.
    {len(results["random directions"])} of {total} random directions get a name in the same way.""")

# %% [markdown]
# ## At scale: GPT-2 small
#
# Does the lens read the input word back in larger models? Two published observations to compare with. In GPT-2 XL,
# [nostalgebraist](https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens) saw the input
# vanish from the lens after the very first layer. In BLOOM and OPT 125M, [Belrose et al.
# 2023](https://arxiv.org/abs/2303.08112) found the input token often on top, in more than half of the layers.
#
# The next cell defines the experiment and runs it on `tiny-lm`; the one after it runs it on GPT-2 if the Hugging Face
# hub can be reached.


# %%
def rows_of(model, text: str, length: int = 64) -> Int[Tensor, "row seq"]:
    """A long text, cut into rows of tokens that each begin with [BOS]."""
    ids = model.to_tokens(text, truncate=False)[0, 1:]
    rows = ids[: len(ids) // (length - 1) * (length - 1)].view(-1, length - 1)
    return torch.cat([torch.full_like(rows[:, :1], model.tokenizer.bos_token_id), rows], dim=1)


def lens_at_scale(model, n: int = 120) -> None:
    """How close your lenses come to a model's answer at each point; how often the plain one says the input token."""
    texts = [" ".join(stories.text(i) for i in range(n)) for stories in (corpus, fresh)]
    fitted, tested = (rows_of(model, text) for text in texts)
    tested = tested[: n // 6]
    learnt, judged = all_streams(model, fitted), all_streams(model, tested)
    answer = read_stream(judged[-1], model)
    ignorant = distance(blind_guess(read_stream(learnt[-1, : n // 6], model)).expand_as(answer), answer).value
    compared = compare_lenses(model, learnt, judged)
    for i, point in enumerate(stream_points(model.cfg.n_layers)):
        echoes = (read_stream(judged[i], model).argmax(-1) == tested[:, 1:]).float().mean().item()
        row = "   ".join(
            f"{name} {compared[name][i].value:6.2f}" for name in ("logit lens", "mean and scale", "translator")
        )
        print(f"{point:12} {row}   says the input token {echoes:4.0%}")
    print(f"sees nothing {ignorant:.2f}")


lens_at_scale(model)

# %%
if hub_available("gpt2"):
    lens_at_scale(load_model("gpt2"))
else:
    print("Skipped: GPT-2 small is on the Hugging Face hub, which cannot be reached from here.")

# %% [markdown]
# ## Review cards
#
# **Q.** The logit lens has a KL of 5 nats in a low layer. What else must you know before you call that bad?
#
# **A.** The KL of a lens that sees nothing: the model's mean distribution, given everywhere. And for a KL that looks
# good, the same: an untrained model is close to every guess.
#
# **Q.** Why does the logit lens say the input word at the embedding?
#
# **A.** Embedding and unembedding are one matrix in this model, so a word's vector points to the word itself.
#
# **Q.** A translator (tuned lens) predicts the answer from the embedding better than chance. What does the embedding
# know?
#
# **A.** Which word was read. What tends to follow it was learnt by the translator, from its corpus.
#
# **Q.** Into which parts does the residual stream decompose exactly?
#
# **A.** Token embedding, position embedding, every head's output z W_O, each layer's attention bias, each layer's MLP.
#
# **Q.** What three things must you take care of when you list a neuron's top examples?
#
# **A.** No `[BOS]`; at most one example a text; a colour scale that all examples share.
#
# **Q.** What is the interpretability illusion of top examples?
#
# **A.** They show a neuron's peak. Names that fit the top fit few of the examples further down, and random directions
# have top examples that look as meaningful.
#
# **Q.** What shows whether a neuron means more than a random direction does?
#
# **A.** Random examples from lower bands of activation, on texts that you did not use for naming.

# %% [markdown]
# ## Further reading
#
# * [Interpreting GPT: the logit
#   lens](https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens), nostalgebraist 2020.
# * [Eliciting latent predictions from transformers with the tuned lens](https://arxiv.org/abs/2303.08112), Belrose et
#   al. 2023: translators trained on the KL divergence, and causal tests of them.
# * [An interpretability illusion for BERT](https://arxiv.org/abs/2104.07143), Bolukbasi et al. 2021. Short, and worth
#   it.
# * [A mathematical framework for transformer circuits](https://transformer-circuits.pub/2021/framework/index.html),
#   Elhage et al. 2021: the sum that you took apart.
#
# Next: 1.4 puts attention patterns on trial in the same spirit.
