"""Emits the code of a function on vectors of floats, as LLVM's instructions."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

I1, I8, I16, I32, I64 = map(ir.IntType, (1, 8, 16, 32, 64))
F32, POINTER, VOID = ir.FloatType(), ir.PointerType(), ir.VoidType()
NULL = ir.Constant(POINTER, None)
LINE = 64  # bytes of a line of the cache

# A whole number: of this program, or of the one that is emitted.
Int = Any


class _BFloat(ir.Type):
    """LLVM's type of bfloat16, which llvmlite lacks."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


class Code:
    """Emits the instructions of one function.

    Attributes:
        b: where the next instruction goes.
        lanes: floats of a vector.
        vector: its type.
    """

    def __init__(self, builder: ir.IRBuilder, lanes: int):
        self.b, self.lanes = builder, lanes
        self.vector = ir.VectorType(F32, lanes)
        self._wide = ir.VectorType(I32, lanes)

    # Whole numbers, unsigned: -1 is the largest. Python's are computed with now.

    def value(self, number: Int) -> Any:
        return ir.Constant(I64, number) if isinstance(number, int) else number

    def add(self, *terms: Int) -> Int:
        total = sum(term for term in terms if isinstance(term, int))
        for term in terms:
            if not isinstance(term, int):
                none = isinstance(total, int) and total == 0
                total = term if none else self.b.add(self.value(total), term)
        return total

    def sub(self, a: Int, b: Int) -> Int:
        return a if b == 0 else self.b.sub(self.value(a), self.value(b))

    def mul(self, *factors: Int) -> Int:
        product = 1
        for factor in factors:
            if isinstance(product, int) and isinstance(factor, int):
                product *= factor
            elif isinstance(product, int) and product == 1:
                product = factor
            else:
                product = self.b.mul(self.value(product), self.value(factor))
        return product

    def div(self, a: Int, b: Int) -> Int:
        return self.b.udiv(self.value(a), self.value(b))

    def rem(self, a: Int, b: Int) -> Int:
        return self.b.urem(self.value(a), self.value(b))

    def ceil_div(self, a: Int, b: Int) -> Int:
        return self.div(self.add(a, self.sub(b, 1)), b)

    def less(self, a: Int, b: Int) -> Any:
        return self.b.icmp_unsigned("<", self.value(a), self.value(b))

    def min(self, a: Int, b: Int) -> Int:
        return self.b.select(self.less(a, b), self.value(a), self.value(b))

    def beyond(self, a: Int, b: Int) -> Int:
        """Returns a - b, or 0 where b is more."""
        return self.b.select(self.less(a, b), self.value(0), self.sub(self.value(a), b))

    # Memory

    def at(self, pointer: Any, index: Int, size: int = 4) -> Any:
        """Returns the address of an element of so many bytes."""
        offset = self.mul(index, size)
        if isinstance(offset, int) and offset == 0:
            return pointer
        return self.b.gep(pointer, [self.value(offset)], source_etype=I8)

    def read(self, pointer: Any, offset: int, type_: ir.Type = I64) -> Any:
        return self.b.load(self.at(pointer, offset, 1), typ=type_)

    def write(self, value: Any, pointer: Any, offset: int) -> None:
        self.b.store(self.value(value), self.at(pointer, offset, 1))

    def room(self, count: int) -> Any:
        """Returns memory on the stack, so many times 8 bytes."""
        pointer = self.b.alloca(I64, count)
        pointer.type = POINTER  # llvmlite gives it a type that LLVM has no longer
        return pointer

    def arrays(self, lengths: Sequence[Int]) -> list[Any]:
        """Returns arrays of so many floats; `free` of the first frees all."""
        starts: list[Int] = [0]
        for length in lengths:
            lines = self.mul(self.ceil_div(length, LINE // 4), LINE // 4)
            starts.append(self.add(starts[-1], lines))
        size = self.mul(starts.pop(), 4)
        memory = self._call(
            "aligned_alloc", POINTER, self.value(LINE), self.value(size)
        )
        return [self.at(memory, start) for start in starts]

    def free(self, pointer: Any) -> None:
        self._call("free", VOID, pointer)

    def clear(self, pointer: Any, length: Int) -> None:
        """Sets floats to zero, up to a whole vector."""
        with self.loop(length, step=self.lanes) as over_vectors:
            self.store(self.zero(), pointer, over_vectors.index)

    # Control

    @contextmanager
    def loop(
        self, stop: Int, *carried: Any, start: Int = 0, step: Int = 1
    ) -> Iterator["Loop"]:
        """Emits a loop. Its body may replace the `carried` values that it is given."""
        b, before = self.b, self.b.block
        head, body, after = (b.append_basic_block(n) for n in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64)
        index.add_incoming(self.value(start), before)
        phis = [b.phi(value.type) for value in carried]
        for phi, value in zip(phis, carried, strict=True):
            phi.add_incoming(value, before)
        b.cbranch(self.less(index, stop), body, after)
        b.position_at_end(body)
        loop = Loop(index, phis)
        yield loop
        index.add_incoming(self.add(index, step), b.block)
        for phi, value in zip(phis, loop.carried, strict=True):
            phi.add_incoming(value, b.block)
        b.branch(head)
        b.position_at_end(after)
        loop.carried = phis

    def with_tail(self, rest: Int, emit: Callable[[Any | None], None]) -> None:
        """Emits twice: for whole vectors, and for the last `rest`, which fill none.

        Args:
            rest: how many floats there are; as many as lanes, or more, are a vector.
            emit: is given the mask of the last ones, or None.
        """
        with self.b.if_else(self.less(rest, self.lanes)) as (part, whole):
            with part:
                emit(self.mask(rest))
            with whole:
                emit(None)

    def call_pointer(self, function: Any, argument: Any) -> Any:
        """Calls a function by its address; it takes and returns an address."""
        function.type = ir.FunctionType(POINTER, [POINTER]).as_pointer()
        return self.b.call(function, [argument])

    def _call(self, name: str, result: ir.Type, *arguments: Any) -> Any:
        signature = ir.FunctionType(result, [a.type for a in arguments])
        if name not in self.b.module.globals:
            ir.Function(self.b.module, signature, name)
        return self.b.call(self.b.module.globals[name], arguments)

    # Vectors

    def splat(self, value: Any) -> Any:
        if not isinstance(value, ir.Value):
            return ir.Constant(self.vector, [float(value)] * self.lanes)
        return self._spread(value, self.vector)

    def scalar(self, value: float) -> Any:
        return ir.Constant(F32, value)

    def zero(self) -> Any:
        return self.splat(0.0)

    def broadcast(self, pointer: Any, index: Int) -> Any:
        """Returns a vector of one float, read from memory."""
        return self.splat(self.b.load(self.at(pointer, index), typ=F32, align=4))

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Returns a * b + c, rounded once."""
        return self._call(f"llvm.fma.v{self.lanes}f32", self.vector, a, b, c)

    def fma_pairs(self, a: Any, b: Any, c: Any) -> Any:
        """Returns c plus the products of pairs of bfloat16, which fill 4 bytes each.

        An instruction of AVX512_BF16. It takes subnormal numbers for zero.
        """
        pairs = ir.VectorType(_BFloat(), 2 * self.lanes)
        a, b = self.b.bitcast(a, pairs), self.b.bitcast(b, pairs)
        name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * self.lanes}"
        return self._call(name, self.vector, c, a, b)

    def pairs(self, low: Any, high: Any) -> Any:
        """Returns pairs of bfloat16, of 4 bytes each, of floats that are such."""
        low, high = (self.b.bitcast(half, self._wide) for half in (low, high))
        low = self.b.lshr(low, self._integers(16))
        return self.b.bitcast(self.b.or_(low, high), self.vector)

    def combined(self, matrix: Sequence[Sequence[float]], parts: Sequence[Any]) -> list:
        """Returns one linear combination of vectors per row of a matrix."""
        return [self._combination(row, parts) for row in matrix]

    def _combination(self, row, parts):
        total = None
        for factor, part in zip(row, parts, strict=True):
            if not factor:
                continue
            if total is None:
                total = part if factor == 1 else self.b.fmul(part, self.splat(factor))
            elif factor == 1:
                total = self.b.fadd(total, part)
            elif factor == -1:
                total = self.b.fsub(total, part)
            else:
                total = self.fma(part, self.splat(factor), total)
        return total

    def mask(self, count: Int) -> Any:
        """Returns a mask of the first `count` lanes."""
        lanes = ir.Constant(self._wide, list(range(self.lanes)))
        count = self.b.trunc(self.min(count, self.lanes), I32)
        return self.b.icmp_unsigned("<", lanes, self._spread(count, self._wide))

    def load(
        self, pointer: Any, index: Int, mask: Any | None = None, size: int = 4
    ) -> Any:
        """Returns floats, or bfloat16 (`size` 2) as floats; zeros outside the mask."""
        address = self.at(pointer, index, size)
        type_ = self.vector if size == 4 else ir.VectorType(I16, self.lanes)
        if mask is None:
            value = self.b.load(address, typ=type_, align=size)
        else:
            name, align = self._masked("load", size)
            none = ir.Constant(type_, None)
            value = self._call(name, type_, address, align, mask, none)
        return value if size == 4 else self._from_bfloat16(value)

    def store(
        self,
        value: Any,
        pointer: Any,
        index: Int,
        mask: Any | None = None,
        size: int = 4,
    ) -> None:
        """Stores floats, or rounds them to bfloat16 (`size` 2), where the mask is."""
        address = self.at(pointer, index, size)
        value = value if size == 4 else self._to_bfloat16(value)
        if mask is None:
            self.b.store(value, address, align=size)
        else:
            name, align = self._masked("store", size)
            self._call(name, VOID, value, address, align, mask)

    def transposed(self, rows: Sequence[Any]) -> list[Any]:
        """Returns the columns of a square of `lanes` vectors."""
        rows, lanes = list(rows), range(self.lanes)
        step = self.lanes // 2
        while step:
            # Swaps the corners of squares of twice `step`, off the diagonal.
            upper = [j + self.lanes - step if j & step else j for j in lanes]
            lower = [j + self.lanes if j & step else j + step for j in lanes]
            for i in lanes:
                if not i & step:
                    pair = rows[i], rows[i + step]
                    rows[i], rows[i + step] = (
                        self.b.shuffle_vector(*pair, ir.Constant(self._wide, places))
                        for places in (upper, lower)
                    )
            step //= 2
        return rows

    def _masked(self, what: str, size: int) -> tuple[str, Any]:
        element = "f32" if size == 4 else "i16"
        return (
            f"llvm.masked.{what}.v{self.lanes}{element}.p0",
            ir.Constant(I32, size),
        )

    def _spread(self, value: Any, type_: ir.VectorType) -> Any:
        undefined = ir.Constant(type_, ir.Undefined)
        first = self.b.insert_element(undefined, value, ir.Constant(I32, 0))
        zeros = ir.Constant(self._wide, [0] * self.lanes)
        return self.b.shuffle_vector(first, undefined, zeros)

    def _integers(self, value: int) -> Any:
        return ir.Constant(self._wide, [value] * self.lanes)

    def _from_bfloat16(self, halves: Any) -> Any:
        bits = self.b.shl(self.b.zext(halves, self._wide), self._integers(16))
        return self.b.bitcast(bits, self.vector)

    def _to_bfloat16(self, value: Any) -> Any:
        """Rounds to the nearest, ties to even; NaN stays NaN."""
        b = self.b
        bits = b.bitcast(value, self._wide)
        odd = b.and_(b.lshr(bits, self._integers(16)), self._integers(1))
        rounded = b.add(bits, b.add(odd, self._integers(0x7FFF)))
        is_nan = b.fcmp_unordered("uno", value, value)
        rounded = b.select(is_nan, self._integers(0x7FC00000), rounded)
        high = b.lshr(rounded, self._integers(16))
        return b.trunc(high, ir.VectorType(I16, self.lanes))


class Loop:
    """A loop that is emitted.

    Attributes:
        index: of the turn.
        carried: values from turn to turn, and after the loop.
    """

    def __init__(self, index: Any, carried: list):
        self.index, self.carried = index, carried
