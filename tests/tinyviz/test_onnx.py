"""A loaded ONNX model in the views: its layers are the modules, its weights have their names."""

from __future__ import annotations

import pytest

import tinyengine
import tinyviz as tv

pytest.importorskip("onnx")

from tests.engine.test_onnx import conv_net, image


def test_the_layers_of_the_exporter_are_the_modules_of_the_views() -> None:
    assert tv.onnx is tinyengine.onnx
    model = tv.onnx.load(conv_net()[0])
    lowered = tv.lower(model(tv.Tensor(image())))
    graph = str(lowered.view("graph"))
    for layer in ("layer1.conv1", "layer1.bn", "layer1.pool", "layer2", "fc"):
        assert f"model.{layer}" in graph
    assert "buffer(layer1.conv1.weight)" in str(lowered)
