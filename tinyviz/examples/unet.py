"""U-Net (Ronneberger et al. 2015): down by pooling, up by transposed convolutions, with what was seen on the way down beside."""

from tinyengine import Tensor, cat, nn


def double(channels: int, out: int) -> nn.Sequential:
    """Two 3×3 convolutions, each with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
        nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """(N, channels, H, W) -> (N, classes, H, W); H and W divide by 4."""

    def __init__(self, channels: int = 3, classes: int = 2, width: int = 32) -> None:
        super().__init__()
        self.down1 = double(channels, width)
        self.down2 = double(width, 2 * width)
        self.middle = double(2 * width, 4 * width)
        self.pool = nn.MaxPool2d(2)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.merge2 = double(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.merge1 = double(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(self.pool(a))
        x = self.middle(self.pool(b))
        x = self.merge2(cat([self.up2(x), b], 1))
        x = self.merge1(cat([self.up1(x), a], 1))
        return self.head(x)
