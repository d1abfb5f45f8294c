/* Family: attention. Attention and RotaryEmbedding of ONNX and com.microsoft's Attention, MultiHeadAttention,
 * RotaryEmbedding and EmbedLayerNormalization: composites all of them. Each is rewritten (expand) into products that
 * read heads through permutations, so no bytes move for them, an additive bias made of masks, MaskedSoftmax, and a
 * product that writes heads back; gradients and kernels are those of the parts. Softmax always runs in the precision of
 * its input (softmax_precision asks for no less). */
#include <math.h>

#include "runtime/ops/compose.h"
#include "runtime/ops/ops.h"

/* ---- the core ------------------------------------------------------------------------------------------------- */

/* Heads of [B, H, S, D] that lie as they are said to: `packed` [B, S, H, D], else [B, H, S, D]. */
typedef struct Heads {
    Value *value;
    bool packed;
    int64_t batch, heads, length, size;
} Heads;

typedef struct Core {
    Heads q, k, v;
    double scale, softcap;
    Value *bias;                                  /* added to the scores, broadcast to [B, Hq, Sq, Skv]; may be NULL */
    Value *raw, *capped, *biased, *probabilities; /* results, [B, Hq, Sq, Skv] */
    Value *y;                                     /* [B, Sq, Hq, Dv] when packed, else [B, Hq, Sq, Dv] */
} Core;

/* x [B, S, H D] or [B, H, S, D] */
static Heads heads_of(Builder *b, Value *x, int64_t count)
{
    if (b->status != STATUS_OK || x == NULL)
        return (Heads){0};
    const int64_t *dims = x->type.dims;
    bool fits = x->type.rank == 4 || (x->type.rank == 3 && count > 0 && dims[2] % count == 0);
    if (!fits) {
        b->status = fail(b->err, STATUS_REJECTED, "%s: %s does not hold %lld heads", b->stem,
                         type_text(&b->graph->model->arena, &x->type), (long long)count);
        return (Heads){0};
    }
    if (x->type.rank == 4)
        return (Heads){x, false, dims[0], dims[1], dims[2], dims[3]};
    int64_t split[4] = {dims[0], dims[1], count, dims[2] / count};
    return (Heads){compose_reshape(b, x, 4, split), true, split[0], split[2], split[1], split[3]};
}

/* In five dims, heads in `groups` that share a key head: the value, and the permutation that shows it as [B, H/g, g, S,
 * D]. */
static Value *grouped(Builder *b, const Heads *h, int64_t groups, int64_t *perm)
{
    static const int64_t packed_perm[] = {0, 2, 3, 1, 4};
    int64_t packed[5] = {h->batch, h->length, h->heads / groups, groups, h->size};
    int64_t plain[5] = {h->batch, h->heads / groups, groups, h->length, h->size};
    for (int i = 0; i < 5; i++)
        perm[i] = h->packed ? packed_perm[i] : i;
    return compose_reshape(b, h->value, 5, h->packed ? packed : plain);
}

static void swap_last(int64_t *perm)
{
    int64_t last = perm[4];
    perm[4] = perm[3];
    perm[3] = last;
}

/* scores = scale Q K^T [B, Hq, Sq, Skv] */
static Value *core_scores(Builder *b, const Core *core)
{
    int64_t perm_q[5], perm_k[5];
    int64_t groups = core->q.heads / core->k.heads;
    Value *q = grouped(b, &core->q, groups, perm_q), *k = grouped(b, &core->k, 1, perm_k);
    swap_last(perm_k);
    if (b->status != STATUS_OK)
        return NULL;
    Value *scores = compose_strided(b, q, perm_q, k, perm_k, NULL, 0, core->scale);
    int64_t dims[4] = {core->q.batch, core->q.heads, core->q.length, core->k.length};
    return compose_reshape(b, scores, 4, dims);
}

/* Y = P V, where Q's heads lie. */
static Value *core_context(Builder *b, const Core *core, Value *p)
{
    static const int64_t packed_perm[] = {0, 3, 1, 2, 4};
    int64_t perm_v[5], groups = core->q.heads / core->v.heads;
    int64_t dims[5] = {core->q.batch, core->v.heads, groups, core->q.length, core->k.length};
    Value *v = grouped(b, &core->v, 1, perm_v), *split = compose_reshape(b, p, 5, dims);
    if (b->status != STATUS_OK)
        return NULL;
    Value *y = compose_strided(b, split, NULL, v, perm_v, core->q.packed ? packed_perm : NULL, 5, 1);
    int64_t plain[4] = {core->q.batch, core->q.heads, core->q.length, core->v.size};
    int64_t packed[4] = {core->q.batch, core->q.length, core->q.heads, core->v.size};
    return compose_reshape(b, y, 4, core->q.packed ? packed : plain);
}

