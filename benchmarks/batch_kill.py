"""Does a program that is killed at any instant lose a row, or pay for one twice?

`python benchmarks/batch_kill.py --kills 200 --rows 2000` starts a program that asks ROWS questions through a batch queue,
kills it (SIGKILL) at an instant drawn evenly from the time that an undisturbed run takes, and starts it again, some
times over; then it lets it come to its end, counts, and begins with a new file, until there were KILLS kills. The provider
is the scripted one of the tests, on loopback; half of the rounds speak Anthropic's protocol, which has no mark of ours.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.batch_provider import Batch, Provider, Told, all_ok  # noqa: E402

KILLS_A_ROUND = 8


def script(batch: Batch) -> Told:
    """Keep a batch at work for some looks."""
    return all_ok(batch) if batch.looks > 4 else Told(status="in_progress")


def start(provider: Provider, file: Path, rows: int, *, anthropic: bool) -> "subprocess.Popen[str]":
    """Start the program."""
    program = [sys.executable, str(ROOT / "tests" / "batch_program.py"), provider.url, str(file), str(rows)]
    more = ["--anthropic"] if anthropic else []
    return subprocess.Popen(
        [*program, *more], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def play_round(rows: int, kills: int, dice: random.Random, *, anthropic: bool) -> tuple[int, int, int, list[str]]:
    """Kill the program some times and let it end: kills, rows lost, rows paid twice, states of the file when killed."""
    states: list[str] = []
    with tempfile.TemporaryDirectory() as folder, Provider(script) as provider:
        before = time.monotonic()
        start(provider, Path(folder, "whole.db"), rows, anthropic=anthropic).communicate()
        whole = time.monotonic() - before
        provider.batches.clear()
        file = Path(folder, "jobs.db")
        killed = 0
        while True:
            program = start(provider, file, rows, anthropic=anthropic)
            try:
                out, _ = program.communicate(timeout=dice.uniform(0, whole) if killed < kills else None)
                break
            except subprocess.TimeoutExpired:
                program.kill()
                out, _ = program.communicate()
                killed += 1
                if out.endswith("end\n"):
                    break  # nothing was left to do
                states.append(f"{len(provider.batches)} made")
        answers = dict(line.split(" ", 1) for line in out.splitlines() if line != "end")
        lost = sum(answers.get(str(n)) != f"re: q{n}" for n in range(rows))
        paid = provider.paid()
        twice = sum(n > 1 for n in paid.values())
        lost += sum(paid[f"q{n}"] < 1 for n in range(rows))
        return killed, lost, twice, states


def main() -> None:
    """Play rounds until there were enough kills."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--rows", type=int, default=2000)
    options.add_argument("--seed", type=int, default=0)
    wanted = options.parse_args()
    dice = random.Random(wanted.seed)
    kills = lost = twice = rounds = 0
    while kills < wanted.kills:
        anthropic = bool(rounds % 2)
        killed, gone, paid, states = play_round(wanted.rows, KILLS_A_ROUND, dice, anthropic=anthropic)
        kills, lost, twice, rounds = kills + killed, lost + gone, twice + paid, rounds + 1
        print(
            f"round {rounds} ({'anthropic' if anthropic else 'openai'}): {killed} kills, {gone} rows lost, {paid} paid twice;"
            f" when killed: {states}",
            flush=True,
        )
    print(f"{kills} kills in {rounds} rounds of {wanted.rows} rows: {lost} rows lost, {twice} rows paid twice")


if __name__ == "__main__":
    main()
