"""The command, its verbs, the doctor, and the public names."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fkdx
from fkdx import _C, cli
from fkdx.commands import doctor
from fkdx.errors import error_text
from fkdx.labels import LabelWriter
from fkdx.system import available_cores

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", fkdx.__all__)
def test_public_name_exists(name: str) -> None:
    assert getattr(fkdx, name) is not None


def test_unknown_public_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = fkdx.nonsense


def test_import_needs_no_torch() -> None:
    code = "import sys, fkdx, fkdx.cli, fkdx.labels; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_import_takes_a_moment() -> None:
    """At most 0.25 s of the processor; the machine may be busy."""
    code = "import time; start = time.process_time(); import fkdx; print(time.process_time() - start)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.25


WAITING = """
import os, time
from fkdx import cli
cli.let_idle_threads_sleep()
import torch
torch.set_num_threads(2)
numbers = torch.rand(200_000)
numbers.exp()
start = time.process_time()
for _ in range(100):
    numbers.exp()
    time.sleep(0.01)
print(os.environ.get("GOMP_SPINCOUNT"), time.process_time() - start)
"""


def waiting(**given: str) -> tuple[str, float]:
    """The number of looks, and the processor's seconds of a process whose second thread mostly waits."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", WAITING],
        cwd=ROOT,
        env=clean | given,
        capture_output=True,
        text=True,
        check=True,
    )
    count, seconds = done.stdout.split()
    return count, float(seconds)


@pytest.mark.slow
@pytest.mark.skipif(available_cores() < 2, reason="OpenMP's threads of one core never wait for long")
def test_threads_that_wait_sleep_soon_unless_the_user_chose() -> None:
    count, seconds = waiting()
    assert count == str(cli.SPIN_COUNT)
    chosen, spinning = waiting(GOMP_SPINCOUNT="300000")
    assert chosen == "300000"
    assert seconds < spinning / 2


def test_a_policy_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    cli.let_idle_threads_sleep()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "")  # so that it is as before afterwards
    monkeypatch.delenv("GOMP_SPINCOUNT")
    cli.let_idle_threads_sleep()
    assert os.environ["GOMP_SPINCOUNT"] == str(cli.SPIN_COUNT)


def test_version_is_the_extensions() -> None:
    from fkdx import _C

    assert _C.build_info()["version"] == fkdx.__version__


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_usage_lists_the_verbs(capsys: pytest.CaptureFixture) -> None:
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^(\w+)? +{verb} ", shown, re.M) for verb in cli.VERBS)


def test_doctor_tells_the_loaders_memory() -> None:
    assert doctor.loader_memory(256, 224, 2).startswith("154 MB in 4 slots of 256 crops of 224 px")


def test_unknown_verb(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["distil"]) == 2
    assert "unknown verb, got 'distil', expected one of" in capsys.readouterr().err


def test_what_the_user_can_mend_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["info", str(tmp_path / "absent.fkdl")]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("fkdx info: ")
    assert "absent.fkdl" in shown
    assert "Errno" not in shown
    assert shown.count("\n") == 1


def test_errors_name_the_verb_once_and_no_number() -> None:
    assert error_text(ValueError("train: nothing to learn from"), "train") == "nothing to learn from"
    assert error_text(OSError("pack: 3 left"), "pack") == "3 left"
    assert error_text(FileNotFoundError(2, "No such file", "a b"), "info") == "No such file: 'a b'"


def test_arguments_that_are_not_utf8(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["info", os.fsdecode(b"caf\xe9.fkdl")]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(r"fkdx info: argument, got b'caf\xe9.fkdl', expected UTF-8; ")
    assert shown.count("\n") == 1


@pytest.mark.parametrize("words", ["--json", "--sample 0"])
def test_a_reader_that_leaves_ends_a_verb_quietly(words: str, tmp_path: Path) -> None:
    """As in `fkdx info ... | head -1`."""
    names = [f"class {i:06}" for i in range(20_000)]
    with LabelWriter(tmp_path / "a.fkdl", num_classes=20_000, k=1, crops=1, classes=names):
        pass
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "fkdx", "info", str(tmp_path / "a.fkdl"), *words.split()]
    shown = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert shown.stderr == ""
    assert shown.returncode == 141