/* Y = softmax(cap(scale Q K^T) + bias) V, cap(x) = softcap tanh(x / softcap); a query that may see no key gets zeros.
 */
static void core_build(Builder *b, Core *core)
{
    bool shared = core->k.heads > 0 && core->k.heads == core->v.heads && core->q.heads % core->k.heads == 0;
    if (b->status == STATUS_OK && !shared)
        b->status = fail(b->err, STATUS_REJECTED, "%s: %lld query heads do not share %lld of keys and %lld of values",
                         b->stem, (long long)core->q.heads, (long long)core->k.heads, (long long)core->v.heads);
    if (b->status != STATUS_OK)
        return;
    core->raw = core->capped = core_scores(b, core);
    if (core->softcap > 0)
        core->capped =
            compose_scale(b, build1(b, "Tanh", compose_scale(b, core->raw, 1 / core->softcap)), core->softcap);
    core->biased = core->bias == NULL ? core->capped : build2(b, "Add", core->capped, core->bias);
    if (b->status != STATUS_OK)
        return;
    core->probabilities = core->bias == NULL
                              ? build1(b, "Softmax", core->biased)
                              : build_finish(b, build_node(b, DOMAIN_INTERNAL, "MaskedSoftmax", &core->biased, 1, 1));
    core->y = core_context(b, core, core->probabilities);
}

/* ---- masks ------------------------------------------------------------------------------------------------------ */

static Value *add_bias(Builder *b, Value *bias, Value *more)
{
    return bias == NULL ? more : more == NULL ? bias : build2(b, "Add", bias, more);
}

/* 0 where `allowed`, `otherwise` elsewhere. */
static Value *bias_where(Builder *b, Value *allowed, DType dtype, double otherwise)
{
    if (b->status != STATUS_OK)
        return NULL;
    return build3(b, "Where", allowed, build_scalar(b, dtype, 0), build_scalar(b, dtype, otherwise));
}

/* Which keys a query may see by position alone: query i stands at offset + i. -1: no bound. */
typedef struct Window {
    int64_t offset, left, right;
} Window;

static bool window_shows(const Window *w, int64_t i, int64_t j)
{
    int64_t at = w->offset + i;
    return (w->left < 0 || j >= at - w->left) && (w->right < 0 || j <= at + w->right);
}

/* [Sq, Skv] constant; NULL when every key is seen. */
static Value *window_bias(Builder *b, const Window *window, DType dtype, int64_t queries, int64_t keys)
{
    int64_t dims[2] = {queries, keys};
    void *data;
    if (b->status != STATUS_OK || (window->left < 0 && window->right < 0))
        return NULL;
    Tensor *tensor = tensor_new(&b->graph->model->arena, NULL, dtype, 2, dims, &data);
    for (int64_t i = 0; i < queries * keys; i++) {
        bool shown = window_shows(window, i / keys, i % keys);
        if (dtype == DTYPE_F32)
            ((float *)data)[i] = shown ? 0.0F : -INFINITY;
        else
            ((double *)data)[i] = shown ? 0.0 : (double)-INFINITY;
    }
    return build_constant(b, tensor);
}

/* [1, 1, Sq, Skv] of j - i + shift. */
static Value *distances(Builder *b, int64_t queries, int64_t keys, int64_t shift)
{
    int64_t dims[4] = {1, 1, queries, keys};
    void *data;
    if (b->status != STATUS_OK)
        return NULL;
    Tensor *tensor = tensor_new(&b->graph->model->arena, NULL, DTYPE_I64, 4, dims, &data);
    for (int64_t i = 0; i < queries * keys; i++)
        ((int64_t *)data)[i] = i % keys - i / keys + shift;
    return build_constant(b, tensor);
}

/* Keys behind each sample's length are hidden; positions count from the end of what is valid: offset = length - Sq.
 * `lengths` is [B]; the result broadcasts to [B, 1, Sq, Skv]. */
