"""Promise 1: the tiled result is the untiled one. Promise 2: it never runs out of memory."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upres.api import Upscaler
from upres.errors import InputError, ResourceError, UsageError
from upres.imaging.picture import collect
from upres.inference import device as device_module
from upres.inference.device import Target, all_of_float32, choose, cpu_has_bfloat16
from upres.inference.engine import ModelStage, _batches, executor_for
from upres.inference.executor import PlainExecutor, crop, run_whole
from upres.inference.folded import FoldedExecutor
from upres.inference.pipeline import Pipeline
from upres.inference.planning import plan_tiles
from upres.inference.rows import ArrayRows, StageRows
from upres.inference.sizes import Goal
from upres.inference.steps import Steps
from upres.inference.streamed import StreamedExecutor
from upres.inference.tiling import Cut
from upres.memory import group_memory
from upres.model import Model
from upres.networks import EDSR, MDSR, SRCNN, VDSR, Network, SRResNet

FP32 = Target(torch.device("cpu"), torch.float32, "a test")
BF16 = Target(torch.device("cpu"), torch.bfloat16, "a test")


class Nearest(Network):
    """Repeats pixels; its halo is chosen, so that tiling is checked exactly."""

    def __init__(self, scale=2, halo=3):
        super().__init__()
        self.scales, self._halo = (scale,), halo

    def halo(self, scale):
        return self._halo

    def reconstruct_halo(self, scale):
        return 0

    def peak_values(self, scale):
        return 3 * scale * scale

    def features(self, x, scale):
        return x

    def reconstruct(self, features, scale):
        return features.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def seeded(network):
    """Random weights that use every path, borders included."""
    torch.manual_seed(1)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.08)
    return network.eval()


def run(network, pixels, target=FP32, **options):
    scale = network.scales[-1]
    stage = ModelStage(ArrayRows(pixels), network, scale, target, **options)
    shape = (stage.height, stage.width, stage.channels)
    strips = list(stage.strips())
    return collect(iter(strips), shape, strips[0].dtype)


NETWORKS = [
    seeded(EDSR(2, blocks=3, channels=8)),
    seeded(EDSR(3, blocks=2, channels=8, residual_scale=0.1)),
    seeded(EDSR(4, blocks=2, channels=8)),
    seeded(MDSR(blocks=2, channels=8)),
    seeded(SRResNet(4, blocks=1, channels=8)),
]
IDS = [f"{type(n).__name__}-x{n.scales[-1]}" for n in NETWORKS]


@given(
    st.sampled_from(NETWORKS), st.integers(1, 60), st.integers(1, 60), st.integers(4, 40),
    st.integers(0, 10**6),
)  # fmt: skip
def test_tiled_equals_untiled_in_fp32(network, height, width, tile, seed):
    pixels = np.random.default_rng(seed).random((height, width, 3), np.float32)
    difference = run(network, pixels, tile=tile) - run(network, pixels, tile=0)
    assert np.abs(difference).max() <= 1e-5


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this CPU has no bf16")
@given(st.sampled_from(NETWORKS), st.integers(1, 60), st.integers(1, 60), st.integers(4, 40))
def test_tiled_equals_untiled_within_a_level_in_bf16(network, height, width, tile):
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    a, b = (run(network, pixels, BF16, tile=t, levels=255) for t in (tile, 0))
    assert np.abs(a.astype(int) - b).max() <= 1


@given(
    st.sampled_from(NETWORKS[:4]), st.integers(1, 50), st.integers(1, 50), st.integers(8, 30),
    st.tuples(*[st.integers(0, 9)] * 4),
)  # fmt: skip
def test_streaming_equals_the_network(network, height, width, rows, cut):
    """Whatever the picture's size, the rows that flow at a time, and the halo that is cut off."""
    scale = network.scales[-1]
    top, left, bottom, right = cut
    height, width = height + top + bottom, width + left + right
    x = torch.rand(1, 3, height, width)
    executor = StreamedExecutor(network, scale, torch.float32, step_rows=rows)
    with torch.inference_mode():
        expected = crop(network(x, scale), Cut(*cut), scale)
        torch.testing.assert_close(run_whole(executor, x, Cut(*cut)), expected, atol=1e-5, rtol=0)


