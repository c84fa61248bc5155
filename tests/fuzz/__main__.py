"""Damage for so many seconds: `python -m tests.fuzz --seconds 30`. Prints what broke, and how to see it again."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz import damage, judge
from tests.fuzz.memory import Gateway, gateway


def example(running: Gateway, seed: int) -> None:
    """One example: a seed is all that one needs to see it again."""
    dice = random.Random(seed)
    if dice.randrange(2):
        judge.fuzz_requests(running, damage.requests(dice))
    else:
        method = dice.choice((b"GET", b"GET", b"HEAD"))
        judge.fuzz_answer(running, damage.answer(dice), method, closes=bool(dice.randrange(2)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, help="one example only")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 48)
    deadline = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory(prefix="gatewayd-fuzz-") as folder, gateway(Path(folder)) as running:
        seed = first
        while True:
            try:
                example(running, seed)
            except Exception:
                traceback.print_exc()
                print(f"see it again: python -m tests.fuzz --seed {seed}", file=sys.stderr)
                return 1
            seed += 1
            if options.seed is not None or time.monotonic() >= deadline:
                break
    print(f"{seed - first} examples, none broke anything")
    return 0


if __name__ == "__main__":
    sys.exit(main())
