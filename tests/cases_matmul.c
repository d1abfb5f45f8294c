/* Gradient cases of runtime/ops/matmul.c, einsum.c, det.c and matmul_integer.c; the form is explained in
 * gradient_cases.h. */
#include "tests/gradient_cases.h"

#define INTERNAL "\"\" : 28, \"ai.regraft\" : 1"
#define MICROSOFT "\"\" : 28, \"com.microsoft\" : 1"

/* clang-format off */
const GradientCase cases_matmul[] = {
    {.name = "MatMul: 2-D", .inputs = "T[3,4] a, T[4,5] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: 2-D, large enough for oneDNN", .inputs = "T[40,33] a, T[33,50] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: 1-D times 1-D", .inputs = "T[4] a, T[4] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: 1-D times 2-D", .inputs = "T[4] a, T[4,3] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: 2-D times 1-D", .inputs = "T[3,4] a, T[4] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: 1-D times 3-D", .inputs = "T[4] a, T[2,4,3] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: 4-D times 1-D", .inputs = "T[2,3,5,4] a, T[4] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: a weight for every token", .inputs = "T[2,3,4] a, T[4,5] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: a weight for every token, large", .inputs = "T[4,10,24] a, T[24,36] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: batches", .inputs = "T[2,3,4] a, T[2,4,5] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: batches broadcast both ways", .inputs = "T[2,1,3,4] a, T[5,4,2] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: batches broadcast, large", .inputs = "T[3,1,20,16] a, T[1,2,16,24] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: a matrix for every batch of the right", .inputs = "T[3,4] a, T[2,4,5] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: 4-D heads", .inputs = "T[2,3,20,16] a, T[2,3,16,20] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: no rows", .inputs = "T[0,4] a, T[4,3] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: nothing to sum", .inputs = "T[2,0] a, T[0,3] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: one row against a large matrix", .inputs = "T[1,130] a, T[130,140] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},
    {.name = "MatMul: one column", .inputs = "T[140,130] a, T[130,1] b", .nodes = "y = MatMul(a, b)", .wrt = "a b"},

    {.name = "Gemm: no bias", .inputs = "T[3,4] a, T[4,5] b", .nodes = "y = Gemm(a, b)", .wrt = "a b"},
    {.name = "Gemm: linear layer", .inputs = "T[3,4] a, T[5,4] b, T[5] c", .nodes = "y = Gemm<transB=1>(a, b, c)", .wrt = "a b c"},
    {.name = "Gemm: linear layer, large", .inputs = "T[32,48] a, T[40,48] b, T[40] c", .nodes = "y = Gemm<transB=1>(a, b, c)", .wrt = "a b c"},
    {.name = "Gemm: transA", .inputs = "T[4,3] a, T[4,5] b, T[5] c", .nodes = "y = Gemm<transA=1>(a, b, c)", .wrt = "a b c"},
    {.name = "Gemm: both transposed, alpha and beta", .inputs = "T[4,3] a, T[5,4] b, T[3,5] c", .nodes = "y = Gemm<transA=1, transB=1, alpha=0.5, beta=2.0>(a, b, c)", .wrt = "a b c"},
    {.name = "Gemm: all attributes, large", .inputs = "T[30,40] a, T[36,30] b, T[40,36] c", .nodes = "y = Gemm<transA=1, transB=1, alpha=0.25, beta=0.35>(a, b, c)", .wrt = "a b c"},
    {.name = "Gemm: alpha with a vector, large", .inputs = "T[40,30] a, T[30,36] b, T[36] c", .nodes = "y = Gemm<alpha=0.25>(a, b, c)", .wrt = "a b c"},
    {.name = "Gemm: scalar C", .inputs = "T[3,4] a, T[4,5] b, T c", .nodes = "y = Gemm(a, b, c)", .wrt = "a b c"},
    {.name = "Gemm: C of one element", .inputs = "T[3,4] a, T[4,5] b, T[1] c", .nodes = "y = Gemm(a, b, c)", .wrt = "a b c"},
    {.name = "Gemm: C is a column", .inputs = "T[30,40] a, T[40,50] b, T[30,1] c", .nodes = "y = Gemm(a, b, c)", .wrt = "a b c"},
    {.name = "Gemm: C is a row", .inputs = "T[30,40] a, T[40,50] b, T[1,50] c", .nodes = "y = Gemm<beta=0.5>(a, b, c)", .wrt = "a b c"},
    {.name = "Gemm: opset 6 with its broadcast attribute", .opsets = "\"\" : 6", .inputs = "T[3,4] a, T[4,5] b, T[5] c", .nodes = "y = Gemm<broadcast=1>(a, b, c)", .wrt = "a b c"},
    {.name = "Gemm: behind a blocked convolution", .inputs = "T[2,32,2,2] x, T[32,32,1,1] w, T[10,128] b", .nodes = "h = Conv(x, w) f = Flatten(h) y = Gemm<transB=1>(f, b)", .wrt = "x w b"},

    {.name = "MatMulStrided: as MatMul", .opsets = INTERNAL, .inputs = "T[3,4] a, T[4,5] b", .nodes = "y = ai.regraft.MatMulStrided(a, b)", .wrt = "a b"},
    {.name = "MatMulStrided: all three permuted", .opsets = INTERNAL, .inputs = "T[2,5,3,4] a, T[2,6,3,4] b", .nodes = "y = ai.regraft.MatMulStrided<perm_a=[0,2,1,3], perm_b=[0,2,3,1], perm_y=[0,2,1,3], alpha=0.5>(a, b)", .wrt = "a b"},
    {.name = "MatMulStrided: attention scores, large", .opsets = INTERNAL, .inputs = "T[2,20,3,16] a, T[2,24,3,16] b", .nodes = "y = ai.regraft.MatMulStrided<perm_a=[0,2,1,3], perm_b=[0,2,3,1], alpha=0.25>(a, b)", .wrt = "a b"},
    {.name = "MatMulStrided: attention context, large", .opsets = INTERNAL, .inputs = "T[2,3,20,24] a, T[2,24,3,16] b", .nodes = "y = ai.regraft.MatMulStrided<perm_b=[0,2,1,3], perm_y=[0,2,1,3]>(a, b)", .wrt = "a b"},
    {.name = "MatMulStrided: bias", .opsets = INTERNAL, .inputs = "T[4,10,24] a, T[36,24] b, T[36] c", .nodes = "y = ai.regraft.MatMulStrided<perm_b=[1,0]>(a, b, c)", .wrt = "a b c"},
    {.name = "MatMulStrided: bias and a permuted result", .opsets = INTERNAL, .inputs = "T[2,3,4] a, T[4,5] b, T[5] c", .nodes = "y = ai.regraft.MatMulStrided<perm_y=[2,0,1]>(a, b, c)", .wrt = "a b c"},
    {.name = "MatMulStrided: broadcast batch under a permutation", .opsets = INTERNAL, .inputs = "T[4,1,3] a, T[2,3,5] b", .nodes = "y = ai.regraft.MatMulStrided<perm_a=[1,0,2], perm_y=[1,0,2]>(a, b)", .wrt = "a b"},

    {.name = "FusedMatMul: transposed and scaled", .opsets = MICROSOFT, .inputs = "T[2,4,3] a, T[2,5,4] b", .nodes = "y = com.microsoft.FusedMatMul<transA=1, transB=1, alpha=0.5>(a, b)", .wrt = "a b"},
    {.name = "FusedMatMul: transBatchA", .opsets = MICROSOFT, .inputs = "T[3,2,4] a, T[2,4,5] b", .nodes = "y = com.microsoft.FusedMatMul<transBatchA=1>(a, b)", .wrt = "a b"},
    {.name = "FusedMatMul: a vector", .opsets = MICROSOFT, .inputs = "T[4] a, T[2,4,5] b", .nodes = "y = com.microsoft.FusedMatMul<alpha=2.0>(a, b)", .wrt = "a b"},
    {.name = "FusedGemm: LeakyRelu", .opsets = MICROSOFT, .inputs = "T[3,4] a, T[4,5] b, T[5] c", .nodes = "y = com.microsoft.FusedGemm<activation=\"LeakyRelu\", activation_alpha=0.2>(a, b, c)", .wrt = "a b c"},

    {.name = "Einsum: matrix product", .inputs = "T[3,4] a, T[4,5] b", .nodes = "y = Einsum<equation=\"ij,jk->ik\">(a, b)", .wrt = "a b"},
    {.name = "Einsum: implicit output", .inputs = "T[3,4] a, T[4,5] b", .nodes = "y = Einsum<equation=\"ib,bc\">(a, b)", .wrt = "a b"},
    {.name = "Einsum: attention scores", .inputs = "T[2,20,3,16] a, T[2,24,3,16] b", .nodes = "y = Einsum<equation=\"bqhd,bkhd->bhqk\">(a, b)", .wrt = "a b"},
    {.name = "Einsum: attention context", .inputs = "T[2,3,20,24] a, T[2,24,3,16] b", .nodes = "y = Einsum<equation=\"bhqk,bkhd->bqhd\">(a, b)", .wrt = "a b"},
    {.name = "Einsum: several labels in every group", .inputs = "T[2,3,4,5] a, T[4,5,2,3] b", .nodes = "y = Einsum<equation=\"abcd,cdef->abef\">(a, b)", .wrt = "a b"},
    {.name = "Einsum: groups that do not lie together", .inputs = "T[2,3,4,5] a, T[3,6,5] b", .nodes = "y = Einsum<equation=\"abcd,bed->cea\">(a, b)", .wrt = "a b"},
    {.name = "Einsum: outer product", .inputs = "T[3] a, T[4] b", .nodes = "y = Einsum<equation=\"i,j->ji\">(a, b)", .wrt = "a b"},
    {.name = "Einsum: inner product", .inputs = "T[5] a, T[5] b", .nodes = "y = Einsum<equation=\"i,i\">(a, b)", .wrt = "a b"},
    {.name = "Einsum: elementwise with a sum in one operand", .inputs = "T[3,4] a, T[3,5] b", .nodes = "y = Einsum<equation=\"ij,ik->i\">(a, b)", .wrt = "a b"},
    {.name = "Einsum: transpose", .inputs = "T[2,3,4] a", .nodes = "y = Einsum<equation=\"ijk->kij\">(a)", .wrt = "a"},
    {.name = "Einsum: sum", .inputs = "T[2,3,4] a", .nodes = "y = Einsum<equation=\"ijk->j\">(a)", .wrt = "a"},
    {.name = "Einsum: trace and diagonal", .inputs = "T[3,3] a, T[2,3,3] b", .nodes = "t = Einsum<equation=\"ii\">(a) d = Einsum<equation=\"...ii->...i\">(b)", .outputs = "t d", .wrt = "a b"},
    {.name = "Einsum: ellipsis broadcast", .inputs = "T[2,1,3,4] a, T[5,4,2] b", .nodes = "y = Einsum<equation=\"...ij,...jk->...ik\">(a, b)", .wrt = "a b"},
    {.name = "Einsum: three operands", .inputs = "T[2,3] a, T[3,4] b, T[4,5] c", .nodes = "y = Einsum<equation=\"ij,jk,kl->li\">(a, b, c)", .wrt = "a b c"},
    {.name = "Einsum: bilinear form", .inputs = "T[2,3] a, T[5,3,4] w, T[2,4] b", .nodes = "y = Einsum<equation=\"bn,anm,bm->ba\">(a, w, b)", .wrt = "a w b"},
    {.name = "Einsum: upper and lower case", .inputs = "T[3,4] a, T[4,5] b", .nodes = "y = Einsum<equation=\"iA,Aj\">(a, b)", .wrt = "a b"},

    {.name = "Det: one matrix", .inputs = "T[3,3] x", .nodes = "y = Det(x)", .wrt = "x"},
    {.name = "Det: batches", .inputs = "T[2,2,4,4] x", .nodes = "y = Det(x)", .wrt = "x"},
    {.name = "Det: singular", .inputs = "T[3,3] x", .nodes = "y = Det(x)", .wrt = "x", .values = "x={1,2,3,2,4,6,0.5,1,-1}"},
    {0},
};
