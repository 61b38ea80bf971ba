"""`upres train`: recipes, warm starts, the loop, and that no work is ever lost."""

import copy
import errno
import hashlib
import json
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.machinery import ModuleSpec
from itertools import count, pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import SOAK
from tests.forks import until
from upres.data.folders import find_pictures
from upres.errors import InputError, OutputError, ResourceError, UsageError, WeightsError
from upres.hashing import sha256_of
from upres.imaging.metrics import Protocol, mod_crop, psnr
from upres.imaging.resize import imresize
from upres.inference.device import all_of_float32
from upres.model import load
from upres.networks import ARCHITECTURES, EDSR, MDSR, SRCNN, SRResNet
from upres.places import home
from upres.training import learner as learning
from upres.training import record, resume, rundata, session, trainer
from upres.training.check import check_order
from upres.training.clock import Clock
from upres.training.distributed import join
from upres.training.learner import Learner
from upres.training.loss import LOSSES, loss_of
from upres.training.muon import Muon, orthogonalised
from upres.training.order import Order
from upres.training.patches import PatchStore
from upres.training.recipe import build_recipe, load_recipe, parse_change, shipped
from upres.training.record import side_by_side
from upres.training.schedule import rate_factor
from upres.training.session import run_order
from upres.training.stop import Stop
from upres.training.teacher import Teacher
from upres.training.validation import Pair, make_pairs
from upres.training.warmstart import add_difference, mean_of, warm_start
from upres.weights.header import read_facts, read_training
from upres.weights.manifest import load_manifest
from upres.weights.store import local_path

TINY = """
description = "for tests"
steps = 12
precision = "fp32"

[network]
architecture = "edsr"
numbers = { blocks = 1, channels = 4 }

[data]
patch = 12
batch = 4
held_out = 1

[optimiser]
rate = 1e-3
clip = 0.5
ema = 0.9

[schedule]
kind = "cosine"
warmup = 3
"""


@pytest.fixture
def pictures(tmp_path, photo):
    """Eleven pictures, so that one is held out."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(11):
        piece = photo[10 * i : 10 * i + 96, 20 * i : 20 * i + 96]
        Image.fromarray(piece).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


class View:
    """Remembers what it is told."""

    def __init__(self):
        self.notes, self.looks, self.facts, self.titles = [], [], [], []

    def preparing(self, what, done, total):
        pass

    def begins(self, title, recipe, minutes):
        self.titles.append(title)

    def steps(self, facts):
        self.facts.append(facts)

    def validated(self, step, quality):
        self.looks.append((step, quality))

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def order(tmp_path, pictures, tiny, monkeypatch):
    """Make an order: what does not matter here is chosen."""
    # Half a second for each run; test_train_then_use_show_and_list has its curves drawn.
    monkeypatch.setattr("upres.training.record.draw_curves", lambda _: None)

    def make(folder="run", **changes):
        options = {
            "data": (("pictures", find_pictures(pictures)),),
            "recipe": str(tiny),
            "folder": tmp_path / folder,
            "cache": tmp_path / "cache",
            "changes": {},
            "device": "cpu",
        }
        return Order(**options | changes)

    return make


class Asks:
    """Asks to stop, once ``answers`` has come to its end."""

    def __init__(self, answers):
        self.left, self.listened = iter(answers), 0

    def __call__(self):
        return next(self.left, None) is None

    @contextmanager
    def listening(self):
        self.listened += 1
        yield


never = Asks(count())


def after(steps):
    """Asks to stop before step number ``steps`` + 1."""
    return Asks(range(steps))


def weights(path):
    return load_file(path / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def events(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# Recipes


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_trains(name, order, tmp_path):
    """Its own loss, optimiser and schedule; few blocks and small patches, for time's sake."""
    recipe = load_recipe(name)
    changes = {"data.patch": 8, "data.batch": 2, "data.versions": 1, "steps": 2}
    if "blocks" in recipe.network.numbers:
        changes["network.numbers"] = recipe.network.numbers | {"blocks": 1}
        changes["network.grow"] = False
    view = View()
    (result,) = run_order(order(recipe=name, changes=changes, init="none"), view, never)
    assert result.finished
    assert read_facts(result.path).architecture == recipe.network.architecture
    assert read_facts(result.path).name == name
    assert {q.scale for q in result.quality} == set(recipe.network.scales)


STARTS = [
    (name, scale, start)
    for name in shipped()
    for scale in (2, 3, 4)
    if (start := load_recipe(name, scale=scale).network.start) not in ("", "none")
]


@pytest.mark.parametrize(("name", "scale", "start"), STARTS)
def test_shipped_recipes_begin_with_weights_that_are_there(name, scale, start, order):
    changes = {"data.patch": 8, "data.batch": 1, "data.versions": 1, "data.held_out": 0, "steps": 1}
    view = View()
    (result,) = run_order(order(recipe=name, scales=(scale,), changes=changes), view, never)
    assert result.finished
    (said,) = (note for note in view.notes if "starts from" in note)
    assert start.partition(",")[0] in said


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_shipped_recipe_holds_at_every_scale(name, scale):
    recipe = load_recipe(name, scale=scale)
    assert recipe.description
    assert recipe.name == name
    assert build_recipe(recipe.to_mapping()) == recipe


def test_a_recipe_is_frozen():
    with pytest.raises(AttributeError):
        load_recipe("edsr-light").steps = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.pach=3", "unknown key data.pach"),
        ("stepz=3", "unknown key stepz"),
        ("data.patch=4", "data.patch must be 8 to 512, not 4"),
        ("data.patch=big", "data.patch must be a whole number, not 'big'"),
        ("data.patch=true", "data.patch must be a whole number, not True"),
        ("data.accumulate=3", "data.accumulate must be a divisor of data.batch"),
        ("data=3", "data must be a table"),
        ("loss=l3", "loss must be one of l1, l2, charbonnier, psnr, not 'l3'"),
        ("luma=1", "luma must be 0 to below 1, not 1"),
        ("optimiser.rate=0", "optimiser.rate must be over 0 and up to 1"),
        ("optimiser.rate=nan", "optimiser.rate must be over 0"),
        ("optimiser.momentum=1", "optimiser.momentum must be 0 to below 1"),
        ("optimiser.betas=[0.9]", "optimiser.betas must be two numbers"),
        ("schedule.milestones=[1.5]", "schedule.milestones must be fractions"),
        ("data.sizes=[]", "data.sizes must be numbers from 0.1 to 1"),
        ("teacher.sees=rows", "teacher.sees must be one of patches, pictures, not 'rows'"),
        ("network.architecture=edsrr", "no architecture is called 'edsrr'"),
        ("network.numbers={blocks = 0.5, channels = 4}", "cannot be built"),
        ("network.numbers=3", "network.numbers must be a table"),
        ("network.numbers.mean=[0.5, 2]", "network.numbers.mean must be three numbers from 0 to 1"),
        ("network.numbers.blocks=-1", "network.numbers must be over 0"),
    ],
)
def test_impossible_recipes_are_refused(order, change, message):
    key, value = parse_change(change)
    with pytest.raises((UsageError, WeightsError)) as caught:
        run_order(order(changes={key: value}), View(), never)
    assert message in str(caught.value)


def test_a_teacher_that_sees_whole_pictures_sees_clean_ones():
    changes = {"teacher.sees": "pictures", "data.degradation": "photo"}
    with pytest.raises(UsageError, match=r'teacher.sees must be "patches" where .* degraded'):
        load_recipe("edsr-light", changes=changes)


def test_unknown_recipes_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no recipe is called 'edsr-heavy'.*edsr-light"):
        load_recipe("edsr-heavy")
    with pytest.raises(UsageError, match="cannot be read"):
        load_recipe(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("steps = ")
    with pytest.raises(UsageError, match="is not TOML"):
        load_recipe(str(tmp_path / "bad.toml"))
    (tmp_path / "short.toml").write_text("steps = 3\ndescription = 'x'")
    with pytest.raises(UsageError, match="network is missing"):
        load_recipe(str(tmp_path / "short.toml"))


def test_schedules():
    light = load_recipe("edsr-light").schedule
    assert rate_factor(light, 0.0, 0) == pytest.approx(1 / 200)
    assert rate_factor(light, 0.5, 1000) == pytest.approx(0.5)
    assert rate_factor(light, 1.0, 1000) == pytest.approx(0.0)
    paper = load_recipe("edsr-paper").schedule
    assert [rate_factor(paper, p, 10**5) for p in (0.0, 0.6, 0.7)] == [1.0, 1.0, 0.5]
    assert rate_factor(load_recipe("srresnet").schedule, 0.9, 10) == 1.0


# Warm starts


def picture():
    return torch.rand(1, 3, 9, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_grown_network_begins_with_the_same_pictures(scale):
    torch.manual_seed(0)
    narrow, wide = EDSR(scale, blocks=3, channels=6), EDSR(scale, blocks=3, channels=10)
    warm = warm_start(wide, narrow.state_dict(), grow=True)
    wide.load_state_dict(warm.state)
    assert torch.allclose(wide(picture(), scale), narrow(picture(), scale), atol=1e-6)
    # And every new weight is heard of by the loss, at once or after the first step.
    wide(picture(), scale).square().mean().backward()
    assert wide.tail.weight.grad[:, 6:].abs().min() > 0


def test_a_higher_scale_takes_all_but_the_upsampler():
    torch.manual_seed(0)
    low, high = EDSR(2, blocks=2, channels=6), EDSR(3, blocks=2, channels=6)
    warm = warm_start(high, low.state_dict(), grow=False)
    assert warm.derived == ("up.0.weight", "up.0.bias")
    assert warm.new == ()
    assert torch.equal(warm.state["body.1.conv2.weight"], low.body[1].conv2.weight)
    # The outer of three phases are x2's two, the middle one is their mean.
    old = low.up[0].weight.view(6, 2, 2, -1)
    new = warm.state["up.0.weight"].view(6, 3, 3, -1)
    assert torch.allclose(new[:, 0, 2], old[:, 0, 1])
    assert torch.allclose(new[:, 1, 1], old.mean((1, 2)), atol=1e-6)


@pytest.mark.parametrize("scale", [3, 4])
def test_a_higher_scale_begins_near_bicubic(scale, photo):
    """Weights of x2 say enough about x3 and x4 to begin with a picture, not with noise."""
    (entry,) = load_manifest().family("edsr-light-x2")
    start = load_file(local_path(entry))
    high = EDSR(scale, channels=32)
    high.load_state_dict(warm_start(high, start, grow=False).state)
    truth = mod_crop(photo, scale)
    low = imresize(truth, 1 / scale)
    with torch.no_grad():
        made = high(torch.tensor(low).permute(2, 0, 1)[None] / 255, scale)[0].clamp(0, 1)
    pixels = (made * 255).round().byte().permute(1, 2, 0).numpy()
    protocol = Protocol("y", scale)
    bicubic = psnr(truth, imresize(low, scale), protocol)
    assert psnr(truth, pixels, protocol) > bicubic - 1.0


def test_mdsr_takes_a_new_scale():
    torch.manual_seed(0)
    old, new = MDSR((2,), blocks=1, channels=4), MDSR((2, 3), blocks=1, channels=4)
    warm = warm_start(new, old.state_dict(), grow=False)
    assert warm.new
    assert all(".x3." in name for name in warm.new)
    assert len(warm.taken) == len(old.state_dict())


def test_srcnn_x4_takes_everything():
    warm = warm_start(SRCNN(4), SRCNN(2).state_dict(), grow=False)
    assert not warm.new
    assert not warm.derived


@pytest.mark.parametrize(("old", "new"), [(2, 4), (2, 3), (4, 2)])
def test_srresnet_takes_its_upsamplers_activations_along(old, new):
    torch.manual_seed(0)
    source = SRResNet(old, blocks=1, channels=4)
    torch.nn.init.constant_(source.up_act[0].weight, 0.125)
    network = SRResNet(new, blocks=1, channels=4)
    warm = warm_start(network, source.state_dict(), grow=False)
    assert not warm.new
    network.load_state_dict(warm.state)
    assert all(act.weight.item() == 0.125 for act in network.up_act)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (EDSR(2, blocks=1, channels=8), r"head\.weight is \(8, 3, 3, 3\) there"),
        (EDSR(2, blocks=3, channels=4), "body.2.conv1.bias has no place here"),
        (EDSR(2, blocks=1, channels=4), "body.1.conv1.weight is missing there"),
        (SRCNN(2), "is missing there"),
    ],
)
def test_weights_that_do_not_fit_are_refused(other, message):
    with pytest.raises(WeightsError, match=message):
        warm_start(EDSR(2, blocks=2, channels=4), other.state_dict(), grow=False)


