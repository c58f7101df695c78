"""The command tree: its help, its doors, what it imports, its completion, and the exit code of every error."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from analysis import __main__ as analysis_door
from cl_bench import __version__
from cl_bench.cli import main, presets
from cl_bench.errors import RunsFailed, UserError, did_you_mean, exit_code_of
from tests.test_imports import ROOT, modules_after

NAMES = [name for section in main.SECTIONS.values() for name in section]


# --- help and version -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], *([name, "--help"] for name in NAMES)])
def test_help_fits_80_columns(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main.main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith(f"Usage: cl-bench {arguments[0] if arguments[:1] and arguments[0] in NAMES else ''}")
    assert all(len(line) <= 80 for line in captured.out.splitlines())


def test_help_groups_the_commands_by_task(capsys: pytest.CaptureFixture[str]) -> None:
    main.main(["--help"])
    words = capsys.readouterr().out.split("\n\n")
    sections = {block.splitlines()[0]: [line.split()[0] for line in block.splitlines()[1:]] for block in words[-6:]}
    assert sections == {
        "Train:": ["sweep", "tune"],
        "Watch:": ["status", "logs", "cancel", "retry"],
        "Analyse:": ["report", "figures", "paper", "compare"],
        "Data:": ["prepare"],
        "Evaluate:": ["eval", "export"],
        "Shell:": ["completion"],
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_list_of_commands_agrees_with_their_help(name: str) -> None:
    entry = main.COMMANDS.entries[name]
    command = entry.load()
    assert command.name == name
    assert (command.help or "").split("\n")[0] == entry.summary


def test_one_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"cl-bench {__version__}\n"
    assert importlib.metadata.version("cl-bench") == __version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "cl_bench/__init__.py"


@pytest.mark.parametrize("argument", ["--help", "--version", "nonsense"])
def test_no_library_but_click_is_imported_before_a_command(argument: str) -> None:
    loaded = {name.split(".")[0] for name in modules_after(f"from cl_bench.cli import main; main.main(['{argument}'])")}
    installed = {"torch", "deepspeed", "pandas", "numpy", "hydra", "omegaconf", "pydantic", "yaml", "rich", "submitit"}
    assert "click" in loaded
    assert not loaded & (installed | {"analysis"})


@pytest.mark.parametrize("name", ["sweep", "tune", "eval", "export", "status", "prepare"])
def test_help_of_a_command_imports_no_torch_and_no_hydra(name: str) -> None:
    loaded = modules_after(f"from cl_bench.cli import main; main.main(['{name}', '--help'])")
    assert not loaded & {"torch", "deepspeed", "transformers", "wandb", "hydra"}


# --- doors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "arguments", "error"),
    [
        ("cl_bench", ["reprot"], "error: reprot: no such command; did you mean 'report'? valid: cancel, compare, "),
        ("cl_bench.sweep", ["sweeps=smok"], "error: sweeps=smok: no such choice; did you mean 'smoke'? valid: demo, "),
        ("analysis", ["papr"], "error: papr: no such command; did you mean 'paper'? valid: compare, figures, paper, "),
    ],
)
def test_doors_lead_into_the_same_tree(module: str, arguments: list[str], error: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(error)


def test_an_unknown_command_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["nonsense"]) == 2
    assert capsys.readouterr().err == f"error: nonsense: no such command; valid: {', '.join(sorted(NAMES))}\n"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["report", "--targt", "3"], "--targt: no such option; did you mean '--target'? valid: --baseline, --cros"),
        (["report", "--target", "low"], "invalid value for '--target': 'low' is not a valid float; see `cl-bench repo"),
        (["figures", "x", "--width", "3"], "invalid value for '--width': '3' is not one of 'one', 'two'; see `cl-b"),
        (["compare", "a.csv"], "missing argument 'CURRICULUM'; see `cl-bench compare --help`"),
        (["compare", "a.csv", "b.csv"], "missing option '--target'; see `cl-bench compare --help`"),
        (["prepare", "x"], "missing option '--out'; see `cl-bench prepare --help`"),
        (["export", "x"], "missing argument 'FOLDER'; see `cl-bench export --help`"),
        (["--vrsion"], "--vrsion: no such option; did you mean '--version'? valid: --help, --version (see `cl-bench"),
        (["completion", "csh"], "invalid value for '[bash|zsh|fish]': 'csh' is not one of 'bash', 'zsh', 'fish'; see"),
        (["sweep", "--cfg", "jo"], "argument --cfg/-c: invalid choice: 'jo' (choose from "),
        (["sweep", "-m", "--dry-run"], "--dry-run: no such option; see `cl-bench sweep --help`"),
        (
            ["sweep", "seed=1", "-m", "jobs=2"],
            "jobs=2: apart from the other overrides; write all of them before the options",
        ),
        (["report", "a\x1b[2J"], "a�[2J: no such"),
    ],
)
def test_usage_errors_are_one_line_and_code_2(
    arguments: list[str],
    error: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"error: {error}")


def test_arguments_after_sweep_reach_hydra_untouched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["sweep", "sweeps=smoke", "optim.lr=7e-3", "--cfg", "job", "-p", "optim"]) == 0
    assert "lr: 0.007" in capsys.readouterr().out
    assert analysis_door.main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: python -m analysis COMMAND …\n")


# --- errors -----------------------------------------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "out", "err"),
    [
        (UserError("a: wrong\nb: wrong\x07 too"), 2, "", "error: a: wrong\nerror: b: wrong� too\n"),
        (FileNotFoundError(2, "No such file", "x\n"), 2, "", "error: x : No such file\n"),
        (OSError("odd"), 2, "", "error: a file: odd\n"),
        (RunsFailed("1 of 2 runs did not finish"), 1, "1 of 2 runs did not finish\n", ""),
        (KeyboardInterrupt(), 130, "", ""),
        (KeyboardInterrupt("interrupted"), 130, "interrupted\n", ""),
        (BrokenPipeError(32, "Broken pipe"), 0, "", ""),
    ],
)
def test_every_error_has_its_exit_code(
    error: BaseException, code: int, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(raising(error)) == code
    assert capsys.readouterr() == (out, err)


def test_bugs_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_code_of(lambda: 1 // 0)


def test_a_closed_pipe_is_quiet() -> None:
    code = (
        "import sys\nfrom cl_bench.errors import exit_code_of\nsys.exit(exit_code_of(lambda: print('x' * 9**6) or 7))"
    )
    shell = f'{sys.executable} -c "{code}" | head -c 1; echo " ${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("x 0\n", "")


def test_did_you_mean_by_hand() -> None:
    assert did_you_mean("lr", ["optim.lr", "seed"]) == "did you mean 'optim.lr'? valid: optim.lr, seed"
    assert did_you_mean("zzz", ["b", "a", "c"], limit=2) == "valid: a, b, … (3 in all)"
    assert did_you_mean("x", []) == ""


# --- completion -------------------------------------------------------------------------------------------------------


def completed(*words: str) -> list[str]:
    """What a shell that breaks no words at '=' offers for the last word."""
    shell = ShellComplete(main.COMMANDS, {}, main.PROGRAM, main.COMPLETION_VARIABLE)
    return [str(item.value) for item in shell.get_completions(list(words[:-1]), words[-1])]


def test_commands_options_and_overrides_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "dear.yaml").touch()
    (tmp_path / "outputs" / "sweeps" / "mine").mkdir(parents=True)
    (tmp_path / "outputs" / "runs" / "my_run").mkdir(parents=True)
    assert completed("re") == ["retry", "report"]
    assert completed("report", "--wat") == ["--watch"]
    assert completed("report", "--crossing", "s") == ["sustained"]
    assert completed("sweep", "-m", "sweeps=de") == ["sweeps=dear", "sweeps=demo"]
    assert completed("sweep", "-m", "sweeps", "=", "de") == ["dear", "demo"]  # bash
    assert completed("sweep", "hydra/launcher=sl") == ["hydra/launcher=slurm"]
    assert completed("sweep", "curriculum=baseline,fixed_r") == ["curriculum=baseline,fixed_root"]
    assert completed("sweep", "optim.l") == ["optim.lr="]
    assert completed("sweep", "tune.th") == []
    assert completed("tune", "sweeps=demo", "tune.th") == ["tune.threshold="]
    assert completed("export", "m") == ["mine", "my_run"]


def test_presets_are_those_of_conf() -> None:
    folders = {p.parent.relative_to(ROOT / "conf").as_posix() for p in (ROOT / "conf").rglob("*/*.yaml")}
    assert {g for g in presets.GROUPS if g != "sweeps"} == folders - {"hydra/sweeper"}
    assert presets.choices("tracking") == ["none", "wandb_offline", "wandb_online"]
    assert presets.choices("optim.lr") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["completion", shell]) == 0
    assert f"{main.COMPLETION_VARIABLE}={shell}_complete" in capsys.readouterr().out


def test_completion_without_a_known_shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/csh")
    assert main.main(["completion"]) == 2
    assert capsys.readouterr().err == "error: $SHELL = csh: no completion for it; choose one of bash, zsh, fish\n"


def test_bash_completes_after_the_documented_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["completion", "--help"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("~/.bashrc"))
    script = f"""
        {line.split(maxsplit=1)[1]}
        COMP_WORDS=(cl-bench sweep -m sweeps = smo); COMP_CWORD=5
        _cl_bench_completion cl-bench; echo "${{COMPREPLY[*]}}"
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["bash", "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PATH": path}
    )
    assert (done.stdout, done.stderr) == ("smoke\n", "")
