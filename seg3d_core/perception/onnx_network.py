# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Networks as ONNX graphs that are built in memory from their weights, and run by onnxruntime on the CPU."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from ..errors import WeightsError
from ..types import Array

log = logging.getLogger(__name__)

_OPSET = 17
# The file format that came with the opset: onnx would write its newest, which older runtimes refuse.
_IR_VERSION = 8
_ONLY_ERRORS = 3
# Bytes of a constant that stay out of the serialised graph, which the session would copy. Operators that need a
# constant's values to know their shapes want it inside.
_LARGE = 4096
# Never more threads per network: mapping and other workers need the rest of the machine.
_MAX_THREADS = 2


def network_threads() -> int:
    """How many threads a network may use: two, or one where there is one core."""
    return min(_MAX_THREADS, os.cpu_count() or 1)


class Graph:
    """Collects nodes and constants; `inputs` are {name: (element type, shape)}, a text in a shape is any length."""

    def __init__(self, inputs: dict[str, tuple[type[np.generic], Sequence[int | str]]]):
        try:
            import onnxruntime
            from onnx import helper
        except ImportError as error:
            raise WeightsError(f"the networks need {error.name}: pip install 'seg3d[offline]'") from None
        self._helper = helper
        self._runtime = onnxruntime
        self._inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)
            for name, (kind, shape) in inputs.items()
        ]
        self._nodes: list[Any] = []
        self._constants: dict[str, Array] = {}

    def constant(self, values: Any) -> str:
        """The name of these values in the graph."""
        name = f"constant{len(self._constants)}"
        self._constants[name] = np.asarray(values, order="C")
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """The name of the operator's only output."""
        (name,) = outputs = [f"value{len(self._nodes)}"]
        self._nodes.append(self._helper.make_node(operator, inputs, outputs, **attributes))
        return name

    def network(self, output: str, title: str) -> Network:
        """Ready to run. `output` is the name of a float32 value; large constants are used where they lie."""
        started = time.perf_counter()
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = network_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = _ONLY_ERRORS
        # Waiting threads sleep: others work on the same cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # An arena would keep the room of the largest batch for good.
        options.enable_cpu_mem_arena = False
        large = {name: values for name, values in self._constants.items() if values.nbytes > _LARGE}
        beside = [self._runtime.OrtValue.ortvalue_from_numpy(values) for values in large.values()]
        options.add_external_initializers(list(large), beside)
        model = self._model(output, title, large).SerializeToString()
        session = self._runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        log.info("%s is ready after %.2f s", title, time.perf_counter() - started)
        return Network(session, large)

    def _model(self, output: str, title: str, beside: Container[str]) -> Any:
        from onnx.numpy_helper import from_array

        helper = self._helper
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(np.float32))
        outputs = [helper.make_tensor_value_info(output, kind, None)]
        constants = [
            _outside(name, values) if name in beside else from_array(values, name)
            for name, values in self._constants.items()
        ]
        graph = helper.make_graph(self._nodes, title, self._inputs, outputs, constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def _outside(name: str, values: Array) -> Any:
    """A constant whose values the session gets beside the graph."""
    from onnx import TensorProto, helper

    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    tensor = TensorProto(name=name, dims=values.shape, data_type=kind, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="memory")
    return tensor


class Network:
    """A session; several threads may call it at once."""

    def __init__(self, session: Any, constants: dict[str, Array]):
        self._session = session
        # The session reads them where they lie and does not keep them alive.
        self._constants = constants

    def __call__(self, **inputs: Array) -> Array:
        """The output for inputs by name."""
        return self._session.run(None, inputs)[0]
