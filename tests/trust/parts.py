"""The parts of the suite, in the order of the page."""

import re
import sys
from pathlib import Path

from trust.bugs import BUGS
from trust.part import CannotRunError, Part, Turn
from trust.programs import HOUR, program_turn, pytest_turn, run, run_pytest, tail
from trust.trees import PlantingError, planted

CLANG = "clang++-19 -std=c++17 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Icsrc"
TSAN = 66  # how ThreadSanitizer ends a program; what it said may be lost in pytest's capture


def fuzz_labels(tree: Path, seed: int, first: int, seconds: float) -> Turn:
    """libFuzzer over the reader of label files; its corpus is kept."""
    folder = tree / "build/fuzz/label_file"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder.with_suffix(".bin")
    rooms = [path for room in ("base", "labels") for path in sorted((tree / "csrc" / room).glob("*.cpp"))]
    sources = ["tests/fuzz/label_file.cpp", *map(str, rooms), "-ldl"]
    if not _is_newer(program, tree):
        built = run([*CLANG.split(), *sources, "-o", str(program)], tree, HOUR)
        if built.returncode:
            raise CannotRunError(f"label fuzzer does not build: {tail(built)}")
    options = f"-max_total_time={max(1, int(seconds))} -max_len=8192 -rss_limit_mb=1024 -print_final_stats=1"
    words = [
        str(program),
        *options.split(),
        f"-seed={(seed + first) % 2**31 + 1}",
        f"-artifact_prefix={folder}-",
    ]
    done = run([*words, str(folder), "tests/fuzz/label_file"], tree, seconds + HOUR)
    tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    failures = [f"libFuzzer ended with {done.returncode}: {tail(done)}"] if done.returncode else []
    return Turn(int(tried[1]) if tried else 0, failures)


def fuzz_jpeg(tree: Path, seed: int, first: int, seconds: float) -> Turn:
    """Streams FIRST ... of a seed; as many as fit into the time."""
    program = tree / "build/fuzz/jpeg/address,undefined"
    if not _is_newer(program, tree):
        built = run(["sh", "tests/fuzz/jpeg/run.sh", "address,undefined", str(seed), "0"], tree, HOUR)
        if built.returncode:
            raise CannotRunError(f"JPEG fuzzer does not build: {tail(built)}")
    count = max(500, int(seconds * 100))
    done = run(
        [str(program), str(seed), str(count), str(first), str(program.parent)], tree, 60 * seconds + HOUR
    )
    if done.returncode:
        return Turn(count, [f"JPEG streams {first} to {first + count} of seed {seed}: {tail(done, 6)}"])
    return Turn(count)


def _is_newer(program: Path, tree: Path) -> bool:
    """Whether a program is newer than all C++ sources."""
    if not program.exists():
        return False
    sources = [*(tree / "csrc").rglob("*"), *(tree / "tests/fuzz").rglob("*.[ch]*")]
    return program.stat().st_mtime > max(path.stat().st_mtime for path in sources)


def sanitize_threads(tree: Path, seed: int, first: int, seconds: float) -> Turn:
    """Tests of loader and generation under TSan."""
    loader = " ".join(f"tests/loader/test_{name}.py" for name in ("pool", "slots", "bad_images"))
    tests = f"{loader} tests/generate/test_batches.py"
    venv = tree / ".venv"
    if not venv.exists():
        venv.symlink_to(Path(sys.prefix))
    done = run(
        ["sh", "tools/sanitize.sh", ".venv", "thread", *tests.split()], tree, HOUR, FKDX_TEST_SEED=str(seed)
    )
    passed = re.search(r"(\d+) passed", done.stdout)
    if not passed and done.returncode != TSAN:
        raise CannotRunError(f"TSan: {tail(done)}")
    count = int(passed[1]) if passed else 0
    return Turn(count, [f"TSan: ended with {done.returncode}: {tail(done, 40)}"] if done.returncode else [])


def plant_bugs(tree: Path, seed: int, first: int, seconds: float) -> Turn:
    """One bug: its tests have to fail with it."""
    in_turn = sorted(BUGS, key=lambda bug: not bug.native)  # those that have to be built follow each other
    bug = in_turn[first % len(in_turn)]
    try:
        with planted(bug, tree / "build/trust/bugs", source=tree) as copy:
            turn = run_pytest(f"-x {bug.tests}", copy, HOUR, FKDX_TEST_SEED=str(seed % 2**31))
    except (PlantingError, CannotRunError) as error:
        return Turn(1, [f"{bug.name}: {error}"])
    caught = any("::" in failure for failure in turn.failures)
    other = "; ".join(turn.failures) or f"{turn.count} tests passed"
    return Turn(1, [] if caught else [f"not caught by {bug.tests}: {bug.name} ({other})"])


