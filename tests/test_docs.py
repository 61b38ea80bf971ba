"""What the pages say is so."""

import csv
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from upres.networks import ARCHITECTURES
from upres.training.recipe import load_recipe
from upres.weights.header import read_training
from upres.weights.manifest import load_manifest
from upres.weights.store import local_path

ROOT = Path(__file__).parent.parent


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


_SETS = {"Set5": "set5", "Set14": "set14"}


def columns_of(titles):
    """For each column the sets and scales of the figures in its cells, such as x2 / x3 / x4."""
    jpeg = "-jpeg75" if "JPEG of quality 75" in titles[0] else ""
    named, found = None, []
    for title in titles:
        named = next((known for word, known in _SETS.items() if word in title), named)
        found.append([(f"{named}{jpeg}", int(x)) for x in re.findall(r"\bx([234])\b", title)])
    return found


def figures(name):
    """PSNR by model, set and scale, in a page's tables of quality."""
    columns, told = [], {}
    for line in page(name).splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells:
            columns = []
        elif not columns:
            columns = columns_of(cells)
        else:
            model = re.match(r"[\w-]*", cells[0])[0]
            for places, cell in zip(columns, cells, strict=True):
                if re.match(r"\d\d\.\d\d\b", cell):
                    for (known, scale), figure in zip(places, cell.split(" / "), strict=True):
                        if figure != "-":
                            told[model, known, scale] = float(figure)
    return told


@pytest.mark.parametrize("name", ["README.md", "docs/models.md"])
def test_tables_have_the_figures_of_weights_toml(name):
    entries = load_manifest().entries
    measured = {
        (entry.facts.name, m.set, m.scale): round(m.psnr, 2)
        for entry in entries
        for m in entry.facts.measured
    }
    told = {key: value for key, value in figures(name).items() if key[0] != "bicubic"}
    # Beside photo's: of inputs that weights.toml states for photo only.
    others = {key for key in told if key[1] == "set14-jpeg75" and key not in measured}
    assert {key[0] for key in others} <= {"edsr-light", "edsr-baseline"}
    assert {key: value for key, value in told.items() if key not in others} == {
        key: value for key, value in measured.items() if key in told
    }
    needed = {
        k for k in measured if k[1] in (("set5", "set14"), ("set14-jpeg75",))[k[0] == "photo"]
    }
    assert needed <= set(told)


def test_bundled_weights_were_trained_on_the_pictures_that_are_listed():
    with (ROOT / "docs/training-pictures.csv").open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    trained = sorted(row["sha256"] for row in listed if row["held_out"] == "no")
    fingerprint = hashlib.sha256("".join(trained).encode()).hexdigest()
    files = [local_path(entry) for entry in load_manifest().entries if entry.hub is None]
    stories = [story for file in files if (story := read_training(file))]
    assert len(stories) >= 5
    assert {story["data"]["sha256"] for story in stories} == {fingerprint}
    assert {story["data"]["pictures"] for story in stories} == {len(trained)}
    assert all(row["source"] and row["licence"] for row in listed)


def test_halos_are_what_models_md_says():
    edsr, mdsr, srcnn, srresnet, vdsr = (ARCHITECTURES[name] for name in sorted(ARCHITECTURES))
    small = {"channels": 4}
    deep = [mdsr(blocks=blocks, **small).halo(2) for blocks in (16, 80)]
    luma = {
        "VDSR": [vdsr(**small).halo(scale) for scale in (2, 3, 4)],
        "SRCNN": [srcnn(scale).halo(scale) for scale in (2, 3, 4)],
    }
    rows = {
        "EDSR": "{} for 16 blocks, {} for 32".format(
            *(edsr(2, blocks=blocks, **small).halo(2) for blocks in (16, 32))
        ),
        "MDSR": "{} for 16 blocks, {} for 80".format(*deep),
        "SRResNet": f"{srresnet(4, **small).halo(4)} for 16 blocks at x4",
        **{name: "{} / {} / {} at x2 / x3 / x4".format(*halos) for name, halos in luma.items()},
    }
    text = page("docs/models.md")
    for name, words in rows.items():
        assert re.search(rf"\| `{name}` \|.*\| {re.escape(words)} \|", text), (name, words)


# JSON


def keys(*events):
    """All keys, but for those of tables whose keys are data."""
    found = set()
    for event in events:
        found |= set(event)
        for key in ("rows", "images", "gains", "fidelity"):
            for one in event.get(key, ()):
                found |= keys(one)
    return found


def objects(done):
    assert done.returncode in (0, 7), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def section(title):
    """Every word in code font below a heading of docs/scripts.md."""
    parts = page("docs/scripts.md").split("\n## ")
    (found,) = (part for part in parts if title in part.partition("\n")[0])
    return set(re.findall(r"`([^`]+)`", found))


def test_all_json_of_pictures_is_explained(upres, small, tmp_path):
    (tmp_path / "in").mkdir()
    small.rename(tmp_path / "in" / "small.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    batch = ("batch", "in", "-m", "bicubic", "--json")
    events = objects(upres(*batch, "--dry-run"))
    events += objects(upres(*batch, "--report-fidelity"))
    assert {e["event"] for e in events} == {"planned", "done", "failed", "summary"}
    assert keys(*events) - {"event"} <= section("upres FILE")
    assert {"planned", "done", "failed", "summary"} <= section("upres FILE")


def test_all_json_of_measuring_is_explained(upres, tmp_path, photo):
    (tmp_path / "set").mkdir()
    Image.fromarray(photo[:40, :50]).save(tmp_path / "set" / "a.png")
    found = objects(upres("bench", "set", "-s", "2", "-m", "lanczos", "--json"))
    found += objects(upres("bench", "--list", "--json"))
    assert keys(*found) <= section("upres bench")


def test_all_json_of_training_is_explained(upres, tmp_path):
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for i in range(11):
        noise = rng.integers(0, 256, (80, 80, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "in" / f"{i}.png")
    words = "train --data in --recipe srcnn --scale 2 --steps 2 --patch 8 --batch 1 -o run --json"
    told = objects(upres(*words.split()))
    kept = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert {"begin", "steps", "validation", "result"} == {e["event"] for e in told}
    assert keys(*told) - {"event"} <= section("upres train")
    assert {e["event"] for e in kept} <= section("upres train")


def test_all_json_of_models_is_explained(upres):
    told = objects(upres("models", "--json"))
    named = section("upres models")
    assert {"id", "name", "path"} <= keys(*told) <= named


def test_the_recipe_on_its_page_is_one(tmp_path):
    (text,) = re.findall(r"```toml\n(.+?)```", page("docs/training.md"), re.DOTALL)
    (tmp_path / "mine.toml").write_text(text)
    recipe = load_recipe(str(tmp_path / "mine.toml"), scale=2, changes={})
    assert recipe.network.scales == (2,)
    ARCHITECTURES[recipe.network.architecture](2, **recipe.network.numbers)