static Value *lengths_bias(Builder *b, Value *lengths, const Window *window, DType dtype, int64_t queries, int64_t keys)
{
    int64_t dims[4] = {lengths->type.dims[0], 1, 1, 1};
    Value *n = compose_reshape(b, lengths, 4, dims), *positions = distances(b, 1, keys, 0);
    Value *allowed = build2(b, "Less", positions, n);
    if (window->right >= 0) {
        Value *nearest = distances(b, queries, keys, queries - window->right);
        allowed = build2(b, "And", allowed, build2(b, "LessOrEqual", nearest, n));
    }
    if (window->left >= 0) {
        Value *farthest = distances(b, queries, keys, queries + window->left);
        allowed = build2(b, "And", allowed, build2(b, "GreaterOrEqual", farthest, n));
    }
    return bias_where(b, allowed, dtype, (double)-INFINITY);
}

/* attn_mask: bool or additive; keys that its last dim does not reach are hidden. */
static Value *mask_bias(Builder *b, Value *mask, DType dtype, int64_t keys)
{
    if (mask->type.dtype == DTYPE_BOOL)
        mask = bias_where(b, mask, dtype, (double)-INFINITY);
    else
        mask = compose_cast(b, mask, dtype);
    if (b->status != STATUS_OK)
        return NULL;
    int last = mask->type.rank - 1;
    if (last < 0 || mask->type.dims[last] >= keys || mask->type.dims[last] == 1)
        return mask;
    int64_t dims[RANK_MAX];
    memcpy(dims, mask->type.dims, sizeof dims);
    dims[last] = keys - mask->type.dims[last];
    Value *parts[] = {mask, compose_expand(b, build_scalar(b, dtype, (double)-INFINITY), last + 1, dims)};
    return compose_concat(b, parts, 2, last);
}

/* ---- Attention --------------------------------------------------------------------------------------------------- */

enum { IN_Q, IN_K, IN_V, IN_MASK, IN_PAST_KEY, IN_PAST_VALUE, IN_LENGTHS };

typedef struct AttentionShape {
    int64_t batch, q_heads, kv_heads, queries, keys, past, size, v_size;
} AttentionShape;

static Status attention_shape(const Node *node, AttentionShape *s, Error *err)
{
    const Type *q = &node->inputs[IN_Q]->type, *k = &node->inputs[IN_K]->type, *v = &node->inputs[IN_V]->type;
    const Value *past = node_input(node, IN_PAST_KEY), *past_value = node_input(node, IN_PAST_VALUE);
    Arena *arena = &node->graph->model->arena;
    bool packed = q->rank == 3;
    if ((q->rank != 3 && q->rank != 4) || k->rank != q->rank || v->rank != q->rank)
        return infer_fail(node, err, "Q %s, K %s and V %s must all have three or all four dims", type_text(arena, q),
                          type_text(arena, k), type_text(arena, v));
    s->q_heads = packed ? node_int(node, "q_num_heads", 0) : q->dims[1];
    s->kv_heads = packed ? node_int(node, "kv_num_heads", 0) : k->dims[1];
    if (s->q_heads <= 0 || s->kv_heads <= 0 || s->q_heads % s->kv_heads != 0)
        return infer_fail(node, err, "%lld query heads do not share %lld key heads", (long long)s->q_heads,
                          (long long)s->kv_heads);
    if ((past == NULL) != (past_value == NULL))
        return infer_fail(node, err, "past_key and past_value come together");
    s->batch = q->dims[0];
    s->queries = q->dims[packed ? 1 : 2];
    s->past = past == NULL ? 0 : past->type.dims[2];
    s->keys = k->dims[packed ? 1 : 2] + s->past;
    s->size = packed ? q->dims[2] / s->q_heads : q->dims[3];
    s->v_size = packed ? v->dims[2] / s->kv_heads : v->dims[3];
    bool fits = s->batch == k->dims[0] && s->batch == v->dims[0] &&
                v->dims[packed ? 1 : 2] == k->dims[packed ? 1 : 2] &&
                s->size == (packed ? k->dims[2] / s->kv_heads : k->dims[3]);
    return fits ? STATUS_OK
                : infer_fail(node, err, "Q %s, K %s and V %s do not fit", type_text(arena, q), type_text(arena, k),
                             type_text(arena, v));
}

static void set_output(Node *node, int index, DType dtype, int rank, const int64_t *dims)
{
    if (node_output(node, index) != NULL)
        type_set(&node->outputs[index]->type, dtype, rank, dims);
}

