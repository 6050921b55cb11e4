"""Rewrites of ops without an instruction into mul, fma and bit operations. (The table of rules grows below.)"""

from tinyengine.loopnest import Expr


def lower(e: Expr) -> Expr:
    """`e` in terms of what the machine has."""
    return e
