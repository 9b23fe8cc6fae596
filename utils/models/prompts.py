"""Prompts and token batches of the micro-world, ready for a notebook."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import torch
from torch import Tensor

from utils.models.world import jobs, people, statements, time
from utils.models.world.documents import CONTEXT, FAMILY_NAMES, write_documents
from utils.models.world.facts import FACTS
from utils.models.world.held_out import PARAPHRASES, check_split
from utils.models.world.sentence import Scene, Sentence
from utils.models.world.templates.knowledge import FACT_TEMPLATES
from utils.models.world.topics import TOPICS
from utils.models.world.vocabulary import BOS, CONTENT_WORDS, VOCABULARY

SHOWN = 3
_ID_OF = {word: index for index, word in enumerate(VOCABULARY)}


@dataclass(frozen=True)
class Prompt:
    """A text that stops before the word it asks for.

    ``wrong`` is the answer of a model that missed the point (empty where there is no single one). ``slots`` says how
    the template was filled: the names in an indirect-object prompt are ``slots["A"]`` and ``slots["B"]``.
    """

    text: str
    answer: str
    wrong: str = ""
    template: str = field(default="", repr=False)
    slots: dict[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return f"{self.text} -> {self.answer}" + (f" (not {self.wrong})" if self.wrong else "")


@dataclass(frozen=True, repr=False)
class PromptSet(Sequence):
    """Prompts of one kind."""

    kind: str
    prompts: tuple[Prompt, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: int) -> Prompt:
        return self.prompts[index]

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    @property
    def texts(self) -> list[str]:
        """The prompts' texts, as ``model.to_tokens`` takes them."""
        return [prompt.text for prompt in self.prompts]

    @property
    def answers(self) -> list[str]:
        """The right next words."""
        return [prompt.answer for prompt in self.prompts]

    @property
    def wrong(self) -> list[str]:
        """The tempting wrong next words."""
        return [prompt.wrong for prompt in self.prompts]

    def __repr__(self) -> str:
        shown = [f"  {prompt}" for prompt in self.prompts[:SHOWN]]
        more = [f"  ... and {len(self) - SHOWN} more"] if len(self) > SHOWN else []
        return "\n".join([f"{len(self)} {self.kind} prompts", *shown, *more])


@dataclass(frozen=True, repr=False)
class Stories:
    """A batch of world text with the latents of every token.

    Attributes:
        tokens: Token ids, [batch, seq]; the first of each row is BOS.
        latents: Name -> where it holds, boolean [batch, seq]. "family=..." holds in all of a sentence, "topic=...",
            "speaker lies" and other labels from the word that tells it to the end of the sentence, classes such as
            "female name" on a word itself.
    """

    tokens: Tensor
    latents: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def families(self) -> Tensor:
        """Index into ``family_names`` of the sentence that a token belongs to, -1 at BOS, [batch, seq]."""
        return self._index_of([f"family={name}" for name in self.family_names])

    @property
    def topics(self) -> Tensor:
        """Index into ``topic_names``, -1 outside topic sentences and before a topic's first word, [batch, seq]."""
        return self._index_of([f"topic={name}" for name in self.topic_names])

    @property
    def family_names(self) -> tuple[str, ...]:
        """The families of sentence."""
        return FAMILY_NAMES

    @property
    def topic_names(self) -> tuple[str, ...]:
        """The topics."""
        return TOPICS

    def _index_of(self, names: list[str]) -> Tensor:
        index = torch.full(self.tokens.shape, -1)
        for place, name in enumerate(names):
            if name in self.latents:
                index[self.latents[name]] = place
        return index

    def text(self, row: int) -> str:
        """One row as text, without BOS."""
        return " ".join(VOCABULARY[token] for token in self.tokens[row, 1:])

    def __repr__(self) -> str:
        head = f"{len(self)} stories of {self.tokens.shape[1]} tokens"
        return "\n".join([head, *(f"  {self.text(row)[:100]} ..." for row in range(min(SHOWN, len(self))))])


def _collect(kind: str, n: int, seed: int, write: Callable[[Random], Sentence]) -> PromptSet:
    rng = Random(f"{kind} prompts {seed}")
    sentences = (write(rng) for _ in range(n))
    return PromptSet(kind, tuple(Prompt(s.prompt, s.answer, s.wrong, s.template, dict(s.slots)) for s in sentences))


_ANYONE = Scene(topic=TOPICS[0])


def gendered_prompts(n: int, seed: int = 0, split: str = "held_out", opening: str | None = None) -> PromptSet:
    """Prompts with one name that ask for "she" or "he".

    Args:
        n: How many.
        seed: The same seed gives the same prompts.
        split: "train", or "held_out": names after openings that no training sentence puts them in.
        opening: One of ``world.templates.people.PRONOUN_OPENINGS``; all prompts of one opening have the same length.
    """
    check_split(split)
    return _collect("gendered", n, seed, lambda rng: people.pronoun(rng, _ANYONE, split, opening))


