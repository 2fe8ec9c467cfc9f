"""AlexNet (Krizhevsky 2014, "One weird trick": torchvision's form of Krizhevsky et al. 2012), optionally with
LRN.

Names are torchvision's ``features.*``. For sizes of exactly H/4 .. H/32 the first convolution pads 2 on the
left and above, as torchvision, but 5 on the right and below, and the poolings keep their last, partial
window; so away from the right and lower border the maps equal torchvision's. Publishes conv1 (stride 4),
conv2 (8), conv5 (16) and pool5 (32)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vistasks.backbones.backbone import Backbone, initialise
from vistasks.backbones.weights import WeightSource, load_weights
from vistasks.registry import BACKBONES
from vistasks.types import Features


class AlexNet(Backbone):
    """Five convolutions; with ``lrn`` the local response normalisation of Krizhevsky et al. 2012, section
    3.3.
    """

    def __init__(self, *, lrn: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
        )
        # the paper's alpha = 1e-4 multiplies the sum over n = 5 channels, PyTorch's the mean
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0) if lrn else nn.Identity()
        self.channels = {4: 64, 8: 192, 16: 256, 32: 256}
        self.min_size = 32
        initialise(self)

    def extract(self, images: Tensor) -> Features:
        conv1 = self.norm(self.run(self.features[:2], F.pad(images, (2, 5, 2, 5))))
        conv2 = self.norm(self.run(self.features[2:5], conv1))
        conv5 = self.run(self.features[5:12], conv2)
        return Features(maps={4: conv1, 8: conv2, 16: conv5, 32: self.features[12](conv5)})

    def stages(self) -> list[nn.Module]:
        """conv1, conv2, and conv3 to conv5."""
        return [self.features[:2], self.features[2:5], self.features[5:]]


@BACKBONES.register("alexnet")
def alexnet(*, weights: str | None = None, lrn: bool = False) -> AlexNet:
    """Channels 64, 192, 256, 256 at strides 4 .. 32. torchvision's weights were trained without LRN."""
    trunk = AlexNet(lrn=lrn)
    load_weights(trunk, weights, WeightSource(enumeration="AlexNet_Weights", classifier=("classifier.",)))
    return trunk
