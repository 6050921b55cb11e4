"""Module paths from the names that exporters give to nodes."""

from __future__ import annotations

import ast
import re
from typing import Any

_SCOPES = "pkg.torch.onnx.name_scopes"  # written by torch.onnx.export: the modules around a node, and the node, as a Python list


def module_path(node: Any) -> str:
    """Of a NodeProto, within the model. '/layer1/conv1/Conv' is 'layer1.conv1': the last part goes when it is the operator
    ('Conv', 'Conv_3') and something else stands before it, be it the root. '/layer1/layer1.0/Conv', as PyTorch names what
    stands in a Sequential, is 'layer1.0'. A node without a name has no path of its own."""
    scopes = {p.key: p.value for p in getattr(node, "metadata_props", ())}.get(_SCOPES)
    if scopes:
        try:
            found = [str(s) for s in ast.literal_eval(scopes)]
        except (SyntaxError, ValueError):
            found = []
        inner = [s for s in found[:-1] if s]
        if found:
            return inner[-1] if inner else ""
    parts = [p for p in node.name.split("/") if p]
    if parts and "/" in node.name and re.fullmatch(rf"{re.escape(node.op_type)}(_\d+)?", parts[-1]):
        parts.pop()
    path: list[str] = []
    for p in parts:
        if path and p.startswith(path[-1] + "."):
            path[-1] = p
        else:
            path.append(p)
    return ".".join(path)


def node_label(node: Any) -> str:
    """How an error calls a node."""
    name = f" {node.name!r}" if node.name else f" that gives {', '.join(map(repr, node.output))}"
    return f"the {node.op_type} node{name}"
