"""Measure every shipped model again: ``python -m utils.models.verify [NAME ...] [--full]``.

Fails where a number is no longer what its card says, where it falls below its bar without the card saying so, or where
a file is damaged.
"""

import argparse
import json
import math
import sys
import time
from functools import partial
from pathlib import Path

from utils.models.load import CARD, DamagedModel, check_files
from utils.models.measurement import Findings
from utils.models.mystery.measure import measure_pool
from utils.models.mystery.pool import POOL
from utils.models.recipe import Recipe, all_recipes


def differences(recipe: Recipe, full: bool = False) -> list[str]:
    """What is wrong with a shipped model, in sentences; an empty list when everything holds.

    Args:
        recipe: The model's recipe.
        full: Also measure what takes long.
    """
    try:
        check_files(recipe.folder)
    except DamagedModel as error:
        return [str(error)]
    findings = recipe.measure(recipe.folder)
    if full and recipe.measure_slowly:
        findings |= recipe.measure_slowly(recipe.folder)
    return compare(findings, _card(recipe.folder))


def pool_differences(full: bool = False) -> list[str]:
    """What is wrong with the pool of mysteries, in sentences.

    Args:
        full: Also the causal test of every sealed circuit.
    """
    findings = measure_pool(fast=True)
    if full:
        findings |= measure_pool(fast=False)
    return compare(findings, _card(POOL))


def compare(findings: Findings, card: dict) -> list[str]:
    """In what new findings differ from those of a card."""
    wrong = []
    for key, new in findings.measurements.items():
        old = card["measurements"].get(key)
        if old is None:
            wrong.append(f"{key} is measured, but the card does not have it")
        elif not abs(new.value - old["value"]) <= new.tolerance:
            wrong.append(f"{key} is {new.value:.4f}; the card says {old['value']:.4f}")
        elif not new.holds and _held(old):
            wrong.append(f"{key} is {new.value:.4f}, but has to be {new.bar}")
    for key, table in findings.tables.items():
        rows = card["tables"].get(key, {}).get("rows")
        if rows is None or not _same_rows(table.rows, rows, table.tolerance):
            wrong.append(f"the table {table.title!r} differs from the card's")
    return wrong


def _card(folder: Path) -> dict:
    return json.loads((folder / CARD).read_text(encoding="utf-8"))


def _held(old: dict) -> bool:
    low, high = old["at_least"], old["at_most"]
    return (low is None or old["value"] >= low) and (high is None or old["value"] <= high)


def _same_rows(new: list[list], old: list[list], tolerance: float) -> bool:
    return len(new) == len(old) and all(
        len(a) == len(b) and all(_same_cell(x, y, tolerance) for x, y in zip(a, b, strict=True))
        for a, b in zip(new, old, strict=True)
    )


def _same_cell(new: str | float, old: str | float, tolerance: float) -> bool:
    if isinstance(new, str) or isinstance(old, str):
        return new == old
    return math.isclose(new, old, abs_tol=tolerance, rel_tol=0) or (math.isnan(new) and math.isnan(old))


def main() -> int:
    """Print a line for each model, and what is wrong below it."""
    recipes = all_recipes()
    checks = {name: partial(differences, recipe) for name, recipe in sorted(recipes.items())}
    checks[POOL.name] = pool_differences
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which models; all without a name")
    parser.add_argument("--full", action="store_true", help="also measure what takes long")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in checks]
    if unknown:
        parser.error(f"not shipped: {', '.join(unknown)}. Shipped are: {', '.join(checks)}.")
    failed = 0
    for name in options.names or checks:
        start = time.perf_counter()
        wrong = checks[name](full=options.full)
        failed += bool(wrong)
        print(f"{name:32} {'FAILS' if wrong else 'holds'}  {time.perf_counter() - start:5.1f} s", flush=True)
        for sentence in wrong:
            print(f"    {sentence}")
    places = {recipe.folder.parent for recipe in recipes.values()} | {POOL}
    size = sum(file.stat().st_size for place in places for file in place.rglob("*") if file.is_file())
    print(f"{len(options.names or checks)} checked, {failed} fail; {size / 1e6:.1f} MB of shipped files in all")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