@pytest.mark.parametrize(("low", "high"), [(2, 3), (2, 4), (3, 2), (3, 4), (4, 2)])
def test_growing_to_another_scale_is_growing_what_begins_there(low, high, photo):
    """Both at once begin with the pictures that one after the other begins with."""
    torch.manual_seed(0)
    source = EDSR(low, blocks=2, channels=4).state_dict()
    narrow, wide = EDSR(high, blocks=2, channels=4), EDSR(high, blocks=2, channels=6)
    narrow.load_state_dict(warm_start(narrow, source, grow=False).state)
    warm = warm_start(wide, source, grow=True)
    wide.load_state_dict(warm.state)
    assert warm.new == ()
    x = torch.from_numpy(photo[:20, :24].copy()).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(wide(x, high), narrow(x, high), atol=1e-5, rtol=0)


def test_narrower_weights_are_only_grown_when_asked():
    with pytest.raises(WeightsError, match=r"--set network\.grow=true"):
        warm_start(EDSR(2, channels=8), EDSR(2, channels=4).state_dict(), grow=False)
    with pytest.raises(WeightsError, match="do not fit"):
        warm_start(EDSR(2, channels=4), EDSR(2, channels=8).state_dict(), grow=True)


def test_init_of_another_architecture_is_a_usage_error(order):
    with pytest.raises(UsageError, match="is edsr, the recipe trains srcnn"):
        run_order(order(recipe="srcnn", init="edsr-light-x2"), View(), never)


@pytest.mark.parametrize(("key", "value"), [("mean", [0.0, 0.0, 0.0]), ("residual_scale", 0.5)])
def test_weights_of_a_network_that_computes_otherwise_are_refused(order, key, value):
    changed = {f"network.numbers.{key}": value}
    (first,) = run_order(order("first", changes=changed), View(), never)
    with pytest.raises(UsageError, match=f"has {key} .*, the recipe") as refused:
        run_order(order("then", init=str(first.path)), View(), never)
    assert f"--set 'network.numbers.{key}={value}'" in str(refused.value)
    (then,) = run_order(order("then", init=str(first.path), changes=changed), View(), never)
    assert then.finished


def test_what_is_begun_with_is_told_with_its_terms(order, tmp_path):
    """Also after the run was interrupted, and of what that began with in turn."""
    changes = {"network.numbers.blocks": 16, "network.numbers.channels": 32, "steps": 2}
    asked = order(init="edsr-light-x2", changes=changes)
    run_order(asked, View(), after(1))
    (first,) = run_order(replace(asked, resume=True), View(), never)
    (source,) = load_manifest().family("edsr-light-x2")
    facts = read_facts(first.path)
    assert facts.trained_on == f"10 pictures (pictures), before that {source.facts.trained_on}"
    assert facts.licence == "not stated; it began with weights under Apache-2.0"
    assert read_training(first.path)["sources"] == [
        {
            "name": "edsr-light-x2",
            "sha256": source.sha256,
            "licence": "Apache-2.0",
            "trained_on": source.facts.trained_on,
        }
    ]
    then = order("then", init=str(first.path), changes=changes)
    (second,) = run_order(replace(then, data=(("DIV2K", then.data[0][1]),)), View(), never)
    told = read_facts(second.path)
    assert told.trained_on == f"10 pictures (DIV2K), before that {facts.trained_on}"
    assert told.licence == (
        "not stated; DIV2K is for academic research only; it began with weights under Apache-2.0"
    )
    assert load_manifest().family("edsr-light-x2")[0].facts.licence == "Apache-2.0"


def test_of_several_files_the_mean_is_begun_with(order, tmp_path):
    still = {"optimiser.rate": 1e-12, "optimiser.ema": 0.0, "steps": 1}
    for seed in (0, 1):
        run_order(order(str(seed), seed=seed, changes=still), View(), never)
    both = ",".join(str(tmp_path / name / "model.safetensors") for name in ("0", "1"))
    view = View()
    run_order(order(init=both, changes=still), view, never)
    assert any("starts from the mean of " in note for note in view.notes)
    one, other, made = (weights(tmp_path / name) for name in ("0", "1", "run"))
    for name in made:
        assert torch.allclose(made[name], (one[name] + other[name]) / 2, atol=1e-6)
    assert not torch.equal(one["head.weight"], other["head.weight"])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_wide_network_goes_the_way_of_the_narrow_one_that_it_grew_from(scale):
    """Where it is nothing but the narrow one, it then gives the narrow one's pictures."""
    torch.manual_seed(0)
    narrow, after = EDSR(2, blocks=2, channels=4), EDSR(scale, blocks=2, channels=4)
    wide, higher = EDSR(2, blocks=2, channels=6), EDSR(scale, blocks=2, channels=6)
    wide.load_state_dict(warm_start(wide, narrow.state_dict(), grow=True).state)
    state = warm_start(higher, wide.state_dict(), grow=False).state
    before = warm_start(EDSR(scale, blocks=2, channels=4), narrow.state_dict(), grow=False).state
    add_difference(state, after.state_dict(), before)
    higher.load_state_dict(state)
    x = torch.rand(1, 3, 9, 8)
    assert torch.allclose(higher(x, scale), after(x, scale), atol=1e-5)


def test_a_difference_that_does_not_fit_is_refused():
    state, other = EDSR(2, blocks=1, channels=4).state_dict(), EDSR(2, blocks=1, channels=8)
    with pytest.raises(WeightsError, match="as wide or narrower"):
        add_difference(state, other.state_dict(), other.state_dict())
    deeper = EDSR(2, blocks=2, channels=4).state_dict()
    with pytest.raises(WeightsError, match=r"body\.1\..* differs"):
        add_difference(state, deeper, deeper)


def test_a_difference_is_added_to_what_is_begun_with(order, tmp_path):
    still = {"optimiser.rate": 1e-12, "optimiser.ema": 0.0, "steps": 1}
    for seed in (0, 1, 2):
        run_order(order(str(seed), seed=seed, changes=still), View(), never)
    one, more, less = (str(tmp_path / str(seed) / "model.safetensors") for seed in (0, 1, 2))
    view = View()
    run_order(order(init=f"{one}, +{more}, -{less}", changes=still), view, never)
    file = "model.safetensors"
    told = f"0/{file} and what led from 2/{file} to 1/{file}: "
    assert any(told in note for note in view.notes)
    one, more, less, made = (weights(tmp_path / name) for name in ("0", "1", "2", "run"))
    for name in made:
        assert torch.allclose(made[name], one[name] + more[name] - less[name], atol=1e-6)


@pytest.mark.parametrize("init", ["", "+a,-b", "a,+b", "a,-b", "a,+b,-c,-d"])
def test_a_sum_without_a_side_is_refused(order, init):
    with pytest.raises(UsageError, match="is nothing to begin with"):
        run_order(order(init=init or ","), View(), never)


# Teachers


TAUGHT = {"teacher.share": 0.25}


@pytest.fixture
def teacher(order, tmp_path):
    """A file whose network has two blocks."""
    changes = {"network.numbers.blocks": 2, "steps": 2}
    (made,) = run_order(order("teacher", changes=changes, seed=7), View(), never)
    return str(made.path)


def turned(x, flips, transposed):
    x = torch.flip(x, flips)
    return x.transpose(2, 3) if transposed else x


@pytest.mark.parametrize(
    "make", [lambda: EDSR(2, blocks=1, channels=4), lambda: SRCNN(2, widths=(4, 4))]
)
def test_over_the_steps_a_teacher_gives_the_mean_of_all_flips_and_rotations(make):
    torch.manual_seed(0)
    network = make()
    last = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    # What it makes is not black or white everywhere.
    last.bias.data.fill_(0.5 - 0.45 * isinstance(network, EDSR))
    low = torch.rand(3, network.channels, 9, 9)
    truth = torch.rand(3, network.channels, 18, 18)
    teacher = Teacher(network, (2,), 0.25, torch.device("cpu"), torch.float32)
    made = []
    for step in range(8):
        teacher.prepare(step)
        made.append(teacher.blend(low, truth, 2))
    seen = []
    for flips in ([], [2], [3], [2, 3]):
        for transposed in (False, True):
            y = network(turned(low, flips, transposed), 2)
            y = torch.flip(y.transpose(2, 3) if transposed else y, flips)
            seen.append(y.detach().clamp(0, 1))
    expected = 0.75 * truth + 0.25 * sum(seen) / 8
    torch.testing.assert_close(sum(made) / 8, expected, atol=1e-5, rtol=0)
    # One at a time, and none twice.
    for y in seen:
        wanted = 0.75 * truth + 0.25 * y
        assert sum(torch.allclose(wanted, one, atol=1e-5) for one in made) == 1


def test_who_learns_from_itself_alone_has_learnt_it():
    recipe = load_recipe("edsr-light", changes={"teacher.share": 1.0, "precision": "fp32"})
    network = EDSR(2, blocks=1, channels=4)
    learner = Learner(network, recipe, torch.device("cpu"), copy.deepcopy(network))
    learner.prepare(1e-3, 0)  # turned in no way
    low, high = torch.full((2, 3, 12, 12), 0.5), torch.rand(2, 3, 24, 24)
    low += torch.rand(low.shape) / 10  # nothing made of it is clamped
    assert float(learner.gradients(low, high, 2)) < 1e-6
    learner.prepare(1e-3, 1)
    assert float(learner.gradients(low, high, 2)) > 1e-6


@pytest.mark.parametrize("sees", ["patches", "pictures"])
def test_a_teacher_is_learnt_from_and_told(order, teacher, tmp_path, sees):
    changes = TAUGHT | {"teacher.weights": teacher, "teacher.sees": sees}
    (alone,) = run_order(order("alone"), View(), never)
    (taught,) = run_order(order("taught", changes=changes), View(), never)
    assert not same(weights(tmp_path / "alone"), weights(tmp_path / "taught"))
    told = read_training(taught.path)["teacher"]
    assert told["name"] == "teacher/model.safetensors"
    assert told["sha256"] == sha256_of(Path(teacher))
    facts = read_facts(taught.path)
    assert facts.trained_on == "10 pictures (pictures); its teacher on 10 pictures (pictures)"
    assert "teacher" not in read_training(alone.path)
    # With no share it is there in vain, and nothing is told of it.
    ignored = changes | {"teacher.share": 0.0}
    view = View()
    (untaught,) = run_order(order("ignored", changes=ignored), view, never)
    assert same(weights(tmp_path / "alone"), weights(tmp_path / "ignored"))
    assert "teacher" not in read_training(untaught.path)
    assert not any("learns is from" in note for note in view.notes)


def test_of_a_teacher_with_several_files_each_scale_has_its_own(order):
    changes = {"teacher.weights": "edsr-light", "steps": 1}
    results = run_order(order(changes=changes, scales=(2, 4)), View(), never)
    told = [read_training(one.path)["teacher"] for one in results]
    assert [one["name"] for one in told] == ["edsr-light-x2", "edsr-light-x4"]
    entries = [load_manifest().family(one["name"])[0] for one in told]
    assert [one["sha256"] for one in told] == [entry.sha256 for entry in entries]


def test_the_terms_of_a_teacher_are_told(order):
    changes = {"teacher.weights": "edsr-light-x2", "steps": 1}
    (made,) = run_order(order(changes=changes), View(), never)
    assert read_facts(made.path).licence == "not stated; its teacher is under Apache-2.0"
    # And of the teacher's own teacher, and of who begins with the pupil's weights.
    changes["teacher.weights"] = str(made.path)
    (second,) = run_order(order("second", changes=changes), View(), never)
    facts = read_facts(second.path)
    assert facts.licence == "not stated; of its teacher: its teacher is under Apache-2.0"
    assert facts.trained_on.endswith(f"; its teacher on ({read_facts(made.path).trained_on})")
    third = order("third", init=str(made.path), changes={"steps": 1})
    (third,) = run_order(third, View(), never)
    assert read_facts(third.path).licence == "not stated; their teacher is under Apache-2.0"


def test_who_has_seen_whole_pictures_sees_no_patches(order, teacher, monkeypatch):
    """In no step: they would take as long as before."""

    def refuses(*arguments):
        raise AssertionError(arguments)

    monkeypatch.setattr(Teacher, "blend", refuses)
    changes = TAUGHT | {"teacher.weights": teacher}
    with pytest.raises(AssertionError):
        run_order(order("patches", changes=changes), View(), never)
    run_order(order("whole", changes=changes | {"teacher.sees": "pictures"}), View(), never)


def test_what_every_scale_is_taught_is_made_before_the_first_is_trained(order, monkeypatch):
    made = []
    taught_pictures = rundata.taught_pictures

    def noted(teacher, prepared, scale, *others, **more):
        made.append(scale)
        return taught_pictures(teacher, prepared, scale, *others, **more)

    def train(run):
        assert made == [2, 4]
        raise KeyboardInterrupt

    monkeypatch.setattr(rundata, "taught_pictures", noted)
    changes = {"teacher.weights": "edsr-light", "teacher.sees": "pictures"}
    with monkeypatch.context() as patch:
        patch.setattr(session, "train", train)
        with pytest.raises(KeyboardInterrupt):
            run_order(order(changes=changes, scales=(2, 4)), View(), never)
    made.clear()
    run_order(order("measured", changes=changes | {"steps": 0}), View(), never)
    assert not made


