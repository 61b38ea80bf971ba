"""SRResNet (Ledig et al. 2017, the generator of "Photo-Realistic Single Image Super-Resolution
Using a Generative Adversarial Network", trained on MSE)."""

from torch import Tensor, nn

from upres.networks.blocks import conv, shuffle, shuffle_factors
from upres.networks.network import Network


class _Block(nn.Module):
    """x + bn2(conv2(prelu(bn1(conv1(x)))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # A batch normalisation follows each, so their own biases would do nothing.
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.act = nn.PReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        return x + residual


class SRResNet(Network):
    """Batch-normalised residual blocks between 9 x 9 convolutions, PReLU after each shuffle.

    Args:
        scale: 2, 3 or 4.
        blocks, channels: 16 and 64 in the paper.
    """

    def __init__(self, scale: int, *, blocks: int = 16, channels: int = 64) -> None:
        super().__init__()
        self.scales = (scale,)
        self.factors = shuffle_factors(scale)
        self.head = conv(3, channels, 9)
        self.head_act = nn.PReLU()
        self.body = nn.ModuleList(_Block(channels) for _ in range(blocks))
        self.body_out = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.body_norm = nn.BatchNorm2d(channels)
        self.up = nn.ModuleList(conv(channels, channels * f * f) for f in self.factors)
        self.up_act = nn.ModuleList(nn.PReLU() for _ in self.factors)
        self.tail = conv(channels, 3, 9)

    def halo(self, scale: int) -> int:
        """The 9 x 9 head reaches 4 pixels, each block 2, the last body convolution 1."""
        return 4 + 2 * len(self.body) + 1 + self.reconstruct_halo(scale)

    def reconstruct_halo(self, scale: int) -> int:
        """The 9 x 9 tail reaches 4 output pixels, each upsampling convolution 1 of its own."""
        reach = 4
        for factor in reversed(self.factors):
            reach = -(-reach // factor) + 1
        return reach

    def peak_values(self, scale: int) -> int:
        """The last upsampling convolution's output before and after its shuffle."""
        return 2 * self.head.out_channels * scale * scale

    def features(self, x: Tensor, scale: int) -> Tensor:
        """N x 3 x h x w in 0..1 to N x channels x h x w."""
        h = self.head_act(self.head(x.to(self.head.weight.dtype)))
        y = h
        for block in self.body:
            y = block(y)
        out: Tensor = self.body_norm(self.body_out(y)) + h
        return out

    def reconstruct(self, features: Tensor, scale: int) -> Tensor:
        """N x channels x h x w to N x 3 x scale*h x scale*w, float32."""
        x = features
        for convolution, act, factor in zip(self.up, self.up_act, self.factors, strict=True):
            x = act(shuffle(convolution(x), factor))
        picture: Tensor = self.tail(x)
        return picture.float()
