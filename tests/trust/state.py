"""What the parts have done so far, in a small file, so that the next start goes on."""

import json
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fkdx.files import write_whole
from trust.part import Turn
from trust.trees import ROOT


@dataclass
class Done:
    """Of one part."""

    count: int = 0
    turns: int = 0
    seconds: float = 0
    failures: list[str] = field(default_factory=list)
    planted: str = ""  # what the part said of its planted bug; empty: not tried

    def add(self, turn: Turn, seconds: float) -> None:
        if not turn.count and not turn.failures:
            turn.failures.append("did nothing")
        self.count += turn.count
        self.turns += 1
        self.seconds += seconds
        self.failures += turn.failures


@dataclass
class State:
    """Of all; of one state of the sources, `code`."""

    path: Path
    seed: int
    code: str
    commit: str
    begun: str
    parts: dict[str, Done] = field(default_factory=dict)

    def save(self) -> None:
        said = asdict(self) | {"path": str(self.path)}
        write_whole(self.path, json.dumps(said, indent=1).encode())


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def code_of_tree() -> str:
    """Names the state of what is tried; tests may change without it."""
    changes = git("status", "--porcelain", "--", "fkdx", "csrc")
    code = " ".join(git("rev-parse", f"HEAD:{folder}")[:12] for folder in ("fkdx", "csrc"))
    return f"{code} changed" if changes else code


def load(folder: Path, seed: int) -> State:
    """The state to go on from; a new one where there is none, or where the sources have changed since."""
    path, code = folder / "state.json", code_of_tree()
    if path.exists():
        said = json.loads(path.read_text())
        if said["code"] == code:
            parts = {name: Done(**done) for name, done in said.pop("parts").items()}
            return State(**said | {"path": path}, parts=parts)
        path.rename(folder / f"state of {said['commit']}.json")
    folder.mkdir(parents=True, exist_ok=True)
    return State(path, seed, code, git("rev-parse", "--short", "HEAD"), today())


def today() -> str:
    return datetime.now(UTC).date().isoformat()