static Status attention_infer(Node *node, Error *err)
{
    AttentionShape s;
    const Type *q = &node->inputs[IN_Q]->type, *v = &node->inputs[IN_V]->type;
    TRY(attention_shape(node, &s, err));
    const int64_t packed[] = {s.batch, s.queries, s.q_heads * s.v_size};
    const int64_t plain[] = {s.batch, s.q_heads, s.queries, s.v_size};
    const int64_t key[] = {s.batch, s.kv_heads, s.keys, s.size}, value[] = {s.batch, s.kv_heads, s.keys, s.v_size};
    const int64_t scores[] = {s.batch, s.q_heads, s.queries, s.keys};
    set_output(node, 0, q->dtype, q->rank, q->rank == 3 ? packed : plain);
    set_output(node, 1, q->dtype, 4, key);
    set_output(node, 2, v->dtype, 4, value);
    set_output(node, 3, q->dtype, 4, scores);
    return STATUS_OK;
}

/* Heads as [B, H, S, D] in memory, with what is past before them. */
static Heads with_past(Builder *b, Heads h, Value *past)
{
    static const int64_t perm[] = {0, 2, 1, 3};
    Value *plain = h.packed ? compose_transpose(b, h.value, perm) : h.value;
    Value *parts[] = {past, plain};
    if (past != NULL)
        plain = compose_concat(b, parts, 2, 2);
    int64_t length = h.length + (past != NULL ? past->type.dims[2] : 0);
    return (Heads){plain, false, h.batch, h.heads, length, h.size};
}

static Value *attention_bias(Builder *b, const Node *node, const AttentionShape *s, DType dtype)
{
    Value *mask = node_input(node, IN_MASK), *lengths = node_input(node, IN_LENGTHS), *bias = NULL;
    Window window = {s->past, node_int(node, "left_window_size", -1), node_int(node, "right_window_size", -1)};
    if (node_int(node, "is_causal", 0) != 0)
        window.right = 0;
    if (mask != NULL)
        bias = mask_bias(b, mask, dtype, s->keys);
    return add_bias(b, bias,
                    lengths != NULL ? lengths_bias(b, lengths, &window, dtype, s->queries, s->keys)
                                    : window_bias(b, &window, dtype, s->queries, s->keys));
}

static Value *scores_output(const Node *node, const Core *core)
{
    switch (node_int(node, "qk_matmul_output_mode", 0)) {
    case 1:
        return core->capped;
    case 2:
        return core->biased;
    case 3:
        return core->probabilities;
    default:
        return core->raw;
    }
}

static Status attention_expand(Node *node, Builder *b, Error *err)
{
    AttentionShape s;
    TRY(attention_shape(node, &s, err));
    Value *q = compose_widen(b, node->inputs[IN_Q]), *k = compose_widen(b, node->inputs[IN_K]);
    DType dtype = q != NULL ? q->type.dtype : DTYPE_UNDEFINED;
    Value *v = compose_cast(b, node->inputs[IN_V], dtype);
    if (b->status != STATUS_OK)
        return b->status;
    Core core = {.q = heads_of(b, q, s.q_heads),
                 .k = heads_of(b, k, s.kv_heads),
                 .v = heads_of(b, v, s.kv_heads),
                 .scale = (double)node_float(node, "scale", (float)(1 / sqrt((double)s.size))),
                 .softcap = (double)node_float(node, "softcap", 0)};
    bool cached = node_input(node, IN_PAST_KEY) != NULL || node_output(node, 1) != NULL || node_output(node, 2) != NULL;
    if (cached && b->status == STATUS_OK) {
        core.k = with_past(b, core.k, compose_cast(b, node_input(node, IN_PAST_KEY), dtype));
        core.v = with_past(b, core.v, compose_cast(b, node_input(node, IN_PAST_VALUE), dtype));
    }
    core.bias = attention_bias(b, node, &s, dtype);
    if (b->status == STATUS_OK)
        core_build(b, &core);
    if (b->status != STATUS_OK)
        return b->status;
    compose_replace(b, node->outputs[0], compose_like(b, core.y, node->outputs[0]));
    compose_replace(b, node_output(node, 1), core.k.value);
    compose_replace(b, node_output(node, 2), core.v.value);
    compose_replace(b, node_output(node, 3), scores_output(node, &core));
    return b->status;
}

/* ---- RotaryEmbedding --------------------------------------------------------------------------------------------- */

typedef struct Rotary {
    Value *x, *cos, *sin; /* x [B, S, H, D] or [B, H, S, D]; tables [B, S, R/2] */
    bool packed, interleaved;
    int64_t size; /* R: how much of D turns */
} Rotary;