@pytest.mark.parametrize("sees", ["patches", "pictures"])
def test_an_interrupted_pupil_ends_as_an_uninterrupted_one(order, teacher, tmp_path, sees):
    changes = TAUGHT | {"teacher.weights": teacher, "teacher.sees": sees}
    run_order(order("whole", changes=changes), View(), never)
    asked = order("parts", changes=changes)
    run_order(asked, View(), after(5))
    run_order(replace(asked, resume=True), View(), never)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_pupil_goes_on_with_its_teacher_wherever_that_lies(order, teacher, tmp_path):
    asked = order(changes=TAUGHT | {"teacher.weights": teacher})
    run_order(asked, View(), after(5))
    moved = str(tmp_path / "moved.safetensors")
    Path(teacher).rename(moved)
    with pytest.raises(WeightsError, match="teacher"):
        check_order(replace(asked, resume=True))
    asked = replace(asked, resume=True, changes=TAUGHT | {"teacher.weights": moved})
    (result,) = run_order(asked, View(), never)
    assert result.finished


@pytest.mark.parametrize("changes", [{"data.accumulate": 2}, {"precision": "bf16"}])
def test_every_kind_of_step_has_its_teacher(order, teacher, tmp_path, monkeypatch, changes):
    monkeypatch.setattr(learning, "multiplies_bfloat16", lambda _: True)
    view = View()
    for share in (0.0, 0.5):
        taught = {"teacher.weights": teacher, "teacher.share": share}
        run_order(order(str(share), changes=changes | taught), view, never)
    assert not same(weights(tmp_path / "0.0"), weights(tmp_path / "0.5"))
    assert "50 % of what x2 learns is from teacher/model.safetensors" in view.notes


def test_of_a_mean_alone_no_picture_of_the_run_is_told(order, teacher, tmp_path):
    """Nor a teacher; and those of what it is the mean of have their own brackets."""
    taught = TAUGHT | {"teacher.weights": teacher, "steps": 1}
    one, two = (
        run_order(order(name, changes=taught, seed=seed), View(), never)[0].path
        for seed, name in enumerate("ab")
    )
    (made,) = run_order(
        order("mean", init=f"{one},{two}", changes=taught | {"steps": 0}), View(), never
    )
    assert "teacher" not in read_training(made.path)
    told = read_facts(made.path).trained_on
    assert told == "(10 pictures (pictures); its teacher on 10 pictures (pictures))"


def test_a_run_that_was_killed_while_it_measured_measures_again(order, monkeypatch):
    asked = order(changes={"steps": 3})
    write = session.write_result

    def killed(run, kept, position, quality, **more):
        if quality:
            raise KeyboardInterrupt
        write(run, kept, position, quality, **more)

    with monkeypatch.context() as patch:
        patch.setattr(session, "write_result", killed)
        with pytest.raises(KeyboardInterrupt):
            run_order(asked, View(), never)
    (result,) = run_order(replace(asked, resume=True), View(), never)
    assert result.quality
    assert read_training(result.path)["validation"]


def test_a_run_does_not_go_on_with_another_teacher(order, teacher, tmp_path):
    asked = order(changes=TAUGHT | {"teacher.weights": teacher})
    run_order(asked, View(), after(5))
    run_order(order("other", changes={"network.numbers.blocks": 2, "steps": 1}), View(), never)
    (tmp_path / "other" / "model.safetensors").replace(teacher)
    with pytest.raises(WeightsError, match="begun with a teacher of sha256"):
        run_order(replace(asked, resume=True), View(), never)


@pytest.mark.parametrize(
    ("recipe", "teacher", "message"),
    [
        ("edsr-light", "edsr-light-x4", "the teacher edsr-light-x4 serves no x2"),
        ("srcnn", "edsr-light-x2", "the teacher edsr-light-x2 knows rgb, what learns y"),
        ("mdsr-baseline", "edsr-baseline", "no file of the teacher edsr-baseline serves all of x2"),
        ("edsr-light", "nobody", "nobody"),
    ],
)
def test_teachers_that_cannot_teach_are_refused(order, recipe, teacher, message):
    asked = order(recipe=recipe, init="none", changes={"teacher.weights": teacher})
    with pytest.raises((UsageError, WeightsError), match=message):
        check_order(asked)


def test_strangers_have_no_mean():
    with pytest.raises(WeightsError, match="do not fit each other"):
        mean_of([EDSR(2, channels=4).state_dict(), EDSR(2, channels=8).state_dict()])


# The loss


def test_the_psnr_loss_is_each_patchs_psnr_below_zero(photo):
    from skimage.metrics import peak_signal_noise_ratio

    truth = torch.from_numpy(photo[:64, :64] / 255).permute(2, 0, 1)[None]
    made = torch.cat([truth + 0.1, truth + 0.01 * torch.randn_like(truth)])
    truth = torch.cat([truth, truth])
    each = [
        peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=1.0)
        for a, b in zip(truth, made, strict=True)
    ]
    assert float(LOSSES["psnr"](made, truth)) == pytest.approx(-np.mean(each), abs=0.05)
    assert float(LOSSES["psnr"](truth, truth)) == pytest.approx(-60)


def test_losses_are_their_formulas(photo):
    truth = torch.from_numpy(photo[:32, :32]).permute(2, 0, 1)[None] / 255
    made = truth + 0.05 * torch.randn_like(truth)
    d = (made - truth).double().numpy()
    expected = {
        "l1": np.abs(d).mean(),
        "l2": (d**2).mean(),
        "charbonnier": np.sqrt(d**2 + 1e-6).mean(),
    }
    assert set(expected) == set(LOSSES) - {"psnr"}
    for name, value in expected.items():
        assert float(LOSSES[name](made, truth)) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_share_of_the_loss_can_be_of_y_alone(photo, loss):
    from upres.imaging.color import rgb_to_y

    truth = torch.from_numpy(photo[:32, :32]).permute(2, 0, 1)[None] / 255
    made = (truth + 0.02 * torch.randn_like(truth)).clamp(0, 1)
    of_y = [
        torch.from_numpy(rgb_to_y(x[0].permute(1, 2, 0).numpy() * 255))[None, None] / 255
        for x in (made, truth)
    ]
    recipe = load_recipe("edsr-light", changes={"loss": loss, "luma": 0.25})
    expected = 0.75 * LOSSES[loss](made, truth) + 0.25 * LOSSES[loss](*of_y)
    assert float(loss_of(recipe, torch.device("cpu"))(made, truth)) == pytest.approx(
        float(expected), rel=1e-4
    )


def test_luma_is_refused_where_there_is_nothing_else(order):
    with pytest.raises(UsageError, match="vdsr knows only luma"):
        run_order(order(recipe="vdsr", changes={"luma": 0.5}), View(), never)


# The optimiser


@given(st.integers(1, 6), st.integers(2, 40), st.integers(2, 40), st.integers(0, 10**6))
def test_an_update_is_as_long_in_every_direction(count, rows, columns, seed):
    """The same directions as the exact answer's, by singular values, with lengths near 1."""
    matrices = torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(seed))
    left, lengths, right = torch.linalg.svd(matrices, full_matrices=False)
    made = left.mT @ orthogonalised(matrices) @ right.mT
    along = torch.diagonal(made, dim1=1, dim2=2)
    assert torch.allclose(made, torch.diag_embed(along), atol=1e-3)
    large = lengths > 0.05 * lengths.amax(1, keepdim=True)
    assert (along[large] > 0.6).all()
    assert (along < 1.3).all()


def test_muon_is_torchs_on_matrices_flattened():
    """torch's takes matrices only, and rounds to bfloat16."""
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(8, 4, 3, 3))
    theirs = torch.nn.Parameter(ours.detach().reshape(8, 36).clone())
    begun = theirs.detach().clone()
    muon = Muon([ours], torch.tensor(0.02), momentum=0.9, weight_decay=0.1)
    reference = torch.optim.Muon(
        [theirs], lr=0.02, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        ours.grad = torch.randn(ours.shape)
        theirs.grad = ours.grad.reshape(8, 36).clone()
        muon.step()
        reference.step()
    error = (ours.detach().reshape(8, 36) - theirs.detach()).norm()
    assert error < 0.03 * (theirs.detach() - begun).norm()


def test_muon_changes_hidden_layers_and_adam_the_rest(order):
    recipe = load_recipe("edsr-baseline", changes={"optimiser.kind": "muon"})
    network = EDSR(2, blocks=1, channels=8)
    muon, adam = Learner(network, recipe, torch.device("cpu")).optimisers
    assert len(muon.param_groups[0]["params"]) == 4  # two in the block, its end, the upsampler
    parameters = len(list(network.parameters()))
    assert len(adam.param_groups[0]["params"]) == parameters - 4


@pytest.mark.parametrize(
    ("average", "span", "shares"),
    [
        (0.999, 1.0, [1, 1, 1, 1, 1]),  # all alike, what it began with too
        (0.999, 0.5, [1, 2, 3, 4, 5]),  # rising evenly
        (0.75, 1.0, [3, 3, 3, 3, 4]),  # from the fourth step the decay is the shorter one
    ],
)
def test_the_average_spans_what_the_recipe_says(average, span, shares):
    changes = {"optimiser.ema": average, "optimiser.ema_span": span, "optimiser.rate": 0.1}
    recipe = load_recipe("edsr-light", changes=changes)
    learner = Learner(EDSR(2, blocks=1, channels=4), recipe, torch.device("cpu"))
    history = [learner.network.tail.weight.detach().clone()]
    for step in range(4):
        learner.gradients(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 16, 16), 2)
        learner.prepare(0.1, step)
        learner.update()
        history.append(learner.network.tail.weight.detach().clone())
    expected = sum(share * one for share, one in zip(shares, history, strict=True)) / sum(shares)
    torch.testing.assert_close(learner.kept.tail.weight.detach(), expected)


def test_the_average_has_its_own_statistics():
    changes = {"optimiser.ema": 0.75, "precision": "fp32"}
    recipe = load_recipe("srresnet-short", changes=changes)
    learner = Learner(SRResNet(2, blocks=1, channels=4), recipe, torch.device("cpu"))

    def means(network):
        return torch.cat([b for name, b in network.named_buffers() if "running_mean" in name])

    expected = means(learner.kept).clone()
    for step in range(6):
        learner.gradients(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16), 2)
        learner.prepare(1e-3, step)
        learner.update()
        expected += float(learner.follow) * (means(learner.network) - expected)
    assert not torch.equal(means(learner.kept), means(learner.network))
    torch.testing.assert_close(means(learner.kept), expected)


# The loop


def test_without_steps_what_it_begins_with_is_measured_and_written(order, tmp_path):
    for seed in (1, 2):
        run_order(order(f"run{seed}", seed=seed), View(), never)
    paths = [tmp_path / f"run{seed}" / "model.safetensors" for seed in (1, 2)]
    asked = order("mean", init=f"{paths[0]},{paths[1]}", changes={"steps": 0})
    (result,) = run_order(asked, View(), never)
    assert (result.finished, len(result.quality)) == (True, 1)
    a, b = (load_file(path) for path in paths)
    for key, value in load_file(result.path).items():
        torch.testing.assert_close(value, (a[key] + b[key]) / 2)


def test_what_a_later_scale_lacks_is_found_before_the_first_is_trained(order, tmp_path):
    asked = order(scales=(2, 4), changes={"data.patch": 25})  # of pictures of 96 x 96
    with pytest.raises(InputError, match="patch"):
        run_order(asked, View(), never)
    assert not list(tmp_path.glob("run/**/model.safetensors"))


def test_a_run_learns_and_leaves_everything_behind(order, tmp_path):
    view = View()
    asked = order(changes={"steps": 150}, name="mine", licence="CC0-1.0", trained_by="me", seed=5)
    (result,) = run_order(asked, view, never)
    assert result.finished
    losses = [e["loss"] for e in events(tmp_path / "run") if e["event"] == "steps"]
    assert len(losses) == 3
    assert losses[-1] < 0.75 * losses[0]
    facts, story = read_facts(result.path), read_training(result.path)
    assert (facts.name, facts.licence, facts.trained_by) == ("mine", "CC0-1.0", "me")
    assert facts.trained_on == "10 pictures (pictures)"
    assert story["steps"] == 150
    assert story["seed"] == 5
    assert story["recipe"]["data"]["patch"] == 12
    assert len(story["data"]["sha256"]) == 64
    assert story["validation"][0]["psnr"] == result.quality[0].psnr
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"model.safetensors", "last.pt", "metrics.jsonl", "validation"} <= names
    kinds = [e["event"] for e in events(tmp_path / "run")]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert "x2 starts from nothing (seed 5)" in view.notes
    (shown,) = (tmp_path / "run" / "validation").iterdir()
    assert np.asarray(Image.open(shown)).shape == (96 + 4, 3 * (96 + 4), 3)


