"""weights.toml, the files it lists, and the facts inside them."""

import json
import struct
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from upres.errors import WeightsError
from upres.model import Model, build, load
from upres.networks import ARCHITECTURES
from upres.weights.facts import FactsError, ModelFacts
from upres.weights.header import read_facts, read_header
from upres.weights.manifest import load_manifest, manifest_path, read_manifest
from upres.weights.store import checked_sha256, fetch, local_path

ROOT = Path(__file__).parent.parent
BUNDLED = [e for e in load_manifest().entries if e.hub is None]

FACTS = {
    "name": "tiny",
    "architecture": "edsr",
    "numbers": {"blocks": 1, "channels": 4, "residual_scale": 0.5, "mean": [0.1, 0.2, 0.3]},
    "scales": [2],
    "colour": "rgb",
    "licence": "Apache-2.0",
    "trained_by": "a test",
    "trained_on": "nothing",
    "measured": [{"set": "set5", "scale": 2, "psnr": 30.5, "ssim": 0.9}],
}


def test_the_manifest_is_the_one_at_the_top_of_the_checkout():
    assert manifest_path() == ROOT / "weights.toml"


@pytest.mark.parametrize("entry", load_manifest().entries, ids=lambda e: e.name)
def test_every_entry_builds_its_network(entry):
    model = build(entry.facts)
    assert model.network.scales == entry.facts.scales
    assert entry.facts.architecture in ARCHITECTURES


@pytest.mark.parametrize("entry", BUNDLED, ids=lambda e: e.name)
def test_bundled_files_are_whole_and_say_what_the_manifest_says(entry):
    path = fetch(entry)
    assert path.stat().st_size == entry.size
    assert read_facts(path) == entry.facts
    assert load(path).facts == entry.facts
    assert entry.facts.measured, "a bundled model is measured"


def test_bundled_files_are_listed_and_together_small():
    folder = ROOT / "src" / "upres" / "weights" / "bundled"
    files = {p.name: p.stat().st_size for p in folder.iterdir()}
    assert set(files) == {e.file for e in BUNDLED}
    assert sum(files.values()) <= 16 * 10**6


def pattern() -> np.ndarray:
    """Waves, an edge and a dot, 24 x 28 x 3 uint8."""
    y, x = np.mgrid[0:24, 0:28]
    planes = [120 + 80 * np.sin(x / 2.0), 128 + 90 * np.cos((x + 2 * y) / 3.0), 200.0 * (x > y)]
    picture = np.stack(planes, 2)
    picture[5:7, 20:22] = 255
    return picture.round().astype(np.uint8)


@pytest.mark.parametrize("entry", BUNDLED, ids=lambda e: e.name)
def test_golden_output_of_bundled_weights(entry):
    """Made once in fp32 on the day the weights were bundled; any machine agrees to one level."""
    import upres

    scale = entry.facts.scales[0]
    golden = Image.open(Path(__file__).parent / "golden" / f"{entry.name}.png")
    upscaler = upres.load(entry.facts.name, scale=scale, precision="fp32", device="cpu")
    got = upscaler.upscale(pattern())
    assert np.abs(got.astype(int) - np.asarray(golden).astype(int)).max() <= 1