static void halves(Builder *b, const Rotary *r, Value *x, Value **first, Value **second)
{
    int64_t half = r->size / 2, dims[RANK_MAX];
    if (!r->interleaved) {
        *first = compose_slice(b, x, 3, 0, half);
        *second = compose_slice(b, x, 3, half, r->size);
        return;
    }
    memcpy(dims, x->type.dims, sizeof dims);
    dims[3] = half;
    dims[4] = 2;
    Value *pairs = compose_reshape(b, x, 5, dims);
    *first = compose_reshape(b, compose_slice(b, pairs, 4, 0, 1), 4, dims);
    *second = compose_reshape(b, compose_slice(b, pairs, 4, 1, 2), 4, dims);
}

static Value *joined(Builder *b, const Rotary *r, Value *first, Value *second)
{
    Value *parts[] = {first, second};
    int64_t dims[RANK_MAX];
    if (b->status != STATUS_OK || !r->interleaved)
        return b->status == STATUS_OK ? compose_concat(b, parts, 2, 3) : NULL;
    memcpy(dims, first->type.dims, sizeof dims);
    dims[4] = 1;
    for (int i = 0; i < 2; i++)
        parts[i] = compose_reshape(b, parts[i], 5, dims);
    Value *pairs = b->status == STATUS_OK ? compose_concat(b, parts, 2, 4) : NULL;
    dims[3] = r->size;
    return compose_reshape(b, pairs, 4, dims);
}

/* (x1, x2) -> (cos x1 - sin x2, sin x1 + cos x2) for the halves, or the even and odd elements, of the first R of each
 * head (Su et al., "RoFormer", 2021). */
static Value *rotate(Builder *b, const Rotary *r)
{
    int64_t size = r->x->type.dims[3], length = r->x->type.dims[r->packed ? 1 : 2];
    int64_t table[4] = {r->cos->type.dims[0], r->packed ? length : 1, r->packed ? 1 : length, r->size / 2};
    Value *cos = compose_reshape(b, r->cos, 4, table), *sin = compose_reshape(b, r->sin, 4, table);
    Value *turning = compose_slice(b, r->x, 3, 0, r->size), *x1, *x2;
    if (b->status != STATUS_OK)
        return NULL;
    halves(b, r, turning, &x1, &x2);
    Value *real = build2(b, "Sub", build2(b, "Mul", cos, x1), build2(b, "Mul", sin, x2));
    Value *imaginary = build2(b, "Add", build2(b, "Mul", sin, x1), build2(b, "Mul", cos, x2));
    Value *turned = joined(b, r, real, imaginary);
    if (b->status != STATUS_OK || r->size == size)
        return turned;
    Value *parts[] = {turned, compose_slice(b, r->x, 3, r->size, size)};
    return compose_concat(b, parts, 2, 3);
}

/* Heads of a rotary operator, whose 3-D input needs num_heads (com.microsoft: or tells the head size through its
 * tables). */
static Status rotary_heads(const Node *node, Builder *b, Value *tables, Rotary *r, Error *err)
{
    Value *x = compose_widen(b, node->inputs[0]);
    int64_t count = node_int(node, "num_heads", 0);
    if (x == NULL)
        return b->status;
    r->size = node_int(node, "rotary_embedding_dim", 0);
    r->interleaved = node_int(node, "interleaved", 0) != 0;
    r->packed = x->type.rank == 3;
    int64_t angles = tables->type.rank > 0 ? tables->type.dims[tables->type.rank - 1] : 0;
    if (r->packed && count <= 0 && r->size == 0 && angles > 0)
        count = x->type.dims[2] / (2 * angles);
    if ((x->type.rank != 3 && x->type.rank != 4) || angles <= 0 ||
        (r->packed && (count <= 0 || x->type.dims[2] % count != 0)))
        return infer_fail(node, err, "%d dims and %lld heads", x->type.rank, (long long)count);
    r->x = heads_of(b, x, count).value;
    if (b->status == STATUS_OK && r->size == 0)
        r->size = r->x->type.dims[3];
    if (b->status == STATUS_OK && tables->type.dims[tables->type.rank - 1] != r->size / 2)
        return infer_fail(node, err, "tables of %lld angles for %lld turning elements",
                          (long long)tables->type.dims[tables->type.rank - 1], (long long)r->size);
    return b->status;
}

static Status rotary_finish(Node *node, Builder *b, const Rotary *r)
{
    Value *turned = b->status == STATUS_OK ? rotate(b, r) : NULL;
    if (b->status == STATUS_OK)
        compose_replace(b, node->outputs[0], compose_like(b, turned, node->outputs[0]));
    return b->status;
}

static Value *gathered(Builder *b, Value *table, Value *positions)
{
    table = compose_widen(b, table);
    return positions == NULL ? table : build2(b, "Gather", table, positions);
}

