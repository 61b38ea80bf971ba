"""The scripts that figures were made with still run."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from tests.pictures import save
from tests.test_added import TRAINING
from upres.model import build
from upres.weights.facts import ModelFacts
from upres.weights.header import read_facts, read_training

SCRIPTS = sorted((Path(__file__).parent.parent / "benchmarks").glob("*.py"))


@pytest.fixture
def script(monkeypatch):
    """Run one, in this process."""

    def run(name, *arguments):
        (path,) = (one for one in SCRIPTS if one.stem == name)
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        runpy.run_path(str(path), run_name="__main__")

    return run


@pytest.mark.parametrize("name", [path.stem for path in SCRIPTS])
def test_every_script_says_how_it_is_used(script, capsys, name):
    with pytest.raises(SystemExit) as ended:
        script(name, "--help")
    assert ended.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_tiles_are_compared_with_the_whole(script, tmp_path):
    small = ("--channels", 4, "--size", 70, 40, "--tiles", 16, "--scale", 2, "--rounds", 2)
    script("tiling", *small, "--json", tmp_path / "out.json")
    told = json.loads((tmp_path / "out.json").read_text())
    assert {what: len(times) for what, times in told["x2"].items()} == {
        "untiled": 2, "default tile": 2, "tile 16": 2
    }  # fmt: skip


def test_training_is_compared_with_the_usual_loop(script, tmp_path, photo, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 0)  # no processes that decode
    save(tmp_path / "pictures/a.png", photo[:64, :64])
    small = ("--blocks", 1, "--channels", 4, "--batch", 2, "--patch", 8, "--rounds", 2)
    where = ("--data", tmp_path / "pictures", "--json", tmp_path / "out.json")
    script("training", *small, "--steps", 1, *where)
    told = json.loads((tmp_path / "out.json").read_text())
    assert len(told["upres"]["all"]) == len(told["usual"]["all"]) == 2
    assert told["ratio"] == pytest.approx(
        told["usual"]["ms_per_step"] / told["upres"]["ms_per_step"]
    )


def test_a_runs_result_becomes_a_bundled_file(script, tmp_path, photo, capsys):
    for name, count in (("Set5", 5), ("Set14", 14)):
        for i in range(count):
            save(tmp_path / name / "HR" / f"{i}.png", photo[8 * i : 8 * i + 64, :64])
    facts = ModelFacts(
        name="mine",
        architecture="edsr",
        numbers=(("blocks", 1), ("channels", 4)),
        scales=(2,),
        colour="rgb",
        licence="CC0-1.0",
        trained_by="me",
        trained_on="two pictures",
    )
    torch.manual_seed(0)
    build(facts).save(tmp_path / "model.safetensors", training=TRAINING)
    script("release", tmp_path / "model.safetensors", "--data", tmp_path, "--to", tmp_path)
    made = tmp_path / "mine-x2.safetensors"
    told = read_facts(made)
    assert [(m.set, m.scale) for m in told.measured] == [("set5", 2), ("set14", 2)]
    assert read_training(made) == TRAINING
    assert made.stat().st_size < (tmp_path / "model.safetensors").stat().st_size
    printed = capsys.readouterr().out
    assert f'file = "{made.name}"' in printed
    assert f'{{ set = "set5", psnr = {told.measured[0].psnr:.3f}' in printed