@given(
    st.sampled_from(NETWORKS[:4]), st.integers(1, 20), st.integers(1, 20),
    st.tuples(*[st.integers(0, 3)] * 4), st.integers(1, 2),
)  # fmt: skip
def test_the_folded_executor_equals_the_network(network, height, width, cut, count):
    """As accelerators run it, whatever of a tile is its halo."""
    scale = network.scales[-1]
    top, left, bottom, right = cut
    x = torch.rand(count, 3, height + top + bottom, width + left + right)
    cpu = torch.device("cpu")
    with torch.inference_mode():
        expected = crop(network(x, scale), Cut(*cut), scale)
        for dtype, close in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
            executor = FoldedExecutor(network, scale, cpu, dtype)
            got = run_whole(executor, x, Cut(*cut))
            torch.testing.assert_close(got, expected, atol=close, rtol=0)


@given(st.sampled_from(NETWORKS[:4]), st.integers(1, 60), st.integers(1, 60), st.integers(8, 40))
def test_tiles_of_the_folded_executor_equal_the_whole(network, height, width, tile):
    pixels = np.random.default_rng(height).random((height, width, 3), np.float32)
    scale = network.scales[-1]
    executor = FoldedExecutor(network, scale, FP32.device, torch.float32)
    tiled = run(network, pixels, tile=tile, executor=executor)
    np.testing.assert_allclose(tiled, run(network, pixels, tile=0), atol=1e-5)


@pytest.mark.parametrize(
    ("network", "on_cpu", "kind"),
    [
        (NETWORKS[0], True, StreamedExecutor),
        (NETWORKS[0], False, FoldedExecutor),
        (SRResNet(2, blocks=1, channels=4), True, PlainExecutor),
        (SRResNet(2, blocks=1, channels=4), False, PlainExecutor),
    ],
)
def test_every_device_runs_a_network_in_its_fastest_way(network, on_cpu, kind, monkeypatch):
    if not on_cpu:
        monkeypatch.setattr("upres.inference.engine.is_streamed", lambda *_: False)
    assert type(executor_for(network, 2, FP32)) is kind


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "without onednn"])
def test_streaming_works_without_the_fused_operators(fused, monkeypatch):
    monkeypatch.setattr("upres.inference.onednn.available", lambda: fused)
    network = NETWORKS[2]
    x = torch.rand(1, 3, 40, 33)
    with torch.inference_mode():
        got = run_whole(StreamedExecutor(network, 4, torch.float32, step_rows=9), x, Cut())
        torch.testing.assert_close(got, network(x, 4), atol=1e-5, rtol=0)


@given(st.sampled_from(NETWORKS[:4]), st.integers(3, 12), st.integers(3, 12))
def test_the_folded_upsampler_is_the_layers(network, height, width):
    chain = network.chain(network.scales[-1])
    features = torch.randn(2, chain.head.out_channels, height, width)
    with torch.no_grad():
        torch.testing.assert_close(chain.reconstruct_folded(features), chain.reconstruct(features))


@pytest.mark.parametrize(
    "network", [seeded(SRCNN(3)), seeded(VDSR(layers=4))], ids=["srcnn", "vdsr"]
)
def test_luma_networks_tile_and_keep_colours(network, photo):
    rgb = Model(network, None).as_rgb()
    pixels = photo[100:140, 100:150]
    whole = run(rgb, pixels, tile=0)
    np.testing.assert_allclose(run(rgb, pixels, tile=13), whole, atol=1e-5)


def test_a_luma_network_that_only_enlarges_gives_bicubic(photo):
    from upres.imaging.resize import imresize

    network = VDSR(layers=3)
    for p in network.parameters():
        torch.nn.init.zeros_(p)
    small = photo[:20, :30].astype(np.float32) / 255
    got = run(Model(network.eval(), None).as_rgb(), small)
    np.testing.assert_allclose(got, np.clip(imresize(small, 4), 0, 1), atol=2e-5)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 17), st.integers(1, 4))
