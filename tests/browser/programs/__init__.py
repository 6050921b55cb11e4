"""Three real programs to look at: a network that reads digits, a small transformer, and a loop that is slow on purpose."""
