"""Measure this library beside its peers: ``python -m benchmarks [NAME ...] [--threads 1 2] [--quick] [--write]``.

Both sides do the same work in the same run, their results are compared, and the ratio of their times is printed. With
``--write`` the table goes to ``RESULTS.md``, with the machine and the versions.
"""

import argparse
import importlib
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.results import Result, as_markdown, show

RESULTS = Path(__file__).parent / "RESULTS.md"
NAMES = ("patching", "path_patching", "circuits", "composition", "sae_training", "modular_addition")
PACKAGES = ("torch", "transformer-lens", "sae-lens", "transformers")
HEAD = """\
# Results

What `python -m benchmarks --write` measured. Both sides do the same work in one run, on the same inputs; *ratio* is how
many times faster this library was, *to reach* what was aimed at, *largest error* how far the two results lie apart
(ACDC: how many decisions differ). Times vary from machine to machine, and from run to run on a shared one; ratios vary
less. *Extrapolated* means that the peer was timed on a part of the work and scaled up. Wide TopK dictionaries use the
units for bfloat16 matrices that some CPUs have (AMX), and gain less without them.

{machine}

"""


def machine() -> str:
    """The machine and the versions, in Markdown."""
    cores = f"{torch.get_num_threads()} cores" if torch.get_num_threads() > 1 else "1 core"
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    cpu = getattr(torch.cpu, "get_capabilities", dict)()
    name = f" ({cpu['cpu_name']}, {'with' if cpu.get('amx_bf16') else 'without'} AMX)" if cpu.get("cpu_name") else ""
    where = f"{platform.system()} on {platform.machine()}{name}, {cores}{gpu}"
    return f"{where}; Python {platform.python_version()}, {versions}."


def measure(names: list[str], threads: list[int], quick: bool) -> list[Result]:
    """All results of some benchmarks, once for each number of threads; rows of a GPU once."""
    results, before = [], torch.get_num_threads()
    try:
        for name in names:
            module = importlib.import_module(f"benchmarks.{name}")
            for number in threads:
                torch.set_num_threads(number)
                rows = [row for row in module.run(quick) if row.threads or number == threads[0]]
                show(rows)
                results += rows
    finally:
        torch.set_num_threads(before)
    return results


def main() -> None:
    """Read the command line, measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which; all without a name: {', '.join(NAMES)}")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--quick", action="store_true", help="smaller sizes, a minute in all: does it still run?")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if options.write and (options.quick or options.names):
        parser.error("--write needs all benchmarks at their full size: leave out names and --quick")
    text = HEAD.format(machine=machine())
    results = measure(options.names or list(NAMES), options.threads, options.quick)
    if options.write:
        RESULTS.write_text(text + as_markdown(results), encoding="utf-8")
        print(RESULTS)


if __name__ == "__main__":
    main()