def test_pasting_is_exact(height, width, tile, channels):
    if channels in (2, 4):
        channels -= 1
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, channels), np.uint8)
    got = run(Nearest(), pixels, tile=tile, levels=255)
    np.testing.assert_array_equal(got, pixels.repeat(2, 0).repeat(2, 1))


def test_sixteen_bits_come_through_exactly():
    pixels = np.random.default_rng(0).integers(0, 65536, (9, 14, 3), np.uint16)
    got = run(Nearest(), pixels, tile=5, levels=65535)
    np.testing.assert_array_equal(got, pixels.repeat(2, 0).repeat(2, 1))


class Scarce(PlainExecutor):
    """A device that holds at most so many input pixels at once."""

    def __init__(self, network, limit, error, device=FP32.device):
        super().__init__(network, network.scales[-1], device, torch.float32)
        self.limit, self.error, self.refused = limit, error, 0

    def rows(self, x, cut, on_share=None):
        if x[:, 0].numel() > self.limit:
            self.refused += 1
            raise self.error
        return super().rows(x, cut, on_share)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate"),
        RuntimeError("could not create a primitive"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling cublasCreate(handle)"),
        RuntimeError("Invalid buffer size: 9.75 GB"),
    ],
    ids=["cuda", "python", "cpu", "onednn", "cudnn", "cudnn 9", "cublas", "mps"],
)
def test_out_of_memory_halves_the_tiles_and_changes_nothing(error):
    network = seeded(EDSR(2, blocks=1, channels=8))
    pixels = np.random.default_rng(0).random((150, 170, 3), np.float32)
    executor = Scarce(network, 90 * 90, error)
    got = run(network, pixels, tile=150, executor=executor)
    assert executor.refused >= 1
    np.testing.assert_allclose(got, run(network, pixels, tile=0), atol=1e-5)


def test_a_size_that_did_not_fit_is_not_tried_again():
    network = Nearest()
    pixels = np.zeros((64 * 6, 64, 3), np.uint8)
    executor = Scarce(network, 50 * 64, MemoryError())
    run(network, pixels, tile=64, executor=executor)
    assert executor.refused == 1


