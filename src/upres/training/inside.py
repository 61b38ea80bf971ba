"""What the loss is of: pictures without their border, where that saves time."""

from torch import Tensor, nn

from upres.networks import Network
from upres.networks.chain import ChainNetwork


class Inside(nn.Module):
    """A network as training runs it.

    EDSR and MDSR make all but the outermost low-resolution pixels of a patch, with the upsampler as
    one convolution: a third less to multiply at x4, forward and backward, for the same gradients.
    Beyond a patch's border the network sees zeros, which few pixels of a whole picture are near.
    Other networks make everything.

    Args:
        network: shared, not copied.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, scale: int) -> Tensor:
        """N x C x h x w to N x C x scale*(h-2m) x scale*(w-2m), m = 1 or 0."""
        if isinstance(self.network, ChainNetwork):
            chain = self.network.chain(scale)
            return chain.reconstruct_inside(chain.features(x))
        made: Tensor = self.network(x, scale)
        return made


def inside(whole: Tensor, made: Tensor) -> Tensor:
    """The middle of N x C x H x W that is as large as ``made``."""
    height, width = made.shape[-2:]
    top, left = (whole.shape[-2] - height) // 2, (whole.shape[-1] - width) // 2
    return whole[..., top : top + height, left : left + width]
