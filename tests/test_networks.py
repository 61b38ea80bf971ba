"""Networks are the papers': parameter counts, shapes, and halos that are exact."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from upres.imaging.resize import imresize
from upres.networks import ARCHITECTURES, EDSR, MDSR, SRCNN, VDSR, SRResNet
from upres.networks.blocks import BICUBIC_REACH, _shuffle_last, bicubic

# From the papers' tables or, for SRCNN's and VDSR's biases, from their layer lists.
PARAMETERS = [
    (EDSR(2), 1_369_859),
    (EDSR(3), 1_554_499),
    (EDSR(4), 1_517_571),
    (EDSR(2, channels=32), 343_939),
    (EDSR(3, channels=32), 390_179),
    (EDSR(4, channels=32), 380_931),
    (EDSR(2, blocks=32, channels=256, residual_scale=0.1), 40_729_603),
    (EDSR(4, blocks=32, channels=256, residual_scale=0.1), 43_089_923),
    (MDSR(blocks=16), 3_227_203),
    (MDSR(), 7_953_987),
    (SRResNet(4), 1_547_350),
    (VDSR(), 665_921),
    (SRCNN(3), 57_281),
    (SRCNN(3, sizes=(9, 1, 5)), 8_129),
]

SMALL = [
    EDSR(2, blocks=2, channels=8),
    EDSR(3, blocks=1, channels=8),
    EDSR(4, blocks=2, channels=8, residual_scale=0.1),
    MDSR(blocks=2, channels=8),
    SRResNet(2, blocks=2, channels=8),
    SRResNet(4, blocks=1, channels=8),
    VDSR(layers=5, channels=8),
    SRCNN(2, widths=(8, 4)),
    SRCNN(4, sizes=(9, 1, 5), widths=(8, 4)),
]
EACH = [(net.eval(), scale) for net in SMALL for scale in net.scales]
NAMES = [f"{type(net).__name__}-x{scale}-{i}" for i, (net, scale) in enumerate(EACH)]


@pytest.mark.parametrize(("network", "count"), PARAMETERS)
def test_has_the_papers_number_of_parameters(network, count):
    assert sum(p.numel() for p in network.parameters()) == count


def test_halos_of_the_released_networks():
    assert EDSR(2).halo(2) == EDSR(4).halo(4) == 36
    assert EDSR(2, blocks=32).halo(2) == 68


@pytest.mark.parametrize(("network", "scale"), EACH, ids=NAMES)
def test_maps_any_size_to_scale_times_that_size(network, scale):
    x = torch.rand(2, network.channels, 11, 7)
    y = network(x, scale)
    assert y.shape == (2, network.channels, 11 * scale, 7 * scale)
    assert y.dtype == torch.float32


@pytest.mark.parametrize(("network", "scale"), EACH, ids=NAMES)
def test_an_output_pixel_sees_the_halo_and_nothing_beyond(network, scale):
    """The gradient of one output pixel with respect to the input, for each sub-pixel corner."""
    halo = network.halo(scale)
    size = 2 * halo + 5
    middle = halo + 2
    reached = 0
    for dy in (0, scale - 1):
        for dx in (0, scale - 1):
            x = torch.rand(1, network.channels, size, size, requires_grad=True)
            y = network(x, scale)[0, 0, middle * scale + dy, middle * scale + dx]
            (gradient,) = torch.autograd.grad(y, x)
            rows = gradient.abs().sum((0, 1, 3)).nonzero()
            columns = gradient.abs().sum((0, 1, 2)).nonzero()
            reached = max(reached, *((i - middle).abs().max().item() for i in (rows, columns)))
    assert reached <= halo
    assert reached >= halo - 2, "a halo far too wide costs time"


@pytest.mark.parametrize(("network", "scale"), EACH, ids=NAMES)
def test_two_stages_are_the_whole(network, scale):
    x = torch.rand(1, network.channels, 9, 8)
    two = network.reconstruct(network.features(x, scale), scale)
    torch.testing.assert_close(two, network(x, scale))
    assert network.reconstruct_halo(scale) <= network.halo(scale)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_bicubic_block_is_matlabs(scale):
    x = torch.rand(1, 2, 9, 5, dtype=torch.float64)
    expected = imresize(x[0].permute(1, 2, 0).numpy(), scale)
    got = bicubic(x.float(), scale)[0].permute(1, 2, 0)
    torch.testing.assert_close(got, torch.from_numpy(expected).float(), atol=1e-6, rtol=0)


@given(st.integers(2, 4), st.integers(1, 6), st.integers(1, 6))
def test_the_bicubic_block_takes_tiny_pictures(scale, height, width):
    x = torch.rand(1, 1, height, width)
    expected = imresize(x[0, 0].double().numpy(), scale)
    torch.testing.assert_close(
        bicubic(x, scale)[0, 0].double(), torch.from_numpy(expected), atol=1e-6, rtol=0
    )
    assert BICUBIC_REACH == 2


def test_a_new_vdsr_begins_at_bicubic_and_all_of_its_layers_hear_the_loss():
    torch.manual_seed(0)
    network, x = VDSR(), torch.rand(2, 1, 16, 16)
    picture, enlarged = network(x, 2), bicubic(x, 2)
    assert (picture - enlarged).abs().max() < 0.05
    (picture - torch.rand_like(picture)).square().mean().backward()
    loudness = [float(layer.weight.grad.norm()) for layer in (network.head, *network.body)]
    assert min(loudness) > 0.05 * max(loudness)


def test_architectures_are_listed_by_name():
    assert sorted(ARCHITECTURES) == ["edsr", "mdsr", "srcnn", "srresnet", "vdsr"]
    for network, _ in EACH:
        assert type(network) in ARCHITECTURES.values()


def test_colour_spaces_are_stated():
    assert (EDSR(2).colour, EDSR(2).channels) == ("rgb", 3)
    assert (VDSR().colour, VDSR().channels) == ("y", 1)
    assert (SRCNN(2).colour, SRResNet(2).colour, MDSR().colour) == ("y", "rgb", "rgb")


@pytest.mark.parametrize("factor", [2, 3])
def test_shuffled_pixels_stay_channels_last(factor):
    """What CUDA takes the way of; it needs none."""
    x = torch.rand(2, 5 * factor**2, 7, 4).to(memory_format=torch.channels_last)
    made = _shuffle_last(x, factor)
    assert torch.equal(made, F.pixel_shuffle(x, factor))
    assert made.is_contiguous(memory_format=torch.channels_last)
