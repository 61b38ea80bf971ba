"""Models of one's own: added by name, published with a card; and which model "auto" means."""

import errno
import io
import json
import shutil
import tracemalloc
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import upres.api
from upres.errors import ResourceError, UsageError, WeightsError
from upres.imaging.reader import read_picture
from upres.model import build, load
from upres.places import home
from upres.weights.added import add, added, remove
from upres.weights.facts import FactsError, Measurement, ModelFacts
from upres.weights.known import known_models
from upres.weights.manifest import read_manifest
from upres.weights.publish import model_card, publish
from upres.weights.store import verify


def facts(name="mine", scale=2, **changes):
    return ModelFacts.from_mapping(
        {
            "name": name,
            "architecture": "edsr",
            "numbers": {"blocks": 1, "channels": 4},
            "scales": [scale],
            "colour": "rgb",
            "licence": "CC0-1.0",
            "trained_by": "me",
            "trained_on": "two pictures",
        }
        | changes
    )


TRAINING = {
    "version": "0.1.0",
    "recipe": {"name": "edsr-light"},
    "steps": 1234,
    "hours": 0.5,
    "device": "2 CPU threads",
    "seed": 7,
    "start": "nothing (seed 7)",
    "data": {"names": ["d"], "pictures": 2, "megapixels": 1.5, "sha256": "ab" * 32},
    "validation": [
        {"scale": 2, "psnr": 33.1, "ssim": 0.9, "bicubic_psnr": 30.2, "bicubic_ssim": 0.8}
    ],
}


@pytest.fixture
def weights(tmp_path):
    """Make a small weights file."""

    def make(name="mine", scale=2, file="w.safetensors", **changes):
        torch.manual_seed(scale)
        path = tmp_path / file
        build(facts(name, scale, **changes)).save(path, training=TRAINING)
        return path

    return make


# Adding


def test_added_models_are_used_listed_verified_and_removed(upres, weights, small, tmp_path):
    path = weights()
    done = upres("models", "add", path)
    assert (done.returncode, done.stdout) == (0, b"mine-x2\n"), done.stderr
    path.unlink()
    listed = upres("models").stdout.decode()
    (row,) = [line for line in listed.splitlines() if line.startswith("mine ")]
    assert row.split()[-1] == "added"
    assert upres("models", "verify", "mine").stdout == b"mine-x2: ok\n"
    shown = upres("models", "show", "mine").stdout.decode()
    assert "1234 steps in 0.5 hours" in shown
    (told,) = upres("models", "show", "mine", "--json").stdout.splitlines()
    assert json.loads(told)["training"] == TRAINING
    used = upres(small, "-s", "2", "-m", "mine", "-o", "out.png")
    assert used.returncode == 0, used.stderr
    assert b"mine x2" in used.stderr
    assert upres("models", "remove", "mine").stdout == b"mine-x2\n"
    assert upres(small, "-s", "2", "-m", "mine").returncode == 5
    assert list((home() / "models").iterdir()) == []


def test_scales_of_one_name_make_one_model(weights):
    add(weights(scale=2))
    add(weights(scale=4))
    assert [e.name for e in known_models().family("mine")] == ["mine-x2", "mine-x4"]
    remove("mine-x2")
    assert [e.name for e in added()] == ["mine-x4"]


def test_names_can_be_chosen_and_are_not_taken_twice(weights):
    path = weights("Mine Own")
    with pytest.raises(WeightsError, match="'Mine Own' is no model name"):
        add(path)
    assert add(path, "own").name == "own-x2"
    with pytest.raises(WeightsError, match="own-x2 is added already"):
        add(path, "own")
    add(path, "own", overwrite=True)
    with pytest.raises(WeightsError, match="edsr-light comes with upres already"):
        add(path, "edsr-light")
    with pytest.raises(WeightsError, match="no model called 'other' was added"):
        remove("other")


@pytest.mark.parametrize("name", ["auto", "bicubic", "lanczos", "edsr-light", "edsr-light-x2"])
def test_names_that_mean_something_already_are_not_taken(weights, name):
    with pytest.raises(WeightsError, match=f"{name} comes with upres already"):
        add(weights("mine"), name)