/* Inputs X, cos, sin, position_ids. */
static Status rotary_expand(Node *node, Builder *b, Error *err)
{
    Rotary r;
    TRY(rotary_heads(node, b, node->inputs[1], &r, err));
    r.cos = gathered(b, node->inputs[1], node_input(node, 3));
    r.sin = gathered(b, node->inputs[2], node_input(node, 3));
    return rotary_finish(node, b, &r);
}

/* com.microsoft: inputs X, position_ids ([B, S], or [1]: where the first token stands), cos, sin. */
static Status microsoft_rotary_expand(Node *node, Builder *b, Error *err)
{
    Rotary r;
    Value *positions = node->inputs[1];
    if (node_float(node, "scale", 1) != 1 || node_int(node, "is_packed_batching", 0) != 0)
        return fail(err, STATUS_UNSUPPORTED, "%s: scale and is_packed_batching are not supported", node_text(node));
    TRY(rotary_heads(node, b, node->inputs[2], &r, err));
    if (b->status == STATUS_OK && positions->type.rank == 1) {
        int64_t length = r.x->type.dims[r.packed ? 1 : 2], dims[2] = {1, length};
        int64_t *steps = arena_array(&b->graph->model->arena, int64_t, (size_t)length + 1);
        for (int64_t i = 0; i < length; i++)
            steps[i] = i;
        Value *from_first = build2(b, "Add", positions, build_ints(b, steps, (size_t)length));
        positions = compose_reshape(b, from_first, 2, dims);
    }
    r.cos = gathered(b, node->inputs[2], positions);
    r.sin = gathered(b, node->inputs[3], positions);
    return rotary_finish(node, b, &r);
}

/* ---- com.microsoft.MultiHeadAttention and com.microsoft.Attention ------------------------------------------------ */

/* key_padding_mask of these operators: [B, Skv] or [B, Sq, Skv] of 0 (hidden) and 1, or [B] lengths. The bias
 * broadcasts to [B, 1, Sq, Skv]. */
static Value *padding_bias(Builder *b, const Node *node, Value *mask, DType dtype, int64_t queries, int64_t keys)
{
    double hidden = (double)node_float(node, "mask_filter_value", -10000.0F);
    int64_t dims[4] = {mask->type.dims[0], 1, mask->type.rank == 3 ? queries : 1, keys};
    if (mask->type.rank == 1) {
        dims[3] = 1;
        Value *n = compose_cast(b, compose_reshape(b, mask, 4, dims), DTYPE_I64);
        return bias_where(b, build2(b, "Less", distances(b, 1, keys, 0), n), dtype, hidden);
    }
    Value *seen = compose_cast(b, compose_reshape(b, mask, 4, dims), DTYPE_BOOL);
    return bias_where(b, seen, dtype, hidden);
}

static Status only_inputs(const Node *node, unsigned allowed, Error *err)
{
    for (int i = 0; i < node->input_count; i++)
        if (node->inputs[i] != NULL && (allowed >> i & 1U) == 0)
            return fail(err, STATUS_UNSUPPORTED, "%s: input %d is not supported", node_text(node), i);
    for (int i = 1; i < node->output_count; i++)
        if (node->outputs[i] != NULL)
            return fail(err, STATUS_UNSUPPORTED, "%s: output %d is not supported", node_text(node), i);
    return STATUS_OK;
}

static Value *plus_bias(Builder *b, Value *x, Value *bias, int64_t begin, int64_t end)
{
    return bias == NULL ? x : build2(b, "Add", x, compose_slice(b, bias, 0, begin, end));
}

static Status microsoft_core(Node *node, Builder *b, Core *core, Value *mask, Value *bias)
{
    DType dtype = node->inputs[0]->type.dtype;
    Window window = {0, -1, node_int(node, "unidirectional", 0) != 0 ? 0 : -1};
    float scale = node_float(node, "scale", 0);
    if (b->status != STATUS_OK)
        return b->status;
    core->scale = scale != 0 ? (double)scale : 1 / sqrt((double)core->q.size);
    core->bias = bias;
    if (mask != NULL)
        core->bias = add_bias(b, core->bias, padding_bias(b, node, mask, dtype, core->q.length, core->k.length));
    core->bias = add_bias(b, core->bias, window_bias(b, &window, dtype, core->q.length, core->k.length));
    if (b->status == STATUS_OK)
        core_build(b, core);
    if (b->status == STATUS_OK)
        compose_replace(b, node->outputs[0], compose_like(b, core->y, node->outputs[0]));
    return b->status;
}

