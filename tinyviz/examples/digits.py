"""A small network learns to read handwritten digits: what `tinyviz demo` trains and looks at."""

from tinyviz import Tensor, data, jit, manual_seed, nn, optim

manual_seed(0)
images, labels, test_images, test_labels = data.digits()


class Network(nn.Module):
    def __init__(self):
        self.fc1 = nn.Linear(64, 256)
        self.fc2 = nn.Linear(256, 10)

    def forward(self, x):
        h = self.fc1(x).relu()
        return self.fc2(h)


model = Network()
optimizer = optim.Adam(model.parameters(), lr=1e-3)


@jit
def step(x, y):
    optimizer.zero_grad()
    loss = model(x).cross_entropy(y)
    loss.backward()
    optimizer.step()
    return loss


def epoch():
    for x, y in data.batches(images, labels, size=128):
        loss = step(Tensor(x), Tensor(y))
    return loss.item()


def accuracy(images, labels):
    return (model(Tensor(images)).argmax(1) == Tensor(labels)).float().mean().item()
