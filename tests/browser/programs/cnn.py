"""A small convolutional network learns to read handwritten digits (8 by 8 pixels)."""

from tinyviz import Tensor, data, jit, manual_seed, nn, optim


class Network(nn.Module):
    def __init__(self):
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc = nn.Linear(32 * 4, 10)

    def forward(self, x):
        x = self.conv1(x).relu().max_pool2d(2)
        x = self.conv2(x).relu().max_pool2d(2)
        return self.fc(x.flatten(1))


class Smoother(Network):
    """The same with another activation: something to compare it with."""

    def forward(self, x):
        x = self.conv1(x).gelu().max_pool2d(2)
        x = self.conv2(x).gelu().max_pool2d(2)
        return self.fc(x.flatten(1))


def train(steps=30, network=Network):
    manual_seed(0)
    images, labels, _, _ = data.digits()
    images = images.reshape(-1, 1, 8, 8)
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=3e-3)

    @jit
    def step(x, y):
        optimizer.zero_grad()
        loss = model(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss

    losses = []
    while len(losses) < steps:
        for x, y in data.batches(images, labels, size=64):
            losses.append(step(Tensor(x), Tensor(y)).item())
    return losses
