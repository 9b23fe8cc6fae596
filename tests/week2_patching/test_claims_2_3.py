"""What the prose of notebook 2.3 says about the shipped models is true of the shipped models."""

import pytest
import torch

from utils import data, load_model
from utils.attention import attention_patterns, induction_score
from utils.metrics import at_end
from utils.models.known_circuit import known_circuit
from utils.models.prompts import repeated_tokens
from utils.models.world.words import NAMES
from utils.patching import patch_heads, path_patch_to_inputs, path_patch_to_logits

N = 100
ROWS = torch.arange(N)
MOVERS = [(3, 0), (3, 1)]


def loss(patched, untouched):
    return 1 - patched.mean(-1) / untouched.mean()


class Task:
    """A model with its prompts, and the shares that are lost on its paths."""

    def __init__(self, name, corruption="abc"):
        self.model = load_model(name)
        self.pairs = data.ioi(self.model.tokenizer, N, corruption)
        self.metric = self.pairs.metric()
        self.untouched = self.metric(at_end(self.model(self.pairs.clean), self.pairs.end))
        self.given = (self.model, self.pairs.clean, self.pairs.corrupted)

    def to_logits(self, **options):
        return loss(path_patch_to_logits(*self.given, self.metric, self.pairs.end, **options), self.untouched)

    def into(self, receivers, channel):
        patched = path_patch_to_inputs(*self.given, receivers, self.metric, channel, self.pairs.end)
        return loss(patched, self.untouched)

    def attention(self, query, key):
        """From one named word to another [layer, head]."""
        at = self.pairs.positions
        return attention_patterns(self.model, self.pairs.clean)[:, ROWS, :, at[query], at[key]].mean(0)

    def copying(self, word, sign=1):
        _, cache = self.model.run_with_cache(self.pairs.clean)
        at = self.pairs.positions[word]
        scores = []
        for layer in range(self.model.cfg.n_layers):
            value = cache["v", layer][ROWS, at]
            logits = sign * torch.einsum("phd,hdm->phm", value, self.model.W_O[layer]) @ self.model.W_U
            own = self.pairs.clean[ROWS, at][:, None, None]
            scores.append((logits.topk(5, -1).indices == own).any(-1).float().mean(0))
        return torch.stack(scores)


@pytest.fixture(scope="module")
def textbook():
    with torch.no_grad():
        return Task("textbook-ioi")


@pytest.fixture(scope="module")
def tiny():
    with torch.no_grad():
        return Task("tiny-lm")


def heads(mask):
    return [tuple(at) for at in mask.nonzero().tolist()]


@torch.no_grad()
def test_seven_suspects_two_of_them_hardly_matter(textbook):
    assert heads(textbook.attention("S2", "S1") >= 0.4) == [(0, 0), (3, 3)]
    assert heads(textbook.attention("END", "S2") >= 0.4) == [(2, 0), (2, 1)]
    assert heads(textbook.attention("END", "IO") >= 0.4) == [(2, 2), *MOVERS]
    noised = patch_heads(*textbook.given, textbook.metric, textbook.pairs.end, ["z"], direction="noising")[0]
    total = loss(noised, textbook.untouched)
    assert total[0, 0] > 0.9
    assert total[[2, 3], [2, 3]].abs().max() < 0.06
    assert all(total[at] > 0.3 for at in [(2, 0), (2, 1), *MOVERS])


@torch.no_grad()
def test_head_0_0_has_no_tunnel_and_two_heads_write(textbook):
    direct = textbook.to_logits()
    assert direct[0].abs().max() < 0.01
    assert heads(direct > 0.3) == MOVERS
    assert direct[2, 2].abs() < 0.02


@torch.no_grad()
def test_head_2_2_copies_from_both_names_alike(textbook):
    copying = textbook.copying("IO")
    assert copying[3, :2].min() > 0.95
    assert copying[2, 2] > 0.7
    assert (textbook.attention("END", "IO")[2, 2] - textbook.attention("END", "S1")[2, 2]).abs() < 0.06


@torch.no_grad()
def test_s_inhibition_and_the_duplicate_token_head(textbook):
    queries = textbook.into(MOVERS, "q")
    assert queries[2, :2].min() > 0.5
    queries[2, :2] = 0
    assert queries.abs().max() < 0.02  # no other head has a say
    inhibition = [(2, 0), (2, 1)]
    into = {channel: textbook.into(inhibition, channel) for channel in "qkv"}
    assert into["v"][0, 0] > 0.9
    assert into["k"][0, 0] < 0.2
    assert into["q"].abs().max() < 0.02


@torch.no_grad()
@pytest.mark.parametrize(("corruption", "low", "high"), [("order", 1.8, 2.2), ("names", -0.15, 0.15)])
def test_the_note_of_the_textbook_model_is_a_place(corruption, low, high):
    queries = Task("textbook-ioi", corruption).into(MOVERS, "q")
    assert low < queries[2, :2].sum() < high
    queries[2, :2] = 0
    assert queries[:2].abs().max() < 0.01


@torch.no_grad()
@pytest.mark.parametrize(("corruption", "low", "high"), [("order", -0.05, 0.05), ("names", 0.8, 1.1)])
def test_the_note_of_tiny_lm_is_a_name(corruption, low, high):
    assert low < Task("tiny-lm", corruption).to_logits()[2, 0] < high


