"""What a tokenizer makes of a text, and of a word: which position a word has, and which words are one token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from utils.models.ioi_world import words as textbook
from utils.models.tokenizer import check_words
from utils.models.world import vocabulary as micro

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BEFORE = "the"
"""A word is looked at where it mostly stands: after another. At the start of a text it may be another token."""

MICRO_WORLD, TEXTBOOK, ENGLISH = "micro-world", "textbook-ioi", "English"


class NotOneToken(ValueError):
    """A word that has to be a single token is several."""


@dataclass(frozen=True)
class Encoded:
    """A text as token ids, and for each token the place in the text where it ends (0 for BOS)."""

    ids: list[int]
    stops: list[int]

    def position_of(self, stop: int) -> int:
        """The position of the token that holds the last character before ``stop``."""
        return next(position for position, reached in enumerate(self.stops) if reached >= stop)


def language_of(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Which texts a tokenizer was made for: those of one of the two micro-worlds, or English."""
    known = tokenizer.get_vocab()
    for language, vocabulary in ((MICRO_WORLD, micro.VOCABULARY), (TEXTBOOK, textbook.VOCABULARY)):
        if known.keys() == set(vocabulary):
            return language
    return ENGLISH


def encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> Encoded:
    """Token ids as ``model.to_tokens`` gives them: BOS first, if the tokenizer has one.

    Raises:
        UnknownWords: if a word is not in a word-level vocabulary.
    """
    check_words(tokenizer, text)
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, stops = list(encoded["input_ids"]), [stop for _, stop in encoded["offset_mapping"]]
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:1] != [bos]:
        ids, stops = [bos, *ids], [0, *stops]
    return Encoded(ids, stops)


def pieces(tokenizer: "PreTrainedTokenizerBase", words: Sequence[str]) -> list[list[int]]:
    """The tokens of each word inside a text; none for a word that is not in the vocabulary."""
    alone, *inside = tokenizer([BEFORE, *(f"{BEFORE} {word}" for word in words)], add_special_tokens=False)["input_ids"]
    ids = [several[len(alone) :] for several in inside]
    return [[] if several == [tokenizer.unk_token_id] else several for several in ids]


def single_token(tokenizer: "PreTrainedTokenizerBase", word: str) -> int:
    """The id of a word that is one token inside a text.

    Raises:
        NotOneToken: naming the word and its tokens.
    """
    (ids,) = pieces(tokenizer, [word])
    if len(ids) == 1:
        return ids[0]
    parts = ", ".join(repr(part) for part in tokenizer.convert_ids_to_tokens(ids)) or "not in the vocabulary"
    raise NotOneToken(f"{word!r} must be one token, and is {len(ids)} ({parts}): take another word")


def are_single(tokenizer: "PreTrainedTokenizerBase", words: Sequence[str]) -> bool:
    """Whether every word is one token inside a text."""
    return all(len(ids) == 1 for ids in pieces(tokenizer, words))


def singles(
    tokenizer: "PreTrainedTokenizerBase", words: Sequence[str], what: str, at_least: int = 2
) -> tuple[str, ...]:
    """The words that are one token.

    Raises:
        NotOneToken: if there are fewer than ``at_least``.
    """
    fitting = tuple(word for word, ids in zip(words, pieces(tokenizer, words), strict=True) if len(ids) == 1)
    if len(fitting) < at_least:
        raise NotOneToken(
            f"{len(fitting)} of {len(words)} {what} are one token of this tokenizer, and {at_least} are needed. "
            f"Its texts seem to be of another kind."
        )
    return fitting
