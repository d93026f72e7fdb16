"""Run the benchmarks: ``python -m benchmarks [NAME ...]``."""

import argparse

from benchmarks import (
    collection,
    decode,
    environment,
    learning,
    list_trainers,
    memory,
    other_trainers,
    phases,
    sac,
    sizes,
    threaded,
    wire,
    workers,
    workloads,
)

BENCHMARKS = {
    "workloads": workloads.run,
    "phases": phases.run,
    "learning": learning.run,
    "sizes": sizes.run,
    "environment": environment.run,
    "sac": sac.run,
    "collection": collection.run,
    "memory": memory.run,
    "other_trainers": other_trainers.run,
    "list_trainers": list_trainers.run,
    "decode": decode.run,
    "wire": wire.run,
    "workers": workers.run,
    "threaded": threaded.run,
}


def main() -> None:
    """Run those that were named, or all, and print their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)} (default: all)")
    names = parser.parse_args().names or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    for name in names:
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