def test_warnings_are_one_line() -> None:
    code = "import warnings; from fkdx import cli; from fkdx.commands import doctor; "
    code += "doctor.main = lambda _: warnings.warn('doctor: a skip'); "
    code += "cli.main(['doctor'])"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert shown.stderr == "fkdx doctor: a skip\n"


@pytest.mark.skipif(not (ROOT / "fkdx").exists(), reason="an installed fkdx, without its sources")
@pytest.mark.parametrize("module", ["fkdx info", "fkdx.train", "fkdx.generate", "fkdx train"])
def test_sources_without_an_extension_say_what_to_do(module: str, tmp_path: Path) -> None:
    """As in a checkout whose fkdx was installed from elsewhere: Python finds the sources first."""
    shutil.copytree(ROOT / "fkdx", tmp_path / "fkdx", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    command = [sys.executable, "-S", "-m", *module.split(), "--help"]  # -S: without an editable installation
    shown = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True)
    assert shown.returncode == 1
    assert shown.stderr.count("\n") == 1, shown.stderr
    assert (
        f"pip install .` in this folder, or leave it if fkdx is installed already, {tmp_path}" in shown.stderr
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "package"), [("fkdx", "timm"), ("fkdx.train", "torch"), ("fkdx.generate", "torch")]
)
def test_missing_package_names_the_extra(module: str, package: str) -> None:
    code = f"import sys, runpy; sys.modules['{package}'] = None; "
    code += (
        f"sys.argv[1:] = {['train'] * (module == 'fkdx')}; runpy.run_module('{module}', run_name='__main__')"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 1
    assert f"needs {package}; run: pip install 'fkdx[train]'" in shown.stderr


def test_doctor_reports_build_and_machine(capsys: pytest.CaptureFixture) -> None:
    assert doctor.main([]) == 0
    shown = capsys.readouterr().out
    for line in ("fkdx", "libjpeg-turbo", "cpu variant", "cuda part", "gpu", "torch", "timm"):
        assert re.search(rf"^{line} +\S", shown, re.M), f"doctor does not report {line}"


def test_cpu_variant_can_be_forced() -> None:
    code = "from fkdx import _C; print(_C.selected_cpu())"
    run = [sys.executable, "-c", code]
    shown = subprocess.run(run, cwd=ROOT, env={"FKDX_CPU": "scalar"}, capture_output=True, text=True)
    assert shown.stdout.strip() == "scalar"
    refused = subprocess.run(run, cwd=ROOT, env={"FKDX_CPU": "sse9"}, capture_output=True, text=True)
    assert "FKDX_CPU, got 'sse9', expected one of scalar" in refused.stderr


@pytest.mark.skipif(not _C.build_info()["cuda_targets"], reason="built without CUDA")
@pytest.mark.parametrize(
    ("code", "remedy"),
    [(35, "update it"), (222, "update it"), (209, "FKDX_CUDA_ARCHS=native"), (98, "FKDX_CUDA_ARCHS=native")],
)
def test_a_build_that_does_not_suit_driver_or_gpu_says_what_to_do(code: int, remedy: str) -> None:
    """Codes of InsufficientDriver, UnsupportedPtxVersion, NoKernelImageForDevice, InvalidDeviceFunction."""
    with pytest.raises(RuntimeError, match=rf"^loss: .*; .*{remedy}$"):
        _C.cuda_check(code, "loss")
    _C.cuda_check(0, "loss")


def test_doctor_says_why_the_cuda_part_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_old() -> int:
        raise RuntimeError("cudaGetDeviceCount: CUDA driver version is insufficient\nmore")

    monkeypatch.setattr(_C, "cuda_device_count", too_old, raising=False)
    reason = "cudaGetDeviceCount: CUDA driver version is insufficient"
    assert doctor.cuda_state() == f"does not run here ({reason})"
    monkeypatch.setattr(_C, "cuda_device_count", lambda: 0)
    assert doctor.cuda_state() == "idle (no GPU)"