def test_without_a_home_that_can_be_read_nothing_is_added(monkeypatch):
    monkeypatch.setenv("UPRES_HOME", "~nobody-has-this-name/upres")
    with pytest.raises(UsageError, match="set UPRES_HOME to a folder"):
        home()
    assert added() == ()
    assert known_models().family("edsr-light")


def test_names_that_would_mean_two_models_are_refused(weights):
    add(weights("foo"))
    with pytest.raises(WeightsError, match="would be mistaken"):
        add(weights("foo-x2"))


def test_hidden_files_are_no_models(weights):
    add(weights())
    (home() / "models" / "._mine-x2.json").write_bytes(b"\0\5\x16\7")
    assert [entry.name for entry in added()] == ["mine-x2"]


def test_a_disk_that_is_full_leaves_no_half_of_a_model(weights, monkeypatch):
    add(weights())
    before = {p.name: p.read_bytes() for p in (home() / "models").iterdir()}

    def full(self, *arguments, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_text", full)
        with pytest.raises(ResourceError, match="there is no room on the disk for"):
            add(weights(scale=2, measured=[]), overwrite=True)
    assert {p.name: p.read_bytes() for p in (home() / "models").iterdir()} == before


def test_what_is_not_ours_is_not_added(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError, match="is not a safetensors file"):
        add(tmp_path / "x.safetensors")
    assert added() == ()


def test_a_changed_or_missing_file_is_noticed(upres, weights, small):
    file = add(weights()).local
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = upres(small, "-s", "2", "-m", "mine", "-o", "out.png")
    assert done.returncode == 5
    assert b"add it again" in done.stderr
    file.unlink()
    assert b"missing" in upres(small, "-s", "2", "-m", "mine", "-o", "out.png").stderr
    (home() / "models" / "mine-x2.json").write_text("{")
    add(weights(scale=4))
    done = upres("models")
    assert done.returncode == 0
    assert b"mine-x2.json is damaged" in done.stderr
    assert b"'upres models remove mine-x2', and add the model again" in done.stderr
    # No other file of it is taken instead.
    done = upres(small, "-s", "2", "-m", "mine", "-o", "out.png")
    assert done.returncode == 5
    assert b"mine-x2.json is damaged" in done.stderr
    done = upres("models", "verify")
    assert done.returncode == 8
    assert b"mine-x2: unusable\n" in done.stdout
    assert remove("mine-x4") == ("mine-x4",)
    # Nothing else is stopped by it.
    assert upres(small, "-s", "2", "-m", "edsr-light", "-o", "out.png").returncode == 0
    assert add(weights("other")).name == "other-x2"
    assert upres("models", "remove", "mine-x2").stdout == b"mine-x2\n"
    assert [p.name for p in (home() / "models").glob("mine*")] == []


def test_a_description_that_may_not_be_read_is_not_called_damaged(weights):
    """A folder in its place, since tests may run as root, who may read everything."""
    add(weights())
    description = home() / "models" / "mine-x2.json"
    description.unlink()
    description.mkdir()
    with pytest.raises(WeightsError, match=r"mine-x2\.json cannot be read") as told:
        known_models().family("mine")
    assert "remove" not in told.value.next_step


def test_a_model_that_an_update_brings_too_is_said_and_not_mistaken(upres, weights, small):
    entry = add(weights())
    for path in entry.local.parent.iterdir():
        path.rename(path.with_name(path.name.replace("mine", "photo")))
    description = home() / "models" / "photo-x2.json"
    description.write_text(description.read_text().replace("mine", "photo"))
    done = upres(small, "-s", 2, "-m", "photo")
    assert done.returncode == 5
    assert b"photo-x2 was added, and upres has a model called photo itself now" in done.stderr
    usual = upres(small, "-s", 2, "-o", "usual.png")  # nobody asked for it
    assert usual.returncode == 0, usual.stderr
    (path,) = entry.local.parent.glob("photo*.safetensors")
    assert f"models add {path} --name ANOTHER".encode() in done.stderr
    assert add(path, "another").name == "another-x2"
    assert remove("photo") == ("photo-x2",)
    assert known_models().family("photo")


def test_until_a_new_description_is_there_the_old_model_is(weights, monkeypatch):
    """A kill in between, and a reader at the same time."""
    old = add(weights())
    new = weights(file="new.safetensors", trained_by="somebody else")

    def killed(part, path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("upres.files.settle", killed)  # of the description
        with pytest.raises(KeyboardInterrupt):
            add(new, overwrite=True)
    (entry,) = added()
    verify(entry, entry.local)
    assert entry.sha256 == old.sha256
    entry = add(new, overwrite=True)
    verify(entry, entry.local)
    assert len(list((home() / "models").iterdir())) == 2


def test_a_damaged_model_is_no_other_one_of_a_similar_name(weights):
    add(weights("photo-xl"))
    (home() / "models" / "photo-xl-x2.json").write_text("{")
    assert [entry.name for entry in known_models().family("photo")] == ["photo-x2", "photo-x4"]
    for name in ("photo-xl", "photo-xl-x2"):
        with pytest.raises(WeightsError, match="is damaged"):
            known_models().family(name)


def test_a_model_that_was_added_by_an_earlier_version_is_found_and_replaced(weights):
    entry = add(weights())
    entry.local.rename(home() / "models" / "mine-x2.safetensors")
    description = home() / "models" / "mine-x2.json"
    words = json.loads(description.read_text())
    del words["file"]
    description.write_text(json.dumps(words))
    (entry,) = added()
    verify(entry, entry.local)
    add(weights(trained_by="somebody else"), overwrite=True)
    assert len(list((home() / "models").iterdir())) == 2


def test_scales_that_another_file_of_the_name_serves_are_refused(weights, tmp_path):
    add(weights())
    raw = facts("mine", 2).to_mapping() | {"architecture": "mdsr", "scales": [2, 4]}
    build(ModelFacts.from_mapping(raw)).save(tmp_path / "both.safetensors")
    with pytest.raises(WeightsError, match="mine-x2 is added already and serves x2 too"):
        add(tmp_path / "both.safetensors")


def test_what_is_added_is_the_copy(weights, monkeypatch):
    """Training may write the file anew while it is read."""
    source, other = weights(), weights("other", file="other.safetensors")
    copy = shutil.copyfile

    def slowly(a, b):
        copy(a, b)
        copy(other, a)

    monkeypatch.setattr(shutil, "copyfile", slowly)
    entry = add(source)
    verify(entry, entry.local)


HOSTILE = [
    ({"blocks": 10**9}, "blocks is 1000000000"),
    ({"channels": 10**7}, "channels is 10000000"),
    ({"channels": 6}, "body.0.conv1.bias differs"),
    ({"blocks": 0}, "body.0.conv1.bias differs"),
    ({"blocks": -3}, "a count from 0 on"),
    ({"residual_scale": float("nan")}, "must be finite"),
    ({"mean": [float("inf"), 0.0, 0.0]}, "must be finite"),
    ({"foo": 1}, "cannot be built from its numbers"),
]


@pytest.mark.parametrize(("numbers", "words"), HOSTILE)
def test_numbers_that_are_not_those_of_the_tensors_cost_nothing(weights, numbers, words):
    path = weights()
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    told = json.loads(header["__metadata__"]["upres"])
    told["numbers"] |= numbers
    header["__metadata__"]["upres"] = json.dumps(told)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=words):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_names_that_would_command_a_terminal_are_refused():
    with pytest.raises(FactsError, match="trained_by must be a line of text"):
        facts(trained_by="\x1b[31mred")
    with pytest.raises(FactsError, match="a number is called"):
        facts(numbers={"\x1b[31m": 1})
    with pytest.raises(FactsError, match="a set is called"):
        facts(measured=[{"set": "\x1b[31m", "scale": 2, "psnr": 30.0, "ssim": 0.9}])


def test_a_story_that_would_command_a_terminal_is_only_told(upres, tmp_path):
    story = TRAINING | {"device": "\x1b]0;title\x07", "start": "two\nlines"}
    build(facts()).save(tmp_path / "w.safetensors", training=story)
    shown = upres("models", "show", "w.safetensors").stdout
    assert b"\x1b" not in shown
    assert b"on \\x1b]0;title\\x07, seed 7" in shown
    assert b"started from two\\nlines\n" in shown
    assert "\x1b" not in model_card([tmp_path / "w.safetensors"])


def test_loading_draws_nothing_from_the_callers_random_numbers(weights):
    path = weights()
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    load(path)
    assert torch.equal(torch.rand(3), wanted)


def test_a_file_of_several_scales_is_loaded_once(tmp_path):
    raw = facts("both", 2).to_mapping() | {"architecture": "mdsr", "scales": [2, 3]}
    path = tmp_path / "both.safetensors"
    build(ModelFacts.from_mapping(raw)).save(path)
    six = upres.api.Upscaler(str(path), upres.api.Goal(scale=6))
    six.upscale(torch.rand(3, 8, 8))
    assert len(six.models) == 1


def test_the_card_names_a_licence_that_the_hub_does_not_know(weights):
    for licence in ("for academic research only", "GPL-3.0-or-later", "CC0", "#1"):
        card = model_card([weights(licence=licence)])
        assert f'license: other\nlicense_name: "{licence}"\n' in card
        assert f"Licence: {licence}.\n" in card
    for licence in ("Apache-2.0", "MIT", "GPL-3.0"):
        assert f"license: {licence.lower()}\n" in model_card([weights(licence=licence)])


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        ({"scale": 2.0}, "not among the scales"),
        ({"psnr": float("nan")}, "psnr and ssim are numbers"),
        ({"psnr": True}, "psnr and ssim are numbers"),
    ],
)
def test_what_is_no_measurement_is_refused(measured, words):
    figures = {"set": "set5", "scale": 2, "psnr": 30.0, "ssim": 0.9} | measured
    with pytest.raises(FactsError, match=words):
        facts(measured=[figures])


