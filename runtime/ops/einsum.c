/* Family: einsum. One operator with a language of its own: terms of labels, one a dim, products summed over the labels
 * that the result lacks. `eval` walks all labels as it is written; for training and plans the node is rewritten
 * (expand), two operands at a time, into matrix products that read through permutations, so that gradients and speed
 * are theirs. */
#include "runtime/ops/compose.h"
#include "runtime/ops/ops.h"

#include <ctype.h>

enum { LABELS = 52 + RANK_MAX, ELLIPSIS = 52 }; /* letters, then the dims of an ellipsis */

typedef struct Term {
    int rank;
    int labels[RANK_MAX];
} Term;

typedef struct Equation {
    int count; /* operands */
    Term *in, out;
    int64_t size[LABELS];
} Equation;

/* ---- the equation ------------------------------------------------------------------------------------------- */

static int label_of(char letter)
{
    return isupper((unsigned char)letter) ? letter - 'A' : letter - 'a' + 26; /* in ASCII order */
}

/* Reads labels up to a comma, an arrow or the end. `dots` is how many dims an ellipsis means here. */
static const char *read_term(const char *text, int dots, Term *term)
{
    term->rank = 0;
    while (*text != '\0' && *text != ',' && *text != '-') {
        if (*text == ' ') {
            text++;
        } else if (text_starts(text, "...")) {
            for (int i = 0; i < dots && term->rank < RANK_MAX; i++)
                term->labels[term->rank++] = ELLIPSIS + RANK_MAX - dots + i;
            text += 3;
        } else if (isalpha((unsigned char)*text) && term->rank < RANK_MAX) {
            term->labels[term->rank++] = label_of(*text++);
        } else {
            return NULL;
        }
    }
    return text;
}

static int letters_in(const char *text)
{
    int count = 0;
    for (; *text != '\0' && *text != ',' && *text != '-'; text++)
        count += isalpha((unsigned char)*text) != 0;
    return count;
}

/* Without an arrow: the ellipsis, then the labels that occur once, in alphabetical order. */
static void implicit_output(Equation *eq)
{
    int seen[LABELS] = {0};
    for (int i = 0; i < eq->count; i++)
        for (int d = 0; d < eq->in[i].rank; d++)
            seen[eq->in[i].labels[d]]++;
    eq->out.rank = 0;
    for (int l = ELLIPSIS; l < LABELS; l++)
        if (seen[l] > 0 && eq->out.rank < RANK_MAX)
            eq->out.labels[eq->out.rank++] = l;
    for (int l = 0; l < ELLIPSIS; l++)
        if (seen[l] == 1 && eq->out.rank < RANK_MAX)
            eq->out.labels[eq->out.rank++] = l;
}

static bool term_has(const Term *term, int label)
{
    for (int d = 0; d < term->rank; d++)
        if (term->labels[d] == label)
            return true;
    return false;
}

/* Sizes from the operands; a dim of 1 gives way to a larger one. */
static const char *read_sizes(Equation *eq, const int *ranks, const int64_t *const *dims)
{
    for (int l = 0; l < LABELS; l++)
        eq->size[l] = -1;
    for (int i = 0; i < eq->count; i++) {
        if (eq->in[i].rank != ranks[i])
            return "a term and its operand have different ranks";
        for (int d = 0; d < ranks[i]; d++) {
            int64_t *size = &eq->size[eq->in[i].labels[d]];
            if (*size != -1 && *size != dims[i][d] && *size != 1 && dims[i][d] != 1)
                return "one label stands for two sizes";
            if (*size == -1 || *size == 1)
                *size = dims[i][d];
        }
    }
    for (int d = 0; d < eq->out.rank; d++)
        if (eq->size[eq->out.labels[d]] == -1)
            return "a label of the result is in no operand";
    return NULL;
}