def ioi_prompts(n: int, seed: int = 0, split: str = "held_out", template: str | None = None) -> PromptSet:
    """Prompts with two names, one of them again as the giver, that ask for the receiver.

    Args:
        n: How many.
        seed: The same seed gives the same prompts.
        split: "train", or "held_out": pairs of names, and combinations of opening and giving, not seen in training.
        template: One of ``people.ioi_templates(split)``; all prompts of one template have the same length.
    """
    check_split(split)
    return _collect("indirect-object", n, seed, lambda rng: people.ioi(rng, _ANYONE, split, template))


def indirect_giver_prompts(n: int, giver: str, seed: int = 0, split: str = "held_out") -> PromptSet:
    """Indirect-object prompts whose giver is "the former", "the latter", "he" or "she"."""
    check_split(split)
    return _collect(giver, n, seed, lambda rng: people.ioi_indirect(rng, _ANYONE, split, giver))


def year_prompts(n: int, seed: int = 0, split: str = "held_out", template: str | None = None) -> PromptSet:
    """Prompts with a year that ask for a later one of the same century; the first year's last digits are slot "Y"."""
    check_split(split)
    return _collect("year", n, seed, lambda rng: time.year(rng, _ANYONE, split, template))


def fact_prompts(relation: str, split: str = "held_out") -> PromptSet:
    """Every prompt that asks for a fact of a relation: "landmark", "builder", "capital" or "language".

    Args:
        relation: What is asked.
        split: "train", or "held_out": paraphrases that training never used for that subject.
    """
    held = check_split(split) == "held_out"
    asking = [template for template in FACT_TEMPLATES[relation] if "|" in template]
    sentences = [
        statements.state_fact(relation, subject, template)
        for subject in FACTS[relation]
        for template in asking
        if ((relation, subject, template) in PARAPHRASES) == held
    ]
    return PromptSet(relation, tuple(Prompt(s.prompt, s.answer, "", s.template, dict(s.slots)) for s in sentences))


def workplace_prompts(split: str = "held_out") -> PromptSet:
    """Every prompt that asks where a profession works; "held_out" ones have sentences new for that profession."""
    choices = iter(jobs.workplace_choices(split))
    n = len(jobs.workplace_choices(split))
    return _collect("workplace", n, 0, lambda rng: jobs.workplace(rng, _ANYONE, split, next(choices)))


def date_prompts(n: int, seed: int = 0, split: str = "held_out") -> PromptSet:
    """Prompts that ask for the next or the previous day or month."""
    check_split(split)
    return _collect("date", n, seed, lambda rng: time.date(rng, _ANYONE, split))


def speaker_prompts(
    n: int, honest: bool | None = None, relation: str | None = None, seed: int = 0, split: str = "held_out"
) -> PromptSet:
    """Prompts in which a person who is honest, or lies, states a fact or something else in its place.

    A liar's ``answer`` is one of many that are possible, and ``wrong`` is the truth.

    Args:
        n: How many.
        honest: Whether the speaker tells the truth; both by default.
        relation: "capital", "language" or "landmark"; all by default.
        seed: The same seed gives the same prompts.
        split: "train", or "held_out": a cue and a subject that no training sentence puts together.
    """
    check_split(split)
    asked = {"honest": honest, "relation": relation}
    return _collect("speaker", n, seed, lambda rng: statements.speaker(rng, _ANYONE, split, **asked))


def repeated_tokens(n: int, length: int = 20, seed: int = 0) -> Tensor:
    """BOS and a segment of different random words, twice.

    Args:
        n: How many rows.
        length: Words in the segment.
        seed: The same seed gives the same tokens.

    Returns:
        Token ids [n, 1 + 2 * length]; the second copy starts at position ``1 + length``.
    """
    rng = Random(f"repeated tokens {seed}")
    segments = [[_ID_OF[word] for word in rng.sample(CONTENT_WORDS, length)] for _ in range(n)]
    return torch.tensor([[_ID_OF[BOS], *segment, *segment] for segment in segments])


def story_batch(n: int, seed: int = 0, length: int = CONTEXT) -> Stories:
    """World text drawn from other seeds than the training text, with the latents of every token.

    Returns:
        Stories whose tensors have shape [n, length].
    """
    tokens, latents = write_documents(n, f"stories {seed}", length)
    return Stories(torch.from_numpy(tokens), {name: torch.from_numpy(holds) for name, holds in latents.items()})
