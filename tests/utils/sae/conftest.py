"""Makes this folder's ``planted`` importable, and every test's random numbers the same each time."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # with pytest's importlib mode, neighbours are not importable otherwise


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