/* NULL, or what is wrong with it. `eq->in` has room for `count` terms. */
static const char *equation_read(const char *text, int count, const int *ranks, const int64_t *const *dims,
                                 Equation *eq)
{
    int dots = 0;
    eq->count = count;
    for (int i = 0; i < count; i++) {
        dots = strstr(text, "...") != NULL && ranks[i] - letters_in(text) > dots ? ranks[i] - letters_in(text) : dots;
        int here = ranks[i] - letters_in(text);
        text = read_term(text, here < 0 ? 0 : here, &eq->in[i]);
        if (text == NULL)
            return "the equation has something else than letters and dots";
        if ((*text == ',') != (i + 1 < count))
            return "the equation and the node have different numbers of operands";
        text += *text == ',';
    }
    if (*text == '\0') {
        implicit_output(eq);
    } else {
        text = text_starts(text, "->") ? read_term(text + 2, dots, &eq->out) : NULL;
        if (text == NULL || *text != '\0')
            return "the right-hand side cannot be read";
    }
    return read_sizes(eq, ranks, dims);
}

static Status node_equation(const Node *node, Equation *eq, Error *err)
{
    Arena *arena = &node->graph->model->arena;
    int *ranks = arena_array(arena, int, (size_t)node->input_count);
    const int64_t **dims = arena_array(arena, const int64_t *, (size_t)node->input_count);
    for (int i = 0; i < node->input_count; i++) {
        ranks[i] = node->inputs[i]->type.rank;
        dims[i] = node->inputs[i]->type.dims;
    }
    eq->in = arena_array(arena, Term, (size_t)node->input_count);
    const char *text = node_string(node, "equation", "");
    const char *reason = equation_read(text, node->input_count, ranks, dims, eq);
    return reason == NULL ? STATUS_OK : infer_fail(node, err, "%s: '%s'", reason, text);
}

static Status einsum_infer(Node *node, Error *err)
{
    Equation eq;
    int64_t dims[RANK_MAX];
    TRY(node_equation(node, &eq, err));
    for (int d = 0; d < eq.out.rank; d++)
        dims[d] = eq.size[eq.out.labels[d]];
    type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, eq.out.rank, dims);
    return STATUS_OK;
}

/* ---- eval ----------------------------------------------------------------------------------------------------- */

/* All labels in use: those of the result first, then those summed; each operand's stride along each of them. */
typedef struct Loops {
    int outer, all; /* labels of the result; labels */
    int64_t sizes[LABELS];
    int64_t *strides; /* [operand][label] */
    int operands;
} Loops;

static void add_loop(Loops *loops, const Equation *eq, int label, const Array *const *in)
{
    int at = loops->all++;
    loops->sizes[at] = eq->size[label];
    for (int i = 0; i < eq->count; i++) {
        int64_t dense[RANK_MAX], stride = 0;
        strides_dense(in[i]->rank, in[i]->dims, dense);
        for (int d = 0; d < in[i]->rank; d++)
            stride += eq->in[i].labels[d] == label && in[i]->dims[d] != 1 ? dense[d] : 0;
        loops->strides[i * LABELS + at] = stride;
    }
}

static void loops_of(const Equation *eq, const Array *const *in, Arena *arena, Loops *loops)
{
    *loops = (Loops){.operands = eq->count, .strides = arena_array(arena, int64_t, (size_t)eq->count * LABELS)};
    for (int d = 0; d < eq->out.rank; d++)
        add_loop(loops, eq, eq->out.labels[d], in);
    loops->outer = loops->all;
    for (int l = 0; l < LABELS; l++)
        if (eq->size[l] != -1 && !term_has(&eq->out, l))
            add_loop(loops, eq, l, in);
}

static int64_t loop_offset(const Loops *loops, int operand, int first, int last, int64_t i)
{
    int64_t offset = 0;
    for (int d = last - 1; d >= first; d--) {
        offset += i % loops->sizes[d] * loops->strides[operand * LABELS + d];
        i /= loops->sizes[d];
    }
    return offset;
}

