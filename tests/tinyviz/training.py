"""What the sample records: the user's side of a small training step."""

from tinyengine import Tensor, jit, manual_seed, nn, optim
from tinyengine.state import get_parameters


class Network(nn.Module):
    def __init__(self):
        self.fc1 = nn.Linear(16, 8)
        self.fc2 = nn.Linear(8, 4)

    def forward(self, x):
        h = self.fc1(x).relu()
        return self.fc2(h)


def network():
    manual_seed(0)
    model = Network()
    optimizer = optim.SGD(get_parameters(model), lr=0.1, momentum=0.9)

    @jit
    def step(x, y):
        optimizer.zero_grad()
        loss = model(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss

    return model, step


def tensors(x, y):
    return Tensor(x), Tensor(y)


def show(loss):
    return loss.item()
