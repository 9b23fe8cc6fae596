"""Where each latent of a dictionary fires in a text, and what it writes: the data behind a feature dashboard."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.sae.activations import SKIP, Site, collect_activations
from utils.sae.dictionary import Dictionary

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

BATCH = 4096


@dataclass(frozen=True)
class Example:
    """A stretch of text around one token, with the latent's activation on each of its tokens.

    Attributes:
        row: Row of the text.
        position: Position of the token in the row.
        words: The stretch, word by word.
        activations: The latent on each word.
    """

    row: int
    position: int
    words: tuple[str, ...]
    activations: tuple[float, ...]

    def __str__(self) -> str:
        top = max(self.activations)
        return " ".join(
            f"[{word}]" if top and value == top else word
            for word, value in zip(self.words, self.activations, strict=True)
        )


class Gallery:
    """Every firing of every latent on a text.

    Args:
        model: The model that the dictionary was trained on.
        dictionary: In the activations' own units.
        tokens: The text, [batch, position].
        site: By default the dictionary's own.

    Attributes:
        frequency: The share of tokens on which each latent fires, [latent].
        largest: Each latent's largest activation, [latent].
    """

    def __init__(
        self,
        model: "TransformerBridge",
        dictionary: Dictionary,
        tokens: Int[Tensor, "batch position"],
        site: Site | None = None,
    ) -> None:
        self.model, self.dictionary, self.tokens = model, dictionary, tokens
        self.site = site or dictionary.site
        x = collect_activations(model, tokens, [self.site.reads])[self.site.reads]
        places, latents, values = [], [], []
        for start in range(0, len(x), BATCH):
            encoded = dictionary.encode(x[start : start + BATCH])
            place, latent = encoded.nonzero(as_tuple=True)
            places.append(place + start)
            latents.append(latent)
            values.append(encoded[place, latent])
        by_latent, order = torch.cat(latents).sort(stable=True)
        self._places, self._values = torch.cat(places)[order], torch.cat(values)[order]
        self._starts = torch.searchsorted(by_latent, torch.arange(dictionary.n_latents + 1))
        self.frequency = self._starts.diff() / len(x)
        self.largest = torch.zeros(dictionary.n_latents).scatter_reduce(0, by_latent, self._values, "amax")

    def activations(self, feature: int) -> Float[Tensor, "batch position"]:
        """One latent on the whole text, zero at the first position.

        Raises:
            ValueError: if the dictionary has no such latent.
        """
        if not 0 <= feature < self.dictionary.n_latents:
            raise ValueError(f"The dictionary has latents 0 to {self.dictionary.n_latents - 1}, not {feature}.")
        here = slice(self._starts[feature], self._starts[feature + 1])
        batch, positions = self.tokens.shape
        flat = torch.zeros(batch * (positions - SKIP)).index_put((self._places[here],), self._values[here])
        return torch.cat([torch.zeros(batch, SKIP), flat.view(batch, -1)], 1)

    def examples(
        self, feature: int, count: int = 10, *, quantile: float = 1.0, around: tuple[int, int] = (10, 4)
    ) -> list[Example]:
        """Tokens on which a latent fires, with the text around them; at most one from each row.

        Args:
            feature: The latent.
            count: How many at most.
            quantile: 1 for the strongest; 0.5 for the middle of the firing tokens, and so on downwards.
            around: How many words before and after.
        """
        values = self.activations(feature)
        strongest, position = values.max(1)
        rows = (strongest > 0).nonzero().flatten()
        rows = rows[strongest[rows].argsort(descending=True)]
        start = round((1 - quantile) * max(0, len(rows) - count))
        return [
            self._example(row, position[row].item(), values, around) for row in rows[start : start + count].tolist()
        ]

    def _example(self, row: int, position: int, values: Tensor, around: tuple[int, int]) -> Example:
        start, end = max(0, position - around[0]), position + around[1] + 1
        words = self.model.to_str_tokens(self.tokens[row, start:end], prepend_bos=False)
        return Example(row, position, tuple(words), tuple(values[row, start:end].tolist()))

    def logit_weights(self, feature: int) -> Float[Tensor, "vocabulary"]:
        """What a latent adds to every next-token logit by the direct path, less the mean over the vocabulary.

        The final layer norm's scale is left out: it is positive and the same for all words.
        """
        direction = self.dictionary.W_dec[feature]
        if self.site.target.endswith("hook_z"):
            direction = direction @ self.model.W_O[int(self.site.target.split(".")[1])].flatten(0, 1)
        logits = direction @ self.model.W_U
        return logits - logits.mean()

    def promoted(self, feature: int, count: int = 8) -> list[tuple[str, float]]:
        """The words whose logits a latent raises most; with a negative count those that it lowers most."""
        weights = self.logit_weights(feature)
        values, words = weights.topk(abs(count), largest=count > 0)
        names: Sequence[str] = self.model.to_str_tokens(words, prepend_bos=False)
        return list(zip(names, values.tolist(), strict=True))

    def fires_most(self, words: Sequence[str], count: int = 10) -> list[tuple[int, float]]:
        """The latents whose firing is most concentrated on given words, with the share of it that falls there.

        Raises:
            ValueError: if none of the words occurs in the text.
        """
        ids = torch.tensor([self.model.to_single_token(word) for word in words])
        on_word = torch.isin(self.tokens[:, SKIP:].flatten(), ids)
        if not on_word.any():
            raise ValueError(f"None of {', '.join(words)} occurs in the gallery's text.")
        latent = torch.arange(self.dictionary.n_latents).repeat_interleave(self._starts.diff())
        total = torch.zeros(self.dictionary.n_latents).index_add(0, latent, self._values)
        there = torch.zeros_like(total).index_add(0, latent, self._values * on_word[self._places])
        share, best = (there / total.clamp(min=1e-9)).topk(count)
        return list(zip(best.tolist(), share.tolist(), strict=True))
