"""Count of the operations of a program."""

import math
from collections.abc import Iterator
from typing import Any


def products(jaxpr: Any) -> Iterator[float]:
    """Yield the number of operations of each matrix product and convolution; in a loop, of all its iterations."""
    for equation in jaxpr.eqns:
        shapes, params = [variable.aval.shape for variable in equation.invars], equation.params
        outputs = equation.outvars[0].aval.size
        if equation.primitive.name == "dot_general":
            yield 2 * outputs * math.prod(shapes[0][axis] for axis in params["dimension_numbers"][0][0])
        elif equation.primitive.name == "conv_general_dilated":
            yield 2 * outputs * math.prod(shapes[1]) / shapes[1][params["dimension_numbers"].rhs_spec[0]]
        for inner in params.values():
            if hasattr(inner, "eqns"):
                yield from (params.get("length", 1) * operations for operations in products(inner))
