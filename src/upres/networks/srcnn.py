"""SRCNN (Dong et al. 2014, "Image Super-Resolution Using Deep Convolutional Networks")."""

from torch import Tensor
from torch.nn import functional as F

from upres.networks.blocks import BICUBIC_REACH, bicubic, conv
from upres.networks.network import Network


class SRCNN(Network):
    """Three convolutions on a bicubic enlargement of the luma.

    Args:
        scale: 2, 3 or 4; the paper trains one network a scale.
        sizes: kernel sizes, 9-5-5 in the paper's larger network and 9-1-5 in its smallest.
        widths: channels after the first and second, 64 and 32 in the paper.
    """

    colour = "y"

    def __init__(
        self,
        scale: int,
        *,
        sizes: tuple[int, int, int] = (9, 5, 5),
        widths: tuple[int, int] = (64, 32),
    ) -> None:
        super().__init__()
        if not all(size % 2 for size in sizes):
            raise ValueError(f"kernels of {sizes} have no middle")
        self.scales = (scale,)
        self.sizes = tuple(sizes)
        self.extract = conv(1, widths[0], sizes[0])
        self.map = conv(widths[0], widths[1], sizes[1])
        self.rebuild = conv(widths[1], 1, sizes[2])

    def halo(self, scale: int) -> int:
        """The kernels' reach at output resolution, and what the enlargement reads."""
        return -(-sum(size // 2 for size in self.sizes) // scale) + BICUBIC_REACH

    def peak_values(self, scale: int) -> int:
        """The first two layers' outputs at output resolution."""
        return (self.extract.out_channels + self.map.out_channels) * scale * scale

    def reconstruct(self, features: Tensor, scale: int) -> Tensor:
        """N x 1 x h x w in 0..1 to N x 1 x scale*h x scale*w, float32."""
        enlarged = bicubic(features.float(), scale).to(self.extract.weight.dtype)
        y = F.relu(self.extract(enlarged), inplace=True)
        y = F.relu(self.map(y), inplace=True)
        picture: Tensor = self.rebuild(y)
        return picture.float()