def test_the_reported_quality_is_what_the_program_gives(order, pictures):
    """Measured again with the public interface and the same protocol."""
    import upres
    from upres.data.gather import gather

    (result,) = run_order(order(changes={"steps": 60}), View(), never)
    (held_out,) = gather([find_pictures(pictures)], 1).validation
    truth = np.asarray(Image.open(held_out.path))
    upscaler = upres.load(str(result.path), scale=2, precision="fp32", device="cpu")
    made = upscaler.upscale(imresize(truth, 1 / 2))
    assert result.quality[0].psnr == pytest.approx(psnr(truth, made, Protocol("y", 2)), abs=2e-3)
    bicubic = imresize(imresize(truth, 1 / 2), 2)
    expected = psnr(truth, bicubic, Protocol("y", 2))
    assert result.quality[0].bicubic_psnr == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("at", "changes", "scales"),
    [
        (1, {"optimiser.kind": "adam"}, ()),
        (5, {"optimiser.kind": "muon"}, ()),
        (11, {"optimiser.kind": "adamw"}, ()),
        (1, {"network.architecture": "mdsr", "optimiser.kind": "muon"}, (2, 3)),
        (5, {"network.architecture": "srresnet"}, (2,)),
        (5, {"data.degradation": "photo", "data.versions": 2}, ()),
        (5, {"precision": "auto", "data.accumulate": 2}, ()),
    ],
)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(order, tmp_path, at, changes, scales):
    asked = partial(order, changes=changes, scales=scales)
    run_order(asked("whole"), View(), never)
    (half,) = run_order(asked("parts"), View(), after(at))
    assert not half.finished
    assert not same(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    # Killed later, and without a word: the last checkpoint is older than what was made since.
    saved = (tmp_path / "parts" / "last.pt").read_bytes()
    run_order(asked("parts", resume=True), View(), after(1))
    (tmp_path / "parts" / "last.pt").write_bytes(saved)
    (rest,) = run_order(asked("parts", resume=True), View(), never)
    assert rest.finished
    assert same(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    old, new = (
        torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "parts")
    )
    assert same(old["network"], new["network"])
    assert old["position"]["step"] == new["position"]["step"] == 12


def test_float32_is_all_of_float32(monkeypatch):
    cpu = torch.device("cpu")
    learner = Learner(EDSR(2, blocks=1, channels=4), load_recipe("edsr-paper"), cpu)
    # What it does on CUDA alone.
    monkeypatch.setattr(learning, "all_of_float32", lambda _: all_of_float32(torch.device("cuda")))
    seen = []
    convolutions = torch.backends.cudnn.conv
    for way in ("register_forward_hook", "register_full_backward_hook"):
        getattr(learner.network.tail, way)(lambda *_: seen.append(convolutions.fp32_precision))
    before = convolutions.fp32_precision
    learner.gradients(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 16, 16), 2)
    assert learner.dtype == torch.float32
    assert seen == ["ieee", "ieee"]
    assert convolutions.fp32_precision == before


def test_another_seed_gives_other_weights(order, tmp_path):
    run_order(order("a", seed=1), View(), never)
    run_order(order("b", seed=2), View(), never)
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_signals_are_kept_back_only_while_there_is_something_to_save(order):
    class Watching(View):
        def preparing(self, what, done, total):
            assert not asks.listened

    asks = after(2)
    run_order(order(), Watching(), asks)
    assert asks.listened == 1


def test_a_damaged_picture_held_out_is_skipped_and_named(order, pictures):
    # The smallest hash is held out; some damage gives one.
    smallest = min(hashlib.sha256(p.read_bytes()).hexdigest() for p in pictures.iterdir())
    damage = next(
        text
        for text in (b"damaged %d" % i for i in count())
        if hashlib.sha256(text).hexdigest() < smallest
    )
    (pictures / "damaged.png").write_bytes(damage)
    view = View()
    (result,) = run_order(order(data=(("p", find_pictures(pictures)),)), view, never)
    assert result.finished
    assert any("skipped damaged.png" in note and "held out" in note for note in view.notes)


def test_a_low_resolution_picture_held_out_that_cannot_be_read_is_made(order, tmp_path, photo):
    """Those that can are taken: what is measured is cut from where the truth is."""
    high, low = tmp_path / "set/HR", tmp_path / "set/LR_bicubic/X2"
    high.mkdir(parents=True)
    low.mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(photo[:130, :202]).save(high / f"{name}.png")
        Image.fromarray(photo[:65, :101]).save(low / f"{name}x2.png")
    (low / "bx2.png").write_bytes(b"damaged")
    notes = []
    files = find_pictures(tmp_path / "set").train
    given, made = make_pairs(files, (2,), degraded=False, note=notes.append)
    assert np.array_equal(given.low, photo[:65, :101])
    assert np.array_equal(made.low, imresize(photo[:130, :202], 1 / 2))
    (note,) = notes
    assert note.startswith("skipped bx2.png (")
    assert note.endswith("), made from its picture")
    Image.fromarray(photo[:64, :101]).save(low / "bx2.png")
    with pytest.raises(InputError, match=r"needs 101 x 65 at x2"):
        make_pairs(files, (2,), degraded=False, note=notes.append)


def test_a_blank_picture_held_out_spoils_no_mean(pictures):
    Image.new("RGB", (96, 96), "white").save(pictures / "blank.png")
    notes = []
    pairs = make_pairs(find_pictures(pictures).train, (2,), degraded=False, note=notes.append)
    assert len(pairs) == 11
    assert notes == ["skipped blank.png x2 held out for validation: bicubic is perfect"]


def test_minutes_end_a_run_and_its_schedule(order, tmp_path):
    changes = {"steps": 10**6, "data.patch": 24}
    (half,) = run_order(order(minutes=0.05, changes=changes), View(), after(2))
    assert not half.finished
    before = torch.load(tmp_path / "run/last.pt", weights_only=True)["position"]
    begun = time.monotonic()
    (rest,) = run_order(order(minutes=0.05, changes=changes, resume=True), View(), never)
    assert rest.finished
    position = torch.load(tmp_path / "run/last.pt", weights_only=True)["position"]
    assert position["seconds"] >= 3.0
    assert position["step"] > before["step"] == 2
    assert time.monotonic() - begun > 3.0 - before["seconds"]


def test_the_time_before_an_interrupt_counts(order, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "Run", partial(session.Run, report_seconds=-1.0))
    changes = {"steps": 10**6, "data.patch": 24}
    run_order(order(minutes=10, changes=changes), View(), after(2))
    state = torch.load(tmp_path / "run/last.pt", weights_only=True)
    state["position"]["seconds"] = 599.0
    torch.save(state, tmp_path / "run/last.pt")
    view = View()
    (rest,) = run_order(order(minutes=10, changes=changes, resume=True), view, never)
    assert rest.finished
    assert view.facts[0]["progress"] > 0.99


def test_the_share_of_time_that_goes_to_data_is_told(order, monkeypatch):
    monkeypatch.setattr(session, "Run", partial(session.Run, report_seconds=-1.0))
    cut = PatchStore.cut

    def slow(*arguments):
        time.sleep(0.1)
        return cut(*arguments)

    shares = []
    for how in (cut, slow):
        monkeypatch.setattr(PatchStore, "cut", how)
        view = View()
        run_order(order(overwrite=True), view, never)
        shares.append(statistics.median(facts["data_share"] for facts in view.facts))
    assert shares[0] < 0.5 < shares[1] <= 1


def test_curves_that_cannot_be_drawn_end_no_run(order, monkeypatch):
    def broken(folder):
        raise ImportError("numpy.core.multiarray failed to import")

    monkeypatch.setattr(record, "draw_curves", broken)
    view = View()
    results = run_order(order(scales=(2, 4)), view, never)
    assert [one.finished for one in results] == [True, True]
    assert sum("matplotlib does not work (numpy.core" in note for note in view.notes) == 2


def test_what_is_shown_of_the_validation_is_bicubic_result_truth(tmp_path):
    plain = {shade: np.full((8, 8, 3), shade, np.uint8) for shade in (10, 20, 30)}
    pair = Pair("a", 2, plain[10][:4, :4], plain[30], plain[10], 30.0, 0.9)
    side_by_side([pair], [plain[20]], tmp_path / "shown" / "1.png")
    row = np.asarray(Image.open(tmp_path / "shown" / "1.png"))[4, :, 0]
    assert [row[at] for at in (4, 16, 28)] == [10, 20, 30]


def test_the_rate_of_each_step_is_the_schedules(order, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "Run", partial(session.Run, report_seconds=-1.0))  # every step
    view = View()
    run_order(order(), view, never)
    schedule = load_recipe(str(tmp_path / "tiny.toml")).schedule
    rates = [facts["rate"] for facts in view.facts]
    expected = [1e-3 * rate_factor(schedule, step / 12, step) for step in range(12)]
    assert rates == pytest.approx(expected)
    assert len(set(rates)) == 12


def test_with_minutes_the_rate_follows_the_time(order, monkeypatch):
    monkeypatch.setattr(session, "Run", partial(session.Run, report_seconds=-1.0))
    view = View()
    run_order(order(minutes=0.02, changes={"schedule.warmup": 0}), view, never)
    last = view.facts[-2:]
    assert last[0]["rate"] == pytest.approx(
        1e-3 * 0.5 * (1 + math.cos(math.pi * view.facts[-3]["progress"])), rel=1e-3
    )
    assert view.facts[0]["rate"] > last[1]["rate"]


def test_measuring_takes_a_tenth_of_the_time_at_most(order):
    class Slow(View):
        def validated(self, step, quality):
            super().validated(step, quality)
            time.sleep(0.2)

    view, begun = Slow(), time.monotonic()
    run_order(order(validate_minutes=0.0, changes={"steps": 60}), view, never)
    during = len(view.looks) - 1  # the last one is after training
    assert 1 <= during <= 1 + (time.monotonic() - begun) / (9 * 0.2)


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize(
    ("make", "scale"),
    [
        (lambda: EDSR(2, blocks=1, channels=4), 2),
        (lambda: EDSR(3, blocks=1, channels=4, residual_scale=0.1), 3),
        (lambda: EDSR(4, blocks=1, channels=4), 4),
        (lambda: MDSR(blocks=1, channels=4), 3),
        (lambda: MDSR(blocks=1, channels=4), 4),
    ],
    ids=["edsr x2", "edsr x3", "edsr x4", "mdsr x3", "mdsr x4"],
)
def test_gradients_of_a_batch_are_those_of_its_mean_loss(make, scale, parts):
    """With the layers one by one."""
    changes = {"data.batch": 4, "data.accumulate": parts, "precision": "fp32"}
    torch.manual_seed(0)
    network = make().eval()
    low, high = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8 * scale, 8 * scale)
    expected = (network(low, scale) - high).abs().mean()
    expected.backward()
    truth = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    recipe = load_recipe("edsr-light", changes=changes)
    learner = Learner(network, recipe, torch.device("cpu"))
    assert float(learner.gradients(low, high, scale)) == pytest.approx(float(expected.detach()))
    made = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    assert made.keys() == truth.keys()
    for name, gradient in made.items():
        torch.testing.assert_close(gradient, truth[name])


@pytest.mark.parametrize(("clip", "norm"), [(0.5, 0.5), (0.0, 100.0), (1e6, 100.0)])
def test_gradients_longer_than_the_limit_are_shortened(clip, norm):
    recipe = load_recipe("edsr-light", changes={"optimiser.clip": clip})
    learner = Learner(EDSR(2, blocks=1, channels=4), recipe, torch.device("cpu"))
    gradients = [torch.randn_like(p) for p in learner.network.parameters()]
    length = torch.cat([g.flatten() for g in gradients]).norm()
    for parameter, gradient in zip(learner.network.parameters(), gradients, strict=True):
        parameter.grad = gradient * 100 / length
    learner.prepare(1e-3, 0)
    learner.update()
    left = torch.cat([p.grad.flatten() for p in learner.network.parameters()]).norm()
    assert float(left) == pytest.approx(norm, rel=1e-3)


def test_accumulating_changes_nothing_but_memory(order, tmp_path):
    run_order(order("whole", changes={"optimiser.clip": 0.0}), View(), never)
    parts = {"data.accumulate": 4, "optimiser.clip": 0.0}
    run_order(order("parts", changes=parts), View(), never)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.allclose(a[k], b[k], atol=1e-5) for k in a)


def test_one_folder_for_each_of_several_scales(order, tmp_path):
    view = View()
    results = run_order(order(scales=(2, 4)), view, never)
    assert [r.path for r in results] == [
        tmp_path / "run" / f"x{s}" / "model.safetensors" for s in (2, 4)
    ]
    assert read_facts(results[1].path).scales == (4,)
    assert any(n.startswith("x4 starts from x2/model.safetensors: ") for n in view.notes)
    assert view.titles == ["tiny x2", "tiny x4"]


