/* Finding rows, running inference, and what rows share when they infer.
 *
 * The table is constant data in many families, so lookup walks it; comparing the first letter before the rest keeps
 * that at microseconds a node. */
#include "onnx/op.h"

#include <inttypes.h>
#include <stdarg.h>

/* ---- lookup ------------------------------------------------------------------------------------------- */

const char *domain_key(const char *domain)
{
    return domain == NULL || strcmp(domain, "ai.onnx") == 0 ? "" : domain;
}

static bool row_is(const OpDef *row, const char *domain, const char *name)
{
    if (row->name[0] != name[0] || strcmp(row->name, name) != 0)
        return false;
    return strcmp(row->domain == NULL ? "" : row->domain, domain) == 0;
}

static const OpDef *find(const OpSet *ops, const char *domain, const char *name, int opset, bool any)
{
    if (ops == NULL)
        return NULL;
    domain = domain_key(domain);
    for (size_t i = 0; i < ops->count; i++) {
        for (const OpDef *row = ops->families[i]; row->name != NULL; row++) {
            bool fits = any || row->since == 0 || (opset >= row->since && opset <= row->last);
            if (fits && row_is(row, domain, name))
                return row;
        }
    }
    return NULL;
}

const OpDef *opset_find(const OpSet *ops, const char *domain, const char *name, int opset)
{
    return find(ops, domain, name, opset, false);
}

const OpDef *opset_find_any(const OpSet *ops, const char *domain, const char *name)
{
    return find(ops, domain, name, 0, true);
}

/* ---- types --------------------------------------------------------------------------------------------- */

void type_set(Type *type, DType dtype, int rank, const int64_t *dims)
{
    type->kind = TYPE_TENSOR;
    type->dtype = dtype;
    type->rank = rank;
    for (int i = 0; i < RANK_MAX; i++) {
        type->dims[i] = i < rank ? dims[i] : 0;
        type->symbols[i] = NULL;
    }
}

static void type_forget(Type *type)
{
    type_set(type, DTYPE_UNDEFINED, 0, NULL);
    type->kind = TYPE_UNKNOWN;
    type->rank = -1;
}

bool type_known(const Type *type)
{
    if (type->kind != TYPE_TENSOR || type->dtype == DTYPE_UNDEFINED || type->rank < 0)
        return false;
    for (int i = 0; i < type->rank; i++)
        if (type->dims[i] < 0)
            return false;
    return true;
}

int64_t type_count(const Type *type)
{
    return type->rank < 0 ? -1 : dims_count(type->rank, type->dims);
}

const char *type_text(Arena *arena, const Type *type)
{
    static const char *const kinds[] = {"", "sequence of ", "optional ", "map of ", "sparse ", ""};
    if (type->kind == TYPE_UNKNOWN)
        return "unknown type";
    Str text;
    str_init(&text);
    str_printf(&text, "%s%s[", kinds[type->kind], dtype_name(type->dtype));
    if (type->rank < 0)
        str_append(&text, "...");
    for (int i = 0; i < type->rank; i++) {
        str_append(&text, i > 0 ? "," : "");
        if (type->symbols[i] != NULL)
            str_append(&text, type->symbols[i]);
        else if (type->dims[i] < 0)
            str_append(&text, "?");
        else
            str_printf(&text, "%" PRId64, type->dims[i]);
    }
    str_append(&text, "]");
    char *copy = arena_strdup(arena, text.text);
    str_release(&text);
    return copy;
}

/* ---- inference ----------------------------------------------------------------------------------------- */

static Status node_fail(const Node *node, Status status, Error *err, const char *format, va_list args)
{
    char message[700];
    vsnprintf(message, sizeof message, format, args);
    return fail(err, status, "%s: %s", node_text(node), message);
}

Status infer_fail(const Node *node, Error *err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    Status status = node_fail(node, STATUS_REJECTED, err, format, args);
    va_end(args);
    return status;
}

Status node_unsupported(const Node *node, Error *err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    Status status = node_fail(node, STATUS_UNSUPPORTED, err, format, args);
    va_end(args);
    return status;
}

static Status check_count(const Node *node, const char *what, int count, int min, int max, Error *err)
{
    if (count < min)
        return infer_fail(node, err, "%d %s, at least %d expected", count, what, min);
    if (max >= 0 && count > max)
        return infer_fail(node, err, "%d %s, at most %d expected", count, what, max);
    return STATUS_OK;
}

