"""Strings and n-grams: on the host, at once. No tensor of the engine holds a string."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyengine.onnx.registry import ALL, op
from tinyengine.onnx.values import Array


@op("StringConcat", host=ALL)
def string_concat(a: Array, b: Array) -> Any:
    return np.asarray(a + b, object)


@op("StringSplit", host=ALL)
def string_split(x: Array, *, delimiter: str | None = None, maxsplit: int | None = None) -> Any:
    parts = [s.split(delimiter or None, -1 if maxsplit is None else maxsplit) for s in x.reshape(-1)]
    counts = np.array([len(p) for p in parts], np.int64).reshape(x.shape)
    most = int(counts.max(initial=0))
    rows = np.full((x.size, most), "", object)
    for row, p in zip(rows, parts, strict=True):
        row[: len(p)] = p
    return rows.reshape((*x.shape, most)), counts


@op("RegexFullMatch", host=ALL)
def regex_full_match(x: Array, *, pattern: str) -> Any:
    """By Python's regular expressions, which know what RE2 knows but for \\C, \\pN classes and flags of its own."""
    found = re.compile(pattern)
    return np.array([found.fullmatch(s) is not None for s in x.reshape(-1)], bool).reshape(x.shape)


def _plain(s: str) -> str:
    """Without accents."""
    return s if s.isascii() else "".join(c for c in unicodedata.normalize("NFKD", s) if not unicodedata.combining(c))


_CASES: dict[str, Callable[[str], str]] = {"LOWER": str.lower, "UPPER": str.upper, "NONE": str}


@op("StringNormalizer", host=ALL)
def string_normalizer(
    x: Array, *, case_change_action: str = "NONE", is_case_sensitive: int = 0, locale: str = "", stopwords: Any = ()
) -> Any:
    change = _CASES[case_change_action]
    stops = set(stopwords) if is_case_sensitive else {change(w) for w in stopwords}
    words = []
    for s in map(_plain, x.reshape(-1)):
        s = s if is_case_sensitive else change(s)
        words.append(change(" ".join(w for w in s.split(" ") if w not in stops)))
    kept = np.array([w for w in words if w] or [""], object)
    return kept.reshape((1, -1)) if x.ndim == 2 else kept


@op("TfIdfVectorizer", host=ALL)
def tf_idf_vectorizer(
    x: Array, *, max_gram_length: int, max_skip_count: int, min_gram_length: int, mode: str, ngram_counts: list[int],
    ngram_indexes: list[int], pool_int64s: Any = None, pool_strings: Any = None, weights: Any = None,
) -> Any:  # fmt: skip
    """How often each n-gram of the pool stands in a row, at any distance up to max_skip_count + 1 between its words."""
    pool = list(pool_int64s if pool_int64s is not None else pool_strings)
    ends = [*ngram_counts[1:], len(pool)]
    grams = []
    for k, (a, b) in enumerate(zip(ngram_counts, ends, strict=True)):
        grams += [tuple(pool[i : i + k + 1]) for i in range(a, b, k + 1)]
    place = dict(zip(grams, ngram_indexes, strict=True))
    rows = x.reshape((-1, x.shape[-1]) if x.ndim else (1, 1))
    out = np.zeros((len(rows), max(ngram_indexes) + 1), np.float32)
    for row, counts in zip(rows, out, strict=True):
        words = row.tolist()
        for n in range(min_gram_length, max_gram_length + 1):
            for step in range(1, (max_skip_count if n > 1 else 0) + 2):
                for i in range(len(words) - (n - 1) * step):
                    at = place.get(tuple(words[i : i + (n - 1) * step + 1 : step]))
                    if at is not None:
                        counts[at] += 1
    if mode == "IDF":
        out = (out > 0).astype(np.float32)
    if mode != "TF" and weights is not None:
        by = np.ones(out.shape[1], np.float32)
        by[list(ngram_indexes)] = weights
        out = out * by
    return out if x.ndim == 2 else out[0]