def test_init_is_for_the_first_scale(order, tmp_path):
    view = View()
    run_order(order(scales=(2, 3), init="none"), view, never)
    assert "x2 starts from nothing (seed 0)" in view.notes
    assert any(n.startswith("x3 starts from x2/model.safetensors: ") for n in view.notes)


def test_overwriting_several_scales_leaves_none_of_the_old_ones_to_resume(order, tmp_path):
    several = partial(order, scales=(2, 4))
    run_order(several(), View(), never)
    (first,) = run_order(several(overwrite=True), View(), after(2))
    assert not first.finished
    assert not list((tmp_path / "run/x4").glob("[!.]*.*"))
    view = View()
    results = run_order(several(resume=True), view, never)
    assert [r.finished for r in results] == [True, True]
    assert any(n.startswith("x4 starts from") for n in view.notes)


def test_overwriting_removes_nothing_while_another_run_works_in_one_of_the_folders(order, tmp_path):
    several = partial(order, scales=(2, 4))
    run_order(several(), View(), never)
    for busy, spared in (("x2", "x4"), ("x4", "x2")):
        before = weights(tmp_path / "run" / spared)
        with (
            FileLock(tmp_path / "run" / busy / ".upres-lock"),
            pytest.raises(OutputError, match=f"another run works in .*{busy}"),
        ):
            run_order(several(overwrite=True), View(), never)
        assert same(before, weights(tmp_path / "run" / spared))


def test_a_higher_scale_begins_with_what_its_recipe_adds_to_the_lower_one(order, tiny):
    """For the lower one's scale, and unless --init says with what to begin."""
    way = "edsr-light-x2,+edsr-light-x4,-edsr-light-x2"
    tiny.write_text(f'{TINY}[x4]\nnetwork.start = "{way}"\n')
    changes = {"network.numbers.blocks": 16, "network.numbers.channels": 32, "steps": 1}
    wide = partial(order, changes=changes)
    for scales, init, added in (
        ((2, 4), None, True),
        ((3, 4), None, False),
        ((2, 4), "none", False),
    ):
        view = View()
        run_order(wide(f"{scales} {init}", scales=scales, init=init), view, never)
        (begun,) = (note for note in view.notes if note.startswith("x4 starts from"))
        assert ("what led from edsr-light-x2 to edsr-light-x4" in begun) == added


def test_a_shared_network_learns_its_scales_together(order, tmp_path):
    changes = {"network.architecture": "mdsr", "network.scales": [2, 3], "steps": 20}
    (result,) = run_order(order(changes=changes), View(), never)
    assert read_facts(result.path).scales == (2, 3)
    before = ARCHITECTURES["mdsr"]((2, 3), blocks=1, channels=4).state_dict()
    assert weights(tmp_path / "run").keys() == before.keys()
    assert [q.scale for q in result.quality] == [2, 3]


def test_photo_recipes_are_validated_on_degraded_pictures(order):
    clean = run_order(order("a"), View(), never)[0].quality[0]
    changes = {"data.degradation": "photo", "data.versions": 1}
    photo = run_order(order("b", changes=changes), View(), never)[0].quality[0]
    assert photo.bicubic_psnr < clean.bicubic_psnr - 1


class Faulty(PatchStore):
    """Its pictures hold a NaN at some steps."""

    bad: tuple[int, ...] = ()
    calls = 0

    def cut(self, places, scale):
        low, high = super().cut(places, scale)
        Faulty.calls += 1
        if Faulty.calls in self.bad:
            high = high * float("nan")
        return low, high


def test_a_bad_loss_goes_back_and_slower(order, tmp_path, monkeypatch):
    monkeypatch.setattr(rundata, "PatchStore", Faulty)
    Faulty.calls, Faulty.bad = 0, (70,)
    view = View()
    (result,) = run_order(order(changes={"steps": 200}), view, never)
    assert result.finished
    (rollback,) = [e for e in events(tmp_path / "run") if e["event"] == "rollback"]
    assert (rollback["step"], rollback["back_to"], rollback["rate_factor"]) == (100, 50, 0.5)
    assert any("back to step 50, with 0.5 of the rate" in note for note in view.notes)
    assert all(torch.isfinite(v).all() for v in weights(tmp_path / "run").values())
    last = torch.load(tmp_path / "run/last.pt", weights_only=True)["position"]
    assert last == last | {"step": 200, "slowed": 0.5, "rollbacks": 0}


def test_a_loss_that_stays_bad_gives_up_with_the_last_good_state(order, tmp_path, monkeypatch):
    monkeypatch.setattr(rundata, "PatchStore", Faulty)
    Faulty.calls, Faulty.bad = 0, tuple(range(60, 10**4))
    with pytest.raises(ResourceError, match=r"not finite again and again.*step 50 is saved"):
        run_order(order(changes={"steps": 200}), View(), never)
    state = torch.load(tmp_path / "run/last.pt", weights_only=True)
    assert state["position"]["step"] == 50
    assert all(torch.isfinite(v).all() for v in state["network"].values())
    factors = [e["rate_factor"] for e in events(tmp_path / "run") if e["event"] == "rollback"]
    assert factors == [0.5, 0.25, 0.125]
    assert state["position"]["slowed"] == 0.0625


def test_a_bad_loss_at_the_very_end_is_not_kept(order, tmp_path, monkeypatch):
    monkeypatch.setattr(rundata, "PatchStore", Faulty)
    Faulty.calls, Faulty.bad = 0, (60,)
    (result,) = run_order(order(changes={"steps": 60}), View(), never)
    assert result.finished
    assert all(torch.isfinite(v).all() for v in weights(tmp_path / "run").values())
    # What was lost is made again.
    last = torch.load(tmp_path / "run/last.pt", weights_only=True)["position"]
    assert last == last | {"step": 60, "slowed": 0.5}
    assert [e["step"] for e in events(tmp_path / "run") if e["event"] == "steps"] == [50, 60]


def test_weights_are_never_measured_after_a_bad_loss(order, tmp_path, monkeypatch):
    monkeypatch.setattr(rundata, "PatchStore", Faulty)
    Faulty.calls, Faulty.bad = 0, (1,)
    view = View()
    run_order(order(changes={"steps": 3}, validate_minutes=0.0), view, never)
    assert len(view.looks) >= 2
    told = [e for e in events(tmp_path / "run") if e["event"] == "validation"]
    assert all(e["psnr"] > 5 for e in told)
    assert all(torch.isfinite(v).all() for v in weights(tmp_path / "run").values())


def test_looking_often_keeps_the_saved_state_young(order, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "_VALIDATION_SHARE", 0)
    monkeypatch.setattr(session, "Run", partial(session.Run, save_every=0.0))
    run_order(order(validate_minutes=0.0, changes={"steps": 10}), View(), never)
    saved = [e["step"] for e in events(tmp_path / "run") if e["event"] == "checkpoint"]
    assert saved == list(range(11))


