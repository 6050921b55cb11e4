"""A language model of characters: two LSTM cells over the sequence (Hochreiter and Schmidhuber 1997)."""

from tinyengine import Tensor, nn, stack


class TextLSTM(nn.Module):
    """Tokens (N, T) of ints -> logits (N, T, vocabulary): what comes next, after each."""

    def __init__(self, vocabulary: int = 96, width: int = 128) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.cell1 = nn.LSTMCell(width, width)
        self.cell2 = nn.LSTMCell(width, width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        state1 = state2 = None
        out = []
        for x in self.embed(tokens).transpose(0, 1):
            state1 = self.cell1(x, state1)
            state2 = self.cell2(state1[0], state2)
            out.append(state2[0])
        return self.head(stack(out, 1))