static Status multi_head_infer(Node *node, Error *err)
{
    const Type *q = &node->inputs[0]->type;
    const Value *v = node_input(node, 2);
    TRY(only_inputs(node, 0x3FU, err));
    if (q->rank != 3 || v == NULL)
        return fail(err, STATUS_UNSUPPORTED, "%s: packed queries, keys and values are not supported", node_text(node));
    int64_t dims[3] = {q->dims[0], q->dims[1], v->type.rank == 4 ? v->type.dims[1] * v->type.dims[3] : v->type.dims[2]};
    type_set(&node->outputs[0]->type, q->dtype, 3, dims);
    return STATUS_OK;
}

/* Inputs query, key, value, bias (of all three projections), key_padding_mask, attention_bias. */
static Status multi_head_expand(Node *node, Builder *b, Error *err)
{
    Value *q = node->inputs[0], *k = node_input(node, 1), *v = node_input(node, 2), *bias = node_input(node, 3);
    int64_t heads = node_int(node, "num_heads", 0), width = q->type.dims[2];
    if (k == NULL || v == NULL || heads <= 0 || width % heads != 0)
        return infer_fail(node, err, "%lld heads of %lld numbers", (long long)heads, (long long)width);
    int64_t end = 2 * width + (v->type.rank == 3 ? v->type.dims[2] : 0);
    Core core = {.q = heads_of(b, plus_bias(b, q, bias, 0, width), heads)};
    core.k = heads_of(b, k->type.rank == 3 ? plus_bias(b, k, bias, width, 2 * width) : k, heads);
    core.v = heads_of(b, v->type.rank == 3 ? plus_bias(b, v, bias, 2 * width, end) : v, heads);
    return microsoft_core(node, b, &core, node_input(node, 4), node_input(node, 5));
}

/* Widths of Q, K and V in the one weight of com.microsoft.Attention. */
static Status qkv_widths(const Node *node, int64_t width[3], Error *err)
{
    size_t count;
    const int64_t *given = node_ints(node, "qkv_hidden_sizes", &count);
    const Type *weights = &node->inputs[1]->type;
    if (weights->rank != 2 || node->inputs[0]->type.rank != 3)
        return infer_fail(node, err, "X has %d and weights have %d dims, three and two are expected",
                          node->inputs[0]->type.rank, weights->rank);
    for (int i = 0; i < 3; i++)
        width[i] = count == 3 ? given[i] : weights->dims[weights->rank - 1] / 3;
    if (weights->rank != 2 || width[0] + width[1] + width[2] != weights->dims[1] || width[0] != width[1])
        return infer_fail(node, err, "weights %s do not hold queries, keys and values",
                          type_text(&node->graph->model->arena, weights));
    return STATUS_OK;
}

static Status microsoft_attention_infer(Node *node, Error *err)
{
    int64_t width[3];
    const Type *x = &node->inputs[0]->type;
    TRY(only_inputs(node, 0x2FU, err));
    TRY(qkv_widths(node, width, err));
    int64_t dims[3] = {x->dims[0], x->dims[1], width[2]};
    type_set(&node->outputs[0]->type, x->dtype, 3, dims);
    return STATUS_OK;
}

/* Inputs X [B, S, I], weights [I, Q + K + V], bias, mask_index, past (refused), attention_bias. */
static Status microsoft_attention_expand(Node *node, Builder *b, Error *err)
{
    int64_t width[3], heads = node_int(node, "num_heads", 0), at = 0;
    Value *parts[3], *bias = node_input(node, 2);
    TRY(qkv_widths(node, width, err));
    if (heads <= 0 || width[0] % heads != 0 || width[2] % heads != 0 || node_int(node, "do_rotary", 0) != 0)
        return fail(err, STATUS_UNSUPPORTED, "%s: %lld heads, or rotary positions", node_text(node), (long long)heads);
    Value *inputs[] = {node->inputs[0], node->inputs[1], bias};
    Value *all = build_finish(b, build_node(b, DOMAIN_INTERNAL, "MatMulStrided", inputs, 3, 1));
    for (int i = 0; i < 3; i++) {
        parts[i] = compose_slice(b, all, 2, at, at + width[i]);
        at += width[i];
    }
    if (b->status != STATUS_OK)
        return b->status;
    Core core = {
        .q = heads_of(b, parts[0], heads), .k = heads_of(b, parts[1], heads), .v = heads_of(b, parts[2], heads)};
    return microsoft_core(node, b, &core, node_input(node, 3), node_input(node, 5));
}

