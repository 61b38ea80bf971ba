"""``upres batch``: what a second run does, kills, two runs at once, files that crash decoders."""

import errno
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import numpy as np
import pytest
from PIL import Image

from tests.conftest import SOAK
from tests.forks import until
from upres.cli.journal import LOCK, NAME, Journal
from upres.errors import InputError, OutputError, ResourceError
from upres.hashing import host_id
from upres.imaging import isolation
from upres.imaging.isolation import Decoder
from upres.version import __version__ as upres_version

FAST = ("-s", 2, "-m", "bicubic")


@pytest.fixture
def folder(tmp_path):
    """Three small pictures in a tree."""
    rng = np.random.default_rng(0)
    for index, name in enumerate(("a.png", "b/c.jpg", "b/d.png")):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        made = rng.integers(0, 256, (12 + index, 16, 3), np.uint8)
        Image.fromarray(made).save(path)
    return tmp_path / "in"


def contents(place):
    """Hashes of all results."""
    return {
        p.relative_to(place).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(place.rglob("*"))
        if p.is_file() and not p.name.startswith(".upres-")
    }


def summary(done):
    return json.loads(done.stdout.decode().splitlines()[-1])


def counts(done, *names):
    found = summary(done)
    return tuple(found[name] for name in names)


def test_a_second_run_does_what_is_missing_or_changed(upres, folder, tmp_path):
    run = ("batch", "in", "-o", "out", *FAST, "--json")
    assert counts(upres(*run), "done", "unchanged") == (3, 0)
    first = contents(tmp_path / "out")
    assert set(first) == {"a.png", "b/c.jpg", "b/d.png"}
    assert counts(upres(*run), "done", "unchanged") == (0, 3)
    (tmp_path / "out" / "b" / "d.png").unlink()
    assert counts(upres(*run), "done", "unchanged") == (1, 2)
    assert contents(tmp_path / "out") == first
    # Touched, but the same bytes.
    os.utime(folder / "a.png", (1, 1))
    assert counts(upres(*run), "done", "unchanged") == (0, 3)
    shutil.copy(folder / "b" / "d.png", folder / "a.png")
    assert counts(upres(*run), "done", "unchanged") == (1, 2)
    assert contents(tmp_path / "out")["a.png"] == first["b/d.png"]


def test_other_settings_make_everything_anew(upres, folder, tmp_path):
    assert counts(upres("batch", "in", "-o", "out", *FAST, "--json"), "done") == (3,)
    again = upres("batch", "in", "-o", "out", "-s", 3, "-m", "bicubic", "--json")
    assert counts(again, "done", "unchanged") == (3, 0)
    with Image.open(tmp_path / "out" / "a.png") as made:
        assert made.size == (48, 36)


def test_results_that_are_not_ours_are_left_alone(upres, folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"precious")
    done = upres("batch", "in", "-o", "out", *FAST, "--json")
    assert counts(done, "done", "not_ours") == (2, 1)
    assert b"out/a.png exists but was not made by upres from in/a.png; left alone" in done.stderr
    assert (tmp_path / "out" / "a.png").read_bytes() == b"precious"
    # So is one of ours that somebody changed.
    (tmp_path / "out" / "b" / "c.jpg").write_bytes(b"retouched")
    done = upres("batch", "in", "-o", "out", "-s", 3, "-m", "bicubic", "--json")
    assert counts(done, "done", "not_ours") == (1, 2)
    done = upres("batch", "in", "-o", "out", *FAST, "--json", "--overwrite")
    assert counts(done, "done", "not_ours") == (3, 0)


def test_failures_are_tried_again_when_asked_or_changed(upres, folder, tmp_path):
    good = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(good[:200])
    run = ("batch", "in", "-o", "out", *FAST, "--json")
    done = upres(*run)
    assert done.returncode == 7
    assert counts(done, "done", "failed") == (2, 1)
    done = upres(*run)
    assert done.returncode == 7
    assert counts(done, "done", "failed", "failed_before") == (0, 0, 1)
    assert b"--retry-failed tries them again" in done.stderr
    assert counts(upres(*run, "--retry-failed"), "failed", "failed_before") == (1, 0)
    (folder / "a.png").write_bytes(good)
    done = upres(*run)
    assert done.returncode == 0
    assert counts(done, "done", "failed_before") == (1, 0)