def test_publishing_with_settings_that_the_hub_refuses_is_one_line(upres, weights):
    done = upres("models", "publish", weights(), "me/mine", env={"HF_ENDPOINT": "http://[x"})
    assert done.returncode == 5
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("upres: huggingface_hub does not start")


# Publishing


class FakeHub:
    """What HfApi would have done."""

    def __init__(self, refuses=None):
        self.repositories, self.commits, self.refuses = {}, [], refuses

    def create_repo(self, repo_id, *, private, exist_ok):
        if self.refuses:
            raise self.refuses
        assert exist_ok
        self.repositories.setdefault(repo_id, private)

    def repo_info(self, repo_id):
        return SimpleNamespace(private=self.repositories[repo_id])

    def create_commit(self, repo_id, operations, *, commit_message):
        self.commits.append((repo_id, list(operations), commit_message))

        class Info:
            commit_url = f"https://hub/{repo_id}/commit/1"

        return Info()


def test_publishing_uploads_the_file_and_its_card(weights):
    path, hub = weights(), FakeHub()
    url = publish([path], "me/mine", private=True, api=hub, add=lambda name, data: (name, data))
    assert url == "https://hub/me/mine/commit/1"
    assert hub.repositories == {"me/mine": True}
    ((repository, operations, message),) = hub.commits
    assert (repository, message) == ("me/mine", "upres: mine")
    files = dict(operations)
    assert files.pop("mine-x2.safetensors") == str(path)
    assert files == {"README.md": model_card([path]).encode()}


