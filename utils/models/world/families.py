"""The families of sentence, each with one thing to learn, and how often each is written."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from utils.models.world.filler import repeat, topic
from utils.models.world.jobs import any_job
from utils.models.world.people import any_ioi, any_pronoun
from utils.models.world.sentence import Scene, Sentence
from utils.models.world.statements import fact, speaker
from utils.models.world.time import date, year


@dataclass(frozen=True)
class Family:
    """A kind of sentence: how to write one, and its share of all sentences."""

    share: float
    write: Callable[[Random, Scene], Sentence]


FAMILIES = {
    "ioi": Family(0.20, any_ioi),
    "fact": Family(0.24, fact),
    "repeat": Family(0.12, repeat),
    "topic": Family(0.10, topic),
    "year": Family(0.12, year),
    "pronoun": Family(0.07, any_pronoun),
    "job": Family(0.03, any_job),
    "date": Family(0.05, date),
    "speaker": Family(0.07, speaker),
}