def test_a_saved_model_loads_the_same(tmp_path):
    torch.manual_seed(0)
    model = build(ModelFacts.from_mapping(FACTS))
    path = tmp_path / "tiny.safetensors"
    model.save(path)
    again = load(path)
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(again.network(x, 2), model.network(x, 2), atol=0, rtol=0)
    assert again.facts == model.facts
    assert again.parameters == model.parameters > 0
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.safetensors"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_round_trips(name, tmp_path):
    shares = ARCHITECTURES[name].shares_scales
    colour = ARCHITECTURES[name].colour
    numbers = {"edsr": {"blocks": 1}, "mdsr": {"blocks": 1}, "srresnet": {"blocks": 1}}
    facts = {**FACTS, "architecture": name, "numbers": numbers.get(name, {}), "measured": []}
    facts |= {"scales": [2, 4] if shares else [4], "colour": colour}
    model = build(ModelFacts.from_mapping(facts))
    model.save(tmp_path / "m.safetensors", dtype=torch.float16)
    again = load(tmp_path / "m.safetensors")
    for key, value in model.network.state_dict().items():
        expected = value.half().to(value.dtype)
        torch.testing.assert_close(again.network.state_dict()[key], expected, atol=0, rtol=0)


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3),
        st.one_of(st.integers(0, 9), st.floats(-1, 1), st.lists(st.integers(0, 3), max_size=3)),
        max_size=4,
    ),
    st.lists(st.integers(2, 8), min_size=1, max_size=3, unique=True),
)
def test_facts_survive_json(numbers, scales):
    facts = ModelFacts.from_mapping({**FACTS, "numbers": numbers, "scales": scales, "measured": []})
    assert ModelFacts.from_mapping(json.loads(json.dumps(facts.to_mapping()))) == facts


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"colour": "cmyk"}, "colour must be"),
        ({"scales": []}, "scales must be"),
        ({"scales": [1]}, "from 2 to 8"),
        ({"scales": [True]}, "from 2 to 8"),
        ({"numbers": {"blocks": "many"}}, "must be a number"),
        ({"licence": ""}, "licence must be a line of text"),
        ({"measured": [{"set": "set5"}]}, "a measurement has"),
        ({"measured": [{"set": "a", "scale": 3, "psnr": 1, "ssim": 1}]}, "not among the scales"),
    ],
)
def test_impossible_facts_are_refused(change, why):
    with pytest.raises(FactsError, match=why):
        ModelFacts.from_mapping({**FACTS, **change})
    with pytest.raises(FactsError, match="missing key 'scales'"):
        ModelFacts.from_mapping({k: v for k, v in FACTS.items() if k != "scales"})


GOOD = """
format = 1
[auto]
default = ["tiny"]
fast = ["tiny"]
photo = []
[tiny]
architecture = "edsr"
numbers = { blocks = 1 }
colour = "rgb"
licence = "Apache-2.0"
trained_by = "a"
trained_on = "b"
repository = "a/b"
revision = "0123456789012345678901234567890123456789"
layout = "upres"
[tiny.x2]
file = "a.safetensors"
sha256 = "%s"
size = 5
measured = [{ set = "set5", psnr = 1.0, ssim = 0.5 }]
""" % ("0" * 64)


def test_a_file_may_have_its_own_story(tmp_path):
    path = tmp_path / "weights.toml"
    path.write_text(GOOD.replace("size = 5", 'size = 5\ntrained_by = "c"'))
    (entry,) = read_manifest(path).entries
    assert (entry.facts.trained_by, entry.facts.trained_on) == ("c", "b")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("format = 1", "format = 2", "format must be 1"),
        ('default = ["tiny"]', 'default = ["no"]', "auto.default must list"),
        ('fast = ["tiny"]', "", "auto must be a table"),
        ('fast = ["tiny"]', "fast = []", "must each list"),
        ("size = 5", "sise = 5", "unknown key 'sise'"),
        ("size = 5", "size = -5", "size must be"),
        ('licence = "Apache-2.0"', 'license = "Apache-2.0"', "unknown key 'license'"),
        ('licence = "Apache-2.0"', "", "missing key 'licence'"),
        ("0" * 64, "0" * 63, "sha256 must be"),
        ("0123456789012345678901234567890123456789", "main", "full commit hash"),
        ('layout = "upres"', 'layout = "odd"', "layout must be"),
        ('layout = "upres"', "", "go together"),
        ("a/b", "a b", "owner/name"),
        ('"a.safetensors"', '"../a"', "plain file name"),
        ("[tiny.x2]", "[tiny.two]", "scales must be"),
        ("[tiny]", "[[tiny]]", "no model name with a table"),
        ("[tiny]", "[tiny", "cannot be read"),
    ],
)
def test_a_manifest_with_a_mistake_is_refused(tmp_path, old, new, why):
    path = tmp_path / "weights.toml"
    path.write_text(GOOD)
    manifest = read_manifest(path)
    assert manifest.entries[0].facts.measured[0].scale == 2
    assert manifest.entries[0].name == "tiny-x2"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(WeightsError, match=why):
        read_manifest(path)