def test_what_is_to_be_private_is_not_uploaded_where_everybody_sees_it(weights):
    path, hub = weights(), FakeHub()
    hub.repositories["me/mine"] = False
    with pytest.raises(WeightsError, match="me/mine is there already and is public"):
        publish([path], "me/mine", private=True, api=hub, add=lambda *what: what)
    assert hub.commits == []
    publish([path], "me/mine", private=False, api=hub, add=lambda *what: what)
    assert len(hub.commits) == 1


def test_real_operations_take_what_is_uploaded(weights):
    from huggingface_hub import CommitOperationAdd

    path, hub = weights(), FakeHub()
    publish([path], "me/mine", private=False, api=hub, add=CommitOperationAdd)
    operations = hub.commits[0][1]
    assert [o.path_in_repo for o in operations] == ["mine-x2.safetensors", "README.md"]
    assert operations[0].upload_info.size == path.stat().st_size


def test_the_card_says_what_is_known(weights):
    path = weights(measured=[vars(Measurement("set5", 2, 36.5, 0.95))])
    card = model_card([path])
    from huggingface_hub import ModelCard

    assert ModelCard(card).data.license == "cc0-1.0"
    for words in (
        "edsr for super-resolution at x2.",
        "edsr (blocks 1, channels 4), RGB",
        "upres photo.jpg --scale 2 --model mine-x2.safetensors",
        "1,234 in 0.5 hours on 2 CPU threads",
        "33.10 dB / 0.9000, bicubic 30.20 / 0.8000",
        "| set5 | x2 | 36.50 | 0.9500 |",
        "two pictures",
    ):
        assert words in card