#define EINSUM_EVAL(NAME, TYPE, SUM)                                                                                   \
    static void einsum_##NAME(const Loops *loops, const Array *const *in, void *out)                                   \
    {                                                                                                                  \
        int64_t outer = dims_count(loops->outer, loops->sizes);                                                        \
        int64_t inner = dims_count(loops->all - loops->outer, loops->sizes + loops->outer);                            \
        for (int64_t o = 0; o < outer; o++) {                                                                          \
            SUM sum = (SUM)0;                                                                                          \
            for (int64_t i = 0; i < inner; i++) {                                                                      \
                SUM product = (SUM)1;                                                                                  \
                for (int k = 0; k < loops->operands; k++)                                                              \
                    product *= (SUM)((const TYPE *)in[k]->data)[loop_offset(loops, k, 0, loops->outer, o) +            \
                                                                loop_offset(loops, k, loops->outer, loops->all, i)];   \
                sum += product;                                                                                        \
            }                                                                                                          \
            ((TYPE *)out)[o] = (TYPE)sum;                                                                              \
        }                                                                                                              \
    }

EINSUM_EVAL(f32, float, double)
EINSUM_EVAL(f64, double, double)
EINSUM_EVAL(i8, int8_t, uint64_t)
EINSUM_EVAL(i16, int16_t, uint64_t)
EINSUM_EVAL(i32, int32_t, uint64_t)
EINSUM_EVAL(i64, int64_t, uint64_t)
EINSUM_EVAL(u8, uint8_t, uint64_t)
EINSUM_EVAL(u16, uint16_t, uint64_t)
EINSUM_EVAL(u32, uint32_t, uint64_t)
EINSUM_EVAL(u64, uint64_t, uint64_t)

typedef void EinsumFunction(const Loops *loops, const Array *const *in, void *out);

static EinsumFunction *einsum_function(DType dtype)
{
    static const struct {
        DType dtype;
        EinsumFunction *function;
    } table[] = {{DTYPE_F32, einsum_f32}, {DTYPE_F64, einsum_f64}, {DTYPE_I8, einsum_i8}, {DTYPE_I16, einsum_i16},
                 {DTYPE_I32, einsum_i32}, {DTYPE_I64, einsum_i64}, {DTYPE_U8, einsum_u8}, {DTYPE_U16, einsum_u16},
                 {DTYPE_U32, einsum_u32}, {DTYPE_U64, einsum_u64}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].dtype == dtype)
            return table[i].function;
    return NULL;
}

static Status einsum_eval(EvalContext *context, Error *err)
{
    Arena *arena = context->arena;
    Equation eq = {.in = arena_array(arena, Term, (size_t)context->in_count)};
    int *ranks = arena_array(arena, int, (size_t)context->in_count);
    const int64_t **dims = arena_array(arena, const int64_t *, (size_t)context->in_count);
    int64_t out_dims[RANK_MAX];
    Array *out;
    Loops loops;
    EinsumFunction *function = einsum_function(context->in[0]->dtype);
    for (int i = 0; i < context->in_count; i++) {
        ranks[i] = context->in[i]->rank;
        dims[i] = context->in[i]->dims;
        if (function == NULL || context->in[i]->dtype != context->in[0]->dtype)
            return eval_fail(context, err, "no Einsum of %s", dtype_name(context->in[i]->dtype));
    }
    const char *reason = equation_read(node_string(context->node, "equation", ""), context->in_count, ranks, dims, &eq);
    if (reason != NULL)
        return eval_fail(context, err, "%s", reason);
    for (int d = 0; d < eq.out.rank; d++)
        out_dims[d] = eq.size[eq.out.labels[d]];
    TRY(eval_output(context, 0, context->in[0]->dtype, eq.out.rank, out_dims, &out, err));
    loops_of(&eq, (const Array *const *)context->in, arena, &loops);
    function(&loops, (const Array *const *)context->in, out->data);
    return STATUS_OK;
}

