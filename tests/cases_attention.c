/* Gradient cases of runtime/ops/attention.c; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

#define INTERNAL "\"\" : 28, \"ai.regraft\" : 1"
#define MICROSOFT "\"\" : 28, \"com.microsoft\" : 1"

#define PREVIEW "\"\" : 28, \"ai.onnx.preview\" : 1"

/* clang-format off */
const GradientCase cases_attention[] = {
    {.name = "Attention: packed heads", .inputs = "T[2,3,8] q, T[2,4,8] k, T[2,4,12] v", .nodes = "y = Attention<q_num_heads=2, kv_num_heads=2>(q, k, v)", .wrt = "q k v"},
    {.name = "Attention: packed heads, large", .inputs = "T[2,20,48] q, T[2,24,48] k, T[2,24,48] v", .nodes = "y = Attention<q_num_heads=3, kv_num_heads=3>(q, k, v)", .wrt = "q k v"},
    {.name = "Attention: four dims", .inputs = "T[2,2,3,4] q, T[2,2,5,4] k, T[2,2,5,3] v", .nodes = "y = Attention<scale=0.7>(q, k, v)", .wrt = "q k v"},
    {.name = "Attention: shared key heads, causal, softcap", .inputs = "T[2,4,8] q, T[2,4,4] k, T[2,4,4] v", .nodes = "y = Attention<q_num_heads=4, kv_num_heads=2, is_causal=1, softcap=1.5>(q, k, v)", .wrt = "q k v"},
    {.name = "Attention: one key head, four dims", .inputs = "T[2,6,3,4] q, T[2,1,3,4] k, T[2,1,3,4] v", .nodes = "y = Attention(q, k, v)", .wrt = "q k v"},
    {.name = "Attention: additive mask with a gradient", .inputs = "T[1,2,3,4] q, T[1,2,5,4] k, T[1,2,5,4] v, T[3,5] m", .nodes = "y = Attention(q, k, v, m)", .wrt = "q k v m"},
    {.name = "Attention: bool mask with a hidden row, shorter than the keys", .inputs = "T[1,2,3,4] q, T[1,2,5,4] k, T[1,2,5,4] v, bool[3,4] m", .nodes = "y = Attention(q, k, v, m)", .wrt = "q k v", .values = "m={1,0,1,1,0,0,0,0,1,1,1,1}"},
    {.name = "Attention: past, present and scores", .inputs = "T[1,3,8] q, T[1,2,8] k, T[1,2,8] v, T[1,2,3,4] pk, T[1,2,3,4] pv", .nodes = "y, nk, nv, s = Attention<q_num_heads=2, kv_num_heads=2, qk_matmul_output_mode=3>(q, k, v, , pk, pv)", .outputs = "y nk nv s", .wrt = "q k v pk pv"},
    {.name = "Attention: valid lengths, causal", .inputs = "T[2,2,3,4] q, T[2,2,5,4] k, T[2,2,5,4] v, int64[2] n", .nodes = "y = Attention<is_causal=1>(q, k, v, , , , n)", .wrt = "q k v", .values = "n={2,5}"},
    {.name = "Attention: windows", .inputs = "T[1,2,6,4] q, T[1,2,6,4] k, T[1,2,6,4] v", .nodes = "y = Attention<left_window_size=2, right_window_size=1>(q, k, v)", .wrt = "q k v"},
    {.name = "MaskedSoftmax: rows", .opsets = INTERNAL, .inputs = "T[3,40] x, T[3,40] m", .nodes = "h = Add(x, m) y = ai.regraft.MaskedSoftmax(h)", .wrt = "x", .values = "x=-4..4"},
    {.name = "MaskedSoftmax: columns", .opsets = INTERNAL, .inputs = "T[3,4,40] x", .nodes = "y = ai.regraft.MaskedSoftmax<axis=1>(x)", .wrt = "x", .values = "x=-4..4"},

    {.name = "RotaryEmbedding: positions", .inputs = "T[2,2,3,8] x, T[10,4] c, T[10,4] s, int64[2,3] p", .nodes = "y = RotaryEmbedding(x, c, s, p)", .wrt = "x c s", .values = "p=0..9"},
    {.name = "RotaryEmbedding: packed, partial, interleaved", .inputs = "T[2,3,16] x, T[2,3,2] c, T[2,3,2] s", .nodes = "y = RotaryEmbedding<num_heads=2, rotary_embedding_dim=4, interleaved=1>(x, c, s)", .wrt = "x c s"},
    {.name = "RotaryEmbedding of com.microsoft: first position", .opsets = MICROSOFT, .inputs = "T[2,3,8] x, int64[1] p, T[10,2] c, T[10,2] s", .nodes = "y = com.microsoft.RotaryEmbedding(x, p, c, s)", .wrt = "x", .values = "p=4..4"},
    {.name = "Attention of com.microsoft: padding mask, causal", .opsets = MICROSOFT, .inputs = "T[2,3,5] x, T[5,24] w, T[24] b, int32[2,3] m", .nodes = "y = com.microsoft.Attention<num_heads=2, unidirectional=1>(x, w, b, m)", .wrt = "x w b", .values = "m={1,1,0,1,1,1}"},
    {.name = "MultiHeadAttention of com.microsoft: bias, lengths, scores added", .opsets = MICROSOFT, .inputs = "T[2,3,8] q, T[2,4,8] k, T[2,4,8] v, T[24] b, int32[2] n, T[1,2,3,4] a", .nodes = "y = com.microsoft.MultiHeadAttention<num_heads=2>(q, k, v, b, n, a)", .wrt = "q k v b a", .values = "n={2,4}"},
    {.name = "EmbedLayerNormalization of com.microsoft", .opsets = MICROSOFT, .inputs = "int32[2,3] i, int32[2,3] s, T[9,8] w, T[5,8] p, T[2,8] t, T[8] g, T[8] b", .nodes = "y, n = com.microsoft.EmbedLayerNormalization(i, s, w, p, t, g, b)", .wrt = "w p t g b", .values = "i=0..8 s=0..1"},
    {.name = "LinearAttention: linear, no past", .inputs = "T[2,3,4] q, T[2,3,4] k, T[2,3,6] v", .nodes = "y, s = LinearAttention<q_num_heads=2, kv_num_heads=2, update_rule=\"linear\">(q, k, v)", .outputs = "y s", .wrt = "q k v"},
    {.name = "LinearAttention: gated by row, past, shared heads", .inputs = "T[2,3,8] q, T[2,3,4] k, T[2,3,6] v, T[2,2,2,3] p, T[2,3,4] g", .nodes = "y, s = LinearAttention<q_num_heads=4, kv_num_heads=2, update_rule=\"gated\">(q, k, v, p, g)", .outputs = "y s", .wrt = "q k v p g"},
    {.name = "LinearAttention: delta, one beta for all heads", .inputs = "T[1,4,4] q, T[1,4,4] k, T[1,4,2] v, T[1,4,1] b", .nodes = "y, s = LinearAttention<q_num_heads=2, kv_num_heads=2, update_rule=\"delta\", scale=0.8>(q, k, v, , , b)", .outputs = "y s", .wrt = "q k v b"},
    {.name = "LinearAttention: gated delta by head, one key head", .inputs = "T[2,3,6] q, T[2,3,3] k, T[2,3,2] v, T[2,1,3,2] p, T[2,3,1] g, T[2,3,1] b", .nodes = "y, s = LinearAttention<q_num_heads=2, kv_num_heads=1>(q, k, v, p, g, b)", .outputs = "y s", .wrt = "q k v p g b"},
    {.name = "LinearAttention: only the state reaches the loss", .inputs = "T[1,2,2] q, T[1,2,2] k, T[1,2,2] v, T[1,2,2] g, T[1,2,1] b", .nodes = "y, s = LinearAttention<q_num_heads=1, kv_num_heads=1>(q, k, v, , g, b)", .outputs = "s", .wrt = "k v g b"},
    {.name = "LinearAttention: no tokens", .inputs = "T[2,0,4] q, T[2,0,4] k, T[2,0,6] v, T[2,2,2,3] p", .nodes = "y, s = LinearAttention<q_num_heads=2, kv_num_heads=2, update_rule=\"linear\">(q, k, v, p)", .outputs = "y s", .wrt = "q k v p"},
    {.name = "FlexAttention: as it is, shared heads", .opsets = PREVIEW, .inputs = "T[2,4,3,4] q, T[2,2,5,4] k, T[2,2,5,3] v", .nodes = "y = ai.onnx.preview.FlexAttention(q, k, v)", .wrt = "q k v"},
    {.name = "FlexAttention: scores capped by a value around, probabilities scaled", .opsets = PREVIEW, .inputs = "T[1,2,3,4] q, T[1,2,3,4] k, T[1,2,3,4] v, T[2,1,3] c", .nodes = "y = ai.onnx.preview.FlexAttention<scale=0.7, score_mod = cap (T[1,2,3,3] s) => (T[1,2,3,3] r) { t = Tanh(s) r = Mul(t, c) }, prob_mod = half (T[1,2,3,3] p) => (T[1,2,3,3] h) { h = Mul(p, p) }>(q, k, v)", .wrt = "q k v c", .values = "c=0.5..2"},
    {0},
};
