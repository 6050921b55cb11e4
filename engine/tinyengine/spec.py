"""Specs: per stage a list of (sentence, predicate). `check` names the sentence that was broken, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

Sentence = tuple[str, Callable[[Any], Iterable[str]]]  # the predicate yields one text per violation: what and where

enabled = False  # the tests switch it on: a quarter of the time of lowering; bounds are proven with or without it


class SpecError(AssertionError):
    """A stage produced a value that breaks its spec. `sentence` is the broken one, `rule` the one that broke it, if known."""

    def __init__(self, stage: str, sentence: str, where: str, rule: str = "") -> None:
        by = f"\n  the rule that broke it: rule {rule}" if rule else ""
        super().__init__(f"stage {stage} broke its spec: {sentence}\n  at {where}{by}")
        self.stage, self.sentence, self.where, self.rule = stage, sentence, where, rule


def check(stage: str, spec: Sequence[Sentence], value: Any, rule: str = "") -> None:
    """Raises SpecError at the first sentence that `value` breaks."""
    if not enabled:
        return
    for sentence, violations in spec:
        for where in violations(value):
            raise SpecError(stage, sentence, where, rule)