/* ---- expand ----------------------------------------------------------------------------------------------------- */

/* An operand, or a product of some: its value and a label for each dim. */
typedef struct Factor {
    Value *value;
    Term term;
} Factor;

static void drop_dim(Term *term, int dim)
{
    term->rank--;
    for (int d = dim; d < term->rank; d++)
        term->labels[d] = term->labels[d + 1];
}

/* x [.., i, .., i, ..] -> [.., i, ..]: what is off the diagonal becomes 0 and one of the two dims is summed. */
static void take_diagonal(Builder *b, Factor *f, int first, int second)
{
    int64_t n = f->value->type.dims[first], dims[RANK_MAX], axis = second;
    void *data;
    for (int d = 0; d < f->term.rank; d++)
        dims[d] = d == first || d == second ? n : 1;
    Tensor *mask = tensor_new(&b->graph->model->arena, NULL, DTYPE_BOOL, f->term.rank, dims, &data);
    for (int64_t i = 0; i < n; i++)
        ((uint8_t *)data)[i * n + i] = 1;
    Value *zero = build_scalar(b, f->value->type.dtype, 0);
    Value *kept = build3(b, "Where", build_constant(b, mask), f->value, zero);
    f->value = compose_reduce(b, "ReduceSum", kept, &axis, 1, false);
    drop_dim(&f->term, second);
}

static void take_diagonals(Builder *b, Factor *f)
{
    for (int i = 0; i < f->term.rank; i++)
        for (int k = i + 1; k < f->term.rank && b->status == STATUS_OK; k++)
            if (f->term.labels[k] == f->term.labels[i])
                take_diagonal(b, f, i, k--);
}

/* A dim of 1 whose label is larger elsewhere is broadcast: the same as not having it. */
static void drop_broadcast(Builder *b, Factor *f, const Equation *eq)
{
    int64_t dims[RANK_MAX];
    Term left = {0};
    for (int d = 0; d < f->term.rank && b->status == STATUS_OK; d++)
        if (f->value->type.dims[d] == eq->size[f->term.labels[d]]) {
            dims[left.rank] = f->value->type.dims[d];
            left.labels[left.rank++] = f->term.labels[d];
        }
    f->value = compose_reshape(b, f->value, left.rank, dims);
    f->term = left;
}

/* Sums over the labels that `needed` does not have. */
static void sum_unneeded(Builder *b, Factor *f, const bool *needed)
{
    int64_t axes[RANK_MAX];
    size_t count = 0;
    Term left = {0};
    for (int d = 0; d < f->term.rank; d++)
        if (needed[f->term.labels[d]])
            left.labels[left.rank++] = f->term.labels[d];
        else
            axes[count++] = d;
    f->value = compose_reduce(b, "ReduceSum", f->value, axes, count, false);
    f->term = left;
}

/* The labels of two factors by what happens to them. */
typedef struct Roles {
    Term batch, rows, columns, inner;
} Roles;

static void roles_of(const Factor *x, const Factor *y, const bool *needed, Roles *roles)
{
    *roles = (Roles){0};
    for (int d = 0; d < x->term.rank; d++) {
        int label = x->term.labels[d];
        Term *to = !term_has(&y->term, label) ? &roles->rows : needed[label] ? &roles->batch : &roles->inner;
        to->labels[to->rank++] = label;
    }
    for (int d = 0; d < y->term.rank; d++)
        if (!term_has(&x->term, y->term.labels[d]))
            roles->columns.labels[roles->columns.rank++] = y->term.labels[d];
}

static void append(Term *to, const Term *part)
{
    for (int d = 0; d < part->rank && to->rank < RANK_MAX; d++)
        to->labels[to->rank++] = part->labels[d];
}

static int position(const Term *term, int label)
{
    int at = 0;
    while (at < term->rank && term->labels[at] != label)
        at++;
    return at;
}