def test_two_folders_do_not_replace_each_others_results(upres, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    shutil.copy(folder / "b" / "d.png", tmp_path / "other" / "a.png")
    assert upres("batch", "in", "-o", "out", *FAST).returncode == 0
    first = contents(tmp_path / "out")
    done = upres("batch", "other", "-o", "out", *FAST, "--json")
    # The same pictures from another place are done; another one of that name is not.
    assert counts(done, "done", "unchanged", "not_ours") == (0, 2, 1)
    assert b"out/a.png exists but was not made by upres from other/a.png" in done.stderr
    assert contents(tmp_path / "out") == first


def test_what_stands_where_a_picture_failed_is_not_replaced(upres, folder, tmp_path):
    good = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(b"nothing")
    assert upres("batch", "in", "-o", "out", *FAST).returncode == 7
    (tmp_path / "out" / "a.png").write_bytes(b"made by hand")
    retried = upres("batch", "in", "-o", "out", *FAST, "--retry-failed", "--json")
    assert counts(retried, "failed", "not_ours") == (0, 1)
    (folder / "a.png").write_bytes(good)
    done = upres("batch", "in", "-o", "out", "-s", 3, "-m", "bicubic", "--json")
    assert counts(done, "done", "not_ours") == (2, 1)
    assert (tmp_path / "out" / "a.png").read_bytes() == b"made by hand"


def test_copied_results_are_still_ours(upres, folder, tmp_path):
    assert upres("batch", "in", "-o", "out", *FAST).returncode == 0
    for path in (tmp_path / "out").rglob("*.*"):
        os.utime(path, (1, 1))
    run = ("batch", "in", "-o", "out", *FAST, "--json")
    assert counts(upres(*run), "done", "unchanged") == (0, 3)
    shutil.copy(folder / "b" / "d.png", folder / "a.png")
    assert counts(upres(*run), "done", "unchanged", "not_ours") == (1, 2, 0)


def test_another_limit_tries_what_failed_by_it(upres, folder):
    run = ("batch", "in", "-o", "out", *FAST, "--json", "--max-pixels")
    assert counts(upres(*run, "200"), "done", "failed") == (1, 2)
    assert counts(upres(*run, "200"), "done", "failed_before") == (0, 2)
    assert counts(upres(*run, "1000"), "done", "unchanged") == (2, 1)


def test_the_first_failure_can_end_it(upres, folder, tmp_path):
    (folder / "a.png").write_bytes(b"nothing")
    done = upres("batch", "in", "-o", "out", *FAST, "--fail-fast")
    assert done.returncode == 7
    assert b"in/a.png failed; the rest was not tried" in done.stderr
    assert contents(tmp_path / "out") == {}


FULL = """
import errno
from upres.imaging import writer
def full(path, *more, **options):
    with writer.os_errors(path):
        raise OSError(errno.ENOSPC, "No space left on device")
writer.write_file = full
"""
NOT_DECODED = """
from upres.imaging import reader
free = reader.free_main_memory
def once():
    reader.free_main_memory = free
    return 0
reader.free_main_memory = once
"""
NO_ROOM_FOR_THE_RESULT = """
from upres.cli import plan
free = plan.free_main_memory
def once():
    plan.free_main_memory = free
    return 0
plan.free_main_memory = once
"""
OUT_OF_MEMORY = """
from upres.imaging import encoder
encode = encoder.encode
def once(*arguments):
    encoder.encode = encode
    raise MemoryError
encoder.encode = once
"""


def test_a_full_disk_ends_it_and_is_no_failure_of_the_pictures(upres, folder, tmp_path, patched):
    run = ("batch", "in", "-o", "out", *FAST, "--json")
    done = upres(*run, env=patched(FULL))
    assert done.returncode == 6
    assert b"upres: in/a.png: there is no room on the disk for out/a.png" in done.stderr
    assert done.stderr.endswith(
        b"upres: the disk is full; free some space, and repeat the command\n"
    )
    assert counts(done, "done", "failed") == (0, 1)
    assert counts(upres(*run), "done", "failed_before") == (3, 0)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (OUT_OF_MEMORY, b"in/a.png: memory is full"),
        (NOT_DECODED, b"in/a.png takes 0.0 GiB of memory decoded, 0.0 GiB are free"),
        (NO_ROOM_FOR_THE_RESULT, b"in/a.png: the result needs 0.0 GiB of memory, 0.0 GiB are free"),
    ],
)
def test_what_failed_for_want_of_memory_is_tried_again(
    upres, folder, tmp_path, patched, code, words
):
    run = ("batch", "in", "-o", "out", *FAST, "--json")
    done = upres(*run, env=patched(code))
    assert done.returncode == 7
    assert words in done.stderr
    assert counts(done, "done", "failed") == (2, 1)
    assert set(contents(tmp_path / "out")) == {"b/c.jpg", "b/d.png"}
    assert counts(upres(*run), "done", "unchanged") == (1, 2)


