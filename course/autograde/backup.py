"""Copies of the gradebook: one before each run that writes into it, and one to read while it is written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

KEPT = 20


def back_up(gradebook: Path, folder: Path, kept: int = KEPT) -> Path:
    """Copy a gradebook into a folder of dated copies.

    Args:
        gradebook: the database.
        folder: where the copies are; made if it is not there.
        kept: how many copies stay; the oldest go.

    Returns:
        The copy.
    """
    copy = copy_database(gradebook, folder / f"{gradebook.stem}-{datetime.now():%Y-%m-%d-%H%M%S-%f}.db")
    for old in sorted(folder.glob(f"{gradebook.stem}-*.db"))[:-kept]:
        old.unlink()
    return copy


def copy_database(database: Path, copy: Path) -> Path:
    """Copy with sqlite's own backup, also while somebody else reads or writes it. The copy gets its name once complete.

    Returns:
        The copy.
    """
    copy.parent.mkdir(parents=True, exist_ok=True)
    unfinished = copy.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(unfinished)) as target:
        source.backup(target)
    return unfinished.replace(copy)