/* The factor with its dims in the order of `order`, which has the same labels. */
static Value *in_order(Builder *b, const Factor *f, const Term *order)
{
    int64_t perm[RANK_MAX] = {0};
    for (int d = 0; d < order->rank; d++)
        perm[d] = position(&f->term, order->labels[d]);
    return compose_transpose(b, f->value, perm);
}

/* Nothing is summed: x as [batch.., rows.., 1..] times y as [batch.., 1.., columns..]. */
static Value *multiply(Builder *b, const Equation *eq, const Factor *x, const Factor *y, const Roles *roles)
{
    Term order_x = roles->batch, order_y = roles->batch;
    int64_t dims_x[RANK_MAX], dims_y[RANK_MAX];
    int rank = 0;
    for (int d = 0; d < roles->batch.rank; d++, rank++)
        dims_x[rank] = dims_y[rank] = eq->size[roles->batch.labels[d]];
    for (int d = 0; d < roles->rows.rank; d++, rank++) {
        dims_x[rank] = eq->size[roles->rows.labels[d]];
        dims_y[rank] = 1;
    }
    for (int d = 0; d < roles->columns.rank; d++, rank++) {
        dims_x[rank] = 1;
        dims_y[rank] = eq->size[roles->columns.labels[d]];
    }
    append(&order_x, &roles->rows);
    append(&order_y, &roles->columns);
    return build2(b, "Mul", compose_reshape(b, in_order(b, x, &order_x), rank, dims_x),
                  compose_reshape(b, in_order(b, y, &order_y), rank, dims_y));
}

/* The labels of `part` lie side by side in `term`, in this order: they are one dim to whoever reshapes. */
static bool lies_together(const Term *term, const Term *part)
{
    for (int d = 1; d < part->rank; d++)
        if (position(term, part->labels[d]) != position(term, part->labels[0]) + d)
            return false;
    return true;
}

/* `f` as [batch.., first, second] with the permutation that shows it so; groups of several labels become one dim, by a
 * view when they lie together and by moving bytes when not. */
static Value *as_matrices(Builder *b, const Equation *eq, const Factor *f, const Term *batch, const Term *first,
                          const Term *second, int64_t *perm)
{
    Factor source = *f;
    int64_t dims[RANK_MAX];
    int rank = 0, place[LABELS];
    if (!lies_together(&f->term, first) || !lies_together(&f->term, second) || batch->rank + 2 > RANK_MAX) {
        source.term = *batch;
        append(&source.term, first);
        append(&source.term, second);
        source.value = in_order(b, f, &source.term);
    }
    for (int d = 0; d < source.term.rank; d++) {
        int label = source.term.labels[d];
        bool inside = (term_has(first, label) && label != first->labels[0]) ||
                      (term_has(second, label) && label != second->labels[0]);
        if (inside) {
            dims[rank - 1] *= eq->size[label];
            continue;
        }
        place[label] = rank;
        dims[rank++] = eq->size[label];
    }
    for (int d = 0; d < batch->rank; d++)
        perm[d] = place[batch->labels[d]];
    perm[batch->rank] = first->rank > 0 ? place[first->labels[0]] : rank;
    if (first->rank == 0)
        dims[rank++] = 1;
    perm[batch->rank + 1] = second->rank > 0 ? place[second->labels[0]] : rank;
    if (second->rank == 0)
        dims[rank++] = 1;
    return compose_reshape(b, source.value, rank, dims);
}

