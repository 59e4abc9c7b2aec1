"""python -m trust SECONDS [--only NAME ...] [--folder build/trust] [--seed N] [--no-plant]"""

import argparse
import os
import sys
import time
import traceback
from pathlib import Path

from trust import page
from trust.bugs import OF_PART
from trust.part import CannotRunError, Part, Turn
from trust.parts import PARTS
from trust.state import Done, State, load
from trust.trees import ROOT, PlantingError, planted

SLICE = 60.0  # seconds of a turn, where a part can choose


def main() -> int:
    parser = argparse.ArgumentParser(prog="trust", description=sys.modules["trust"].__doc__)
    parser.add_argument("seconds", type=float, help="for all parts together; each takes its share")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these parts alone")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/trust", help="state and report")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**31, help="of a new state")
    parser.add_argument("--no-plant", action="store_true", help="do not try whether each part can fail")
    options = parser.parse_args()
    options.folder = options.folder.resolve()  # parts run in other folders
    parts = [part for part in PARTS if not options.only or part.name in options.only]
    state = load(options.folder, options.seed)
    print(f"trust: {state.commit}, seed {state.seed}, state in {state.path}", flush=True)
    for part in parts:
        state.parts.setdefault(part.name, Done())
    if not options.no_plant:
        for part in parts:
            check_that_it_can_fail(part, state)
    all_shares = sum(part.share for part in parts)
    end, left = time.monotonic() + options.seconds, all_shares
    for part in parts:  # time that one leaves is the others'
        seconds = max(0.0, end - time.monotonic()) * part.share / left
        run_part(part, state, seconds)
        left -= part.share
    page.write(options.folder / "report.md", state, PARTS)
    failed = [name for name, done in state.parts.items() if done.failures]
    print(f"trust: {len(failed)} parts with failures {failed}; {options.folder / 'report.md'}")
    return bool(failed)


def run_part(part: Part, state: State, seconds: float) -> None:
    """Turns of a part until its goal is reached or its time is over."""
    done, end, (unit, goal) = state.parts[part.name], time.monotonic() + seconds, part.goal
    while done.count < goal and (left := end - time.monotonic()) > 0:
        begun = time.monotonic()
        turn = one_turn(part, ROOT, state.seed, done.count, min(left, SLICE))
        done.add(turn, time.monotonic() - begun)
        state.save()
        if turn.failures:
            print(f"trust: {part.name}: {turn.failures}", flush=True)
            if len(done.failures) >= 10:
                break
    print(f"trust: {part.name}: {done.count} of {goal} {unit}, {done.seconds:.0f} s", flush=True)


def one_turn(part: Part, tree: Path, seed: int, first: int, seconds: float) -> Turn:
    try:
        return part.run(tree, seed, first, seconds)
    except Exception as error:
        return Turn(0, [f"{error!r}, {traceback.format_exc(limit=-2)}"])


def check_that_it_can_fail(part: Part, state: State) -> None:
    """Runs the part on sources with a bug; that it finds none is a failure of the part."""
    done = state.parts[part.name]
    if done.planted:
        return
    turn, begun, bug = Turn(), time.monotonic(), OF_PART[part.name]
    os.environ["PYTEST_ADDOPTS"] = "-x"  # one failure is enough
    try:
        with planted(bug, state.path.parent / "tree", part.builds) as tree:
            while not turn.failures and time.monotonic() - begun < 4 * part.patience:
                turn = part.run(tree, state.seed, done.turns, part.patience)
    except (PlantingError, CannotRunError) as error:
        done.failures.append(f"its planted bug: {error}")
        return
    finally:
        del os.environ["PYTEST_ADDOPTS"]
    if turn.failures:
        done.planted = f"{bug.name}: {turn.failures[0][:300]}"
    else:
        done.failures.append(f"did not find its planted bug, {bug.name}")
    state.save()
    print(f"trust: {part.name} {'found' if done.planted else 'DID NOT FIND'} {bug.name}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
