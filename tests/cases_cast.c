/* Gradient cases of runtime/ops/cast.c and quantize.c; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

/* clang-format off */
const GradientCase cases_cast[] = {
    {.name = "Cast: mask to float", .inputs = "T[3,5] x, bool[3,5] m", .nodes = "n = Cast<to=1>(m) k = CastLike(n, x) y = Mul(x, k)", .wrt = "x"},
    {.name = "Cast: int64 to float", .inputs = "T[3,5] x, int64[3,5] m", .nodes = "n = Cast<to=1>(m) k = CastLike(n, x) y = Mul(x, k)", .wrt = "x", .values = "m=-3..3"},
    {.name = "Cast: int32 to float", .inputs = "T[3,5] x, int32[3,5] m", .nodes = "n = Cast<to=1>(m) k = CastLike(n, x) y = Mul(x, k)", .wrt = "x", .values = "m=-3..3"},
    {.name = "Cast: integers among each other", .inputs = "T[3,5] x, int64[3,5] m", .nodes = "a = Cast<to=6>(m) b = Cast<to=9>(a) d = Cast<to=7>(b) e = Cast<to=6>(d) f = Cast<to=7>(e) g = Cast<to=9>(f) h = Cast<to=2>(g) k = CastLike(h, x) y = Mul(x, k)", .wrt = "x", .values = "m=0..2"},
    {.name = "Cast: float to bool", .inputs = "T[3,5] x, T[3,5] z", .nodes = "m = Cast<to=9>(z) y = Where(m, x, z)", .wrt = "x"},
    {.name = "CastLike: to the same type", .inputs = "T[3,5] x, T[2] z", .nodes = "y = CastLike(x, z)", .wrt = "x"},
    {.name = "Cast: opset 5, by name", .inputs = "T[3,5] x, int64[3,5] m", .nodes = "n = Cast<to=\"BOOL\">(m) o = Not(n) y = Identity(x)", .wrt = "x", .opsets = "\"\" : 5"},
    {.name = "BitCast: of a mask", .inputs = "T[3,5] x, bool[3,5] m", .nodes = "a = BitCast<to=2>(m) b = Cast<to=9>(a) y = Where(b, x, zero)", .wrt = "x", .constants = "T zero = {0}"},
    {.name = "DequantizeLinear: a table with its scale", .inputs = "uint8[6] q, T s", .nodes = "y = DequantizeLinear(q, s, z)", .wrt = "s", .constants = "uint8 z = {3}", .values = "q=0..9 s=0.1..1"},
    {.name = "DequantizeLinear: a scale a channel", .inputs = "int8[2,3,4] q, T[3] s", .nodes = "y = DequantizeLinear<axis=1>(q, s)", .wrt = "s", .values = "q=-9..9 s=0.1..1"},
    {.name = "QuantizeLinear: forward", .inputs = "T[3,4] x", .nodes = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s2, z)", .constants = "T s = {0.1}, T s2 = {0.2}, uint8 z = {3}", .values = "x=0..1"},
    {.name = "QuantizeLinear and DequantizeLinear: one FakeQuantize", .inputs = "T[3,4] x", .nodes = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)", .constants = "T s = {0.1}, uint8 z = {3}"},
    {.name = "FakeQuantize: a scale a channel, int8", .inputs = "T[2,3,4] x", .nodes = "q = QuantizeLinear<axis=1>(x, s, z) y = DequantizeLinear<axis=1>(q, s, z)", .constants = "T[3] s = {0.1, 0.01, 0.5}, int8[3] z = {0, 1, -1}"},
    {.name = "FakeQuantize: in blocks", .inputs = "T[2,4] x", .nodes = "q = QuantizeLinear<axis=1, block_size=2, output_dtype=3>(x, s) y = DequantizeLinear<axis=1, block_size=2>(q, s)", .constants = "T[2,2] s = {0.1, 0.01, 0.5, 0.3}"},
    {0},
};
