/* Gradient cases of runtime/ops/recurrent.c; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

/* Four steps, three samples, five inputs, four hidden numbers. */
#define X "T[4,3,5] x"
#define LSTM "T[1,16,5] w, T[1,16,4] r, T[1,32] b"
#define LSTM2 "T[2,16,5] w, T[2,16,4] r, T[2,32] b"
#define GRU "T[1,12,5] w, T[1,12,4] r, T[1,24] b"
#define GRU2 "T[2,12,5] w, T[2,12,4] r, T[2,24] b"
#define RNN "T[1,4,5] w, T[1,4,4] r, T[1,8] b"
#define RNN2 "T[2,4,5] w, T[2,4,4] r, T[2,8] b"
#define STATES "int32[3] n, T[1,3,4] h, T[1,3,4] c"
#define STATES2 "int32[3] n, T[2,3,4] h, T[2,3,4] c"
#define STATE "int32[3] n, T[1,3,4] h"
#define STATE2 "int32[3] n, T[2,3,4] h"

/* clang-format off */
const GradientCase cases_recurrent[] = {
    {.name = "LSTM: defaults", .inputs = X ", T[1,16,5] w, T[1,16,4] r", .nodes = "y, yh, yc = LSTM<hidden_size=4>(x, w, r)", .outputs = "y yh yc", .wrt = "x w r"},
    {.name = "LSTM: bias and states", .inputs = X ", " LSTM ", T[1,3,4] h, T[1,3,4] c", .nodes = "y, yh, yc = LSTM<hidden_size=4>(x, w, r, b, , h, c)", .outputs = "y yh yc", .wrt = "x w r b h c"},
    {.name = "LSTM: only the last state", .inputs = X ", " LSTM, .nodes = "y, yh = LSTM<hidden_size=4>(x, w, r, b)", .outputs = "yh", .wrt = "x w r b"},
    {.name = "LSTM: only the cell", .inputs = X ", " LSTM, .nodes = "y, yh, yc = LSTM<hidden_size=4>(x, w, r, b)", .outputs = "yc", .wrt = "x w r b"},
    {.name = "LSTM: reverse", .inputs = X ", " LSTM ", T[1,3,4] h, T[1,3,4] c", .nodes = "y, yh, yc = LSTM<hidden_size=4, direction=\"reverse\">(x, w, r, b, , h, c)", .outputs = "y yh yc", .wrt = "x w r b h c"},
    {.name = "LSTM: bidirectional, lengths, peepholes", .inputs = X ", " LSTM2 ", " STATES2 ", T[2,12] p", .nodes = "y, yh, yc = LSTM<hidden_size=4, direction=\"bidirectional\">(x, w, r, b, n, h, c, p)", .outputs = "y yh yc", .wrt = "x w r b h c p", .values = "n={4,2,3}"},
    {.name = "LSTM: lengths with an empty sample", .inputs = X ", " LSTM ", " STATES, .nodes = "y, yh, yc = LSTM<hidden_size=4>(x, w, r, b, n, h, c)", .outputs = "y yh yc", .wrt = "x w r b h c", .values = "n={4,0,1}"},
    {.name = "LSTM: batch first, bidirectional", .inputs = "T[3,4,5] x, " LSTM2 ", T[3,2,4] h, T[3,2,4] c", .nodes = "y, yh, yc = LSTM<hidden_size=4, layout=1, direction=\"bidirectional\">(x, w, r, b, , h, c)", .outputs = "y yh yc", .wrt = "x w r b h c"},
    {.name = "LSTM: clip and coupled gates", .inputs = X ", " LSTM, .nodes = "y, yh, yc = LSTM<hidden_size=4, clip=0.4, input_forget=1>(x, w, r, b)", .outputs = "y yh yc", .wrt = "x w r b"},
    {.name = "LSTM: other activations", .inputs = X ", " LSTM, .nodes = "y, yh, yc = LSTM<hidden_size=4, activations=[\"HardSigmoid\", \"Softsign\", \"ScaledTanh\"], activation_alpha=[0.3, 1.7], activation_beta=[0.4, 0.6]>(x, w, r, b)", .outputs = "y yh yc", .wrt = "x w r b"},
    {.name = "LSTM: larger", .inputs = "T[9,8,24] x, T[2,80,24] w, T[2,80,20] r, T[2,160] b, int32[8] n", .nodes = "y, yh, yc = LSTM<hidden_size=20, direction=\"bidirectional\">(x, w, r, b, n)", .outputs = "y yh yc", .wrt = "x w r b", .values = "n=1..9"},

    {.name = "GRU: defaults", .inputs = X ", T[1,12,5] w, T[1,12,4] r", .nodes = "y, yh = GRU<hidden_size=4>(x, w, r)", .outputs = "y yh", .wrt = "x w r"},
    {.name = "GRU: linear before reset", .inputs = X ", " GRU ", T[1,3,4] h", .nodes = "y, yh = GRU<hidden_size=4, linear_before_reset=1>(x, w, r, b, , h)", .outputs = "y yh", .wrt = "x w r b h"},
    {.name = "GRU: reset before linear", .inputs = X ", " GRU ", T[1,3,4] h", .nodes = "y, yh = GRU<hidden_size=4>(x, w, r, b, , h)", .outputs = "y yh", .wrt = "x w r b h"},
    {.name = "GRU: bidirectional, lengths, linear", .inputs = X ", " GRU2 ", " STATE2, .nodes = "y, yh = GRU<hidden_size=4, direction=\"bidirectional\", linear_before_reset=1>(x, w, r, b, n, h)", .outputs = "y yh", .wrt = "x w r b h", .values = "n={4,2,3}"},
    {.name = "GRU: bidirectional, lengths", .inputs = X ", " GRU2 ", " STATE2, .nodes = "y, yh = GRU<hidden_size=4, direction=\"bidirectional\">(x, w, r, b, n, h)", .outputs = "y yh", .wrt = "x w r b h", .values = "n={1,4,2}"},
    {.name = "GRU: batch first, reverse", .inputs = "T[3,4,5] x, " GRU ", T[3,1,4] h", .nodes = "y, yh = GRU<hidden_size=4, layout=1, direction=\"reverse\">(x, w, r, b, , h)", .outputs = "y yh", .wrt = "x w r b h"},
    {.name = "GRU: other activations and clip", .inputs = X ", " GRU, .nodes = "y, yh = GRU<hidden_size=4, clip=0.5, activations=[\"Softplus\", \"Elu\"], activation_alpha=[0.8]>(x, w, r, b)", .outputs = "y yh", .wrt = "x w r b"},
    {.name = "GRU: larger", .inputs = "T[9,8,24] x, T[2,60,24] w, T[2,60,20] r, T[2,120] b, int32[8] n", .nodes = "y, yh = GRU<hidden_size=20, direction=\"bidirectional\", linear_before_reset=1>(x, w, r, b, n)", .outputs = "y yh", .wrt = "x w r b", .values = "n=1..9"},

    {.name = "RNN: defaults", .inputs = X ", T[1,4,5] w, T[1,4,4] r", .nodes = "y, yh = RNN<hidden_size=4>(x, w, r)", .outputs = "y yh", .wrt = "x w r"},
    {.name = "RNN: bidirectional, lengths, states", .inputs = X ", " RNN2 ", " STATE2, .nodes = "y, yh = RNN<hidden_size=4, direction=\"bidirectional\">(x, w, r, b, n, h)", .outputs = "y yh", .wrt = "x w r b h", .values = "n={4,2,3}"},
    {.name = "RNN: Relu", .inputs = X ", " RNN ", " STATE, .nodes = "y, yh = RNN<hidden_size=4, activations=[\"Relu\"]>(x, w, r, b, n, h)", .outputs = "y yh", .wrt = "x w r b h", .values = "n={4,3,4}"},
    {.name = "RNN: batch first", .inputs = "T[3,4,5] x, " RNN, .nodes = "y, yh = RNN<hidden_size=4, layout=1>(x, w, r, b)", .outputs = "y yh", .wrt = "x w r b"},
    {.name = "RNN: LeakyRelu", .inputs = X ", " RNN, .nodes = "y, yh = RNN<hidden_size=4, activations=[\"LeakyRelu\"], activation_alpha=[0.3]>(x, w, r, b)", .outputs = "y yh", .wrt = "x w r b"},
    {.name = "RNN: Affine both ways", .inputs = X ", " RNN2, .nodes = "y, yh = RNN<hidden_size=4, direction=\"bidirectional\", activations=[\"Affine\", \"ThresholdedRelu\"], activation_alpha=[0.5, -0.2], activation_beta=[0.1]>(x, w, r, b)", .outputs = "y yh", .wrt = "x w r b"},
    {0},
};