def test_a_full_disk_leaves_the_old_checkpoint(order, tmp_path, monkeypatch):
    run_order(order(), View(), after(4))
    before = (tmp_path / "run/last.pt").read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match=r"disk is full.*--resume"):
        run_order(order(resume=True), View(), never)
    assert (tmp_path / "run/last.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob("*.part"))


def test_a_checkpoint_that_cannot_be_written_is_written_later(order, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "Run", partial(session.Run, save_every=0.0))
    save, fails = resume.save_checkpoint, iter([True, True])

    def full_at_first(folder, state):
        if next(fails, False):
            raise ResourceError("the disk is full", "free some")
        save(folder, state)

    monkeypatch.setattr(resume, "save_checkpoint", full_at_first)
    view = View()
    (result,) = run_order(order(), view, never)
    assert result.finished
    said = "the disk is full; training goes on, and saving is tried again"
    assert view.notes.count(said) == 2
    kinds = [e["event"] for e in events(tmp_path / "run")]
    assert kinds.index("unsaved") < kinds.index("checkpoint")
    state = torch.load(tmp_path / "run/last.pt", weights_only=True)
    assert state["position"]["step"] == 12


def test_a_last_checkpoint_that_cannot_be_written_leaves_the_weights(order, tmp_path, monkeypatch):
    def full(folder, state):
        raise ResourceError("the disk is full", "free some")

    monkeypatch.setattr(resume, "save_checkpoint", full)
    view = View()
    with pytest.raises(ResourceError, match="the disk is full"):
        run_order(order(), view, never)
    assert load(tmp_path / "run/model.safetensors").facts.name == "tiny"
    assert f"the weights are in {tmp_path / 'run/model.safetensors'}" in view.notes


def test_what_can_be_known_before_a_set_is_downloaded_is_said_before(upres, tmp_path):
    """DIV2K has 4 GB, and here is no network: whoever asks for it fails with exit code 5."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()
    way = "edsr-light-x2,+edsr-lihgt-x3,-edsr-light-x2"
    (tmp_path / "wrong.toml").write_text(f'{TINY}[x3]\nnetwork.start = "{way}"\n')
    for options, code, why in (
        (("--recipe", "edsr-lihgt"), 2, b"edsr-lihgt"),
        (("--set", "optimiser.speed=3"), 2, b"optimiser.speed"),
        (("-o", "run"), 4, b"run already holds a run"),
        (("--device", "cuda"), 2, b"device cuda"),
        (("--init", "no.safetensors"), 5, b"no.safetensors"),
        (("--init", "srcnn-x2"), 5, b"srcnn-x2"),
        (("--init", "edsr-light-x2", "--recipe", "vdsr"), 2, b"edsr-light-x2 is edsr"),
        (("--set", "network.numbers.depth=3"), 2, b"describes no network"),
        (("--scale", "3", "--set", "network.numbers.channels=48"), 5, b"--init none"),
        (("--scale", "2,3", "--recipe", "wrong.toml"), 5, b"edsr-lihgt-x3"),
        (("--recipe", "vdsr", "--set", "luma=0.5"), 2, b"knows only luma"),
        (("--data", "pcitures"), 3, b"pcitures is neither a folder nor a known set"),
        (("--data", ""), 3, b"folder is empty"),
        (("-o", ""), 2, b"name is empty"),
        (("--cache", ""), 2, b"name is empty"),
        (("--cache", "wrong.toml"), 4, b"wrong.toml is a file"),
        (("--init", ""), 2, b"--init is empty"),
        (("--teacher", ""), 2, b"--teacher is empty"),
        (("--batch", "8", "--set", "data.batch=8"), 2, b"--batch and --set data.batch are"),
        (("--minutes", "8", "--set", "steps=8"), 2, b"--minutes exclude each other"),
        (("--set", "teacher.share=0.5"), 2, b"teacher.share means nothing without"),
    ):
        done = upres("train", "--data", "DIV2K", *options)
        assert (done.returncode, why in done.stderr) == (code, True), done.stderr
        assert b"DIV2K (" not in done.stderr  # nor are its terms told


def test_what_is_stopped_for_a_while_does_not_train_meanwhile(start, pictures, tiny, tmp_path):
    process = start(*command(pictures, tiny, "-o", "run", "--steps", "100000"))
    metrics = tmp_path / "run" / "metrics.jsonl"
    until(lambda: metrics.is_file() and '"event": "steps"' in metrics.read_text(), process)
    process.send_signal(signal.SIGSTOP)
    time.sleep(6)
    process.send_signal(signal.SIGCONT)
    until(lambda: '"event": "pause"' in metrics.read_text(), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    told = events(tmp_path / "run")
    pause = max((e for e in told if e["event"] == "pause"), key=lambda e: e["seconds"])
    assert pause["seconds"] > 5.5
    assert b"s, which do not count" in process.err


def test_a_clock_leaves_out_when_the_process_was_stopped_whatever_it_did(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("upres.training.clock.time", SimpleNamespace(monotonic=lambda: now[0]))
    clock = Clock()
    begun = clock.now()
    for passes, counts, pause in (
        (1, 1, 0),
        (4.9, 5.9, 0),
        (60, 5.9, 60),
        (0, 5.9, 0),
        (2, 7.9, 0),
    ):
        now[0] += passes
        assert clock.now() - begun == pytest.approx(counts)
        assert clock.pause() == pytest.approx(pause)


def test_weights_without_their_checkpoint_are_not_replaced(order, tmp_path):
    run_order(order(), View(), never)
    before = (tmp_path / "run/model.safetensors").read_bytes()
    (tmp_path / "run/last.pt").unlink()
    with pytest.raises(OutputError, match=r"weights but no last\.pt to go on from"):
        run_order(order(resume=True, changes={"steps": 1}), View(), never)
    assert (tmp_path / "run/model.safetensors").read_bytes() == before


def test_what_a_killed_run_left_goes(order, tmp_path):
    run_order(order(), View(), after(2))
    (tmp_path / "run" / ".upres-0a.part").write_bytes(b"half")
    run_order(order(resume=True), View(), never)
    assert not list((tmp_path / "run").glob("*.part"))


def test_a_request_to_stop_while_the_last_weights_are_measured_begins_nothing(order, tmp_path):
    stop, view = Asks(count()), View()

    def validated(step, quality):
        stop.left = iter(())

    view.validated = validated
    results = run_order(order(scales=(2, 3)), view, stop)
    assert [result.finished for result in results] == [True]
    assert not (tmp_path / "run" / "x3").exists()


def test_muon_without_hidden_layers_is_adam(order):
    changes = {"optimiser.kind": "muon", "network.numbers": {"blocks": 1, "channels": 3}}
    (result,) = run_order(order(changes=changes), View(), never)
    assert result.finished


@pytest.mark.parametrize("kept", [True, False])
def test_a_precision_that_is_refused_leaves_everything(order, tmp_path, monkeypatch, kept):
    if kept:
        run_order(order(), View(), never)
    before = sorted(tmp_path.rglob("run/*"))
    monkeypatch.setattr(learning, "multiplies_bfloat16", lambda device: False)
    with pytest.raises(UsageError, match="bf16 is not computed natively here"):
        run_order(order(overwrite=True, changes={"precision": "bf16"}), View(), never)
    assert sorted(tmp_path.rglob("run/*")) == before


@pytest.mark.parametrize("damage", ["bit", "half", "key", "data", "later"])
def test_a_damaged_checkpoint_is_one_line(order, tmp_path, damage):
    run_order(order(), View(), after(2))
    path = tmp_path / "run/last.pt"
    data = bytearray(path.read_bytes())
    state = torch.load(path, weights_only=True)
    if damage == "bit":
        weight = next(iter(state["network"].values()))
        data[data.index(bytes(weight.untyped_storage())[:12])] ^= 64
    if damage in ("bit", "half"):
        path.write_bytes(data[: len(data) // 2] if damage == "half" else data)
    else:
        if damage == "key":
            del state["begun"]
        elif damage == "data":
            state["data"] = []
        else:
            state["recipe"]["colour"] = "of another version"
        torch.save(state, path)
    words = "is damaged" if damage in ("bit", "half") else "does not fit this recipe"
    with pytest.raises(WeightsError, match=words):
        run_order(order(resume=True), View(), never)


def test_pictures_that_are_too_small_are_counted(order, tmp_path, pictures, photo):
    for i in range(3):
        Image.fromarray(photo[i : i + 20, :20]).save(pictures / f"small-{i}.png")
    Image.fromarray(photo).save(pictures / "large.png")
    view = View()
    asked = order(data=(("p", find_pictures(pictures)),), changes={"data.sizes": [0.7]})
    (result,) = run_order(asked, view, never)
    left = [note for note in view.notes if "are left out: they are smaller" in note]
    data = read_training(result.path)["data"]
    assert len(left) == 1
    assert data["pictures"] + int(left[0].split()[0]) == 14  # one is held out
    assert data["megapixels"] == 0.1


def test_held_out_pictures_that_are_too_small_are_said(pictures, photo):
    Image.fromarray(photo[:20, :20]).save(pictures / "small.png")
    notes = []
    make_pairs(find_pictures(pictures).train, (2,), degraded=False, note=notes.append)
    assert notes == ["skipped small.png x2 held out for validation: it is too small"]


def test_other_low_resolution_files_are_other_pictures(order, tmp_path, pictures):
    found = find_pictures(pictures).train
    low = tmp_path / "set" / "LR_bicubic" / "X2"
    low.mkdir(parents=True)
    shutil.copytree(pictures, tmp_path / "set" / "HR")
    for file in found:
        high = np.asarray(Image.open(tmp_path / "set" / "HR" / file.name))
        Image.fromarray(imresize(high, 1 / 2)).save(low / file.name)
    run_order(order(data=(("p", find_pictures(tmp_path / "set")),)), View(), after(2))
    for path in low.iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    view = View()
    asked = order(resume=True, data=(("p", find_pictures(tmp_path / "set")),))
    (result,) = run_order(asked, view, never)
    assert any("not those that the run was begun with" in note for note in view.notes)
    told = read_training(result.path)
    assert told["data_before"][0]["low"] != told["data"]["low"]


def test_signals_that_come_together_are_one(monkeypatch):
    stop = Stop()
    with stop.listening():
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        assert (stop(), stop.signal) == (True, signal.SIGTERM)
        monkeypatch.setattr("upres.training.stop._SAME_REQUEST", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_how_many_are_held_out_is_the_same_for_all_scales(tiny, order):
    tiny.write_text(tiny.read_text() + "\n[x3]\ndata.held_out = 2\n")
    with pytest.raises(UsageError, match="held_out differs between scales"):
        run_order(order(scales=(2, 3)), View(), never)
    (result,) = run_order(order(scales=(3,)), View(), never)
    assert result.finished


def test_tables_of_other_scales_are_read_too(tiny, order):
    tiny.write_text(TINY + "\n[x3]\ndata.patsh = 8\n")
    with pytest.raises(UsageError, match=r"\[x3\]: unknown key data\.patsh"):
        load_recipe(str(tiny), scale=2)
    tiny.write_text(TINY.replace('"edsr"', '"mdsr"') + "\n[x2]\ndata.patch = 16\n")
    with pytest.raises(UsageError, match=r"\[x2\] means nothing"):
        run_order(order(), View(), never)


def test_a_step_that_does_not_fit_into_memory_is_one_line(order, tmp_path):
    def full():
        yield 0
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    with pytest.raises(ResourceError, match=r"more memory than this machine has.*accumulate"):
        run_order(order(), View(), Asks(full()))


def test_a_checkpoint_that_does_not_fit_into_memory_is_no_wrong_one(order, monkeypatch):
    run_order(order(), View(), after(2))

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(Learner, "load_state", full)
    with pytest.raises(ResourceError, match="more memory than this machine has"):
        run_order(order(resume=True), View(), never)


def test_a_checkpoint_that_cannot_be_read_now_is_not_called_damaged(order, monkeypatch):
    run_order(order(), View(), after(2))

    def failing(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("upres.training.checkpoint.zipfile.ZipFile", failing)
    with pytest.raises(WeightsError, match=r"last\.pt cannot be read \(Input/output error\)"):
        run_order(order(resume=True), View(), never)


def test_a_checkpoint_of_another_network_is_refused(order, tmp_path):
    run_order(order(), View(), after(2))
    other = {"network.numbers": {"blocks": 2, "channels": 4}}
    with pytest.raises(WeightsError, match="does not fit this recipe"):
        run_order(order(resume=True, changes=other), View(), never)
    assert (tmp_path / "run/last.pt").is_file()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"seed": 1}, "begun with --seed 0, not 1"),
        ({"changes": {"data.batch": 8}}, "begun with data.batch 4, not 8"),
        ({"changes": {"optimiser.rate": 5e-3}}, "begun with optimiser.rate 0.001, not 0.005"),
        ({"minutes": 0.1}, "begun with --minutes instead of --steps False, not True"),
    ],
)
def test_a_run_goes_on_as_it_began(order, tmp_path, other, words):
    run_order(order(), View(), after(2))
    before = (tmp_path / "run/last.pt").read_bytes()
    with pytest.raises(WeightsError, match=words):
        run_order(order(resume=True, **other), View(), never)
    assert (tmp_path / "run/last.pt").read_bytes() == before


def test_a_resumed_run_may_be_longer_and_says_when_the_pictures_changed(order, pictures, tmp_path):
    run_order(order(), View(), after(2))
    (pictures / "0.png").unlink()
    view = View()
    asked = order(resume=True, changes={"steps": 14}, data=(("pictures", find_pictures(pictures)),))
    (result,) = run_order(asked, view, never)
    assert result.finished
    assert any("not those that the run was begun with" in note for note in view.notes)
    state = torch.load(tmp_path / "run/last.pt", weights_only=True)
    assert state["position"]["step"] == 14
    # The result tells of both.
    told = load(result.path).facts.trained_on
    assert told == "9 pictures (pictures), before that 10 pictures (pictures)"
    (before,) = read_training(result.path)["data_before"]
    assert before["pictures"] == 10


def test_a_finished_run_has_seen_no_pictures_that_came_later(order, pictures):
    (first,) = run_order(order(), View(), never)
    before = read_training(first.path)["data"]
    (pictures / "0.png").unlink()
    view = View()
    later = order(resume=True, data=(("pictures", find_pictures(pictures)),))
    (result,) = run_order(later, view, never)
    assert result.finished
    assert load(result.path).facts.trained_on == "10 pictures (pictures)"
    assert read_training(result.path)["data"] == before
    assert not any("not those" in note for note in view.notes)


def test_a_run_may_go_on_in_less_memory(order, tmp_path):
    run_order(order("whole", changes={"optimiser.clip": 0.0}), View(), never)
    run_order(order(changes={"optimiser.clip": 0.0}), View(), after(5))
    parts = {"data.accumulate": 4, "optimiser.clip": 0.0}
    (result,) = run_order(order(resume=True, changes=parts), View(), never)
    assert result.finished
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.allclose(a[k], b[k], atol=1e-5) for k in a)


def test_weights_are_there_before_the_end(order, tmp_path, monkeypatch):
    """Whoever is killed while the last ones are measured has them, too."""
    monkeypatch.setattr(trainer, "_VALIDATION_SHARE", 0)
    view, seen = View(), []

    def validated(step, quality):
        path = tmp_path / "run" / "model.safetensors"
        story = read_training(path) if path.is_file() else {}
        seen.append((step, story.get("steps"), story.get("finished", True)))

    view.validated = validated
    order = partial(order, validate_minutes=1e-9)
    (result,) = run_order(order(), view, never)
    assert len(seen) > 2
    for (before, _, _), (_, steps, finished) in pairwise(seen[:-1]):
        assert (steps, finished) == (before, False)
    assert seen[-1] == (12, 12, True)
    assert read_training(result.path)["validation"]
    run_order(order("stopped"), View(), after(2))
    assert read_training(tmp_path / "stopped" / "model.safetensors")["finished"] is False


def test_a_finished_result_stays_until_a_longer_run_ends(order, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "_VALIDATION_SHARE", 0)
    run_order(order(), View(), never)
    before, view, seen = weights(tmp_path / "run"), View(), []
    view.validated = lambda *_: seen.append(same(before, weights(tmp_path / "run")))
    longer = order(resume=True, changes={"steps": 16}, validate_minutes=1e-9)
    run_order(longer, view, after(2))
    assert same(before, weights(tmp_path / "run"))
    assert f"{tmp_path / 'run' / 'model.safetensors'} stays as it was before" in view.notes[-1]
    run_order(longer, view, never)
    assert len(seen) > 2
    assert all(seen[:-1])
    assert not same(before, weights(tmp_path / "run"))


def test_a_run_that_had_ended_is_left_alone(order, tmp_path, pictures):
    (result,) = run_order(order(), View(), never)
    before, told = result.path.read_bytes(), result.quality
    (pictures / "0.png").unlink()  # now others are held out
    (again,) = run_order(order(resume=True), View(), never)
    assert result.path.read_bytes() == before
    assert again.quality == told
    assert told
    result.path.unlink()
    (again,) = run_order(order(resume=True), View(), never)
    assert again.path.is_file()


def test_where_and_how_it_computes_is_said(order):
    view = View()
    run_order(order(), view, never)
    assert f"on {torch.get_num_threads()} CPU threads, in float32" in view.notes


def test_what_a_run_began_with_is_not_read_again(order, tmp_path):
    run_order(order("first"), View(), never)
    init = tmp_path / "first" / "model.safetensors"
    run_order(order(init=str(init)), View(), after(2))
    init.unlink()
    view = View()
    (result,) = run_order(order(init=str(init), resume=True), view, never)
    assert result.finished
    assert read_training(result.path)["start"].startswith("first/model.safetensors: ")
    assert any("--init is not looked at" in note for note in view.notes)


def test_one_run_at_a_time_in_a_folder(order, tmp_path):
    with FileLock(tmp_path / "run" / ".upres-lock"):
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(OutputError, match="another run works in"):
                run_order(order(**options), View(), never)
    (result,) = run_order(order(), View(), never)
    assert result.finished


@pytest.mark.parametrize(
    "name", ["validation/0000801.png", "curve.png", "model.safetensors", "last.pt"]
)
def test_files_in_a_folder_without_a_run_are_never_overwritten(order, tmp_path, name):
    own = tmp_path / "run" / name
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_bytes(b"mine")
    for asked in (order(), order(overwrite=True)):
        with pytest.raises(OutputError, match=f"{name} is no run's"):
            run_order(asked, View(), never)
    assert own.read_bytes() == b"mine"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("inside", ["", "2023", "HR"])
def test_no_run_hides_pictures_of_its_data(order, pictures, inside):
    """What has a run's record is not looked into the next time."""
    if inside:
        (pictures / inside).mkdir()
        (pictures / "0.png").rename(pictures / inside / "0.png")
    found = (("pictures", find_pictures(pictures)),)
    asked = replace(order(data=found), folder=pictures / inside)
    with pytest.raises(OutputError, match=r"holds pictures of --data, such as .*\.png"):
        run_order(asked, View(), never)
    assert not list(pictures.rglob("metrics.jsonl"))
    (pictures / inside / "metrics.jsonl").touch()
    if not inside:
        with pytest.raises(InputError, match="it is a training run's"):
            find_pictures(pictures)


@pytest.mark.parametrize("how", ["init", "teacher", "start"])
def test_what_a_run_needs_is_not_overwritten_by_it(order, tiny, tmp_path, how):
    (first,) = run_order(order(), View(), never)
    before, there = first.path.read_bytes(), str(first.path)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    if how == "start":
        tiny.write_text(TINY.replace("[network]", f'[network]\nstart = "{there}"'))
        asked = order(overwrite=True)
    elif how == "init":
        asked = order("link", overwrite=True, init=f"{there},{there}")
    else:
        asked = order(overwrite=True, changes=TAUGHT | {"teacher.weights": there})
    with pytest.raises(OutputError, match=r"--overwrite would delete .*which the run needs"):
        run_order(asked, View(), never)
    assert first.path.read_bytes() == before


def test_what_another_run_made_meanwhile_is_not_overwritten(order, tmp_path, monkeypatch):
    several = order(scales=(2, 3))
    run_order(several, View(), never)
    other = replace(several, scales=(3,), folder=tmp_path / "run" / "x3", seed=5)
    begin, made = session.begin, []

    def meanwhile(asked, plan, first):
        if plan.scales == (3,) and not made:
            made.append(True)
            made.append(run_order(other, View(), never)[0].path.read_bytes())
        return begin(asked, plan, first)

    monkeypatch.setattr(session, "begin", meanwhile)
    with pytest.raises(OutputError, match="x3 already holds a run"):
        run_order(replace(several, overwrite=True), View(), never)
    assert (tmp_path / "run" / "x3" / "model.safetensors").read_bytes() == made[1]


def test_results_do_not_tell_where_files_lie(order, tmp_path):
    (first,) = run_order(order("first"), View(), never)
    changes = TAUGHT | {"teacher.weights": str(first.path)}
    asked = order(init=f"{first.path},+{first.path},-{first.path}", scales=(2, 3))
    for one in run_order(asked, View(), never):
        assert str(tmp_path) not in json.dumps(read_training(one.path))
    (taught,) = run_order(order("taught", changes=changes), View(), never)
    told = read_training(taught.path)
    assert str(tmp_path) not in json.dumps(told)
    assert told["recipe"]["teacher"]["weights"] == "first/model.safetensors"
    # It goes on all the same.
    longer = order("taught", changes=changes | {"steps": 14}, resume=True)
    assert run_order(longer, View(), never)[0].finished


@pytest.mark.parametrize("other", [{"seed": 1}, {"changes": {"data.sizes": [1.0, 0.7]}}])
def test_what_does_not_go_on_is_said_before_pictures_are_prepared(order, tmp_path, other):
    run_order(order(), View(), after(2))
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(WeightsError, match="was begun with"):
        check_order(order(resume=True, **other))
    before = events(tmp_path / "run")
    with pytest.raises(WeightsError, match="was begun with"):
        run_order(order(resume=True, **other), View(), never)
    assert not (tmp_path / "cache").exists()
    assert events(tmp_path / "run") == before


def test_a_later_scale_that_cannot_begin_is_found_before_the_first_is_trained(order, tiny):
    for wrong, message in (
        ("numbers = { blocks = 1, channels = 8 }", r"head\.weight is"),
        ("numbers = { blocks = 1, channels = 4, residual_scale = 0.1 }", "residual_scale"),
    ):
        tiny.write_text(f"{TINY}[x3.network]\n{wrong}\n")
        with pytest.raises((UsageError, WeightsError), match=message):
            check_order(order(scales=(2, 3)))
        check_order(order(scales=(3,)))


def test_weights_that_are_damaged_are_found_before_pictures_are_prepared(order, tmp_path):
    (first,) = run_order(order("first"), View(), never)
    shutil.rmtree(tmp_path / "cache")
    data = bytearray(first.path.read_bytes())
    first.path.write_bytes(data[:-8])
    for changes, init in (({"teacher.weights": str(first.path)}, None), ({}, str(first.path))):
        with pytest.raises(WeightsError):
            run_order(order(changes=changes, init=init), View(), never)
    assert not (tmp_path / "cache").exists()


def test_a_finished_run_may_be_named_anew(order, tmp_path):
    (result,) = run_order(order(), View(), never)
    told, story = read_facts(result.path), read_training(result.path)
    before = weights(tmp_path / "run")
    asked = order(resume=True, licence="CC-BY-4.0", trained_by="somebody")
    run_order(asked, View(), never)
    named = replace(told, licence="CC-BY-4.0", trained_by="somebody")
    assert read_facts(result.path) == named
    assert read_training(result.path) == story
    assert same(weights(tmp_path / "run"), before)
    written = result.path.stat().st_mtime_ns
    run_order(order(resume=True, name="tiny"), View(), never)
    assert result.path.stat().st_mtime_ns == written


def test_what_is_held_out_and_too_small_is_said(order, pictures):
    for path in pictures.iterdir():
        with Image.open(path) as image:
            image.crop((0, 0, 40, 40)).save(path)
    view = View()
    changes = {"data.patch": 8, "data.batch": 2, "steps": 2}
    found = (("pictures", find_pictures(pictures)),)
    (result,) = run_order(order(data=found, changes=changes, scales=(3,)), view, never)
    assert result.quality == ()
    assert any("nothing is measured" in note and "48 pixels" in note for note in view.notes)


def test_a_network_without_upsamplers_is_not_resumed_at_another_scale(order, tmp_path):
    asked = order(recipe="srcnn", scales=(2,), changes={"data.patch": 12, "data.batch": 2})
    run_order(asked, View(), after(2))
    with pytest.raises(WeightsError, match="begun with --scale 2, not 3"):
        run_order(replace(asked, resume=True, scales=(3,)), View(), never)


def test_a_resumed_run_tells_what_it_began_from_at_first(order, tmp_path):
    run_order(order("first"), View(), never)
    init = str(tmp_path / "first" / "model.safetensors")
    run_order(order(init=init), View(), after(2))
    view = View()
    (result,) = run_order(order(resume=True), view, never)
    assert read_training(result.path)["start"].startswith("first/model.safetensors: ")
    assert any("goes on from step 2; it began from first/model.saf" in note for note in view.notes)
    assert not any("starts from" in note for note in view.notes)


def test_a_run_killed_before_it_saved_anything_is_recorded_anew(order, tmp_path):
    (tmp_path / "run").mkdir()
    line = '{"event": "steps", "time": 0, "step": 5, "loss": 1.0}\n'
    (tmp_path / "run" / "metrics.jsonl").write_text(line)
    run_order(order(resume=True), View(), never)
    assert [e["step"] for e in events(tmp_path / "run") if e["event"] == "steps"] == [12]


def test_steps_made_again_after_a_crash_are_recorded_once(order, tmp_path):
    run_order(order(changes={"steps": 100}), View(), after(60))
    metrics = tmp_path / "run" / "metrics.jsonl"
    # Killed later than its last checkpoint, in the middle of a line.
    with metrics.open("a") as file:
        file.write('{"event": "steps", "time": 0, "step": 80, "loss": 1.0}\n')
        file.write('{"event": "validation", "time": 0, "step": 90, "sc')
    run_order(order(resume=True, changes={"steps": 100}), View(), never)
    told = events(tmp_path / "run")
    assert [e["step"] for e in told if e["event"] == "steps"] == [50, 60, 100]
    assert [e["resumed"] for e in told if e["event"] == "start"] == [False, True]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
def test_a_record_that_cannot_be_written_ends_no_run(order, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").symlink_to("/dev/full")
    view = View()
    (result,) = run_order(order(overwrite=False, resume=True), view, never)
    assert result.finished
    (note,) = [note for note in view.notes if "record has gaps" in note]
    assert "No space left" in note


def test_resuming_nothing_is_said(order):
    view = View()
    run_order(order(resume=True), view, never)
    assert any("holds no run to resume: a new one begins" in note for note in view.notes)


def test_a_checkpoint_of_another_kind_of_device_is_taken(order):
    learner = Learner(EDSR(2, blocks=1, channels=4), load_recipe("edsr-light"), torch.device("cpu"))
    state = learner.state()
    for group in state["optimisers"][1]["param_groups"]:
        group["capturable"] = True  # as CUDA has it
    learner.load_state(state)
    assert not any(group["capturable"] for group in learner.optimisers[1].param_groups)


def test_a_checkpoint_from_before_there_was_a_field_is_taken(order, tmp_path):
    run_order(order(), View(), after(2))
    path = tmp_path / "run/last.pt"
    state = torch.load(path, weights_only=True)
    del state["recipe"]["optimiser"]["ema_span"]
    torch.save(state, path)
    run_order(order(resume=True), View(), never)
    assert torch.load(path, weights_only=True)["position"]["step"] > 2


def test_a_checkpoint_of_another_version_is_not_gone_on_with(order, tmp_path):
    run_order(order(), View(), after(2))
    path = tmp_path / "run/last.pt"
    saved = torch.load(path, weights_only=True)
    torch.save(saved | {"format": saved["format"] - 1}, path)
    with pytest.raises(WeightsError, match="not a checkpoint of this version"):
        run_order(order(resume=True), View(), never)


def test_a_checkpoint_runs_no_code(order, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch pwned",)

    (tmp_path / "run").mkdir()
    torch.save({"format": 1, "network": Evil()}, tmp_path / "run/last.pt")
    with pytest.raises(WeightsError, match="damaged"):
        run_order(order(resume=True), View(), never)
    assert not os.path.exists("pwned")  # noqa: PTH110


def test_a_folder_with_a_run_is_not_begun_again(order, tmp_path):
    run_order(order(), View(), never)
    with pytest.raises(OutputError, match=r"already holds a run.*--resume"):
        run_order(order(), View(), never)
    before = weights(tmp_path / "run")
    run_order(order(overwrite=True, seed=9), View(), never)
    assert not same(before, weights(tmp_path / "run"))
    # Pictures of steps that the new run does not make are gone; other people's files are not.
    left = tmp_path / "run" / "validation"
    (left / "0000999.png").touch()
    (left / "mine.png").touch()
    run_order(order(overwrite=True), View(), never)
    assert {p.name for p in left.iterdir()} == {"0000012.png", "mine.png"}
    # What was there may be what the new run begins with, and goes when nothing can fail any more.
    path = tmp_path / "run/model.safetensors"
    before = path.read_bytes()
    with pytest.raises(WeightsError, match=r"no\.safetensors cannot be read"):
        run_order(order(overwrite=True, init="no.safetensors"), View(), never)
    with pytest.raises(InputError, match="as large as a patch"):
        run_order(order(overwrite=True, changes={"data.patch": 90}), View(), never)
    assert path.read_bytes() == before
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        run_order(order("file"), View(), never)


# The command


def command(pictures, tiny, *more):
    return ("train", "--data", pictures, "--recipe", tiny, "--device", "cpu", *more)


def test_train_then_use_show_and_list(upres, pictures, tiny, tmp_path, small):
    done = upres(*command(pictures, tiny, "-o", "run"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == "run/model.safetensors\n"
    with Image.open(tmp_path / "run" / "curve.png") as curve:
        assert len(np.unique(np.asarray(curve.convert("RGB")).reshape(-1, 3), axis=0)) > 10
    said = done.stderr.decode()
    assert "validation (Y, scale shaved)  model" in said
    assert "upres photo.jpg --scale 2 --model run/model.safetensors" in said
    used = upres(small, "--scale", "2", "--model", "run/model.safetensors", "-o", "out.png")
    assert used.returncode == 0, used.stderr
    assert np.asarray(Image.open(tmp_path / "out.png")).shape == (80, 96, 3)
    shown = upres("models", "show", "run/model.safetensors").stdout.decode()
    for words in ("tiny", "12 steps", "10 pictures", "seed 0", "bicubic"):
        assert words in shown


def test_the_default_folder_says_what_was_trained(upres, pictures, tiny, tmp_path):
    done = upres(*command(pictures, tiny, "--scale", "3,2", "--steps", "1", "--json"))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert lines[-1]["event"] == "result"
    assert lines[-1]["path"] == "runs/tiny-x2-x3/x3/model.safetensors"  # from x2
    assert {"begin", "validation", "result"} <= {line["event"] for line in lines}


@pytest.mark.parametrize(
    ("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_saves_first(start, pictures, tiny, tmp_path, sign, code):
    process = start(*command(pictures, tiny, "-o", "run", "--steps", "100000"))
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.is_file() and '"event": "steps"' in metrics.read_text()):
        assert process.poll() is None, process.err
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(sign)
    assert process.wait(60) == code
    assert b"stopped and saved; to continue, repeat the command with --resume" in process.err
    state = torch.load(tmp_path / "run/last.pt", weights_only=True)
    assert state["position"]["step"] >= 50
    assert load(tmp_path / "run/model.safetensors").facts.name == "tiny"


def test_a_reader_that_goes_away_loses_nothing(start, pictures, tiny, tmp_path):
    reads, writes = os.pipe()
    long = ("-o", "my run", "--steps", "100000", "--json")
    process = start(*command(pictures, tiny, *long), stdout=writes)
    os.close(writes)
    with os.fdopen(reads, "rb") as stream:
        while b'"event": "steps"' not in stream.readline():
            assert process.poll() is None, process.err
    assert process.wait(60) == 141
    assert b"stopped and saved" in process.err
    assert b"--model 'my run/model.safetensors'" in process.err
    assert torch.load(tmp_path / "my run/last.pt", weights_only=True)["position"]["step"] >= 50
    assert load(tmp_path / "my run/model.safetensors").facts.name == "tiny"


def test_nobody_who_listens_to_the_messages_is_no_reason_to_end(start, pictures, tiny, tmp_path):
    reads, writes = os.pipe()
    process = start(*command(pictures, tiny, "-o", "run"), stderr=writes)
    os.close(reads)
    os.close(writes)
    assert process.wait(60) == 0
    assert process.out == b"run/model.safetensors\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--data", "none"), 3, "neither a folder nor a known set"),
        (("--data", "empty"), 3, "holds no pictures"),
        (("--data", "pictures", "--recipe", "nope"), 2, "no recipe is called 'nope'"),
        (("--data", "pictures", "--patch", "500"), 3, "no picture is as large as a patch"),
        (("--data", "pictures", "--set", "data.size=1"), 2, "unknown key data.size"),
        (("--data", "pictures", "--set", "rate"), 2, "--set takes KEY=VALUE"),
        (("--data", "pictures", "--steps", "5", "--minutes", "5"), 2, "exclude each other"),
        (("--data", "pictures", "--minutes", "0"), 2, "--minutes must be over 0"),
        (("--data", "pictures", "--scale", "5"), 2, "--scale takes 2, 3, 4"),
        (("--data", "pictures", "--init", "no.safetensors"), 5, "no.safetensors cannot be read"),
        (("--data", "pictures", "--resume", "--overwrite"), 2, "exclude each other"),
        (("--recipe", "edsr-light"), 2, "--data"),
        (("--data", "pictures", "--seed", str(2**64)), 2, "more than 63 bits"),
        (("--data", "pictures", "--name", "a\nb"), 2, "contains a line break or control character"),
        (("--data", "pictures", "-o", "empty/file/run"), 4, "empty/file is a file"),
        (("--data", "pictures", "--recipe", "empty/r.toml"), 2, "x2 must be a table, not 5"),
        *(
            (("--data", "pictures", "--set", f"network.{change}"), 2, words)
            for change, words in (
                ("numbers.blocks=x", "network.numbers must be over 0"),
                ("numbers.blocks=-1", "network.numbers must be over 0"),
                ("numbers.channels=0", "network.numbers must be over 0"),
                ("numbers.foo=1", "describes no network of upres"),
                ("scales=[2,2]", "each once at most"),
            )
        ),
    ],
)
def test_bad_input_is_one_line_and_a_code(upres, pictures, tmp_path, arguments, code, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "file").touch()
    (tmp_path / "empty" / "r.toml").write_text("x2 = 5\n")
    done = upres("train", *arguments)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == code, lines
    assert lines[-1].startswith("upres: ")
    assert words in lines[-1]
    assert not done.stdout


def lines_on_a_terminal(screen, until, process):
    """What is written there, until those words are."""
    seen, ended = b"", False
    while not all(word in seen for word in until):
        assert not ended, seen
        ended = process.poll() is not None  # what it wrote last is still to be read
        with suppress(OSError):
            while piece := os.read(screen, 65536):
                seen += piece
        time.sleep(0.02)
    return seen


@pytest.fixture
def training_on_a_terminal(start, pictures, tiny):
    """A long run, and the terminal that it is seen on."""
    import pty

    screen, end = pty.openpty()
    os.set_blocking(screen, False)
    long = ("-o", "run", "--steps", "100000", "--validate-every", "0.001")
    process = start(*command(pictures, tiny, *long), stderr=end, env={"TERM": "xterm"})
    os.close(end)
    yield process, screen
    with suppress(OSError):
        os.close(screen)


def test_a_terminal_shows_how_a_run_gets_on(training_on_a_terminal):
    process, screen = training_on_a_terminal
    words = "tiny x2, recipe tiny|step|loss|rate|patches/s|time in data|elapsed|left|validation"
    lines_on_a_terminal(screen, [*words.encode().split(b"|"), b"bicubic", "━".encode()], process)
    process.send_signal(signal.SIGINT)
    lines_on_a_terminal(screen, [b"stopping: measuring what there is"], process)


def test_a_terminal_that_is_closed_loses_nothing(training_on_a_terminal, tmp_path):
    process, screen = training_on_a_terminal
    lines_on_a_terminal(screen, [b"patches/s"], process)
    os.close(screen)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 129
    assert load(tmp_path / "run/model.safetensors").facts.name == "tiny"


# TensorBoard


class Board:
    """Stands in for TensorBoard's writer."""

    def __init__(self, folder, purge_step=None):
        Board.made.append(self)
        self.folder, self.purge_step, self.values, self.closed = folder, purge_step, [], False

    def add_scalar(self, key, value, step):
        if Board.full:
            raise Board.full
        self.values.append((key, step))

    def close(self):
        self.closed = True


@pytest.fixture
def boards(monkeypatch):
    there = ModuleType("tensorboard")
    there.__spec__ = ModuleSpec("tensorboard", None)
    writer = ModuleType("torch.utils.tensorboard")
    writer.SummaryWriter = Board
    monkeypatch.setitem(sys.modules, "tensorboard", there)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", writer)
    Board.made, Board.full = [], None
    return Board.made


def test_tensorboard_is_told(order, tmp_path, boards):
    run_order(order(changes={"steps": 100}), View(), after(60))
    run_order(order(changes={"steps": 100}, resume=True), View(), never)
    first, then = boards
    assert first.folder == then.folder == str(tmp_path / "run/tensorboard")
    assert (first.purge_step, then.purge_step) == (None, 61)
    assert ("loss", 50) in first.values
    assert {("rate", 100), ("patches_per_second", 100), ("psnr/x2", 100)} <= set(then.values)
    assert first.closed
    assert then.closed


@pytest.mark.parametrize("why", [OSError(28, "No space left"), TypeError("descriptors")])
def test_tensorboard_that_fails_ends_no_run(order, boards, why):
    Board.full = why
    view = View()
    (result,) = run_order(order(changes={"steps": 100}), view, never)
    assert result.finished
    (note,) = [note for note in view.notes if "TensorBoard" in note]
    assert "training goes on" in note
    assert len(boards) == 1


# Several processes


def by_torchrun(arguments, folder, start):
    """Two processes, started as docs/training.md says."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "-m", "upres", *map(str, arguments)),
        ],
        cwd=folder,
        capture_output=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def pair_of(arguments, folder, start):
    """Two processes that are told what torchrun would tell them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    common = meeting | {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    return [
        start(*arguments, cwd=folder, env=common | {"RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]


def as_torchrun_does(arguments, folder, start):
    """The same two without torchrun, in a third of its time."""
    pair = pair_of(arguments, folder, start)
    assert [process.wait() for process in pair] == [0, 0], pair[0].err + pair[1].err
    return pair[0].out + pair[1].out


@pytest.mark.parametrize(
    ("two", "more", "files"),
    [
        # The second run begins with what the first process of the first one wrote.
        pytest.param(
            by_torchrun,
            ("--scale", "2,3"),
            ("x2/model.safetensors", "x3/model.safetensors"),
            marks=pytest.mark.skipif(not SOAK, reason="make soak: torch is imported five times"),
        ),
        (  # The first one has the teacher make its pictures; the others wait for them.
            as_torchrun_does,
            ("--teacher", "edsr-light-x2", "--set", "teacher.sees=pictures"),
            ("model.safetensors",),
        ),
        # Each step uses the layers of one scale alone.
        (
            as_torchrun_does,
            (
                *("--set", "network.architecture=mdsr", "--scale", "2,3"),
                *("--set", "optimiser.clip=0.05", "--set", "data.accumulate=2"),
            ),
            ("model.safetensors",),
        ),
    ],
)
def test_two_processes_are_one_with_the_batch_doubled(
    pictures, tiny, tmp_path, upres, start, two, more, files
):
    common = ("--set", "optimiser.clip=0", "--steps", "10", "--threads", "1", *more)
    done = upres(*command(pictures, tiny, "-o", "one", "--batch", "8", *common))
    assert done.returncode == 0, done.stderr
    for file in home().rglob("taught-*"):  # which the two have to make
        file.unlink()
    asked = command(pictures, tiny, "-o", "two", "--batch", "4", "--json", *common)
    said = [json.loads(line) for line in two(asked, tmp_path, start).splitlines()]
    assert sum(event["event"] == "begin" for event in said) == len(files)  # the first alone speaks
    results = [event["path"] for event in said if event["event"] == "result"]
    assert results == [f"two/{file}" for file in files]
    for file in files:
        a, b = load_file(tmp_path / "one" / file), load_file(tmp_path / "two" / file)
        assert all(torch.allclose(a[k], b[k], atol=1e-5) for k in a)
        ended = [e for e in events((tmp_path / "two" / file).parent) if e["event"] == "end"]
        assert len(ended) == 1  # the first process alone writes
        assert read_training(tmp_path / "two" / file)["processes"] == 2


@pytest.mark.parametrize("asked", [0, 1])
def test_one_process_that_is_asked_to_stop_stops_both(pictures, tiny, tmp_path, start, asked):
    long = ("-o", "run", "--steps", "100000", "--threads", "1", "--scale", "2,3")
    pair = pair_of(command(pictures, tiny, *long), tmp_path, start)
    metrics = tmp_path / "run" / "x2" / "metrics.jsonl"
    until(lambda: metrics.is_file() and '"event": "steps"' in metrics.read_text(), pair[0])
    pair[asked].send_signal(signal.SIGTERM)
    codes = [process.wait(60) for process in pair]
    assert codes[asked] == codes[0] == 143
    assert b"stopped and saved; to continue, repeat the command with --resume" in pair[0].err
    ended = next(e for e in events(metrics.parent) if e["event"] == "end")
    assert ended["finished"] is False
    assert not (tmp_path / "run" / "x3" / "metrics.jsonl").exists()


def test_a_process_that_is_gone_is_one_line(pictures, tiny, tmp_path, start):
    long = ("-o", "run", "--steps", "100000", "--threads", "1")
    first, other = pair_of(command(pictures, tiny, *long), tmp_path, start)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.is_file() and '"event": "steps"' in metrics.read_text()):
        assert first.poll() is None, first.err
        time.sleep(0.05)
    other.kill()
    assert first.wait(60) == 6
    last = first.err.decode().splitlines()[-1]
    assert last.startswith("upres: another process is gone (")
    assert last.endswith("--resume goes on from the last checkpoint")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_training_on_cuda_learns_and_resumes(order, tmp_path):
    asked = order(device="cuda", changes={"steps": 100, "precision": "bf16"})
    (half,) = run_order(asked, View(), after(60))
    (result,) = run_order(replace(asked, resume=True), View(), never)
    assert not half.finished
    assert result.finished
    losses = [e["loss"] for e in events(tmp_path / "run") if e["event"] == "steps"]
    assert losses[-1] < losses[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimiser.kind": "muon", "loss": "psnr", "luma": 0.5},
        {"data.accumulate": 2},
        {"data.degradation": "photo", "data.versions": 1},
        {"network.architecture": "mdsr", "network.scales": [2, 3], "optimiser.kind": "muon"},
        {"network.architecture": "srresnet"},
        {"teacher.weights": "edsr-light-x2"},
        {"teacher.weights": "edsr-light-x2", "teacher.sees": "pictures"},
    ],
)
def test_recorded_steps_are_those_that_are_launched(order, tmp_path, monkeypatch, changes):
    """Rates, averages and patches of each step, and not of the one that was recorded."""
    changes = {"steps": 14, "precision": "fp32"} | changes
    for folder, recorded in (("launched", "0"), ("recorded", "1")):
        monkeypatch.setenv("UPRES_CUDA_GRAPHS", recorded)
        run_order(order(folder, device="cuda", changes=changes), View(), never)
    files = [load_file(tmp_path / f / "model.safetensors") for f in ("launched", "recorded")]
    # Sums are taken in any order there; a rate or a batch that stays as it was is 1e-3 off.
    for name, launched in files[0].items():
        assert (launched - files[1][name]).float().abs().mean() < 1e-4, name


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UsageError, match=r"2 processes or more, and 1 GPUs.*--nproc-per-node 1"):
        join("cuda")