def test_all_scales_of_a_model_are_one_commit_with_one_card(weights):
    paths, hub = [weights(scale=3, file="three"), weights()], FakeHub()
    publish(paths, "me/mine", private=False, api=hub, add=lambda name, data: (name, data))
    ((_, operations, _),) = hub.commits
    files = dict(operations)
    card = files.pop("README.md").decode()
    assert files == {"mine-x3.safetensors": str(paths[0]), "mine-x2.safetensors": str(paths[1])}
    lines = card.splitlines()
    assert "edsr for super-resolution at x2, x3. Licence: CC0-1.0." in lines
    assert [line for line in lines if line.startswith(("upres ", "## "))] == [
        "upres photo.jpg --scale 2 --model mine-x2.safetensors",
        "upres photo.jpg --scale 3 --model mine-x3.safetensors",
        "## mine-x2.safetensors",
        "## mine-x3.safetensors",
    ]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"scale": 3, "licence": "MIT"}, "not of one model: licence CC0-1.0, and MIT"),
        ({"scale": 3, "name": "yours"}, "not of one model: name mine, and yours"),
        ({"scale": 2}, "two of the files serve x2"),
    ],
)
def test_files_that_are_not_one_model_are_not_published_together(weights, other, words):
    hub = FakeHub()
    with pytest.raises(WeightsError, match=words):
        publish(
            [weights(), weights(file="other", **other)],
            "me/mine",
            private=False,
            api=hub,
            add=tuple,
        )
    assert not hub.repositories