def test_models_are_found_by_family_or_file():
    manifest = load_manifest()
    assert len(manifest.family("edsr-light")) == 3
    assert [e.facts.scales for e in manifest.family("edsr-light-x3")] == [(3,)]
    with pytest.raises(WeightsError, match="no model is called 'nope'"):
        manifest.family("nope")


def test_files_that_are_not_ours_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    cases = {
        b"": "not a safetensors file",
        b"\xff" * 64: "not a safetensors file",
        struct.pack("<Q", 2) + b"[]": "not a safetensors file",
        struct.pack("<Q", 40) + b"{" * 40: "not a safetensors file",
    }
    for data, why in cases.items():
        path.write_bytes(data)
        with pytest.raises(WeightsError, match=why):
            read_facts(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match="no upres metadata"):
        read_facts(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_header(tmp_path / "none.safetensors")
    deep = "[" * 100_000
    measured = json.dumps({"format": 1, **FACTS, "measured": 5})
    for text, why in (
        ('{"format": 9}', "format is not 1"),
        (deep, "recursion|depth|nest"),
        (measured, "measured must be"),
        ("{", "Expecting"),
        ("[]", "format"),
    ):
        save_file({"a": torch.zeros(2)}, path, metadata={"upres": text})
        with pytest.raises(WeightsError, match=why):
            read_facts(path)


def test_tensors_that_do_not_fit_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    model = build(ModelFacts.from_mapping(FACTS))
    path = tmp_path / "a.safetensors"
    model.save(path)
    metadata = read_header(path)["__metadata__"]
    state = load_file(path)

    def refuse(changed, why):
        save_file(changed, path, metadata=metadata)
        with pytest.raises(WeightsError, match=why):
            load(path)

    refuse({k: v for k, v in state.items() if k != "head.weight"}, "head.weight differs")
    refuse({**state, "extra": torch.zeros(1)}, "extra differs")
    refuse({**state, "tail.bias": torch.zeros(4)}, "tail.bias differs")
    refuse({**state, "tail.bias": torch.full((3,), float("nan"))}, "not finite")
    for dtype in (torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn):
        refuse({**state, "tail.bias": torch.zeros(3).to(dtype)}, "tail.bias differs")
    model.save(path)
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    with pytest.raises(WeightsError, match="cut short"):
        load(path)


def test_numbers_that_an_architecture_does_not_take_are_refused():
    for change, why in (
        ({"architecture": "nope"}, "no architecture is called 'nope'"),
        ({"numbers": {"blobs": 1}}, "cannot be built"),
        ({"architecture": "srcnn", "numbers": {"sizes": [9, 5]}}, "cannot be built"),
        ({"colour": "y"}, "the facts say y"),
    ):
        with pytest.raises(WeightsError, match=why):
            build(ModelFacts.from_mapping({**FACTS, **change}))


def test_a_bundled_file_that_was_changed_is_refused(tmp_path, monkeypatch):
    entry = BUNDLED[0]
    copy = tmp_path / entry.file
    data = bytearray(local_path(entry).read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    assert checked_sha256(copy) != entry.sha256
    monkeypatch.setattr("upres.weights.store.local_path", lambda e: copy)
    with pytest.raises(WeightsError, match="install upres again"):
        fetch(entry)


def test_the_wheel_holds_manifest_weights_and_typing_marker(tmp_path):
    """An install from a wheel finds what a checkout finds."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "-w", tmp_path, ROOT],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "zipfile", "-e", wheel, site], check=True, capture_output=True
    )
    assert (site / "upres" / "py.typed").exists()
    with (site / "upres" / "weights.toml").open("rb") as file:
        assert tomllib.load(file)["format"] == 1
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import upres.weights.manifest as m;"
        "from upres.weights.store import fetch;"
        "print(m.manifest_path());"
        "[fetch(e) for e in m.load_manifest().entries if e.hub is None]"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert Path(done.stdout.strip()) == site / "upres" / "weights.toml"


def test_models_have_as_rgb_for_luma_networks():
    facts = {**FACTS, "architecture": "srcnn", "numbers": {}, "colour": "y"}
    model: Model = build(ModelFacts.from_mapping(facts))
    assert model.as_rgb().channels == 3
    assert build(ModelFacts.from_mapping(FACTS)).as_rgb().channels == 3