/* The product of two factors, summed over what `needed` does not have. Its labels: batch, rows, columns. */
static Factor contract(Builder *b, const Equation *eq, const Factor *x, const Factor *y, const bool *needed)
{
    Roles roles;
    int64_t perm_x[RANK_MAX + 2], perm_y[RANK_MAX + 2], dims[RANK_MAX];
    roles_of(x, y, needed, &roles);
    Factor made = {.term = roles.batch};
    append(&made.term, &roles.rows);
    append(&made.term, &roles.columns);
    if (roles.inner.rank == 0) {
        made.value = multiply(b, eq, x, y, &roles);
        return made;
    }
    Value *a = as_matrices(b, eq, x, &roles.batch, &roles.rows, &roles.inner, perm_x);
    Value *c = as_matrices(b, eq, y, &roles.batch, &roles.inner, &roles.columns, perm_y);
    if (b->status != STATUS_OK)
        return made;
    made.value = compose_strided(b, a, perm_x, c, perm_y, NULL, 0, 1);
    for (int d = 0; d < made.term.rank; d++)
        dims[d] = eq->size[made.term.labels[d]];
    made.value = compose_reshape(b, made.value, made.term.rank, dims);
    return made;
}

/* Labels that the result or an operand from `next` on still has. */
static void labels_needed(const Equation *eq, int next, bool *needed)
{
    for (int l = 0; l < LABELS; l++) {
        needed[l] = term_has(&eq->out, l);
        for (int i = next; i < eq->count; i++)
            needed[l] = needed[l] || term_has(&eq->in[i], l);
    }
}

static Factor factor_at(Builder *b, const Node *node, const Equation *eq, int i)
{
    Factor f = {node->inputs[i], eq->in[i]};
    take_diagonals(b, &f);
    drop_broadcast(b, &f, eq);
    return f;
}

/* Every product of two can be written down: dims for all its labels or, where something is summed, for those of the
 * batch and of two matrices. */
static bool products_fit(const Equation *eq)
{
    bool have[LABELS] = {false}, needed[LABELS];
    for (int i = 0; i < eq->count; i++) {
        int made = 0, batch = 0, inner = 0;
        labels_needed(eq, i + 1, needed);
        for (int l = 0; l < LABELS; l++) {
            bool both = have[l] && term_has(&eq->in[i], l);
            have[l] = (have[l] || term_has(&eq->in[i], l)) && needed[l];
            made += have[l];
            batch += both && needed[l];
            inner += both && !needed[l];
        }
        if (made > RANK_MAX || (inner > 0 && batch + 2 > RANK_MAX))
            return false;
    }
    return true;
}

static Status einsum_expand(Node *node, Builder *b, Error *err)
{
    Equation eq;
    bool needed[LABELS], with_next[LABELS];
    TRY(node_equation(node, &eq, err));
    DType dtype = node->inputs[0]->type.dtype;
    if ((dtype != DTYPE_F32 && dtype != DTYPE_F64) || !products_fit(&eq))
        return STATUS_OK; /* stays one Einsum */
    Factor left = factor_at(b, node, &eq, 0);
    for (int i = 1; i < eq.count && b->status == STATUS_OK; i++) {
        Factor right = factor_at(b, node, &eq, i);
        labels_needed(&eq, i + 1, needed);
        for (int l = 0; l < LABELS; l++)
            with_next[l] = needed[l] || term_has(&right.term, l);
        sum_unneeded(b, &left, with_next);
        for (int l = 0; l < LABELS; l++)
            with_next[l] = needed[l] || term_has(&left.term, l);
        sum_unneeded(b, &right, with_next);
        if (b->status == STATUS_OK)
            left = contract(b, &eq, &left, &right, needed);
    }
    labels_needed(&eq, eq.count, needed);
    if (b->status == STATUS_OK)
        sum_unneeded(b, &left, needed);
    Value *result = b->status == STATUS_OK ? in_order(b, &left, &eq.out) : NULL;
    compose_replace(b, node->outputs[0], result);
    return b->status;
}

const OpDef ops_einsum[] = {
    {.name = "Einsum",
     .since = 12,
     .last = 28,
     .min_inputs = 1,
     .max_inputs = -1,
     .min_outputs = 1,
     .traits = OP_ALIKE,
     .max_outputs = 1,
     .infer = einsum_infer,
     .eval = einsum_eval,
     .expand = einsum_expand},
    {0},
};
