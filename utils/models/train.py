"""Train a shipped model from its seed, put it in the repository and write its card.

``python -m utils.models.train NAME`` makes the model that is shipped; ``--seed N --trial`` measures another seed and
records it among the trials, and leaves the shipped files as they are. A run can be interrupted and started again.
``--card-only`` trains nothing, and measures the shipped files again.
"""

import argparse

import torch

from utils.models import overview
from utils.models.recipe import all_recipes
from utils.models.ship import rewrite_card, ship, try_out


def main() -> None:
    """Read the command line and train."""
    recipes = all_recipes()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(recipes), metavar="NAME", help=", ".join(sorted(recipes)))
    parser.add_argument("--seed", type=int, help="another seed than the shipped one; needs --trial")
    parser.add_argument("--trial", action="store_true", help="measure and record the run, but ship nothing")
    parser.add_argument("--card-only", action="store_true", help="measure the shipped files again, write their card")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    recipe = recipes[options.name]
    seed = recipe.seed if options.seed is None else options.seed
    if seed != recipe.seed and not options.trial:
        parser.error(
            f"{recipe.name} is shipped with seed {recipe.seed}: give --trial, or change the seed in its recipe"
        )
    torch.set_num_threads(options.threads)
    if options.card_only:
        print(rewrite_card(recipe))
        overview.main()
        return
    training = recipe.start(recipe, seed)
    training.run()
    print((try_out if options.trial else ship)(training, recipe))
    overview.main()


if __name__ == "__main__":
    main()