Status node_check_counts(const Node *node, Error *err)
{
    const OpDef *op = node->op;
    TRY(check_count(node, "inputs", node->input_count, op->min_inputs, op->max_inputs, err));
    TRY(check_count(node, "outputs", node->output_count, op->min_outputs, op->max_outputs, err));
    bool members = op->max_inputs < 0 && (op->traits & OP_BODY) == 0; /* a list: none of it may be left out */
    for (int i = 0; i < node->input_count && (i < op->min_inputs || members); i++)
        if (node->inputs[i] == NULL)
            return infer_fail(node, err, "input %d is missing", i);
    for (int i = 0; i < op->min_outputs && op->max_outputs >= 0 && op->since > 0;
         i++) /* internal rows may leave gaps */
        if (node->outputs[i] == NULL)
            return infer_fail(node, err, "output %d has no name", i);
    return STATUS_OK;
}

Status node_check_alike(const Node *node, int index, DType first, DType dtype, Error *err)
{
    if ((node->op->traits & OP_FLOATS) != 0 && !dtype_is_float(first))
        return infer_fail(node, err, "of %s; floats are expected", dtype_name(first));
    bool exact = (node->op->traits & OP_ANY_DTYPE) != 0; /* such rows move bytes */
    if (!exact && (dtype == DTYPE_C64 || dtype == DTYPE_C128))
        return fail(err, STATUS_UNSUPPORTED, "%s: not defined for %s", node_text(node), dtype_name(dtype));
    bool alike = (node->op->traits & OP_ALIKE) == 0 || first == dtype ||
                 (!exact && dtype_is_float(first) && dtype_is_float(dtype));
    return alike ? STATUS_OK
                 : infer_fail(node, err, "input 0 is %s, input %d is %s", dtype_name(first), index, dtype_name(dtype));
}

Status node_refuse(const Node *node, Error *err)
{
    const OpDef *any = opset_find_any(node->graph->model->ops, node->domain, node->op_type);
    const char *domain = node->domain[0] != '\0' ? node->domain : "ai.onnx";
    if (any != NULL)
        return fail(err, STATUS_UNSUPPORTED, "%s: opset %d of %s is newer than the %d that this build has read",
                    node_text(node), node->opset, domain, any->last);
    return fail(err, STATUS_UNSUPPORTED, "%s: operator %s.%s (opset %d) is not known", node_text(node), domain,
                node->op_type, node->opset);
}

/* Shapes beyond this are no tensors of this world, and rules may multiply their dims without looking: zeros among them
 * hide nothing. */
bool type_fits(const Type *type)
{
    const int64_t most_dim = INT32_MAX, most_count = (int64_t)1 << 46;
    int64_t count = 1;
    for (int i = 0; type->kind == TYPE_TENSOR && i < type->rank; i++) {
        if (type->dims[i] > most_dim || (type->dims[i] > 0 && type->dims[i] > most_count / count))
            return false;
        count *= type->dims[i] > 0 ? type->dims[i] : 1;
    }
    return true;
}

static Status check_sizes(const Node *node, Value *const *values, int count, const char *what, Error *err)
{
    for (int i = 0; i < count; i++) {
        const Value *value = values[i];
        if (value == NULL || type_fits(&value->type))
            continue;
        Arena scratch;
        arena_init(&scratch);
        Status status = infer_fail(node, err, "%s '%s' would have the shape %s, which is beyond any memory", what,
                                   value->name, dims_text(&scratch, value->type.rank, value->type.dims));
        arena_release(&scratch);
        return status;
    }
    return STATUS_OK;
}

Status node_infer(Node *node, Error *err)
{
    bool known = node->op != NULL && node->op->infer != NULL;
    if (node->op != NULL)
        TRY(node_check_counts(node, err));
    if (known)
        TRY(check_sizes(node, node->inputs, node->input_count, "input", err));
    for (int i = 0; i < node->input_count && known; i++)
        if (node->inputs[0] != NULL && node->inputs[i] != NULL && type_known(&node->inputs[0]->type) &&
            type_known(&node->inputs[i]->type))
            TRY(node_check_alike(node, i, node->inputs[0]->type.dtype, node->inputs[i]->type.dtype, err));
    for (int i = 0; i < node->input_count && known; i++)
        known = node->inputs[i] == NULL || type_known(&node->inputs[i]->type);
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] != NULL)
            type_forget(&node->outputs[i]->type);
    if (!known)
        return STATUS_OK;
    TRY(node->op->infer(node, err));
    return check_sizes(node, node->outputs, node->output_count, "output", err);
}

