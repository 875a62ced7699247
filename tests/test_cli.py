"""What a user types, and what comes back: an exit code and one clear line."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from apogee_batch import __version__, cli
from apogee_batch.cli import app

COMMANDS = (
    ["fetch-list"],
    ["ingest"],
    ["labels", "attach"],
    ["labels", "mdwarfs"],
    ["labels", "ysos"],
    ["select", "ysos"],
    ["train"],
    ["run-catalog"],
    ["status"],
    ["verify"],
    ["doctor"],
    ["validate"],
    ["report"],
    ["export"],
    ["describe"],
    ["model", "import"],
    ["model", "calibrate"],
    ["run-shard"],
    ["cluster", "show"],
    ["cluster", "test"],
    ["simulate"],
    ["demo"],
)

WITHOUT_CONFIG = (
    ["fetch-list"],
    ["labels", "mdwarfs"],
    ["labels", "ysos"],
    ["select", "ysos"],
)  # have nothing to do with a run


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["apogee-batch", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_has_an_example(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([*command, "--help"], monkeypatch) == 0
    told = capsys.readouterr().out
    assert f"Example:\n    apogee-batch {' '.join(command)}" in told
    assert "--config" in told or command in WITHOUT_CONFIG


def test_an_engine_that_cannot_be_used_is_told_before_anything_is_trained(
    labelled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run-catalog", str(labelled_store), "--out", str(tmp_path / "run"), "--cluster", "serial"]
    assert call([*words, "--device", "cpu", "--engine", "cuda"], monkeypatch) == 2
    assert "--engine cuda computes on cuda and not on cpu" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_every_command_is_known_here() -> None:
    names = [*_names(app)]
    for group in app.registered_groups:
        names += [[str(group.name), *words] for words in _names(group.typer_instance)]
    assert sorted(names) == sorted(COMMANDS)


def _names(group: typer.Typer) -> list[list[str]]:
    commands = [info for info in group.registered_commands if info.callback]
    return [[info.name or info.callback.__name__.replace("_", "-")] for info in commands]


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['x', 'run-catalog', '--help']\nfrom apogee_batch import cli\n" + (
        "try:\n cli.main()\nexcept SystemExit:\n pass\n"
        "heavy = ('torch', 'zarr', 'astropy', 'distributed', 'numpy', 'pydantic', 'pyarrow', 'rich')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_no_arguments_show_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([], monkeypatch) == 0
    assert "run-catalog" in capsys.readouterr().out
    assert call(["--version"], monkeypatch) == 0
    assert capsys.readouterr().out == f"apogee-batch {__version__}\n"


def cases(tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notstore").mkdir()
    (tmp_path / "notstore" / "x.txt").write_text("x")
    store = str(tmp_path / "s.zarr")
    return {
        "unknown option": (["ingest", "x", "--store", store, "--nope"], "--nope"),
        "unknown command": (["inject"], "inject"),
        "missing argument": (["train", "--out", "m"], "STORE"),
        "missing path": (["ingest", str(tmp_path / "nothing"), "--store", store], "nothing"),
        "empty folder": (["ingest", str(tmp_path / "empty"), "--store", store], "empty"),
        "no match": (["ingest", str(tmp_path / "*.fits"), "--store", store], "*.fits"),
        "no allstar": (
            ["ingest", str(tmp_path / "empty"), "--store", store, "--allstar", "no.fits"],
            "empty",
        ),
        "no such store": (["train", store, "--out", str(tmp_path / "m")], "no such store"),
        "not a store": (["run-catalog", str(tmp_path / "notstore"), "--out", "r"], "not a store"),
        "no run": (["status", str(tmp_path / "notstore")], "neither a run nor a store"),
        "no label table": (["labels", "attach", store], "store"),
        "no config": (["status", store, "--config", str(tmp_path / "c.toml")], "c.toml"),
        "bad value": (["run-catalog", store, "--out", "r", "--realizations", "1"], "realizations"),
        "bad cluster": (["run-catalog", store, "--out", "r", "--cluster", "cloud"], "cluster.kind"),
        "unknown site": (["cluster", "show", "--cluster-config", "nowhere"], "--cluster-config nowhere"),
        "no queue": (["cluster", "show"], "choose one of slurm,"),
        "no walltime": (["cluster", "show", "--cluster", "slurm", "--memory", "1GB"], "--walltime"),
        "bad job": (["cluster", "show", "--job", "cores"], "KEY=VALUE"),
        "job twice": (["cluster", "show", "--memory", "1GB", "--job", "memory=2GB"], "given twice"),
        "unknown job setting": (["cluster", "show", "--job", "colour=red"], "cluster.gpu.colour: unknown"),
        "open door": (["train", store, "--out", "m", "--no-tls"], "run code as you"),
        "no plan": (["run-shard", str(tmp_path / "plan.json"), "--index", "0"], "is no run"),
        "bad model": (["model", "import", str(tmp_path / "x.pt"), "--out", str(tmp_path / "m")], "x.pt"),
        "foreign demo folder": (["demo", str(tmp_path / "notstore")], "not a demo"),
    }


def test_wrong_use_is_one_clear_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, (arguments, said) in cases(tmp_path).items():
        code = call(arguments, monkeypatch)
        told = capsys.readouterr()
        assert code == 2, (name, told)
        assert told.err.startswith("error: "), (name, told)
        assert told.err.count("\n") == 1, (name, told)
        assert said in told.err, (name, told)


def test_a_label_table_without_the_right_columns_is_told(
    labelled_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("apogee_id,TEMPERATURE,logg,fe_h\n2M00000000+0000000,4000,4.5,0\n")
    assert call(["labels", "attach", str(labelled_store), "--payne", str(table)], monkeypatch) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(r"teff.*TEMPERATURE.*--map", told)
    assert call(["labels", "attach", str(labelled_store)], monkeypatch) == 2
    assert "--payne" in capsys.readouterr().err
    arguments = ["labels", "attach", str(labelled_store), "--payne", str(table), "--map", "teff"]
    assert call(arguments, monkeypatch) == 2
    assert "OURS=THEIRS" in capsys.readouterr().err
    arguments[-1] = "teff=TEMPERATURE"
    assert call(arguments, monkeypatch) == 2
    assert "none of the 1 labels" in capsys.readouterr().err


def test_an_interruption_has_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("apogee_batch.run.status.describe_status", interrupt)
    assert call(["status", str(tmp_path)], monkeypatch) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_disk_that_cannot_be_written_to_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "part"))

    monkeypatch.setattr("apogee_batch.run.status.describe_status", fail)
    assert call(["status", str(tmp_path)], monkeypatch) == 75
    told = capsys.readouterr().err
    assert told.startswith(f"error: {tmp_path / 'part'}: No space left on device; ")
    assert told.count("\n") == 1
    assert "free some space" in told


def test_the_whole_way_by_the_command_line(
    tmp_path: Path, tiny_recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(
        f"[training]\nrecipe = '{tiny_recipe}'\nthreads = 1\n"
        "[inference]\nrealizations = 2\n[cluster]\nkind = 'serial'\ndevice = 'cpu'\n"
    )
    config = ["--config", "run.toml"]
    tables = {"payne": "payne.fits", "mstar": "mstar.csv", "yso": "yso.parquet"}
    label_flags = [word for name, table in tables.items() for word in (f"--{name}", f"survey/labels/{table}")]
    steps = [
        ["simulate", "survey", "--stars", "40", "--seed", "3"],
        ["ingest", "survey/redux", "--store", "s.zarr", *config],
        ["labels", "attach", "s.zarr", *label_flags, *config],
        ["train", "s.zarr", "--out", "model1", *config],
        ["run-catalog", "s.zarr", "--model", "model1", "--out", "run2", *config],
        ["status", "run2"],
    ]
    for arguments in steps:
        assert call(arguments, monkeypatch) == 0, capsys.readouterr()
    told = capsys.readouterr().out
    assert "run2/catalog/catalog.parquet (40 stars" in told
    assert "published: 40 stars" in told


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "apogee_batch", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert done.stdout == f"apogee-batch {__version__}\n"
