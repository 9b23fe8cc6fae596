"""Documents of the micro-world: stories of several sentences, with the latents of every token."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import numpy as np

from utils.models.world import words
from utils.models.world.families import FAMILIES
from utils.models.world.jobs import introduce
from utils.models.world.latents import CLASSES_OF
from utils.models.world.sentence import Scene, Sentence
from utils.models.world.topics import TOPICS
from utils.models.world.vocabulary import BOS, VOCABULARY

CONTEXT = 64
CAST_SHARE, CAST_SIZE = 0.4, 4
PLACE_SHARE = 0.5
INTRODUCTION_SHARE = 0.35
"""Share of the documents with a cast that begin with what two of its people are."""
FAMILY_NAMES = tuple(FAMILIES)

_ID_OF = {word: index for index, word in enumerate(VOCABULARY)}
_SHARES = [family.share for family in FAMILIES.values()]


@dataclass
class Document:
    """Token ids, and what is known of them.

    Attributes:
        tokens: Token ids, BOS first.
        answers: The positions of words that a sentence asks for.
        spans: (latent, first position, position after the last), for families and labels.
    """

    tokens: list[int]
    answers: list[int] = field(default_factory=list)
    spans: list[tuple[str, int, int]] = field(default_factory=list)

    def add(self, sentence: Sentence) -> None:
        """Write a sentence at the end."""
        start = len(self.tokens)
        self.tokens += [_ID_OF[word] for word in sentence.words]
        if sentence.answer_index is not None:
            self.answers.append(start + sentence.answer_index)
        self.spans.append((f"family={sentence.family}", start, len(self.tokens)))
        self.spans += [(label, start + told, len(self.tokens)) for label, told in sentence.labels]


def open_scene(rng: Random) -> Scene:
    """The scene of a new document."""
    cast = tuple(rng.sample(words.NAMES, CAST_SIZE)) if rng.random() < CAST_SHARE else ()
    place = rng.choice(words.PLACES) if rng.random() < PLACE_SHARE else ""
    return Scene(rng.choice(TOPICS), cast, place, liars=frozenset(cast[: len(cast) // 2]))


def write_document(rng: Random, length: int = CONTEXT) -> Document:
    """Write sentences after a BOS token until there are ``length`` tokens or more."""
    scene = open_scene(rng)
    document = Document([_ID_OF[BOS]])
    if scene.cast and rng.random() < INTRODUCTION_SHARE:
        document.add(introduce(rng, scene))
    while len(document.tokens) < length:
        name = rng.choices(FAMILY_NAMES, _SHARES)[0]
        document.add(FAMILIES[name].write(rng, scene))
    return document


def _documents(count: int, seed: int | str, length: int) -> Iterator[Document]:
    rng = Random(f"documents {seed}")
    return (write_document(rng, length) for _ in range(count))


def training_batch(count: int, seed: int | str, length: int = CONTEXT) -> tuple[np.ndarray, np.ndarray]:
    """Documents to train on.

    Returns:
        Token ids [count, length], and where the words are that a sentence asks for, boolean [count, length].
    """
    tokens, answers = np.empty((count, length), np.int64), np.zeros((count, length), bool)
    for row, document in enumerate(_documents(count, seed, length)):
        tokens[row] = document.tokens[:length]
        answers[row, [position for position in document.answers if position < length]] = True
    return tokens, answers


def write_documents(count: int, seed: int | str, length: int = CONTEXT) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Documents to study.

    Returns:
        Token ids [count, length], and latent -> where it holds, boolean [count, length]: families, labels and classes
        of words, those that occur.
    """
    tokens, latents = np.empty((count, length), np.int64), {}
    for row, document in enumerate(_documents(count, seed, length)):
        tokens[row] = document.tokens[:length]
        for name, start, end in document.spans:
            if start < length:
                latents.setdefault(name, np.zeros((count, length), bool))[row, start:end] = True
    classes = sorted({name for several in CLASSES_OF for name in several})
    for name in classes:
        member = np.array([name in several for several in CLASSES_OF])
        latents[name] = member[tokens]
    return tokens, {name: latents[name] for name in sorted(latents) if latents[name].any()}


def world_fingerprint() -> str:
    """A short digest of the text that the generator writes: it changes when the world does."""
    text = " ".join(VOCABULARY[token] for token in write_documents(100, "fingerprint")[0].flatten())
    return hashlib.sha256(text.encode()).hexdigest()[:12]