/* ---- com.microsoft.EmbedLayerNormalization ----------------------------------------------------------------------- */

enum { IDS, SEGMENTS, WORDS, POSITIONS, SEGMENT_TABLE, GAMMA, BETA, EMBED_MASK, POSITION_IDS };

static Status embed_infer(Node *node, Error *err)
{
    static const int needed[] = {WORDS, POSITIONS, GAMMA, BETA};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (node_input(node, needed[i]) == NULL)
            return infer_fail(node, err, "input %d is missing", needed[i]);
    const Type *ids = &node->inputs[IDS]->type, *words = &node->inputs[WORDS]->type;
    int64_t dims[3] = {ids->dims[0], ids->dims[1], words->dims[1]};
    set_output(node, 0, words->dtype, 3, dims);
    set_output(node, 1, DTYPE_I32, 1, dims);
    set_output(node, 2, words->dtype, 3, dims);
    return STATUS_OK;
}

/* LayerNormalization(words[ids] + positions[0..S) + segments[..]); mask_index counts the ones of each mask row. */
static Status embed_expand(Node *node, Builder *b, Error *err)
{
    (void)err;
    int64_t length = node->inputs[IDS]->type.dims[1], last = 1;
    Value *sum = build2(b, "Gather", node->inputs[WORDS], node->inputs[IDS]);
    Value *positions = node_input(node, POSITION_IDS) != NULL
                           ? build2(b, "Gather", node->inputs[POSITIONS], node->inputs[POSITION_IDS])
                           : compose_slice(b, node->inputs[POSITIONS], 0, 0, length);
    sum = build2(b, "Add", sum, positions);
    if (node_input(node, SEGMENTS) != NULL)
        sum = build2(b, "Add", sum, build2(b, "Gather", node->inputs[SEGMENT_TABLE], node->inputs[SEGMENTS]));
    Value *inputs[] = {sum, node->inputs[GAMMA], node->inputs[BETA]};
    Node *norm = build_node(b, "", "LayerNormalization", inputs, 3, 1);
    if (norm != NULL)
        node_set_float(norm, "epsilon", node_float(node, "epsilon", 1e-12F));
    compose_replace(b, node_output(node, 0), build_finish(b, norm));
    if (node_output(node, 1) != NULL && b->status == STATUS_OK) {
        Value *mask = node_input(node, EMBED_MASK), *counts;
        if (mask != NULL)
            counts = compose_cast(b, compose_reduce(b, "ReduceSum", mask, &last, 1, false), DTYPE_I32);
        else
            counts = compose_expand(b, build_scalar(b, DTYPE_I32, 0), 1, node->inputs[IDS]->type.dims);
        compose_replace(b, node->outputs[1], counts);
    }
    compose_replace(b, node_output(node, 2), sum);
    return b->status;
}

#define COMPOSITE(DOMAIN, NAME, SINCE, LAST, MIN, MAX, OUTPUTS, INFER, EXPAND, NO_CASE)                                \
    {                                                                                                                  \
        .domain = DOMAIN, .name = NAME, .since = SINCE, .last = LAST, .min_inputs = MIN, .max_inputs = MAX,            \
        .min_outputs = 1, .max_outputs = OUTPUTS, .infer = INFER, .eval = eval_expanded, .expand = EXPAND,             \
        .no_case = NO_CASE                                                                                             \
    }
#define NOT_ONNX "not an ONNX operator; gradient cases and tests/test_microsoft.c"

const OpDef ops_attention[] = {
    COMPOSITE("", "Attention", 23, 28, 3, 7, 4, attention_infer, attention_expand, NULL),
    COMPOSITE("", "RotaryEmbedding", 23, 28, 3, 4, 1, infer_same, rotary_expand, NULL),
    COMPOSITE("com.microsoft", "RotaryEmbedding", 1, 1, 4, 4, 1, infer_same, microsoft_rotary_expand, NOT_ONNX),
    COMPOSITE("com.microsoft", "Attention", 1, 1, 2, 7, 2, microsoft_attention_infer, microsoft_attention_expand,
              NOT_ONNX),
    COMPOSITE("com.microsoft", "MultiHeadAttention", 1, 1, 1, 10, 4, multi_head_infer, multi_head_expand, NOT_ONNX),
    COMPOSITE("com.microsoft", "EmbedLayerNormalization", 1, 1, 1, 9, 3, embed_infer, embed_expand, NOT_ONNX),
    {0},
};
