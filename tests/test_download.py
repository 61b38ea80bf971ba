"""Weights from the Hub, end to end: the real program against a loopback Hub, with a state dict in
exactly the foreign layout. (The Hub itself cannot be reached from where this is developed.)"""

import hashlib
import io
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.hub import Hub
from tests.network import NotHereError
from upres.convert import renamed
from upres.errors import WeightsError
from upres.networks import EDSR

REPOSITORY = "eugenesiow/edsr-base"
REVISION = "d622f68a86f11af7c1c6add1a8fa3790a1173d97"
FILE = "pytorch_model_2x.pt"


def foreign_state(network, scale):
    """super-image's names: EDSR-PyTorch's, behind "module.", with mean shifts that are not used."""
    names = {"head": "head.0", "tail": "tail.1", "body_out": f"body.{len(network.body)}"}
    state = {}
    for key, value in network.state_dict().items():
        stem, kind = key.rsplit(".", 1)
        if stem.startswith("body.") and stem.endswith(("conv1", "conv2")):
            _, index, which = stem.split(".")
            stem = f"body.{index}.body.{0 if which == 'conv1' else 2}"
        elif stem.startswith("up."):
            stem = f"tail.0.{2 * int(stem.split('.')[1])}"
        else:
            stem = names[stem]
        state[f"module.{stem}.{kind}"] = value.clone()
    for mean in ("sub_mean", "add_mean"):
        state[f"module.{mean}.weight"] = torch.eye(3).view(3, 3, 1, 1)
        state[f"module.{mean}.bias"] = torch.full((3,), 99.0)
    assert scale in (2, 3, 4)
    return state


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return EDSR(2, mean=(0.0, 0.0, 0.0)).eval()


@pytest.fixture(scope="module")
def published(network):
    buffer = io.BytesIO()
    torch.save(foreign_state(network, 2), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.fixture
def served(published, tmp_path):
    """The loopback Hub, and the environment in which the program finds it and a manifest whose
    hash is that of the file served."""
    import upres.weights.manifest as module

    manifest = module.manifest_path().read_text().replace(
        "b709bea0d3e3a7a1c84eb1eaa6e5e777f176edcfca00b3b5acde5320eb630211",
        hashlib.sha256(published).hexdigest(),
    )  # fmt: skip
    (tmp_path / "weights.toml").write_text(manifest)
    start = tmp_path / "start"
    start.mkdir()
    # Runs in the child before the program: another manifest, and no waiting between retries.
    (start / "sitecustomize.py").write_text(
        "import functools, pathlib, time\n"
        "sleep = time.sleep\n"
        "time.sleep = lambda seconds: sleep(min(seconds, 0.01))\n"
        "import upres.weights.manifest as module\n"
        f"module.manifest_path = lambda: pathlib.Path({str(tmp_path / 'weights.toml')!r})\n"
    )
    with Hub({(REPOSITORY, REVISION, FILE): published}) as hub:
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "PYTHONPATH": str(start),
            "HF_HUB_DOWNLOAD_TIMEOUT": "2",
        }
        yield hub, environment


def gets(hub):
    return [entry for entry in hub.log if entry[0] == "GET" and "resolve" in entry[1]]