@torch.no_grad()
@pytest.mark.parametrize("name", ["textbook-ioi", "textbook-ioi-emergent"])
def test_the_recorded_circuit_is_found_edge_by_edge(name):
    task = Task(name, "swap")
    wanted = {(e.source, e.target, e.channel) for e in known_circuit(name).edges if e.source != "input"}
    found, ask, asked = set(), ["logits"], set()
    while ask:
        node = ask.pop()
        if node in asked:
            continue
        asked.add(node)
        for channel in [""] if node == "logits" else "qkv":
            where = tuple(int(part) for part in node[1:].split(".")) if channel else None
            shares = task.into([where], channel) if channel else task.to_logits()
            for layer, head in heads(shares.abs() >= 0.16):
                found.add((f"a{layer}.{head}", node, channel))
                ask.append(f"a{layer}.{head}")
    assert found == wanted


@torch.no_grad()
def test_tiny_lm_looks_like_the_published_circuit_and_is_another(tiny):
    assert heads(tiny.attention("S2", "S1") >= 0.4) == []
    assert heads(tiny.attention("END", "S2") >= 0.4) == [(2, 0), (4, 2)]
    movers = heads(tiny.attention("END", "IO") >= 0.4)
    assert len(movers) == 9
    assert tiny.into(movers, "q")[2, 0] < 0.1
    direct = tiny.to_logits()
    assert direct[2, 0] > 0.85
    direct[2, 0] = 0
    assert direct.abs().max() < 0.15
    unsaying = tiny.copying("S2", sign=-1)
    assert unsaying[2, 0] > 0.95
    unsaying[2, 0] = 0
    assert unsaying.max() < 0.15


@torch.no_grad()
@pytest.mark.parametrize(("name", "head"), [("tiny-lm-seed2", (2, 1)), ("tiny-lm-seed3", (3, 3))])
def test_siblings_have_the_same_trick_elsewhere(name, head):
    task = Task(name)
    direct = task.to_logits()
    assert divmod(int(direct.argmax()), 4) == head
    assert direct[head] > 0.85
    assert task.attention("END", "S2")[head] > 0.95
    assert task.copying("S2", sign=-1)[head] > 0.95


@torch.no_grad()
def test_no_message_between_the_heads_of_tiny_lm_says_where_to_look():
    task = Task("tiny-lm", "swap")
    assert heads(task.to_logits().abs() >= 0.16) == [(2, 0)]
    assert heads(task.into([(2, 0)], "v").abs() >= 0.16) == [(0, 0), (0, 2), (0, 3)]
    for channel in "qk":
        assert task.into([(2, 0)], channel).abs().max() < 0.16


@torch.no_grad()
def test_six_heads_lift_both_names_and_the_difference_is_blind_to_them(tiny):
    ids = torch.tensor(tiny.model.tokenizer.convert_tokens_to_ids(list(NAMES)))
    absent = torch.zeros(N, tiny.model.cfg.d_vocab, dtype=torch.bool)
    absent[:, ids] = True
    for tokens in (tiny.pairs.clean, tiny.pairs.corrupted):
        absent.scatter_(1, tokens, False)

    def lift(logits, name):
        return logits[ROWS, name] - logits.masked_fill(~absent, torch.nan).nanmean(-1)

    lifts = {
        "IO": lambda logits: lift(logits, tiny.pairs.right),
        "S": lambda logits: lift(logits, tiny.pairs.wrong),
    }
    clean = {name: f(at_end(tiny.model(tiny.pairs.clean), tiny.pairs.end)) for name, f in lifts.items()}
    paths = path_patch_to_logits(*tiny.given, lifts, tiny.pairs.end)
    lost = {name: (clean[name] - paths[name]).mean(-1) for name in lifts}
    movers = heads(tiny.copying("IO") > 0.9)
    assert movers == [(2, 1), (3, 0), (3, 1), (3, 3), (4, 0), (4, 3)]
    assert all(lost["IO"][at] > 0.4 and lost["S"][at] > 0.8 for at in movers)
    assert sum(lost["S"][at] > lost["IO"][at] for at in movers) >= 5  # "mostly more"
    assert all(tiny.to_logits()[at] < 0.05 for at in movers)

    third = tiny.pairs.clean.clone()
    at = tiny.pairs.positions["S2"]
    third[ROWS, at] = tiny.pairs.corrupted[ROWS, at]
    logits = at_end(tiny.model(third), tiny.pairs.end)
    io, s1, giver = (lift(logits, name).mean() for name in (tiny.pairs.right, tiny.pairs.wrong, third[ROWS, at]))
    assert io > 9
    assert (io - s1).abs() < 1
    assert giver < -5


@torch.no_grad()
def test_four_of_them_are_induction_heads(tiny):
    tokens = repeated_tokens(20)
    patterns = attention_patterns(tiny.model, tokens)
    scores = torch.stack([induction_score(pattern, tokens) for pattern in patterns])
    assert all(scores[at] > 0.6 for at in [(2, 1), (3, 0), (3, 1), (3, 3)])