def test_below_the_smallest_tile_it_gives_up_clearly():
    # What torch said may not be about memory after all.
    executor = Scarce(Nearest(), 8, RuntimeError("could not create a primitive"))
    with pytest.raises(ResourceError, match=r"memory of cpu \(could not create a primitive\)"):
        run(Nearest(), np.zeros((64, 64, 3), np.uint8), executor=executor)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    executor = Scarce(Nearest(), 8, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        run(Nearest(), np.zeros((64, 64, 3), np.uint8), executor=executor)


class Overflowing(PlainExecutor):
    """A half type that overflows in the left half of the picture."""

    def rows(self, x, cut, on_share=None):
        for y in super().rows(x, cut, on_share):
            yield torch.where(x[:, :, :1, :1] > 0.5, torch.full_like(y, float("nan")), y)


def test_a_tile_that_overflows_is_computed_again_in_fp32():
    pixels = np.zeros((16, 64, 3), np.uint8)
    pixels[:, :32] = 200
    executor = Overflowing(Nearest(halo=0), 2, torch.device("cpu"), torch.bfloat16)
    with pytest.warns(RuntimeWarning, match="computed again in fp32") as told:
        got = run(Nearest(halo=0), pixels, BF16, tile=16, executor=executor, levels=255)
    assert len(told) == 1
    np.testing.assert_array_equal(got, pixels.repeat(2, 0).repeat(2, 1))


def test_the_ensemble_is_the_mean_over_eight_views():
    network = NETWORKS[0]
    pixels = np.random.default_rng(5).random((21, 34, 3), np.float32)
    views = []
    for turns in range(4):
        for mirrored in (False, True):
            view = np.rot90(pixels, turns)
            view = view[:, ::-1] if mirrored else view
            y = torch.from_numpy(np.ascontiguousarray(view)).permute(2, 0, 1)[None]
            with torch.inference_mode():
                z = network(y, 2)[0].permute(1, 2, 0).numpy()
            z = z[:, ::-1] if mirrored else z
            views.append(np.rot90(z, -turns))
    expected = np.clip(np.mean(views, 0), 0, 1)
    for tile in (0, 9):
        got = run(network, pixels, ensemble=True, tile=tile)
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_gray_is_replicated_and_comes_out_as_luma(photo):
    gray = photo[:40, :40, :1]
    network = NETWORKS[0]
    got = run(network, gray, levels=None)
    rgb = run(network, gray.repeat(3, 2), levels=None)
    assert got.shape[2] == 1
    # The clamp acts before and after the weighting; it differs only where a channel overshoots.
    inside = ((rgb > 0) & (rgb < 1)).all(2)
    np.testing.assert_allclose(
        got[inside, 0], (rgb @ np.float32([0.299, 0.587, 0.114]))[inside], atol=1e-5
    )


def pipeline(networks, pixels, size, **options):
    steps = Steps([(n, n.scales[-1]) for n in networks], "bicubic", FP32, **options)
    return Pipeline(steps, pixels, size)


def test_stages_follow_one_another_seamlessly():
    """x2 twice and a last resize, in tiles, equals the same done whole."""
    network = NETWORKS[0]
    pixels = np.random.default_rng(1).random((31, 45, 3), np.float32)
    size = (31 * 3 + 1, 45 * 3 + 2)
    tiled = pipeline([network, network], pixels, size, tile=11).run()
    whole = pipeline([network, network], pixels, size, tile=0).run()
    assert tiled.shape == (*size, 3)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_only_rows_that_are_still_needed_are_held():
    class Strips:
        height, width, channels = 400, 5, 1

        def start_of(self, row):
            return row - row % 10

        def strips(self, start=0):
            for top in range(0, 400, 10):
                yield np.full((10, 5, 1), top, np.float32)

    rows = StageRows(Strips())
    for top in range(0, 390, 5):
        got = rows.read(max(0, top - 3), top + 10)
        np.testing.assert_array_equal(
            got[:, 0, 0], [y // 10 * 10 for y in range(max(0, top - 3), top + 10)]
        )
        assert sum(map(len, rows._held)) <= 40


@pytest.mark.parametrize("size", [40, 50, 70])
@pytest.mark.parametrize("side", [20, 7])
def test_pictures_are_let_go_after_their_run(side, size):
    import gc
    import weakref

    # An exact size, one with a last resize, and two networks with one.
    networks = [(NETWORKS[0], 2)] * (2 if size == 70 else 1)
    steps = Steps(networks, "bicubic", FP32)
    source = np.zeros((side, 20, 3), np.uint8)
    gone = weakref.ref(source)
    gc.disable()  # memory would grow until Python happens to look
    try:
        made = Pipeline(steps, source, (size * side // 20, size))
        made.run(lambda done, total: None)
        del made, source
        assert gone() is None
    finally:
        gc.enable()


def test_an_ensemble_is_planned_with_its_memory():
    pixels = np.zeros((300, 300, 3), np.uint8)
    plain, mean = (
        ModelStage(ArrayRows(pixels), NETWORKS[2], 4, FP32, ensemble=e, levels=255).plan.memory
        for e in (False, True)
    )
    assert mean > 3 * plain


@given(st.integers(1, 30), st.integers(1, 30), st.floats(1.01, 8))
def test_a_kernel_alone_reaches_any_size(height, width, factor):
    from upres.imaging.resize import Resampler

    size = (round(height * factor), round(width * factor))
    pixels = np.random.default_rng(height).random((height, width, 3), np.float32)
    got = pipeline([], pixels, size).run()
    expected = Resampler(height, size[0]).apply(pixels, 0)
    expected = Resampler(width, size[1]).apply(expected, 1)
    np.testing.assert_allclose(got, np.clip(expected, 0, 1), atol=1e-5)


def test_what_is_fully_transparent_never_bleeds():
    """Red under full transparency beside gray: no output pixel that can be seen is reddish."""
    pixels = np.full((60, 60, 4), 128, np.uint8)
    pixels[..., 3] = 255
    pixels[:, :30] = (255, 0, 0, 0)
    for network in (NETWORKS[0], Nearest()):
        clean = np.full((60, 60, 3), 128, np.uint8)
        expected = pipeline([network], clean, (120, 120)).run().astype(int)
        got = pipeline([network], pixels, (120, 120)).run().astype(int)
        seen = got[..., 3] > 0
        assert np.abs(got[..., :3] - expected)[seen].max() <= 1
        assert (got[:, :56, 3] == 0).all()
        assert (got[:, 64:, 3] == 255).all()


def test_alpha_does_not_depend_on_tiles():
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (70, 60, 4), np.uint8)
    pixels[20:60, 10:50, 3] = 0
    a, b = (pipeline([NETWORKS[0]], pixels, (140, 120), tile=t).run() for t in (16, 0))
    assert np.abs(a.astype(int) - b).max() <= 1


def test_constant_alpha_is_kept_and_leaves_colours_alone(photo):
    pixels = np.dstack([photo[:30, :30], np.full((30, 30), 7, np.uint8)])
    got = pipeline([NETWORKS[0]], pixels, (60, 60)).run()
    assert (got[..., 3] == 7).all()
    np.testing.assert_array_equal(
        got[..., :3], pipeline([NETWORKS[0]], photo[:30, :30], (60, 60)).run()
    )


def test_kernels_tell_their_progress_too(photo):
    seen = []
    pipeline([], photo[:300], (900, 3 * photo.shape[1])).run(lambda *facts: seen.append(facts))
    assert len(seen) > 3
    assert seen == sorted(seen)
    assert seen[-1] == (1.0, 1)


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("scarce", [False, True])
def test_progress_reaches_the_number_of_tiles_when_all_are_done(ensemble, scarce):
    seen = []
    made = pipeline(
        [NETWORKS[0]], np.zeros((120, 160, 3), np.uint8), (240, 320), tile=60, ensemble=ensemble
    )
    if scarce:  # tiles are halved
        made.models[0].executor = Scarce(NETWORKS[0], 60 * 60, MemoryError())
    made.run(lambda done, total: seen.append((done, total)))
    assert seen[-1][1] == made.tiles == 2 * 3
    assert seen[-1][0] == pytest.approx(made.tiles)
    assert seen == sorted(seen)
    assert all(done < total - 1e-6 for done, total in seen[:-1])
    if scarce:
        assert made.models[0].executor.refused


def test_free_memory_only_makes_tiles_smaller(monkeypatch):
    def planned(free):
        monkeypatch.setattr("upres.inference.planning.free_memory", lambda device: free)
        network = SRResNet(4)
        return plan_tiles(network, 4, FP32, (4000, 4000), None, bytes_per_pixel=10_000, values=1)

    plenty, more, little = planned(10**11), planned(10**12), planned(10**9)
    assert plenty == more
    assert little.grid.core < plenty.grid.core
    assert "are free" in little.note
    assert little.memory <= 10**9 / 4


@pytest.mark.parametrize(
    "network", [EDSR(4), EDSR(4, channels=256), EDSR(4, channels=8), SRResNet(4), EDSR(2)]
)
@pytest.mark.parametrize("tile", [None, 200])
def test_no_tensor_on_cuda_is_too_large_to_be_counted(network, tile, monkeypatch):
    monkeypatch.setattr("upres.inference.planning.free_memory", lambda device: 10**12)
    (scale,) = network.scales
    target = Target(torch.device("cuda"), torch.float16, "")
    on_cpu = torch.device("cpu"), torch.float16
    if isinstance(network, SRResNet):
        executor: PlainExecutor = PlainExecutor(network, scale, *on_cpu)
        most = 64 * scale**2
    else:
        executor = FoldedExecutor(network, scale, *on_cpu)
        most = max(network.head.out_channels, 3 * scale**2)
    needs = {"bytes_per_pixel": 1000, "values": executor.peak_values()}
    plan = plan_tiles(network, scale, target, (9000, 9000), tile, **needs)
    high, wide = (max(b - a for a, b in s) for s in (plan.grid.rows, plan.grid.columns))
    pixels = plan.batch * (high + 2 * plan.grid.halo) * (wide + 2 * plan.grid.halo)
    assert 1 <= plan.batch <= 8
    assert pixels * most < 2**31
    assert plan.grid.core == tile or plan.grid.core >= 512
    assert plan.note == ""
    with pytest.raises(UsageError, match=r"--tile 0 makes tensors of 2\^31 elements or more"):
        plan_tiles(network, scale, target, (70_000, 70_000), 0, **needs)


@pytest.mark.parametrize("version", [1, 2])
def test_files_lately_read_are_not_memory_in_use(tmp_path, version):
    """Docker counts them, and gives their memory back for the asking."""
    mount, name = "sys/fs/cgroup", "0::"
    limit, used, cached = "memory.max", "memory.current", "inactive_file"
    if version == 1:
        mount, name = "sys/fs/cgroup/memory", "3:memory:"
        limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        cached = "total_inactive_file"

    def group(path, most, now, files):
        folder = tmp_path / mount / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text(f"{most}\n")
        (folder / used).write_text(f"{now}\n")
        (folder / "memory.stat").write_text(f"anon 5\n{cached} {files}\n")

    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"{name}/mine/within\n")
    group("", 2**40 if version == 1 else "max", 700, 100)
    assert group_memory(tmp_path) >= 2**40 - 700
    group("mine/within", 4000, 3900, 3000)
    assert group_memory(tmp_path) == 3100
    group("mine", 2000, 500, 0)
    assert group_memory(tmp_path) == 1500


def test_the_same_command_gives_the_same_pixels(photo):
    target = BF16 if cpu_has_bfloat16() else FP32
    network = seeded(EDSR(2))
    pixels = photo[:64, :90]
    a, b = (run(network, pixels, target, levels=255) for _ in range(2))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("network", NETWORKS, ids=IDS)
def test_batches_are_their_tiles(network, ensemble, photo):
    scale = network.scales[-1]
    stage = ModelStage(
        ArrayRows(photo[:70, :190]), network, scale, FP32, tile=24, ensemble=ensemble, levels=255
    )
    singly = np.concatenate(list(stage.strips()))
    tiles = list(stage.plan.grid.band(24, 48))
    assert max(len(batch) for batch in _batches(tiles, 8)) > 2
    stage.plan = replace(stage.plan, batch=8)
    together = np.concatenate(list(stage.strips())).astype(int)
    assert abs(together - singly).max() <= 1  # the order of additions
    # A batch that does not fit is run one by one.
    corners = [tile.padded for tile in tiles]
    one = max((bottom - top) * (right - left) for top, left, bottom, right in corners)
    stage.executor = Scarce(network, one, MemoryError())
    scarce = np.concatenate(list(stage.strips())).astype(int)
    assert stage.executor.refused >= 1
    assert abs(scarce - singly).max() <= 2


@contextmanager
def float64_everywhere():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "mode",
    [lambda: torch.autocast("cpu", torch.bfloat16), torch.enable_grad, float64_everywhere],
    ids=["autocast", "gradients", "float64"],
)
@pytest.mark.parametrize("model", ["edsr-light", "bicubic"])
def test_modes_of_the_caller_change_nothing(mode, model, photo):
    import upres

    def made():
        return upres.load(model, scale=2, device="cpu", precision="fp32").upscale(photo[:40, :50])

    expected = made()
    with mode():
        np.testing.assert_array_equal(made(), expected)


def test_float32_is_all_of_float32_while_anyone_needs_it(monkeypatch):
    convolutions, cuda = torch.backends.cudnn.conv, torch.device("cuda")
    before = convolutions.fp32_precision
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)  # a search at every new shape
    with all_of_float32(torch.device("cpu")):
        assert convolutions.fp32_precision == before
    first, second = all_of_float32(cuda), all_of_float32(cuda)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert convolutions.fp32_precision == "ieee"
    assert not torch.backends.cudnn.benchmark
    second.__exit__(None, None, None)
    assert convolutions.fp32_precision == before
    assert torch.backends.cudnn.benchmark