@pytest.mark.parametrize(
    ("others", "again"),
    [
        (("-q", 50), 3),
        (("--strip-metadata",), 3),
        (("--background", "black"), 3),
        (("-m", "lanczos"), 3),
        (("--threads", 1), 0),
        (("--tile", 16), 0),
        (("--max-memory", "2G"), 0),
    ],
)
def test_what_results_depend_on_makes_them_anew(upres, folder, others, again):
    network = ("-m", "edsr-light") if "--tile" in others else ()
    run = ("batch", "in", "-o", "out", *FAST, *network, "--json")
    assert counts(upres(*run), "done") == (3,)
    done = upres(*run, *others)
    assert counts(done, "done", "unchanged") == (again, 3 - again), done.stderr
    assert (b"note: results of earlier runs that are made again: 3" in done.stderr) == bool(again)


def test_existing_results_can_be_left(upres, folder, tmp_path):
    run = ("batch", "in", "-o", "out", *FAST, "--json")
    assert upres(*run).returncode == 0
    first = contents(tmp_path / "out")
    (tmp_path / "out" / "a.png").unlink()
    done = upres(*run, "-m", "lanczos", "--ignore-existing")
    assert counts(done, "done", "unchanged") == (1, 2)
    now = contents(tmp_path / "out")
    assert {name for name in now if now[name] != first[name]} == {"a.png"}
    assert upres(*run, "--ignore-existing", "--overwrite").returncode == 2


def test_the_journal_says_how_results_were_made(upres, folder, tmp_path):
    weights = "src/upres/weights/bundled/edsr-light-x2.safetensors"
    for _ in range(2):
        assert upres("batch", "in", "-o", "out", "-s", 2, "-m", "edsr-light").returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / NAME).read_text().splitlines()]
    (how,) = [line for line in lines if "target" not in line]
    assert (how["model"], how["scale"], how["version"]) == ("edsr-light", 2, upres_version)
    data = (Path(__file__).parents[1] / weights).read_bytes()
    assert hashlib.sha256(data).hexdigest() in how["weights"]
    assert {line["settings"] for line in lines} == {how["settings"]}


