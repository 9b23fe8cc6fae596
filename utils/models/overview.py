"""One page with all shipped models, written from their cards: ``python -m utils.models.overview``."""

import json
import re

from utils.models.load import CARD
from utils.models.recipe import MODELS, Recipe, all_recipes

LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
SENTENCE_END = re.compile(r"(?<! al)\. ")
PAGE = MODELS / "MODELS.md"
HEAD = """# The shipped models

Written from the cards by `python -m utils.models.overview`. Each name leads to its card: how it was made, every
measurement with its interval, what was imposed, what was tried and what is not there.
`python -m utils.models.verify` measures them all again. A bar is what a model has to reach to be taught on; what is
below its bar is named.

| model | what it is | steps | seed | MB | measured | bars held | below its bar |
|---|---|---|---|---|---|---|---|
"""


def overview() -> str:
    """The page, in Markdown."""
    shipped = [recipe for recipe in all_recipes().values() if (recipe.folder / CARD).is_file()]
    return HEAD + "".join(_row(recipe) for recipe in sorted(shipped, key=lambda recipe: (recipe.place, recipe.name)))


def _row(recipe: Recipe) -> str:
    card = json.loads((recipe.folder / CARD).read_text(encoding="utf-8"))
    with_bar = {
        key: m for key, m in card["measurements"].items() if m["at_least"] is not None or m["at_most"] is not None
    }
    below = [key for key, m in with_bar.items() if not _holds(m)]
    link = f"[{recipe.name}]({recipe.place}/{recipe.name}/MODEL_CARD.md)"
    cells = [
        link,
        _first_sentence(recipe.about),
        f"{card['steps']:,}",
        card["seed"],
        f"{card['bytes'] / 1e6:.2f}",
        len(card["measurements"]),
        f"{len(with_bar) - len(below)} of {len(with_bar)}",
        ", ".join(below),
    ]
    return f"| {' | '.join(map(str, cells))} |\n"


def _first_sentence(about: str) -> str:
    """Without links, which lead from a card's folder and not from here."""
    paragraph = " ".join(about.strip().partition("\n\n")[0].split())
    plain = LINK.sub(r"\1", paragraph)
    return SENTENCE_END.split(plain)[0].rstrip(".:")


def _holds(m: dict) -> bool:
    return (m["at_least"] is None or m["value"] >= m["at_least"]) and (
        m["at_most"] is None or m["value"] <= m["at_most"]
    )


def main() -> None:
    """Write the page."""
    PAGE.write_text(overview(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
