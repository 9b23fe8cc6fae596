"""Tokenizers to make prompts for: those of the shipped models, and two that read English."""

import os

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from utils import HubUnavailable, load_tokenizer
from utils.data import docstrings
from utils.models.world import vocabulary, words

LEFT_OUT = {"Leonard", "Grace"}
"""Names that the small tokenizer never learns: several tokens each."""


def small_bpe() -> PreTrainedTokenizerFast:
    """A tokenizer like GPT-2's, byte-level and without a word of its own for BOS's text, trained on a word list."""
    known = [*vocabulary.CONTENT_WORDS, *docstrings.ARGUMENTS, *docstrings.WORDS]
    upper = [word.capitalize() for word in vocabulary.CONTENT_WORDS]
    texts = [f" {word}" for word in [*known, *upper] if word not in LEFT_OUT] * 2
    texts += [f" {century}" for century in words.CENTURIES] * 50 + [f"x{year}" for year in words.YEARS] * 9
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=9000, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|end|>", eos_token="<|end|>")


@pytest.fixture(scope="session")
def tiny():
    return load_tokenizer("tiny-lm")


@pytest.fixture(scope="session")
def textbook():
    return load_tokenizer("textbook-ioi")


@pytest.fixture(scope="session")
def bpe():
    return small_bpe()


def gpt2():
    """GPT-2's tokenizer, where it can be had."""
    try:
        return load_tokenizer(os.environ.get("COURSE_GPT2_TOKENIZER", "gpt2"))
    except HubUnavailable:
        pytest.skip("GPT-2's tokenizer is not in the cache; COURSE_GPT2_TOKENIZER may name a folder that has it")


@pytest.fixture(scope="session", params=["small BPE", "GPT-2"])
def english(request, bpe):
    return bpe if request.param == "small BPE" else gpt2()


@pytest.fixture(scope="session", params=["tiny-lm", "small BPE", "GPT-2"])
def reader(request, tiny, bpe):
    """Every tokenizer that all tasks but docstrings are made for."""
    return {"tiny-lm": tiny, "small BPE": bpe}.get(request.param) or gpt2()


@pytest.fixture(scope="session", params=["tiny-lm", "textbook-ioi", "small BPE", "GPT-2"])
def ioi_reader(request, tiny, textbook, bpe):
    return {"tiny-lm": tiny, "textbook-ioi": textbook, "small BPE": bpe}.get(request.param) or gpt2()