def test_a_dry_run_says_how_long_all_of_it_takes(upres, folder):
    done = upres("batch", "in", "-s", 2, "-m", "edsr-light", "--dry-run", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    each = [event["estimated_seconds"] for event in events if event["event"] == "planned"]
    assert len(each) == 3
    assert events[-1]["estimated_seconds"] == pytest.approx(sum(each), abs=0.05)
    assert b"3 pictures: 3 to do, about 1 minute\n" in done.stderr


def test_folders_for_results_are_named_after_the_pictures(upres, folder, tmp_path):
    assert upres("batch", ".", *FAST, cwd=folder).returncode == 0
    assert len(contents(tmp_path / "in-x2")) == 3
    assert upres("batch", "in", "--long-side", 40, "-m", "bicubic").returncode == 0
    assert len(contents(tmp_path / "in-upscaled")) == 3


def test_a_folder_that_cannot_be_looked_into_is_a_failure(upres, folder, tmp_path, patched):
    env = patched(
        "import os\n"
        "look = os.scandir\n"
        "def refusing(path):\n"
        "    if str(path).endswith('/b'):\n"
        "        raise PermissionError(13, 'Permission denied', path)\n"
        "    return look(path)\n"
        "os.scandir = refusing\n"
    )
    done = upres("batch", "in", "-o", "out", *FAST, "--json", env=env)
    assert done.returncode == 7
    assert b"in/b cannot be read (Permission denied)" in done.stderr
    assert counts(done, "done", "unread_folders") == (1, 1)


HARMFUL = """
import os, time
from PIL import Image
look = Image.open
def opened(file, *more, **options):
    if "crash" in str(file):
        os.abort()
    while "hang" in str(file):
        open("hangs", "w").close()
        time.sleep(1)
    return look(file, *more, **options)
Image.open = opened
"""


def test_a_file_that_crashes_the_decoder_fails_alone(upres, folder, tmp_path, patched):
    shutil.copy(folder / "a.png", folder / "crash.png")
    done = upres("batch", "in", "-o", "out", *FAST, "--json", env=patched(HARMFUL))
    assert done.returncode == 7
    assert b"in/crash.png made its decoder crash (exit code -6)" in done.stderr
    assert counts(done, "done", "failed") == (3, 1)


def test_a_file_that_hangs_does_not_keep_from_interrupting(start, folder, tmp_path, patched):
    shutil.copy(folder / "a.png", folder / "hang.png")
    process = start("batch", "in", "-o", "out", *FAST, env=patched(HARMFUL))
    until((tmp_path / "hangs").exists, process)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130


def test_what_was_made_before_the_first_failure_counts(upres, folder, tmp_path):
    (folder / "b" / "d.png").write_bytes(b"nothing")
    run = ("batch", "in", "-o", "out", *FAST, "--fail-fast", "--json")
    assert counts(upres(*run), "done", "failed") == (2, 1)
    assert len(contents(tmp_path / "out")) == 2
    assert counts(upres(*run), "done", "unchanged", "failed_before") == (0, 2, 1)


def test_patterns_choose(upres, folder, tmp_path):
    done = upres("batch", "in", "-o", "one", *FAST, "--include", "*.png", "--exclude", "b/*")
    assert done.returncode == 0, done.stderr
    assert set(contents(tmp_path / "one")) == {"a.png"}
    (folder / "a.png").rename(folder / "IMG_1.PNG")
    done = upres("batch", "in", "-o", "two", *FAST, "--include", "img*.png", "--exclude", "B*")
    assert done.returncode == 0, done.stderr
    assert set(contents(tmp_path / "two")) == {"IMG_1.PNG"}


def test_another_format_and_names_that_collide(upres, folder, tmp_path):
    done = upres("batch", "in", "-o", "out", *FAST, "--format", "webp")
    assert done.returncode == 0, done.stderr
    assert set(contents(tmp_path / "out")) == {"a.webp", "b/c.webp", "b/d.webp"}
    shutil.copy(folder / "a.png", folder / "A.bmp")
    done = upres("batch", "in", "-o", "other", *FAST, "--format", "webp")
    assert done.returncode == 4
    assert b"would both be written to" in done.stderr
    assert not (tmp_path / "other").exists()
    assert upres("batch", "in", "--format", "doc").returncode == 2
    assert upres("batch", "in", "-o", "").returncode == 2
    # There and back: each format's results are known.
    assert upres("batch", "in", "-o", "out", *FAST, "--exclude", "*.bmp").returncode == 0
    back = upres("batch", "in", "-o", "out", *FAST, "--format", "webp", "--exclude", "A*", "--json")
    assert counts(back, "done", "unchanged", "not_ours") == (0, 3, 0)


def test_results_among_the_pictures_are_refused(upres, folder, tmp_path):
    (folder / "in").mkdir()
    for name in ("a.png", "z.png"):
        shutil.copy(folder / "b" / "d.png", folder / "in" / name)
    before = contents(folder)
    for chosen, words in (
        ("a", b"over in/a.png, which"),
        ("z", b"to in/z.png, among the pictures"),
    ):
        more = ("--overwrite", "--include", f"*{chosen}.png")
        done = upres("batch", "in", "-o", ".", *FAST, *more)
        assert done.returncode == 4
        assert words in done.stderr
    assert contents(folder) == before
    two = upres("in/a.png", "in/in/a.png", "-o", "in", *FAST, "--overwrite")
    assert two.returncode == 4
    assert contents(folder) == before


def test_a_result_where_a_folder_should_be_fails_alone(upres, folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b").write_bytes(b"a file")
    for more in (("--dry-run",), ()):
        done = upres("batch", "in", "-o", "out", *FAST, "--json", *more)
        assert done.returncode == 7
        assert counts(done, "failed") == (2,)
        assert b"out/b/c.jpg cannot be written (Not a directory)" in done.stderr
    assert (tmp_path / "out" / "a.png").is_file()


def test_a_picture_that_is_gone_is_no_traceback(upres, folder, tmp_path):
    (folder / "link.png").symlink_to(folder / "a.png")
    run = ("batch", "in", "-o", "out", *FAST, "--json")
    assert counts(upres(*run), "done") == (4,)
    (folder / "a.png").unlink()
    done = upres(*run)
    assert done.returncode == 7
    assert counts(done, "failed", "unchanged") == (1, 2)
    (tmp_path / "gone-x2.png").touch()
    assert upres("gone.png", *FAST, "--overwrite").returncode == 3


def test_results_that_are_taken_away_at_once_end_nothing(start, folder, tmp_path):
    reads, writes = os.pipe()
    process = start("batch", "in", "-o", "out", *FAST, stdout=writes)
    os.close(writes)
    with os.fdopen(reads) as names:
        for name in names:
            (tmp_path / name.strip()).unlink()
    assert process.wait(60) == 0, process.err


def test_a_dry_run_writes_nothing(upres, folder, tmp_path):
    done = upres("batch", "in", "-o", "out", *FAST, "--dry-run", "--json")
    assert counts(done, "planned") == (3,)
    assert not (tmp_path / "out").exists()


def test_loops_of_links_and_the_folder_of_results_inside(upres, folder, tmp_path):
    (folder / "b" / "again").symlink_to(folder)
    (folder / "link.png").symlink_to(folder / "a.png")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    for _ in range(2):
        done = upres("batch", "in", "-o", "in/large", *FAST, "--json")
    assert set(contents(folder / "large")) == {"a.png", "b/c.jpg", "b/d.png", "link.png"}
    assert summary(done)["failed_before"] == 1


# Kills


def many(place, count):
    rng = np.random.default_rng(1)
    place.mkdir()
    for index in range(count):
        made = rng.integers(0, 256, (24, 24 + index % 5, 3), np.uint8)
        Image.fromarray(made).save(place / f"{index:03}.png")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_at_any_moment_the_next_run_completes(upres, start, tmp_path):
    many(tmp_path / "in", 60)
    whole = upres("batch", "in", "-o", "whole", *FAST)
    assert whole.returncode == 0, whole.stderr
    wanted = contents(tmp_path / "whole")
    assert len(wanted) == 60
    generator = random.Random(3)
    for _ in range(50 if SOAK else 3):
        there = len(list((tmp_path / "out").glob("*.png")))
        if there > 30:
            shutil.rmtree(tmp_path / "out")
            there = 0
        process = start("batch", "in", "-o", "out", *FAST)
        # At work, and at any moment of it.
        until(lambda there=there: len(list((tmp_path / "out").glob("*.png"))) > there, process)
        time.sleep(generator.uniform(0, 0.05))
        process.kill()
        process.wait()
        found = contents(tmp_path / "out")
        assert there < len(found)
        assert found.items() <= wanted.items()  # never half of one
    done = upres("batch", "in", "-o", "out", *FAST, "--json")
    assert done.returncode == 0, done.stderr
    assert summary(done)["not_ours"] == 0
    assert contents(tmp_path / "out") == wanted
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_second_run_at_the_same_time_is_refused(upres, folder, tmp_path):
    (tmp_path / "out").mkdir()
    with filelock.FileLock(tmp_path / "out" / LOCK):
        done = upres("batch", "in", "-o", "out", *FAST)
    assert done.returncode == 4
    assert b"another upres is already working in out; wait for it" in done.stderr
    assert contents(tmp_path / "out") == {}


def test_interrupted_it_goes_on(tmp_path, start, upres):
    many(tmp_path / "in", 40)
    large = np.random.default_rng(0).integers(0, 256, (3000, 3000, 3), np.uint8)
    Image.fromarray(large).save(tmp_path / "in" / "006.png", compress_level=0)
    process = start("batch", "in", "-o", "out", *FAST)
    until(lambda: len(list((tmp_path / "out").glob("0*.png"))) >= 5, process)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    made = len(contents(tmp_path / "out"))
    assert 5 <= made < 40
    shutil.copy(tmp_path / "in" / "005.png", tmp_path / "in" / "006.png")
    done = upres("batch", "in", "-o", "out", *FAST, "--json")
    assert counts(done, "done", "unchanged") == (40 - made, made)


# The journal


@pytest.fixture
def places(tmp_path):
    """A picture, where its result is made ready, and where that belongs."""
    source, part, target = (tmp_path / name for name in ("x.png", "part", "y.png"))
    source.write_bytes(b"picture")
    part.write_bytes(b"result")
    return source, part, target


def test_half_a_line_is_no_line(tmp_path):
    (tmp_path / "x.png").write_bytes(b"x")
    x = tmp_path / "x.png"
    with Journal(tmp_path, "s", source=tmp_path) as journal:
        journal.begin("x.png", x, x, x)
        journal.end("x.png", x, x, None)
    with (tmp_path / NAME).open("a") as file:
        file.write('{"state": "done", "source": "y.p')
    with Journal(tmp_path, "s", source=tmp_path) as journal:
        assert set(journal.entries) == {"x.png"}
        assert journal.todo("x.png", x, x) == "done"
        journal.begin("y.png", x, tmp_path / "y.png", x)
        journal.end("y.png", x, tmp_path / "y.png", "failed")
    # Nor does it swallow the next, or do words of others.
    with (tmp_path / NAME).open("a") as file:
        file.write("7\n[]\n" + "[" * 10_000 + '\n{"settings": []}\n')
        file.write((tmp_path / NAME).read_text().splitlines()[0].replace('"x.png"', "[]") + "\n")
    with Journal(tmp_path, "s", source=tmp_path) as journal:
        assert set(journal.entries) == {"x.png", "y.png"}


def test_what_a_killed_run_left_is_known_by_its_contents(places, tmp_path):
    """Killed before or after the result took its place, and where something else came instead."""
    source, part, target = places
    with Journal(tmp_path, "s", source=tmp_path) as journal:
        journal.begin("x.png", source, target, part)
    for there, todo in ((None, "do"), (b"result", "done"), (b"drawing", "foreign")):
        if there is not None:
            target.write_bytes(there)
        with Journal(tmp_path, "s", source=tmp_path) as journal:
            assert journal.todo("x.png", source, target) == todo


def test_an_old_result_that_a_killed_run_would_have_replaced_is_ours(places, tmp_path):
    source, part, target = places
    target.write_bytes(b"old result")
    with Journal(tmp_path, "s", source=tmp_path) as journal:
        journal.begin("x.png", source, target, part)
    with Journal(tmp_path, "s", source=tmp_path) as journal:
        assert journal.todo("x.png", source, target) == "redo"


def test_what_is_changed_while_a_run_works_is_left_alone(places, tmp_path):
    source, part, target = places
    with Journal(tmp_path, "s", source=tmp_path) as journal:
        journal.begin("x.png", source, target, part)
        target.write_bytes(b"result")
        journal.end("x.png", source, target, None)
    with Journal(tmp_path, "other", source=tmp_path) as journal:
        assert journal.todo("x.png", source, target) == "redo"
        target.write_bytes(b"retouched")
        with pytest.raises(OutputError, match="changed while this run worked"):
            journal.begin("x.png", source, target, part, replaces=True)
        journal.end("x.png", source, target, "changed")
    for settings in ("s", "other"):
        with Journal(tmp_path, settings, source=tmp_path) as journal:
            assert journal.todo("x.png", source, target) == "foreign"


def test_a_failure_to_tell_of_a_result_leaves_the_result(places, tmp_path):
    source, part, target = places
    with Journal(tmp_path, "s", source=tmp_path) as journal:
        journal.begin("x.png", source, target, part)
        part.replace(target)
        journal.end("x.png", source, target, "standard output cannot be written")
        assert journal.todo("x.png", source, target) == "done"


def test_a_pipe_is_never_waited_for(tmp_path):
    source, target = tmp_path / "x.png", tmp_path / "y.png"
    source.touch()
    with Journal(tmp_path, "s", source=tmp_path) as journal:
        journal.see("x.png", source, target)
        journal.end("x.png", source, target, "is empty")
    source.unlink()
    os.mkfifo(source)
    with Journal(tmp_path, "s", source=tmp_path) as journal:
        assert journal.todo("x.png", source, target) == "do"


def test_a_journal_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / NAME).symlink_to(tmp_path / "nowhere" / "x")
    with pytest.raises(OutputError, match="cannot be written"):
        Journal(tmp_path, "s", source=tmp_path)


def test_a_picture_that_changes_while_it_is_read_is_done_again(tmp_path):
    source, target = tmp_path / "x.png", tmp_path / "out.png"
    source.write_bytes(b"before")
    with Journal(tmp_path, "s", source=tmp_path) as journal:
        journal.see("x.png", source, target)
        source.write_bytes(b"behind")
        os.utime(source, (1, 1))
        target.write_bytes(b"made from what was before")
        journal.begin("x.png", source, target, target)
        journal.end("x.png", source, target, None)
        assert journal.todo("x.png", source, target) == "redo"


def test_what_another_process_is_writing_stays(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here, there = host_id(), f"{int(host_id(), 16) ^ 1:08x}"
    makers = ((os.getpid(), here), (gone.pid, here), (gone.pid, there))
    mine, theirs, elsewhere = (tmp_path / f".upres-{pid}-{at}-ab.part" for pid, at in makers)
    for part in (mine, theirs, elsewhere):
        part.touch()
    with Journal(tmp_path, "s", source=tmp_path):
        assert (mine.exists(), theirs.exists(), elsewhere.exists()) == (True, False, True)


def test_a_journal_belongs_to_one_run(tmp_path):
    with (
        Journal(tmp_path, "s", source=tmp_path),
        pytest.raises(OutputError, match="another upres is already working"),
    ):
        Journal(tmp_path, "s", source=tmp_path)
    Journal(tmp_path, "s", source=tmp_path).__exit__()


PEAKS = """
from upres.imaging import isolation
end = isolation.Decoder._end
def told(decoder):
    with open("peaks", "a") as file:
        for process in ("self", decoder._process.pid):
            status = open(f"/proc/{process}/status").read().splitlines()
            print(*(line.split()[1] for line in status if line.startswith("VmHWM")), file=file)
    return end(decoder)
isolation.Decoder._end = told
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel")
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path, photo):
    """The peaks of real processes and of their decoders."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(PEAKS)
    peaks = []
    for count in (20, 1000 if SOAK else 150):
        place = tmp_path / str(count)
        place.mkdir()
        Image.fromarray(photo[:160, :224]).save(place / "0.png")
        for i in range(1, count):
            shutil.copy(place / "0.png", place / f"{i}.png")
        command = [sys.executable, "-m", "upres", "batch", place, "-o", tmp_path / f"out{count}"]
        model = ("-s", "2", "-m", "edsr-light", "--quiet")
        env = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "CUDA_VISIBLE_DEVICES": ""}
        env |= {"MALLOC_ARENA_MAX": "1"}  # heaps of threads hold on by chance
        run = [*map(str, command), *model]
        subprocess.run(run, cwd=tmp_path, env=env, check=True, timeout=600)
        assert len(list((tmp_path / f"out{count}").glob("*.png"))) == count
        told = tmp_path / "peaks"
        peaks.append([int(line) for line in told.read_text().split()])
        told.unlink()
    assert len(peaks[0]) == len(peaks[1]) == 2
    # A result that is kept takes 430 kB; one of each picture would be 56 MB.
    for few, many in zip(*peaks, strict=True):
        assert many < few + 30_000  # kB


def test_what_a_run_that_ended_early_did_not_try_is_counted(upres, folder):
    (folder / "a.png").write_bytes(b"nothing")
    done = upres("batch", "in", "-o", "out", *FAST, "--fail-fast", "--json")
    assert counts(done, "done", "failed", "unfinished", "pictures") == (0, 1, 2, 3)
    done = upres("batch", "in", "-o", "other", "-s", "2", "-m", "edsr-light", "--device", "cuda")
    assert b"3 pictures: 3 not finished" in done.stderr


def test_an_earlier_runs_results_are_not_enlarged_again(upres, folder):
    run = ("batch", "in", "-m", "bicubic", "--json")
    assert counts(upres(*run, "-s", 2, "-o", "in/x2"), "done") == (3,)
    assert counts(upres(*run, "-s", 3, "-o", "in/x3"), "done", "pictures") == (3, 3)


# Files that are made to harm


def crash(path, **_):
    if "crash" in Path(path).name:
        os.abort()
    if "hang" in Path(path).name:
        time.sleep(60)
    if "killed" in Path(path).name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "greedy" in Path(path).name:
        # Less than the machine has, and more than the share of it that one picture may take.
        np.empty(int(0.9 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")), np.uint8)
    raise InputError(f"{path} is fine", "")


def serve_crashing(pipe):
    """The decoder's process with a reader that does what the file's name says."""
    isolation.read_picture = crash
    isolation._serve(pipe)  # of this new process, as it always is


@pytest.fixture
def harmful(monkeypatch):
    monkeypatch.setattr(isolation, "_serve", serve_crashing)


def test_files_that_crash_hang_or_take_everything_fail_alone(harmful):
    with Decoder() as decoder:
        for name, error, words in (
            ("crash.png", InputError, "made its decoder crash"),
            ("good.png", InputError, "good.png is fine"),
            ("greedy.png", InputError, "more memory than one picture"),
            ("killed.png", ResourceError, "most likely as memory was full"),
            ("hang.png", InputError, "not decoded within 1 s"),
            ("good.png", InputError, "good.png is fine"),
        ):
            decoder.timeout = 1 if "hang" in name else 60
            with pytest.raises(error, match=words):
                decoder.read(Path(name), max_pixels=10, frames=True)


def serve_as_on_macos(pipe):
    """Where no limit on addresses can be set."""
    import resource

    def refuse(*_):
        raise ValueError("current limit exceeds maximum limit")

    resource.setrlimit = refuse
    isolation._serve(pipe)


def test_a_limit_that_a_system_does_not_take_is_done_without(folder, monkeypatch):
    monkeypatch.setattr(isolation, "_serve", serve_as_on_macos)
    with Decoder() as decoder:
        assert decoder.read(folder / "a.png", max_pixels=10**6, frames=True).pixels.size > 0


def test_a_file_that_hangs_is_given_up_when_asked(harmful):
    with Decoder() as decoder, ThreadPoolExecutor(1) as other:
        with pytest.raises(InputError, match="is fine"):
            decoder.read(Path("good.png"), max_pixels=10, frames=True)
        begun = time.monotonic()
        reading = other.submit(decoder.read, Path("hang.png"), max_pixels=10, frames=True)
        time.sleep(0.2)
        decoder.interrupt()
        with pytest.raises(InputError, match="made its decoder crash"):
            reading.result()
        with pytest.raises(InputError, match="made its decoder crash"):
            decoder.read(Path("hang.png"), max_pixels=10, frames=True)
        assert time.monotonic() - begun < 50


def test_large_files_are_not_opened_outside_the_decoder_either(upres, folder, patched):
    """``--max-memory`` makes small ones count as large."""
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    (folder / "e.heic").write_bytes(head + bytes(100_000))
    env = patched(
        "import os\nfrom upres.imaging import reader\nreader.open_heic = lambda *_: os._exit(3)\n"
    )
    done = upres("batch", "in", "-o", "out", *FAST, "--max-memory", "1G", "--json", env=env)
    assert done.returncode == 7, done.stderr
    assert b"e.heic made its decoder crash (exit code 3)" in done.stderr
    assert counts(done, "done", "failed") == (3, 1)


def test_half_an_answer_is_a_crash(tmp_path):
    decoder = Decoder()
    decoder._started()
    ours, theirs = multiprocessing.Pipe()
    decoder._pipe = ours
    os.write(theirs.fileno(), (100).to_bytes(4, "big") + b"half")
    theirs.close()
    with decoder, pytest.raises(InputError, match="made its decoder crash"):
        decoder.read(tmp_path / "x.png", max_pixels=10, frames=True)


def test_a_decoder_that_cannot_be_started_is_one_line(tmp_path, monkeypatch):
    def full(self):
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", full)
    with Decoder() as decoder, pytest.raises(ResourceError, match="no process can be started"):
        decoder.read(tmp_path / "a.png", max_pixels=10, frames=True)


def test_real_files_come_through_whole(folder):
    from upres.imaging.reader import read_picture

    with Decoder() as decoder:
        for path in (folder / "a.png", folder / "b" / "c.jpg"):
            made = decoder.read(path, max_pixels=10**6, frames=True)
            wanted = read_picture(path)
            np.testing.assert_array_equal(made.pixels, wanted.pixels)
            assert made.format == wanted.format
        with pytest.raises(InputError, match="over the limit"):
            decoder.read(folder / "a.png", max_pixels=10, frames=True)