def test_the_card_can_be_seen_first(upres, weights):
    files = weights(), weights(scale=4, file="four")
    done = upres("models", "publish", *files, "me/mine", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().rstrip("\n") == model_card(files).rstrip("\n")


def test_a_refusal_of_the_files_says_that_the_repository_is_there(weights):
    class Refuses(FakeHub):
        def create_commit(self, repo_id, operations, *, commit_message):
            raise ValueError("Invalid metadata in README.md")

    words = r"nothing was uploaded to me/mine \(Invalid metadata in README\.md\)"
    with pytest.raises(WeightsError, match=words):
        publish([weights()], "me/mine", private=True, api=Refuses(), add=lambda *both: both)


def test_a_name_of_several_words_is_published_as_one(weights):
    path, hub = weights("My Own/Model"), FakeHub()
    publish([path], "me/mine", private=True, api=hub, add=lambda name, data: (name, data))
    files = dict(hub.commits[0][1])
    assert set(files) == {"My-Own-Model-x2.safetensors", "README.md"}
    assert b"--model My-Own-Model-x2.safetensors\n" in files["README.md"]


def test_a_refusal_is_one_line(weights):
    hub = FakeHub(OSError("401 Client Error.\n- and why"))
    with pytest.raises(WeightsError, match=r"published \(401 Client Error\. - and why\)"):
        publish([weights()], "me/mine", private=False, api=hub, add=lambda *both: both)


# Which model "auto" means


def jpeg(pixels, quality, path):
    Image.fromarray(pixels).save(path, quality=quality)
    return path


@pytest.mark.parametrize("quality", [30, 50, 75, 89, 90, 95])
def test_the_quality_of_a_jpeg_is_known(photo, tmp_path, quality):
    path = jpeg(photo, quality, tmp_path / "a.jpg")
    assert read_picture(path).jpeg_quality == quality
    data = io.BytesIO()
    Image.fromarray(photo).save(data, "PNG")
    assert read_picture(data.getvalue()).jpeg_quality is None


MANIFEST = """
format = 1
[auto]
default = ["large"]
fast = ["small"]
photo = ["photo"]
"""
FAMILY = """
[{name}]
architecture = "edsr"
numbers = {{ blocks = 1, channels = 4 }}
colour = "rgb"
licence = "x"
trained_by = "x"
trained_on = "x"
"""


@pytest.fixture
def choices(tmp_path, weights, monkeypatch):
    """large x2 and x4, small x2, photo x4 alone; as an upscaler sees them."""
    text, entries = MANIFEST, []
    for name, scales in (("large", (2, 4)), ("small", (2,)), ("photo", (4,))):
        text += FAMILY.format(name=name)
        for scale in scales:
            text += f'[{name}.x{scale}]\nfile = "{name}{scale}"\nsha256 = "{"0" * 64}"\n'
            entries.append(weights(name, scale, file=f"{name}{scale}.safetensors"))
    path = tmp_path / "weights.toml"
    path.write_text(text)
    manifest = read_manifest(path)
    monkeypatch.setattr(upres.api, "known_models", lambda: manifest)
    monkeypatch.setattr(
        upres.api, "fetch", lambda entry, progress: tmp_path / f"{entry.file}.safetensors"
    )


@pytest.mark.parametrize(
    ("options", "quality", "name"),
    [
        ({"scale": 4}, None, "large"),
        ({"scale": 4}, 90, "large"),
        ({"scale": 4}, 89, "photo"),
        ({"scale": 2}, 50, "large"),  # there is no photo model for x2
        ({"scale": 2, "fast": True}, None, "small"),
        ({"scale": 4, "fast": True}, None, "small"),  # twice
        ({"scale": 8}, 50, "large"),  # begins with x2
        ({"scale": 4, "model": "large"}, 50, "large"),
        ({"scale": 4, "model": "bicubic"}, 50, "bicubic"),
    ],
)
def test_auto_takes_the_model_that_fits(choices, photo, options, quality, name):
    upscaler = upres.load(device="cpu", **options)
    pipeline = upscaler.pipeline(photo[:40, :40], jpeg_quality=quality)
    assert pipeline.steps.name == name
    assert pipeline.run().shape == (40 * options["scale"], 40 * options["scale"], 3)
    said = [note for note in pipeline.notes if "quality" in note]
    if name == "photo":
        assert said == ["JPEG of quality 89: model photo (--model large for clean input)"]
    elif quality == 50 and "model" not in options:
        (note,) = said
        assert "JPEG of quality 50: its traces stay, as no model against them serves x2" in note
        assert "--model photo" in note
    else:
        assert said == []


def test_only_the_first_model_undoes_jpeg(choices, photo, monkeypatch):
    monkeypatch.setattr(upres.api, "steps_to", lambda factor, available: (4, 2))
    pipeline = upres.load(scale=8, device="cpu").pipeline(photo[:30, :30], jpeg_quality=60)
    assert pipeline.steps.name == "photo then large"


def test_fast_and_a_model_exclude_each_other(upres, small):
    done = upres(small, "--fast", "-m", "edsr-light")
    assert done.returncode == 2
    assert b"exclude each other" in done.stderr
    done = upres(small, "--fast", "--json", "-o", "out.png")
    assert json.loads(done.stdout)["model"] == "edsr-light"


def test_a_jpeg_of_low_quality_gets_the_photo_model(upres, photo, tmp_path):
    for quality, model in ((75, "photo x4"), (95, "edsr-baseline x4")):
        jpeg(photo[100:140, 120:168], quality, tmp_path / f"q{quality}.jpg")
        done = upres(f"q{quality}.jpg")
        assert done.returncode == 0, done.stderr
        said = done.stderr.decode()
        assert model in said
        assert ("JPEG of quality 75: model photo" in said) == (quality == 75)
