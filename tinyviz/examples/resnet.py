"""ResNet (He et al. 2015) of basic blocks, with the parameter names of torchvision's resnet18."""

from tinyengine import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and the way around them."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn1(self.conv1(x)).relu()
        h = self.bn2(self.conv2(h))
        around = x if self.downsample is None else self.downsample(x)
        return (h + around).relu()


class ResNet(nn.Module):
    """Four groups of blocks at 1/4, 1/8, 1/16 and 1/32 of the size of the picture: (N, 3, H, W) -> (N, classes)."""

    def __init__(self, blocks: tuple[int, ...] = (2, 2, 2, 2), classes: int = 1000, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = group(width, width, blocks[0], 1)
        self.layer2 = group(width, 2 * width, blocks[1], 2)
        self.layer3 = group(2 * width, 4 * width, blocks[2], 2)
        self.layer4 = group(4 * width, 8 * width, blocks[3], 2)
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def group(channels: int, out: int, blocks: int, stride: int) -> nn.Sequential:
    """Blocks of which the first changes size and channels."""
    return nn.Sequential(BasicBlock(channels, out, stride), *[BasicBlock(out, out) for _ in range(blocks - 1)])
