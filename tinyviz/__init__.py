"""tinyviz: a neural network's training step, seen whole."""
