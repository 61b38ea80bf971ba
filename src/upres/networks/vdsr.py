"""VDSR (Kim et al. 2016, "Accurate Image Super-Resolution Using Very Deep Convolutional
Networks")."""

from torch import Tensor, nn
from torch.nn import functional as F

from upres.networks.blocks import BICUBIC_REACH, bicubic, conv
from upres.networks.network import Network


class VDSR(Network):
    """Twenty 3 x 3 convolutions that add detail to a bicubic enlargement of the luma.

    One set of weights serves every scale.

    Args:
        scales: the factors it serves.
        layers, channels: 20 and 64 in the paper.
    """

    shares_scales = True
    colour = "y"

    def __init__(
        self, scales: tuple[int, ...] = (2, 3, 4), *, layers: int = 20, channels: int = 64
    ) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.head = conv(1, channels)
        self.body = nn.ModuleList(conv(channels, channels) for _ in range(layers - 2))
        self.tail = conv(channels, 1)
        # As in the paper (He et al. 2015): torch's own start shrinks the picture by more than
        # half a layer, and after twenty of them nothing is left to learn from. The last one's is
        # small, so that training begins at bicubic.
        for layer in (self.head, *self.body, self.tail):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.tail.weight, std=1e-3)

    def halo(self, scale: int) -> int:
        """One output pixel a layer, and what the enlargement reads."""
        return -(-(len(self.body) + 2) // scale) + BICUBIC_REACH

    def peak_values(self, scale: int) -> int:
        """A layer's input and output at output resolution."""
        return 2 * self.head.out_channels * scale * scale

    def reconstruct(self, features: Tensor, scale: int) -> Tensor:
        """N x 1 x h x w in 0..1 to N x 1 x scale*h x scale*w, float32."""
        enlarged = bicubic(features.float(), scale)
        y = F.relu(self.head(enlarged.to(self.head.weight.dtype)), inplace=True)
        for layer in self.body:
            y = F.relu(layer(y), inplace=True)
        residual: Tensor = self.tail(y)
        return enlarged + residual.float()