def test_downloads_verifies_converts_and_upscales(upres, served, small, network, tmp_path):
    hub, env = served
    done = upres(small, "-s", 2, "-m", "edsr-base", "--precision", "fp32", env=env)
    assert done.returncode == 0, done.stderr
    assert b"downloading edsr-base-x2" in done.stderr
    x = torch.from_numpy(np.array(Image.open(small))).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        y = network(x, 2)[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().byte().numpy()
    got = np.asarray(Image.open(tmp_path / "small-x2.png"))
    assert np.abs(got.astype(int) - y).max() <= 1
    assert len(gets(hub)) == 1
    # The second time nothing is asked of the network, also when it may not be used at all.
    again = upres(
        small, "-s", 2, "-m", "edsr-base", "--overwrite", env={**env, "HF_HUB_OFFLINE": "1"}
    )
    assert again.returncode == 0, again.stderr
    assert len(gets(hub)) == 1


def test_pull_then_list_verify_and_path(upres, served):
    hub, env = served
    listed = [line.split() for line in upres("models", env=env).stdout.decode().splitlines()]
    assert ["edsr-base", "x2", "edsr", "Apache-2.0", "Hub"] in listed
    pulled = upres("models", "pull", "edsr-base-x2", env=env)
    assert pulled.returncode == 0, pulled.stderr
    path = Path(pulled.stdout.decode().strip())
    assert path.is_file()
    where = upres("models", "path", "edsr-base-x2", env=env).stdout.decode().strip()
    assert where == str(path)
    assert b"edsr-base-x2: ok" in upres("models", "verify", env=env).stdout
    assert b"downloaded" in upres("models", env=env).stdout
    # Damage in the cache is found, and mended by pulling again.
    with path.open("r+b") as file:
        file.write(b"damage")
    verified = upres("models", "verify", "edsr-base", env=env)
    assert verified.returncode == 8
    assert b"edsr-base-x2: damaged" in verified.stdout
    assert upres("models", "pull", "edsr-base-x2", env=env).returncode == 0
    assert upres("models", "verify", "edsr-base-x2", env=env).returncode == 0
    assert len(gets(hub)) == 2


def assert_refused(done, *words):
    assert done.returncode == 5, done.stderr
    lines = [line for line in done.stderr.decode().splitlines() if line.startswith("upres: ")]
    assert len(lines) == 1
    assert b"Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


def test_a_corrupted_body_is_never_used(upres, served, small, tmp_path):
    hub, env = served
    hub.corrupt = True
    assert_refused(upres(small, "-s", 2, "-m", "edsr-base", env=env), "SHA-256", "as published")
    assert not (tmp_path / "small-x2.png").exists()
    hub.corrupt = False
    assert upres(small, "-s", 2, "-m", "edsr-base", env=env).returncode == 0


def test_a_body_that_stops_is_asked_for_again(upres, served):
    hub, env = served
    hub.cut_at, hub.cuts = 100_000, 2
    assert upres("models", "pull", "edsr-base-x2", env=env).returncode == 0
    assert len(gets(hub)) == 3


def test_a_long_transfer_goes_on_where_it_stopped(upres, served, tmp_path):
    """Transfers are kept in pieces of 10 MiB; so this one takes a larger file."""
    hub, env = served
    large = os.urandom(12 * 2**20)
    hub.files[REPOSITORY, REVISION, FILE] = large
    manifest = tmp_path / "weights.toml"
    text = manifest.read_text()
    begin = text.index("[edsr-base.x2]")
    start = text.index('sha256 = "', begin) + 10
    manifest.write_text(text[:start] + hashlib.sha256(large).hexdigest() + text[start + 64 :])
    hub.cut_at, hub.cuts = 11 * 2**20, 1
    done = upres("models", "pull", "edsr-base-x2", env=env)
    assert done.returncode == 0, done.stderr
    assert [entry[2] for entry in gets(hub)] == [None, f"bytes={10 * 2**20}-"]


def test_a_body_that_always_stops_is_an_error(upres, served):
    hub, env = served
    hub.cut_at = 1000
    assert_refused(upres("models", "pull", "edsr-base-x2", env=env), "cannot be downloaded")


def test_a_server_that_is_gone_is_an_error(upres, served):
    _, env = served
    env = {**env, "HF_ENDPOINT": "http://127.0.0.1:9"}
    assert_refused(
        upres("models", "pull", "edsr-base-x2", env=env), "cannot be downloaded", "refused"
    )


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_server_that_refuses_is_an_error(upres, served, status):
    hub, env = served
    hub.status = status
    assert_refused(upres("models", "pull", "edsr-base-x2", env=env), "cannot be downloaded")


def test_offline_without_a_cache_says_how_to_get_it(upres, served, small):
    hub, env = served
    done = upres(small, "-s", 2, "-m", "edsr-base", env={**env, "HF_HUB_OFFLINE": "1"})
    assert_refused(done, "HF_HUB_OFFLINE", "models pull edsr-base-x2")
    assert hub.log == []


def test_a_cache_that_cannot_be_written_is_an_error(upres, served, tmp_path):
    """Below a regular file nothing can be created, not even by root."""
    _, env = served
    (tmp_path / "file").write_text("")
    env = {**env, "HF_HUB_CACHE": str(tmp_path / "file" / "hub")}
    assert_refused(upres("models", "pull", "edsr-base-x2", env=env), "cannot be downloaded")


def test_a_home_that_cannot_be_written_only_costs_time(upres, served, small, tmp_path):
    _, env = served
    (tmp_path / "file").write_text("")
    env = {**env, "UPRES_HOME": str(tmp_path / "file" / "upres")}
    done = upres(small, "-s", 2, "-m", "edsr-base", env=env)
    assert done.returncode == 0, done.stderr


def test_a_damaged_conversion_is_made_again(upres, served, small, tmp_path):
    _, env = served
    home = tmp_path / "home"
    env = {**env, "UPRES_HOME": str(home)}
    assert upres(small, "-s", 2, "-m", "edsr-base", "-o", "a.png", env=env).returncode == 0
    (converted,) = (home / "converted").glob("*.safetensors")
    good = converted.read_bytes()
    converted.write_bytes(good[:-1000] + bytes(1000))  # still a file of ours, with other weights
    assert upres(small, "-s", 2, "-m", "edsr-base", "-o", "b.png", env=env).returncode == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert converted.read_bytes() == good


class Exploit:
    """What a pickle could do to who loads it."""

    def __reduce__(self):
        return os.mkdir, ("exploited",)


def test_a_pickle_with_code_is_refused_and_not_run(upres, served, small, tmp_path):
    hub, env = served
    buffer = io.BytesIO()
    torch.save({"head.0.weight": Exploit()}, buffer)
    data = buffer.getvalue()
    hub.files[REPOSITORY, REVISION, FILE] = data
    manifest = tmp_path / "weights.toml"
    text = manifest.read_text()
    start = text.index('sha256 = "', text.index("[edsr-base.x2]")) + 10
    manifest.write_text(text[:start] + hashlib.sha256(data).hexdigest() + text[start + 64 :])
    assert_refused(upres(small, "-s", 2, "-m", "edsr-base", env=env), "not a file of plain tensors")
    assert not (tmp_path / "exploited").exists()


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_foreign_names_become_ours(scale):
    network = EDSR(scale, blocks=2, channels=4)
    state = renamed(foreign_state(network, scale), "a test")
    assert set(state) == set(network.state_dict())
    for key, value in network.state_dict().items():
        torch.testing.assert_close(state[key], value)
    with pytest.raises(WeightsError, match="does not know"):
        renamed({"surprise": torch.zeros(1)}, "a test")


def test_no_test_reaches_another_machine():
    """What conftest.py sees to."""
    for address in ("example.org", "192.0.2.1"):
        with pytest.raises(NotHereError, match=address):
            socket.create_connection((address, 80), timeout=1)
