"""Make, measure and open pools of mysteries.

python -m utils.models.mystery make                                              the shipped pool
python -m utils.models.mystery make --pool FOLDER --truths FILE --secret TEXT    a pool whose truth stays with you
python -m utils.models.mystery card                                              measure and write the card
python -m utils.models.mystery unseal mystery-01                                 the truth, for graders
"""

import argparse
from pathlib import Path

import torch

from utils.models.mystery.make import SHIPPED_COUNT, SHIPPED_SECRET, make_pool
from utils.models.mystery.measure import write_pool_card
from utils.models.mystery.pool import POOL, load_mystery, mystery_names
from utils.models.mystery.truth import unseal


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.models.mystery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("make", "card", "unseal"))
    parser.add_argument("name", nargs="?", help="which mystery to unseal")
    parser.add_argument("--pool", type=Path, default=POOL, help="the pool's folder (default: the shipped pool)")
    parser.add_argument("--truths", type=Path, help="where the truth is kept, if not sealed beside each model")
    parser.add_argument("--secret", help="what the tasks are drawn from")
    parser.add_argument("--count", type=int, default=SHIPPED_COUNT)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.action == "make":
        if options.pool != POOL and not options.secret:
            parser.error("a pool of your own needs a --secret, or its tasks are those of the shipped pool")
        make_pool(options.pool, options.secret or SHIPPED_SECRET, options.count, options.truths)
    if options.action == "unseal":
        names = mystery_names(options.pool)
        if options.name not in names:
            parser.error(f"there is no mystery {options.name!r}; this pool has {', '.join(names) or 'none'}")
        print(unseal(load_mystery(number=names.index(options.name) + 1, pool=options.pool), options.truths))
    else:
        print(write_pool_card(options.pool, options.truths))


if __name__ == "__main__":
    main()