def test_an_accelerator_that_does_not_compute_is_not_taken(monkeypatch):
    """A GPU that is older than this torch: it is there, and no kernel runs on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device_module, "why_unusable", lambda kind: "no kernel image is available")
    target = choose("auto", "fp32", deep=False)
    assert target.device.type == "cpu"
    assert "cuda does not work here (no kernel image is available)" in target.reason
    made = Upscaler("edsr-light", Goal(scale=2)).pipeline(np.zeros((20, 20, 3), np.uint8))
    assert made.notes == ["cuda does not work here (no kernel image is available): on the CPU"]
    Upscaler("bicubic", precision="bf16").check_device()  # computed by numpy
    with pytest.raises(UsageError, match=r"device cuda does not work here \(no kernel image"):
        choose("cuda", "auto", deep=False)


def test_pictures_with_more_than_8_bits_are_computed_in_float32(monkeypatch):
    monkeypatch.setattr(device_module, "cpu_has_bfloat16", lambda: True)
    assert choose("cpu", "auto", deep=False).precision == "bf16"
    assert choose("cpu", "auto", deep=True).precision == "fp32"
    for dtype, precision in ((np.uint8, "bf16"), (np.uint16, "fp32"), (np.float32, "fp32")):
        made = Upscaler("edsr-light", Goal(scale=2), device="cpu").pipeline(
            np.zeros((20, 20, 3), dtype)
        )
        assert made.steps.target.precision == precision


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_what_an_accelerator_says_is_asked_of_it():
    assert device_module.why_unusable("cpu") == ""
    assert device_module.why_unusable("cuda")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="has an Apple GPU")
def test_a_format_that_an_accelerator_refuses_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(device_module, "why_unusable", lambda kind: "")
    with pytest.raises(UsageError, match=r"fp16 is not computed here \(.*use --precision fp32"):
        choose("mps", "fp16", deep=False)
    assert choose("mps", "auto", deep=False).precision == "fp32"


def test_the_time_of_small_pictures_is_estimated_from_small_tiles_and_once():
    network = NETWORKS[0]
    sides = []

    class Counted(PlainExecutor):
        def rows(self, x, cut, on_share=None):
            sides.append(x.shape[-1])
            return super().rows(x, cut, on_share)

    steps = Steps([(network, 2)], "bicubic", FP32)
    steps._executors[0] = Counted(network, 2, FP32.device, torch.float32)
    pipelines = [Pipeline(steps, np.zeros((h, 40, 3), np.uint8), (2 * h, 80)) for h in (30, 50)]
    assert all(made.estimate() > 0 for made in pipelines)
    assert sides == [64, 64]


def test_an_estimate_needs_no_more_memory_than_there_is():
    network = NETWORKS[0]
    steps = Steps([(network, 2)], "bicubic", FP32)
    steps._executors[0] = Scarce(network, 64 * 64, MemoryError())
    made = Pipeline(steps, np.zeros((300, 300, 3), np.uint8), (600, 600))
    assert made.estimate() > 0
    assert steps._executors[0].refused == 2


@pytest.mark.parametrize("network", [None, NETWORKS[0]])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_what_is_hidden_wraps_around_as_well(network, dtype):
    generator = np.random.default_rng(0)
    pixels = generator.random((24, 28, 4))
    pixels[:, :6, 3] = 0
    pixels = pixels.astype(dtype) if dtype == np.float32 else (255 * pixels).astype(dtype)

    def made(source):
        steps = Steps([(network, 2)] if network else [], "bicubic", FP32, wrap=True)
        return Pipeline(steps, source, (48, 56)).run()

    whole = made(pixels)
    rolled = made(np.roll(pixels, (5, 9), (0, 1)))
    close = 1 if dtype == np.uint8 else 1e-4
    np.testing.assert_allclose(
        np.roll(rolled, (-10, -18), (0, 1)).astype(float), whole.astype(float), atol=close
    )


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CUDA = Target(torch.device("cuda"), torch.float32, "a test")


@needs_cuda
@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("network", NETWORKS, ids=IDS)
def test_cuda_agrees_with_the_cpu(network, ensemble, photo):
    pixels = photo[:90, :190]
    on_cpu, on_cuda = (run(network, pixels, t, tile=40, ensemble=ensemble) for t in (FP32, CUDA))
    np.testing.assert_allclose(on_cuda, on_cpu, atol=1e-4)


@needs_cuda
@pytest.mark.parametrize("levels", [255, 65535])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_on_cuda_are_near(dtype, levels, photo):
    half = Target(torch.device("cuda"), dtype, "a test")
    network, pixels = seeded(EDSR(2, blocks=2, channels=16)), photo[:200, :300]
    exact, near = (run(network, pixels, t, tile=64, levels=levels) for t in (FP32, half))
    apart = abs(exact.astype(int) - near)
    assert (apart.mean(), apart.max()) < (0.002 * levels, 0.03 * levels)
    whole = run(network, pixels, half, tile=0, levels=levels)
    assert abs(whole.astype(int) - near).max() <= max(1, levels // 1000)


@needs_cuda
def test_cuda_out_of_memory_halves_the_tiles(photo):
    network = seeded(EDSR(2, blocks=1, channels=8))
    pixels = photo[:150, :170]
    executor = Scarce(network, 90 * 90, torch.OutOfMemoryError("CUDA"), CUDA.device)
    got = run(network, pixels, CUDA, tile=150, executor=executor)
    assert executor.refused >= 1
    np.testing.assert_allclose(got, run(network, pixels, CUDA, tile=0), atol=1e-5)


@needs_cuda
def test_an_overflow_on_cuda_is_computed_again():
    half = Target(torch.device("cuda"), torch.float16, "a test")
    pixels = np.zeros((16, 64, 3), np.uint8)
    pixels[:, :32] = 200
    executor = Overflowing(Nearest(halo=0), 2, half.device, half.dtype)
    with pytest.warns(RuntimeWarning, match="fp16 overflowed"):
        got = run(Nearest(halo=0), pixels, half, tile=16, executor=executor, levels=255)
    np.testing.assert_array_equal(got, pixels.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("ahead", [1, 3])
@pytest.mark.parametrize("start", [0, 100, 239])
def test_batches_that_are_begun_ahead_change_nothing(ahead, start):
    """As on a GPU, which computes the next band's first tile while a band is written."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
    stages = [
        ModelStage(ArrayRows(pixels), NETWORKS[2], 4, FP32, tile=32, levels=255) for _ in range(2)
    ]
    assert stages[0].ahead == 0
    stages[1].ahead = ahead
    begun, launch = [], stages[1]._launch
    stages[1]._launch = lambda *a, **b: begun.append(a) or launch(*a, **b)
    whole = list(stages[0].strips(start))
    strips = stages[1].strips(start)
    first = next(strips)
    tiles = len(list(stages[1].plan.grid.band(*stages[1].plan.grid.rows[0])))
    assert len(begun) == min(tiles + ahead, tiles * len(whole))
    for one, other in zip(whole, [first, *strips], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_band_that_is_done_is_handed_out_if_the_next_cannot_be_read():
    class Damaged(ArrayRows):
        def read(self, top, bottom):
            if bottom == self.height:
                raise InputError("damaged", "")
            return super().read(top, bottom)

    pixels = np.zeros((200, 40, 3), np.uint8)
    stage = ModelStage(Damaged(pixels), NETWORKS[2], 4, FP32, tile=32, levels=255)
    stage.ahead = 1
    made = []
    with pytest.raises(InputError, match="damaged"):
        made.extend(stage.strips())
    bands = [b for _, b in stage.plan.grid.rows if b + stage.plan.grid.halo < 200]
    assert len(made) == len(bands) > 0


def test_an_ensemble_of_a_tall_picture_is_planned_for_its_views_on_their_side():
    """Rows that flow through the layers take memory by their width."""
    network, plans = EDSR(2, blocks=4, channels=32), []
    for shape in ((1200, 60, 3), (60, 1200, 3)):
        rows = ArrayRows(np.zeros(shape, np.uint8))
        plans.append(ModelStage(rows, network, 2, FP32, ensemble=True, levels=255).plan.memory)
    assert plans[0] == plans[1]


def test_results_of_16_bits_are_planned_as_torch_holds_them():
    rows = ArrayRows(np.zeros((300, 300, 3), np.uint16))
    deep = ModelStage(rows, NETWORKS[2], 4, FP32, levels=65535).plan.memory
    floats = ModelStage(rows, NETWORKS[2], 4, FP32, levels=None).plan.memory
    assert deep == floats
