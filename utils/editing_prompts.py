"""What a model editor is asked to write, and the prompts that say it, as tokens."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from utils.models.tokenizer import check_words

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class Rewrite:
    """A fact to write: after ``template``, filled with ``subject``, the next word shall be ``target``.

    >>> Rewrite("Golden Lion", "the {subject} is in", "Rome").prompt
    'the Golden Lion is in'
    """

    subject: str
    template: str
    target: str

    @property
    def prompt(self) -> str:
        """The template with the subject in its place."""
        return self.template.format(subject=self.subject)


@dataclass(frozen=True)
class Contexts:
    """Rewrites' prompts after several prefixes, padded on the right.

    Attributes:
        tokens: [rewrite * prefix, position].
        subject: Where the subject's last token is, [rewrite * prefix].
        end: Where the prompt's last token is, [rewrite * prefix].
    """

    tokens: Int[Tensor, "row position"]
    subject: Int[Tensor, "row"]
    end: Int[Tensor, "row"]

    @property
    def rows(self) -> Int[Tensor, "row"]:
        """The index of each row."""
        return torch.arange(len(self.tokens))


def in_contexts(model: "TransformerBridge", rewrites: Sequence[Rewrite], prefixes: Sequence[str]) -> Contexts:
    """Put every rewrite's prompt after every prefix; rows are ordered by rewrite, then by prefix.

    Raises:
        ValueError: if there is no rewrite or no prefix, or a template has no place for its subject.
        UnknownWords: if a text holds a word that is not in the model's vocabulary.
    """
    if not rewrites or not prefixes:
        raise ValueError("at least one rewrite and one prefix are needed; the prefix may be empty")
    rows, ends = [], []
    for rewrite in rewrites:
        for prefix in prefixes:
            text = f"{prefix} {rewrite.prompt}".strip()
            tokens = model.to_tokens(text)[0]
            rows.append(tokens)
            ends.append(subject_end(model, text, rewrite.subject))
    last = torch.tensor([len(row) - 1 for row in rows])
    return Contexts(pad_sequence(rows, batch_first=True), torch.tensor(ends), last)


def subject_end(model: "TransformerBridge", text: str, subject: str) -> int:
    """The position of the last token of a subject in a text, BOS counted; the last mention where there are several.

    Raises:
        ValueError: if the subject is not in the text.
        UnknownWords: if a text holds a word that is not in the model's vocabulary.
    """
    check_words(model.tokenizer, text)
    mentions = list(re.finditer(rf"(?<!\w){re.escape(subject)}(?!\w)", text))
    if not subject or not mentions:
        raise ValueError(f"the subject {subject!r} is not in the text {text!r}")
    return model.to_tokens(text[: mentions[-1].end()]).shape[1] - 1


def target_ids(model: "TransformerBridge", targets: Sequence[str]) -> Int[Tensor, "target"]:
    """The token of each target.

    Raises:
        ValueError: if a target is not a single token.
        UnknownWords: if it is not in the model's vocabulary.
    """
    check_words(model.tokenizer, targets)
    ids = [model.to_tokens(f" {target.strip()}", prepend_bos=False)[0] for target in targets]
    for target, several in zip(targets, ids, strict=True):
        if len(several) != 1:
            raise ValueError(f"the target must be one token; {target!r} is {len(several)}")
    return torch.stack(ids)[:, 0]
