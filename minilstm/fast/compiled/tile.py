"""The innermost loop of a matrix product: a tile of the result, held in registers while it is summed up.

Given three plain loops, a compiler does not keep the sums in registers and reaches a tenth of the speed of a core. So
this loop is written as LLVM instructions: each step of the sum loads two vectors of ``b`` and one number of ``a`` for
each row of the tile, and every row adds its number times both vectors.

    out[row, column] = sum over k of a[row, k] b[k, column]        row < rows, column < COLUMNS

A tile has as many rows as the registers allow.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba.core import types
from numba.extending import intrinsic

_features = binding.get_host_cpu_features()
WIDTH = 16 if _features.get("avx512f") else 8 if _features.get("avx") else 4  # numbers in a vector register
VECTORS = 2  # in a row of a tile
COLUMNS = VECTORS * WIDTH
# Registers hold the sums, the vectors of b and one number of a: 32 of them with AVX-512 and on ARM, else 16.
ROWS = 6 if "sse2" in _features and not _features.get("avx512f") else 12

_NUMBER, _INDEX, _LANE = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_VECTOR = ir.VectorType(_NUMBER, WIDTH)
_FUSED = ("contract",)  # a product and the sum it is added to may be one instruction


@intrinsic
def tile(  # type: ignore[no-untyped-def]
    typing_context, rows, a, a_start, a_row, a_step, b, b_start, out, out_start, out_row, depth, adds
):
    """One tile of ``out = a @ b``, or of ``out += a @ b``, for numba's functions.

    All arrays are float32 and flat. ``a[row, k]`` is entry ``a_start + row * a_row + k * a_step`` of `a`; ``b[k]`` are
    the COLUMNS entries of `b` from ``b_start + k * COLUMNS`` on, ``out[row]`` those of `out` from ``out_start + row *
    out_row`` on. `rows` is 1 to ROWS, `depth` at least 1. No argument is checked.
    """
    whole = types.int64
    signature = types.void(whole, a, whole, whole, whole, b, whole, out, whole, whole, whole, types.boolean)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, a, a_start, a_row, a_step, b, b_start, out, out_start, out_row, depth, adds = arguments

        def pointer(number: int, array: Any, start: Any) -> Any:
            return builder.gep(context.make_array(signature.args[number])(context, builder, array).data, [start])

        a, b, out = pointer(1, a, a_start), pointer(5, b, b_start), pointer(7, out, out_start)
        end = builder.append_basic_block("end")
        choice = builder.switch(rows, end)  # a separate loop for each number of rows
        for count in range(1, ROWS + 1):
            choice.add_case(_INDEX(count), builder.append_basic_block(f"rows_{count}"))
            builder.position_at_end(choice.cases[-1][1])
            _loop(builder, count, a, a_row, a_step, b, out, out_row, depth, adds)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, generate


def _loop(
    builder: Any, rows: int, a: Any, a_row: Any, a_step: Any, b: Any, out: Any, out_row: Any, depth: Any, adds: Any
) -> None:
    """The loop over k for a tile of `rows` rows; afterwards `builder` is at its end."""
    a_rows = [builder.gep(a, [builder.mul(a_row, _INDEX(row))]) for row in range(rows)]
    before, loop, end = builder.block, builder.append_basic_block("sum"), builder.append_basic_block("store")
    builder.branch(loop)

    builder.position_at_end(loop)
    k = builder.phi(_INDEX)
    sums = [[builder.phi(_VECTOR) for _ in range(VECTORS)] for _ in range(rows)]
    b_k = [builder.load(place, align=4) for place in _places(builder, b, builder.mul(k, _INDEX(COLUMNS)))]
    of_k = builder.mul(k, a_step)
    added = []
    for row in range(rows):
        factor = _broadcast(builder, builder.load(builder.gep(a_rows[row], [of_k])))
        products = [builder.fmul(factor, vector, flags=_FUSED) for vector in b_k]
        added.append([builder.fadd(*pair, flags=_FUSED) for pair in zip(products, sums[row], strict=True)])
    next_k = builder.add(k, _INDEX(1))
    k.add_incoming(_INDEX(0), before)
    k.add_incoming(next_k, loop)
    for row in range(rows):
        for old, new in zip(sums[row], added[row], strict=True):
            old.add_incoming(_VECTOR([0.0] * WIDTH), before)
            old.add_incoming(new, loop)
    builder.cbranch(builder.icmp_signed("<", next_k, depth), loop, end)

    builder.position_at_end(end)
    with builder.if_else(adds) as (then, otherwise):
        for branch, has_before in ((then, True), (otherwise, False)):
            with branch:
                for row in range(rows):
                    for place, vector in zip(
                        _places(builder, out, builder.mul(out_row, _INDEX(row))), added[row], strict=True
                    ):
                        if has_before:
                            vector = builder.fadd(builder.load(place, align=4), vector)
                        builder.store(vector, place, align=4)


def _places(builder: Any, numbers: Any, start: Any) -> list[Any]:
    """The addresses of the vectors of a row, which need not be multiples of the size of a vector."""
    starts = [builder.add(start, _INDEX(n * WIDTH)) for n in range(VECTORS)]
    return [builder.bitcast(builder.gep(numbers, [at]), _VECTOR.as_pointer()) for at in starts]


def _broadcast(builder: Any, number: Any) -> Any:
    """A vector that has the number in every lane."""
    anything = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(anything, number, _LANE(0))
    return builder.shuffle_vector(first, anything, ir.VectorType(_LANE, WIDTH)([0] * WIDTH))
