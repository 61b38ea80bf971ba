"""Super-resolution networks. They know no file, no address, no command line."""

from upres.networks.edsr import EDSR
from upres.networks.mdsr import MDSR
from upres.networks.network import Network
from upres.networks.srcnn import SRCNN
from upres.networks.srresnet import SRResNet
from upres.networks.vdsr import VDSR

# The name that weights.toml and a file's metadata use, and the class it means.
ARCHITECTURES: dict[str, type[Network]] = {
    "edsr": EDSR,
    "mdsr": MDSR,
    "srcnn": SRCNN,
    "srresnet": SRResNet,
    "vdsr": VDSR,
}

__all__ = ["ARCHITECTURES", "EDSR", "MDSR", "SRCNN", "VDSR", "Network", "SRResNet"]