double node_flops(const Node *node)
{
    if (node->op != NULL && node->op->flops != NULL)
        return node->op->flops(node);
    const Value *first = node_output(node, 0);
    return first == NULL || !type_known(&first->type) ? 0 : (double)type_count(&first->type);
}

static double value_bytes(const Value *value)
{
    bool known = value != NULL && type_known(&value->type);
    return known ? (double)type_count(&value->type) * (double)dtype_size(value->type.dtype) : 0;
}

double node_bytes(const Node *node)
{
    double bytes = 0;
    for (int i = 0; i < node->input_count; i++)
        bytes += value_bytes(node->inputs[i]);
    for (int i = 0; i < node->output_count; i++)
        bytes += value_bytes(node->outputs[i]);
    return bytes;
}

Status infer_same(Node *node, Error *err)
{
    (void)err;
    const Type *type = &node->inputs[0]->type;
    if (node_output(node, 0) != NULL)
        type_set(&node->outputs[0]->type, type->dtype, type->rank, type->dims);
    return STATUS_OK;
}

bool dims_broadcast(int a_rank, const int64_t *a, int b_rank, const int64_t *b, int *rank, int64_t *out)
{
    int64_t result[RANK_MAX];
    int n = a_rank > b_rank ? a_rank : b_rank;
    for (int i = 0; i < n; i++) {
        int from_a = i - (n - a_rank), from_b = i - (n - b_rank);
        int64_t x = from_a < 0 ? 1 : a[from_a], y = from_b < 0 ? 1 : b[from_b];
        if (x != y && x != 1 && y != 1)
            return false;
        result[i] = x == 1 ? y : x;
    }
    *rank = n;
    if (n > 0)
        memcpy(out, result, (size_t)n * sizeof *out);
    return true;
}

Status infer_broadcast(Node *node, Error *err)
{
    int rank = 0;
    int64_t dims[RANK_MAX];
    for (int i = 0; i < node->input_count; i++) {
        if (node->inputs[i] == NULL)
            continue;
        const Type *type = &node->inputs[i]->type;
        if (!dims_broadcast(rank, dims, type->rank, type->dims, &rank, dims)) {
            Arena *arena = &node->graph->model->arena;
            return infer_fail(node, err, "shapes %s and %s do not broadcast", dims_text(arena, rank, dims),
                              dims_text(arena, type->rank, type->dims));
        }
    }
    if (node_output(node, 0) != NULL)
        type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, rank, dims);
    return STATUS_OK;
}

Status infer_like_first(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    for (int i = 1; i < node->input_count; i++) {
        const Type *other = node->inputs[i] == NULL ? NULL : &node->inputs[i]->type;
        bool fits = other == NULL || other->rank <= x->rank;
        for (int d = 0; fits && other != NULL && d < other->rank; d++)
            fits = other->dims[d] == 1 || other->dims[d] == x->dims[x->rank - other->rank + d];
        if (!fits) {
            Arena *arena = &node->graph->model->arena;
            return infer_fail(node, err, "input %d of shape %s does not broadcast to %s", i,
                              dims_text(arena, other->rank, other->dims), dims_text(arena, x->rank, x->dims));
        }
    }
    return infer_same(node, err);
}

Status axis_normalize(const Node *node, int64_t axis, int rank, int *out, Error *err)
{
    if (axis < -rank || axis >= rank)
        return infer_fail(node, err, "axis %" PRId64 " is outside [-%d, %d)", axis, rank, rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return STATUS_OK;
}

bool infer_has_ints(const Node *node, int index)
{
    const Value *value = node_input(node, index);
    return value == NULL || value->constant != NULL;
}

Status infer_ints(const Node *node, int index, const int64_t **values, size_t *count, Error *err)
{
    *values = NULL;
    *count = 0;
    const Value *value = node_input(node, index);
    if (value == NULL)
        return STATUS_OK;
    if (value->constant == NULL)
        return fail(err, STATUS_UNSUPPORTED, "%s: input %d ('%s') must be known before running", node_text(node), index,
                    value->name);
    int64_t n = tensor_count(value->constant);
    if (n < 0)
        return infer_fail(node, err, "input %d ('%s') has a malformed shape", index, value->name);
    int64_t *copy = arena_array(&node->graph->model->arena, int64_t, (size_t)n + 1);
    for (int64_t i = 0; i < n; i++)
        copy[i] = tensor_i64_at(value->constant, i);
    *values = copy;
    *count = (size_t)n;
    return STATUS_OK;
}
