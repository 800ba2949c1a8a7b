"""``python -m tests.benchmarks [NAME ...]``: measure and print; no name is all of them."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

from tests.benchmarks import (
    addresses,
    ask,
    beside,
    growth,
    http,
    ingest,
    keys,
    machine,
    pace,
    scale,
    start,
    streams,
)

BENCHMARKS: dict[str, Callable[[], None]] = {
    "start": start.run,
    "http": http.run,
    "keys": keys.run,
    "addresses": addresses.run,
    "streams": streams.run,
    "ingest": ingest.run,
    "ask": ask.run,
    "beside": beside.run,
    "growth": growth.run,
    "scale": scale.run,
}


def main() -> None:
    """Run the benchmarks that were named."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}: {', '.join(BENCHMARKS)}")
    print(machine.facts())
    failed = []
    for name in names:
        began = time.monotonic()
        load = os.getloadavg()[0]
        print(f"\n=== {name}: {(BENCHMARKS[name].__doc__ or '').splitlines()[0]}", flush=True)
        try:
            with pace.bounded():
                BENCHMARKS[name]()
        except pace.TooLong as fault:
            print(f"  {fault}")
            failed.append(name)
        print(f"({time.monotonic() - began:.0f} s; load average {load:.1f} before)", flush=True)
    if failed:
        raise SystemExit(f"without figures: {', '.join(failed)}")


if __name__ == "__main__":
    main()
