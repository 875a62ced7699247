"""What a job can be asked for; what could end a line or become a command is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from apogee_batch.errors import UsageError
from apogee_batch.run.job_settings import (
    JobSettings,
    is_list_setting,
    is_variable_name,
    parse_memory,
    parse_walltime,
)

TEXTS = [
    "partition",
    "account",
    "qos",
    "gres",
    "constraint",
    "reservation",
    "nodelist",
    "exclude",
    "python",
    "local_directory",
    "resource_spec",
    "shebang",
    "parallel_environment",
]
LISTS = ["directives", "skip_directives", "prologue", "worker_args"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:30:00", 1800), ("100:00:01", 360001), ("2-00", 172800), ("1-02:03", 93780), ("1-02:03:04", 93784)],
)
def test_a_walltime_is_read(text: str, seconds: int) -> None:
    assert parse_walltime(text) == seconds
    assert JobSettings(walltime=text).walltime_s == seconds


@pytest.mark.parametrize(
    "text", ["30", "4:00", "1:60:00", "0:00:00", "", "-1", "1-", "4h", "04:00:00\n", "\u0664:00:00"]
)
def test_a_walltime_that_queue_systems_read_differently_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match=r"HH:MM:SS|no time"):
        JobSettings(walltime=text)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("16GB", 16 * 10**9),
        ("16G", 16 * 10**9),
        ("16 GiB", 2**34),
        ("1.5gib", 3 * 2**29),
        ("4000000000", None),
        ("4000000000B", 4 * 10**9),
    ],
)
def test_memory_is_counted_as_dask_counts_it(text: str, n_bytes: int | None) -> None:
    if n_bytes is None:
        with pytest.raises(ValueError, match="16GB"):
            parse_memory(text)
    else:
        assert JobSettings(memory=text).memory_bytes == n_bytes


def test_a_job_without_walltime_or_memory_says_so_where_it_is_needed() -> None:
    with pytest.raises(UsageError, match="--walltime"):
        _ = JobSettings().walltime_s
    with pytest.raises(UsageError, match="--memory"):
        _ = JobSettings().memory_bytes


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("constraint", "a&b|c*2"),
        ("constraint", "[rack1|rack2]"),
        ("constraint", "(a100&nvlink)|h100"),
        ("gres", "gpu:a100:2,shard:1"),
        ("gres", "gpu:2(S:0-1)"),
        ("account", "astro.survey-7_b"),
        ("partition", "gpu,preempt"),
        ("partition", "all.q@host"),
        ("nodelist", "n[1-4,7],gpu3"),
        ("resource_spec", "select=1:ncpus=4:mem=16gb:ngpus=1"),
        ("shebang", "#!/bin/bash -l"),
        ("shebang", "#!/usr/bin/env bash"),
        ("python", "/opt/my env/bin/python"),
        ("local_directory", "$SCRATCH/x"),
    ],
)
def test_what_queue_systems_allow_is_allowed(key: str, text: str) -> None:
    assert getattr(JobSettings.model_validate({key: text}), key) == text


@pytest.mark.parametrize("key", [*TEXTS, "walltime", "memory", "job_memory", "disk"])
@pytest.mark.parametrize("end", ["\n", "\r", "\0", "\x0b", "\x0c", "\x1b", "\x85", "\u2028", "\u2029", "\t"])
def test_no_setting_holds_a_control_character(key: str, end: str) -> None:
    good = {"walltime": "00:30:00", "shebang": "#!/bin/sh", "resource_spec": "a=1"}.get(key, "16GB")
    for text in (f"{good}{end}", f"{good}{end}touch canary", f"{end}{good}"):
        with pytest.raises(ValidationError) as caught:
            JobSettings.model_validate({key: text})
        assert caught.value.errors()[0]["loc"] == (key,)


@pytest.mark.parametrize("key", LISTS)
@pytest.mark.parametrize("text", ["a\nb", "a\0", "", "  "])
def test_no_line_holds_two_lines_or_none(key: str, text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        JobSettings.model_validate({key: ["fine", text]})
    assert caught.value.errors()[0]["loc"] == (key, 1)


@pytest.mark.parametrize("key", [key for key in TEXTS if key not in ("python", "local_directory")])
@pytest.mark.parametrize(
    "text", ["$(touch canary)", "`id`", "a b", "a;b", "a'b", 'a"b', "a\\b", "", "-x", "a$b", "a#b"]
)
def test_names_hold_what_names_hold(key: str, text: str) -> None:
    with pytest.raises(ValidationError):
        JobSettings.model_validate({key: text})


@given(st.text())
def test_a_text_is_accepted_whole_or_refused(text: str) -> None:
    for key in TEXTS:
        try:
            job = JobSettings.model_validate({key: text})
        except ValidationError:
            continue
        assert getattr(job, key) == text
        assert text.isprintable()
        assert not text.startswith("-")


def test_a_directive_is_written_without_its_prefix() -> None:
    with pytest.raises(ValidationError, match="without the leading #SBATCH"):
        JobSettings(directives=("#SBATCH --exclusive",))
    with pytest.raises(ValidationError, match="backslash"):
        JobSettings(directives=("--comment=a\\",))


@pytest.mark.parametrize(
    "word",
    [
        "--nthreads",
        "--nthreads=4",
        "--dashboard-address",
        "--no-nanny",
        "--host=0.0.0.0",
        "--tls-key",
        "--lifetime",
    ],
)
def test_options_of_the_worker_that_follow_from_settings_are_refused(word: str) -> None:
    with pytest.raises(ValidationError, match="other settings"):
        JobSettings(worker_args=(word, "4"))


def test_other_options_of_the_worker_are_allowed() -> None:
    words = ("--resources", "GPU=1", "--worker-port", "3000:3026")
    assert JobSettings(worker_args=words).worker_args == words


def test_each_process_has_a_core() -> None:
    with pytest.raises(ValidationError, match="4 processes need at least as many cores, not 1"):
        JobSettings(processes=4)


def test_lists_are_known() -> None:
    assert [key for key in JobSettings.model_fields if is_list_setting(key)] == LISTS
    assert not is_list_setting("nothing")
    assert is_variable_name("DASK_X__Y")
    assert not is_variable_name("A=B")
    assert not is_variable_name("A\n")