KILLS = "SIGKILL at any moment, then the same command: what has its final name is whole, the end the same"
LABEL_FAULTS, RESUME = "tests/labels/test_faults.py", "tests/train/test_resume.py"
JOB_FAULTS, RUN_FAULTS = "tests/generate/test_faults.py", "tests/train/test_faults.py"
DISKS = f"tests/files/test_full_disk.py {LABEL_FAULTS} {JOB_FAULTS} {RESUME} -k full_disk"
SIGNALS = (
    f"tests/loader/test_pool.py tests/train/test_processes.py {JOB_FAULTS} "
    "-k signal or killed_process or killed_run or fork or interrupt or exit or workers or dead_process"
)
killed_writers = pytest_turn(f"{LABEL_FAULTS}::test_killed_while_writing", FKDX_KILLS="50")
killed_packs = pytest_turn("tests/commands/test_pack.py::test_killed_again_and_again", FKDX_KILLS="25")
killed_jobs = pytest_turn(f"{JOB_FAULTS}::test_killed_jobs_end_with_the_same_bytes", FKDX_KILLS="5")
killed_runs = pytest_turn(f"{RUN_FAULTS}::test_killed_runs_end_as_the_whole_one", FKDX_KILLS="10")
cut_labels = pytest_turn(f"{LABEL_FAULTS} -k not killed and not full_disk", FKDX_FAULTS="full")
cut_runs = pytest_turn(f"{RESUME}::test_a_run_cut_off_at_any_step_ends_as_the_whole_one", FKDX_CUTS="10")

PARTS = [
    Part(
        "planted bugs",
        "bugs in our own code, one at a time; the tests of their room have to catch each",
        ("bugs", len(BUGS)),
        share=30,
        run=plant_bugs,
        builds=False,
    ),
    Part(
        "label files",
        "libFuzzer (ASan, UBSan) over the reader of label files, CRCs made right",
        ("files", 100_000_000),
        share=8,
        run=fuzz_labels,
        builds=False,
    ),
    Part(
        "pickles",
        "damaged and invented torch files at the restricted reader, under an audit hook",
        ("files", 10_000_000),
        share=5,
        run=program_turn("fuzz/torch_files.py"),
    ),
    Part(
        "containers",
        "damaged data indexes (CRCs made right), tar, zip and MDS files at their readers",
        ("files", 1_000_000),
        share=8,
        run=program_turn("fuzz/containers.py"),
    ),
    Part(
        "JPEG streams",
        "random legal and half-legal streams (ASan, UBSan): verdict and pixels of a full decode",
        ("streams", 1_000_000),
        share=16,
        run=fuzz_jpeg,
        builds=False,
    ),
    Part(
        "cuts and flips",
        "a label file cut at every byte, every bit flipped, random damage, forged numbers",
        ("tests", 200),
        share=6,
        run=cut_labels,
    ),
    Part("kills: label writer", KILLS, ("kills", 400), share=3, run=killed_writers),
    Part("kills: pack", KILLS, ("kills", 250), share=5, run=killed_packs),
    Part("kills: generate", KILLS, ("kills", 250), share=12, run=killed_jobs),
    Part("kills: train", KILLS, ("kills", 100), share=10, run=killed_runs),
    Part(
        "full disk",
        "writers of labels, index, checkpoint, weights and jobs, with room for any number of bytes",
        ("rooms", 2000),
        share=5,
        run=pytest_turn(DISKS, FKDX_FAULTS="full"),
    ),
    Part(
        "images",
        "damaged photographs and drawn images at decode_crops, image_size and validation_crop",
        ("images", 1_000_000),
        share=14,
        run=program_turn("fuzz/real_images.py"),
    ),
    Part(
        "soak",
        "a loader over 200 images, 1 % of them corrupt: memory, threads, descriptors",
        ("decodes", 1_000_000),
        share=8,
        run=program_turn("trust/soak.py"),
    ),
    Part(
        "signals",
        "signals, forks, DataLoader workers, killed processes, restarts by torchrun",
        ("tests", 100),
        share=8,
        run=pytest_turn(SIGNALS),
    ),
    Part(
        "resume",
        "a run cut off at random steps ends as the whole one, bit for bit",
        ("points", 200),
        share=9,
        run=cut_runs,
    ),
    Part(
        "races",
        "tests of the loader and of generation under ThreadSanitizer",
        ("tests", 20),
        share=8,
        run=sanitize_threads,
        builds=False,
        patience=60,
    ),
]
