/* Control flow: If, Loop, Scan, SequenceMap. `eval` runs bodies through the interpreter.
 *
 * Where a graph is planned or differentiated, bodies disappear instead (`expand`): an If becomes the branch it takes,
 * or both and a Where on the result; a Loop with a known number of turns and a Scan become their turns, one behind the
 * other. What is left (a Loop whose end depends on data) runs in the interpreter only. */
#include "passes/passes.h"
#include "runtime/ops/compose.h"
#include "runtime/ops/ops.h"

#include <string.h>

enum { TURNS_MAX = 4096 }; /* unrolled at most */

static Status body_of(const Node *node, const char *name, Graph **body, Error *err)
{
    *body = node_graph(node, name);
    return *body ? STATUS_OK : infer_fail(node, err, "attribute %s is missing", name);
}

static Status unknown_infer(Node *node, Error *err)
{
    (void)node;
    (void)err;
    return STATUS_OK; /* node_infer has set every output to unknown */
}

/* ---- joining the elements of scan outputs ------------------------------------------------------------- */

/* Arrays of equal shape as one with a new axis; `reverse` puts the last one first. No elements: [0, dims of like]. */
static Status stack_arrays(EvalContext *context, int index, Array *const *items, int64_t count, int64_t axis,
                           bool reverse, const Type *like, Error *err)
{
    const DType dtype = count > 0 ? items[0]->dtype : like->dtype;
    const int rank = count > 0 ? items[0]->rank : like->rank < 0 ? 0 : like->rank;
    int64_t dims[RANK_MAX] = {0};
    int at = 0;
    Array *out;
    if (rank + 1 > RANK_MAX || dtype == DTYPE_UNDEFINED)
        return eval_fail(context, err, "scan output %d has no known type", index);
    TRY(axis_normalize(context->node, axis, rank + 1, &at, err));
    for (int i = 0; i < rank + 1; i++) {
        int from = i < at ? i : i - 1;
        dims[i] = i == at ? count : count > 0 ? items[0]->dims[from] : like->dims[from] > 0 ? like->dims[from] : 0;
    }
    TRY(eval_output(context, index, dtype, rank + 1, dims, &out, err));
    const int64_t outer = dims_count(at, dims), inner = dims_count(rank - at, dims + at + 1);
    const size_t run = (size_t)inner * dtype_size(dtype);
    for (int64_t k = 0; k < count; k++) {
        const Array *item = items[reverse ? count - 1 - k : k];
        bool fits = item->kind == ARRAY_TENSOR && item->dtype == dtype && item->count == items[0]->count;
        if (!fits)
            return eval_fail(context, err, "scan output %d changes its shape from turn to turn", index);
        for (int64_t o = 0; o < outer; o++)
            memcpy((char *)out->data + (size_t)(o * count + k) * run, (const char *)item->data + (size_t)o * run, run);
    }
    return STATUS_OK;
}

/* Every turn's elements of every scan output. */
typedef struct Collected {
    Array ***items; /* [outputs][turns] */
    size_t *counts, *capacities;
} Collected;

static Collected collected_new(Arena *arena, int outputs)
{
    size_t n = (size_t)(outputs > 0 ? outputs : 0) + 1;
    return (Collected){arena_array(arena, Array **, n), arena_array(arena, size_t, n), arena_array(arena, size_t, n)};
}

static void collect(Collected *c, Arena *arena, int output, Array *item)
{
    c->items[output] =
        arena_grow(arena, c->items[output], c->counts[output], &c->capacities[output], sizeof *c->items[output]);
    c->items[output][c->counts[output]++] = item;
}

/* ---- If ----------------------------------------------------------------------------------------------- */

static Status if_infer(Node *node, Error *err)
{
    Graph *then_branch, *else_branch;
    TRY(body_of(node, "then_branch", &then_branch, err));
    TRY(body_of(node, "else_branch", &else_branch, err));
    for (int i = 0; i < node->output_count; i++) {
        if (!node->outputs[i] || i >= (int)then_branch->output_count || i >= (int)else_branch->output_count)
            continue;
        const Type *a = &then_branch->outputs[i]->type, *b = &else_branch->outputs[i]->type;
        bool same = type_known(a) && type_known(b) && a->dtype == b->dtype && a->rank == b->rank &&
                    memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) == 0;
        if (same)
            type_set(&node->outputs[i]->type, a->dtype, a->rank, a->dims);
    }
    return STATUS_OK;
}

static Status if_eval(EvalContext *context, Error *err)
{
    const Array *condition = context->in[0];
    Graph *body;
    if (condition->dtype != DTYPE_BOOL || condition->count != 1)
        return eval_fail(context, err, "condition is %s with %lld elements", dtype_name(condition->dtype),
                         (long long)condition->count);
    TRY(body_of(context->node, *(const uint8_t *)condition->data ? "then_branch" : "else_branch", &body, err));
    if (!context->run_graph)
        return fail(err, STATUS_UNSUPPORTED, "%s: bodies run in the interpreter only", node_text(context->node));
    return context->run_graph(context, body, NULL, 0, context->out, context->out_count, err);
}

/* ---- Loop (M, cond, v..) -> v.., scan outputs.. ------------------------------------------------------- */

/* M and cond may be omitted; a cond that is not given is not looked at either (the table in ONNX Loop-25). */
static Status loop_eval(EvalContext *context, Error *err)
{
    const Node *node = context->node;
    const Array *trips = eval_input(context, 0), *start = eval_input(context, 1);
    const int states = context->in_count > 2 ? context->in_count - 2 : 0;
    Graph *body;
    TRY(body_of(node, "body", &body, err));
    const int scans = (int)body->output_count - 1 - states;
    if (!context->run_graph || scans < 0 || (int)body->input_count != states + 2)
        return eval_fail(context, err, "body takes %zu and gives %zu values for %d states", body->input_count,
                         body->output_count, states);
    Arena *arena = context->arena;
    Collected collected = collected_new(arena, scans);
    const Array **in = arena_array(arena, const Array *, (size_t)states + 2);
    Array **out = arena_array(arena, Array *, body->output_count + 1), *turn, *always;
    TRY(array_new(arena, DTYPE_BOOL, 0, NULL, &always, err));
    *(uint8_t *)always->data = 1;
    for (int i = 0; i < states; i++)
        in[2 + i] = context->in[2 + i];
    bool going = !start || array_f64_at(start, 0) != 0;
    for (int64_t i = 0; going && (!trips || i < array_i64_at(trips, 0)); i++) {
        TRY(array_new(arena, DTYPE_I64, 0, NULL, &turn, err));
        *(int64_t *)turn->data = i;
        in[0] = turn;
        in[1] = always;
        TRY(context->run_graph(context, body, in, states + 2, out, (int)body->output_count, err));
        going = !start || array_f64_at(out[0], 0) != 0;
        for (int s = 0; s < states; s++)
            in[2 + s] = out[1 + s];
        for (int s = 0; s < scans; s++)
            collect(&collected, arena, s, out[1 + states + s]);
    }
    for (int i = 0; i < context->out_count; i++) {
        int s = i - states;
        if (s < 0)
            TRY(eval_output_same(context, i, in[2 + i], err));
        else
            TRY(stack_arrays(context, i, collected.items[s], (int64_t)collected.counts[s], 0, false,
                             &body->outputs[1 + i]->type, err));
    }
    return STATUS_OK;
}

/* ---- Scan (states.., scan inputs..) -> states.., scan outputs.. --------------------------------------- */

typedef struct Scanning {
    Graph *body;
    int states, inputs, outputs; /* scan inputs and outputs */
    int64_t turns;
} Scanning;

static int64_t scan_int(const Node *node, const char *name, int index)
{
    size_t count;
    const int64_t *values = node_ints(node, name, &count);
    return values && (size_t)index < count ? values[index] : 0;
}

static Status scan_read(const Node *node, int in_count, Scanning *scan, Error *err)
{
    TRY(body_of(node, "body", &scan->body, err));
    int64_t inputs = node_int(node, "num_scan_inputs", 0);
    scan->inputs = inputs < 1 || inputs > in_count ? 0 : (int)inputs;
    scan->states = in_count - scan->inputs;
    scan->outputs = (int)scan->body->output_count - scan->states;
    if (scan->inputs == 0 || scan->outputs < 0 || (int)scan->body->input_count != in_count)
        return infer_fail(node, err, "%lld scan inputs of %d; body takes %zu and gives %zu values", (long long)inputs,
                          in_count, scan->body->input_count, scan->body->output_count);
    return STATUS_OK;
}

/* Number of turns: the length of every scan input along its axis. */
static Status scan_turns(const Node *node, Scanning *scan, int index, int rank, const int64_t *dims, int *axis,
                         Error *err)
{
    TRY(axis_normalize(node, scan_int(node, "scan_input_axes", index), rank, axis, err));
    if (index > 0 && dims[*axis] != scan->turns)
        return infer_fail(node, err, "scan input %d has %lld steps, the first has %lld", index, (long long)dims[*axis],
                          (long long)scan->turns);
    scan->turns = dims[*axis];
    return STATUS_OK;
}

/* Element `at` of `x` along `axis`, without that axis. */
static Status array_step(Arena *arena, const Array *x, int axis, int64_t at, Array **out, Error *err)
{
    int64_t dims[RANK_MAX];
    for (int i = 0; i < x->rank - 1; i++)
        dims[i] = x->dims[i < axis ? i : i + 1];
    TRY(array_new(arena, x->dtype, x->rank - 1, dims, out, err));
    const int64_t outer = dims_count(axis, x->dims), inner = dims_count(x->rank - axis - 1, x->dims + axis + 1);
    const size_t run = (size_t)inner * dtype_size(x->dtype);
    for (int64_t o = 0; o < outer; o++)
        memcpy((char *)(*out)->data + (size_t)o * run, (const char *)x->data + (size_t)(o * x->dims[axis] + at) * run,
               run);
    return STATUS_OK;
}

/* All turns over `in`; final states and collected elements are left in `in` and `collected`. */
static Status scan_run(EvalContext *context, Scanning *scan, const Array **values, Collected *collected, Error *err)
{
    const Node *node = context->node;
    Arena *arena = context->arena;
    const int in_count = scan->states + scan->inputs;
    const Array **in = arena_array(arena, const Array *, (size_t)in_count + 1);
    Array **out = arena_array(arena, Array *, scan->body->output_count + 1);
    int *axes = arena_array(arena, int, (size_t)scan->inputs);
    for (int i = 0; i < scan->inputs; i++)
        TRY(scan_turns(node, scan, i, values[scan->states + i]->rank, values[scan->states + i]->dims, &axes[i], err));
    for (int i = 0; i < scan->states; i++)
        in[i] = values[i];
    for (int64_t t = 0; t < scan->turns; t++) {
        for (int i = 0; i < scan->inputs; i++) {
            Array *step;
            bool back = scan_int(node, "scan_input_directions", i) != 0;
            TRY(array_step(arena, values[scan->states + i], axes[i], back ? scan->turns - 1 - t : t, &step, err));
            in[scan->states + i] = step;
        }
        TRY(context->run_graph(context, scan->body, in, in_count, out, (int)scan->body->output_count, err));
        for (int i = 0; i < scan->states; i++)
            in[i] = out[i];
        for (int i = 0; i < scan->outputs; i++)
            collect(collected, arena, i, out[scan->states + i]);
    }
    for (int i = 0; i < scan->states; i++)
        values[i] = in[i];
    return STATUS_OK;
}

static Status scan_outputs(EvalContext *context, const Scanning *scan, const Array **states, Collected *collected,
                           Error *err)
{
    const Node *node = context->node;
    for (int i = 0; i < context->out_count; i++) {
        int s = i - scan->states;
        if (s < 0)
            TRY(eval_output_same(context, i, states[i], err));
        else
            TRY(stack_arrays(context, i, collected->items[s], (int64_t)collected->counts[s],
                             scan_int(node, "scan_output_axes", s), scan_int(node, "scan_output_directions", s) != 0,
                             &scan->body->outputs[i]->type, err));
    }
    return STATUS_OK;
}

/* Scan-8 scanned every sample of a batch by itself: [batch, ..] states, [batch, time, ..] scan inputs and outputs. */
static Status scan_batched(EvalContext *context, Scanning *scan, Error *err)
{
    Arena *arena = context->arena;
    const int in_count = context->in_count;
    const int64_t batch = context->in[0]->rank > 0 ? context->in[0]->dims[0] : 0;
    Array ***results = arena_array(arena, Array **, (size_t)context->out_count + 1);
    for (int i = 0; i < context->out_count; i++)
        results[i] = arena_array(arena, Array *, (size_t)batch + 1);
    for (int64_t b = 0; b < batch; b++) {
        const Array **values = arena_array(arena, const Array *, (size_t)in_count + 1);
        Collected collected = collected_new(arena, scan->outputs);
        EvalContext inner = *context;
        inner.out = arena_array(arena, Array *, (size_t)context->out_count + 1);
        inner.place = NULL;
        for (int i = 0; i < in_count; i++) {
            Array *sample;
            if (context->in[i]->rank < 1 || context->in[i]->dims[0] != batch)
                return eval_fail(context, err, "input %d has no batch of %lld", i, (long long)batch);
            TRY(array_step(arena, context->in[i], 0, b, &sample, err));
            values[i] = sample;
        }
        TRY(scan_run(context, scan, values, &collected, err));
        TRY(scan_outputs(&inner, scan, values, &collected, err));
        for (int i = 0; i < context->out_count; i++)
            results[i][b] = inner.out[i];
    }
    for (int i = 0; i < context->out_count; i++)
        TRY(stack_arrays(context, i, results[i], batch, 0, false, &scan->body->outputs[i]->type, err));
    return STATUS_OK;
}

static Status scan_eval(EvalContext *context, Error *err)
{
    Scanning scan = {0};
    Arena *arena = context->arena;
    TRY(scan_read(context->node, context->in_count, &scan, err));
    if (!context->run_graph)
        return fail(err, STATUS_UNSUPPORTED, "%s: bodies run in the interpreter only", node_text(context->node));
    for (int i = 0; i < context->in_count; i++)
        if (!context->in[i])
            return eval_fail(context, err, "input %d is missing", i);
    if (node_int(context->node, "batched", 0))
        return scan_batched(context, &scan, err);
    const Array **values = arena_array(arena, const Array *, (size_t)context->in_count + 1);
    memcpy(values, context->in, (size_t)context->in_count * sizeof *values);
    Collected collected = collected_new(arena, scan.outputs);
    TRY(scan_run(context, &scan, values, &collected, err));
    return scan_outputs(context, &scan, values, &collected, err);
}

/* Scan-8: its first input (sequence lengths) goes when omitted, its directions change their name, and `batched`
 * remembers the batch axis. */
static Status scan_upgrade(Node *node, Error *err)
{
    if (node->opset >= 9)
        return STATUS_OK;
    if (node->input_count == 0)
        return fail(err, STATUS_REJECTED, "%s: Scan-8 without inputs", node_text(node));
    if (node_input(node, 0))
        return fail(err, STATUS_UNSUPPORTED, "%s: Scan-8 with sequence lengths", node_text(node));
    for (int i = 1; i < node->input_count; i++)
        node_set_input(node, i - 1, node->inputs[i]);
    node_set_input(node, node->input_count - 1, NULL);
    node->input_count--;
    size_t count;
    const int64_t *directions = node_ints(node, "directions", &count);
    if (directions)
        node_set_ints(node, "scan_input_directions", directions, count);
    node_remove_attr(node, "directions");
    node_set_int(node, "batched", 1);
    return STATUS_OK;
}

/* ---- SequenceMap: the body for each item of the sequences; tensors go to every item ------------------- */

static Status map_eval(EvalContext *context, Error *err)
{
    Graph *body;
    Arena *arena = context->arena;
    TRY(body_of(context->node, "body", &body, err));
    if (!context->run_graph)
        return fail(err, STATUS_UNSUPPORTED, "%s: bodies run in the interpreter only", node_text(context->node));
    const size_t items = context->in[0]->item_count;
    const Array **in = arena_array(arena, const Array *, (size_t)context->in_count + 1);
    Array **out = arena_array(arena, Array *, (size_t)context->out_count + 1);
    for (int i = 0; i < context->out_count; i++) {
        context->out[i] = arena_new(arena, Array);
        context->out[i]->kind = ARRAY_SEQUENCE;
        context->out[i]->dtype = i < (int)body->output_count ? body->outputs[i]->type.dtype : DTYPE_UNDEFINED;
        context->out[i]->items = arena_array(arena, Array *, items + 1);
        context->out[i]->item_count = items;
    }
    for (size_t k = 0; k < items; k++) {
        for (int i = 0; i < context->in_count; i++) {
            const Array *x = context->in[i];
            if (x->kind == ARRAY_SEQUENCE && x->item_count != items)
                return eval_fail(context, err, "input %d has %zu items, the first %zu", i, x->item_count, items);
            in[i] = x->kind == ARRAY_SEQUENCE ? x->items[k] : x;
        }
        TRY(context->run_graph(context, body, in, context->in_count, out, context->out_count, err));
        for (int i = 0; i < context->out_count; i++) {
            context->out[i]->items[k] = out[i];
            context->out[i]->dtype = out[i]->dtype;
        }
    }
    return STATUS_OK;
}

/* ---- written out where they stand ----------------------------------------------------------------------- */

/* Takes back what was written before `before` behind `mark`: the expansion declines. */
static Status decline(Builder *b, const Node *mark)
{
    while (b->before->previous != mark)
        node_remove(b->before->previous);
    return b->status;
}

static bool same_type(const Type *a, const Type *b)
{
    return type_known(a) && type_known(b) && a->dtype == b->dtype && a->rank == b->rank &&
           (a->rank == 0 || memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) == 0);
}

/* ---- If, written out ---------------------------------------------------------------------------------- */

/* What a branch reads is 0 while the other one is taken, and no gradient leaves it: where a condition guards it (x /
 * |x| unless that is 0), both branches being computed would send NaN back, which no multiplication by 0 takes away. */
typedef struct Gate {
    Builder b;        /* before the branch */
    Value *condition; /* of one element */
    bool taken;       /* by which condition */
    Map made;         /* name of a value around the branch -> what the branch reads in its place */
} Gate;

enum { IN_BRANCH = 1 << 20 }; /* Node.mark, for as long as a branch is gated */

static Value *gate_value(Gate *g, Value *x)
{
    bool around = x->graph == g->b.graph && (x->producer == NULL || x->producer->mark != IN_BRANCH);
    bool floats = type_known(&x->type) && (x->type.dtype == DTYPE_F32 || x->type.dtype == DTYPE_F64);
    bool fixed = x->role == ROLE_STATE || (value_is_constant(x) && x->role != ROLE_PARAMETER);
    if (!around || !floats || fixed)
        return x;
    Value *gated = map_get(&g->made, x->name);
    if (gated == NULL) {
        Value *zero = build_scalar(&g->b, x->type.dtype, 0);
        gated = build3(&g->b, "Where", g->condition, g->taken ? x : zero, g->taken ? zero : x);
        map_set(&g->made, x->name, gated);
    }
    return gated;
}

static void gate_node(Gate *g, Node *node)
{
    bool shape_only = node->op != NULL && (node->op->traits & OP_SHAPE_ONLY) != 0;
    for (int i = 0; i < node->input_count && !shape_only; i++) {
        Value *gated = node->inputs[i] == NULL ? NULL : gate_value(g, node->inputs[i]);
        if (gated != NULL && gated != node->inputs[i])
            node_set_input(node, i, gated);
    }
    for (size_t i = 0; i < node->attr_count; i++) /* bodies within read what is around them, too */
        for (Node *inner = node->attrs[i]->g ? node->attrs[i]->g->first : NULL; inner; inner = inner->next)
            gate_node(g, inner);
}

static Status gate_branch(Node *first, Node *end, Value *condition, bool taken, Error *err)
{
    if (first == end)
        return STATUS_OK;
    Gate g = {.b = builder_at(first->graph, first, "branch", err), .taken = taken};
    map_init(&g.made);
    g.condition = build_reshape(&g.b, condition, 0, NULL);
    for (Node *node = first; node != end; node = node->next)
        node->mark = IN_BRANCH;
    for (Node *node = first; node != end && g.b.status == STATUS_OK; node = node->next)
        gate_node(&g, node);
    for (Node *node = first; node != end; node = node->next)
        node->mark = 0;
    map_release(&g.made);
    return g.b.status;
}

static Status if_expand(Node *node, Builder *b, Error *err)
{
    Graph *branches[2];
    Value *condition = node->inputs[0], **out[2];
    Arena *arena = &node->graph->model->arena;
    TRY(body_of(node, "then_branch", &branches[0], err));
    TRY(body_of(node, "else_branch", &branches[1], err));
    const bool known = value_is_constant(condition);
    Node *mark = b->before->previous, *last = mark;
    const int taken = known && tensor_f64_at(condition->constant, 0) == 0 ? 1 : 0;
    for (int i = 0; i < 2; i++) {
        out[i] = arena_array(arena, Value *, branches[i]->output_count + 1);
        if (!known || i == taken)
            TRY(compose_body(b, branches[i], NULL, out[i], err));
        last = i == 0 ? b->before->previous : last;
    }
    for (int i = 0; i < node->output_count && !known; i++)
        if (node->outputs[i] && !same_type(&out[0][i]->type, &out[1][i]->type))
            return decline(b, mark);
    if (!known) {
        Node *second = last ? last->next : b->graph->first;
        TRY(gate_branch(mark ? mark->next : b->graph->first, second, condition, true, err));
        TRY(gate_branch(second, b->before, condition, false, err)); /* its gates come before it: behind the first */
    }
    for (int i = 0; i < node->output_count && b->status == STATUS_OK; i++) {
        Value *result = out[taken][i];
        if (!node->outputs[i])
            continue;
        if (!known)
            result = build3(b, "Where", build_reshape(b, condition, 0, NULL), out[0][i], out[1][i]);
        if (result)
            value_replace_uses(node->outputs[i], result);
    }
    return b->status;
}

/* ---- Loop and Scan, written out ----------------------------------------------------------------------- */

static Value *build_stack(Builder *b, Value *const *items, int64_t count, int64_t axis, bool reverse)
{
    Value **parts = arena_array(&b->graph->model->arena, Value *, (size_t)count);
    for (int64_t i = 0; i < count; i++)
        parts[i] = build2(b, "Unsqueeze", items[reverse ? count - 1 - i : i], build_ints(b, &axis, 1));
    Node *join = build_node(b, "", "Concat", parts, (int)count, 1);
    if (!join)
        return NULL;
    node_set_int(join, "axis", axis);
    return build_finish(b, join);
}

/* True when a condition is known to hold: a constant, or the bound input passed through. */
static bool holds(const Value *value)
{
    while (value->producer && node_is(value->producer, "Identity"))
        value = value->producer->inputs[0];
    const Tensor *tensor = value->constant;
    if (!tensor && value->producer && node_is(value->producer, "Constant"))
        tensor = node_tensor(value->producer, "value");
    return tensor && tensor_count(tensor) == 1 && tensor_f64_at(tensor, 0) != 0;
}

/* The condition that a turn has left, which may have to be computed from constants first: 1 holds, 0 does not, -1
 * depends on data. */
static Status settle(Builder *b, const Node *mark, const Value *condition, int *settled, Error *err)
{
    for (Node *node = mark != NULL ? mark->next : b->graph->first; node != b->before; node = node->next) {
        bool done = true;
        for (int i = 0; i < node->output_count; i++)
            done = done && (node->outputs[i] == NULL || node->outputs[i]->constant != NULL);
        if (done)
            continue;
        TRY(node_infer(node, err)); /* what is before it may be known by now */
        TRY(node_fold(node, err));
    }
    while (condition->producer && condition->constant == NULL && node_is(condition->producer, "Identity"))
        condition = condition->producer->inputs[0];
    *settled = condition->constant == NULL ? -1 : holds(condition);
    return STATUS_OK;
}

/* A Loop without a count of turns goes on while its condition holds: written out where each turn's condition can be
 * computed from constants (indices and shapes), as in what PyTorch's exporter makes of EmbeddingBag. */
static Status while_expand(Node *node, Builder *b, Graph *body, Error *err)
{
    Arena *arena = &node->graph->model->arena;
    const int states = node->input_count - 2;
    const Node *mark = b->before->previous;
    int on = holds(node->inputs[1]) ? 1 : -1;
    if (on < 0 || states < 0 || (int)body->output_count != 1 + states)
        return STATUS_OK;
    Value **in = arena_array(arena, Value *, (size_t)states + 2),
          **out = arena_array(arena, Value *, body->output_count);
    memcpy(in + 2, node->inputs + 2, (size_t)states * sizeof *in);
    for (int64_t t = 0; on == 1 && t < TURNS_MAX; t++) {
        const Node *turn = b->before->previous;
        in[0] = build_scalar(b, DTYPE_I64, (double)t);
        in[1] = build_scalar(b, DTYPE_BOOL, 1);
        TRY(compose_body(b, body, in, out, err));
        TRY(settle(b, turn, out[0], &on, err));
        memcpy(in + 2, out + 1, (size_t)states * sizeof *in);
    }
    if (on != 0)
        return decline(b, mark);
    for (int i = 0; i < node->output_count && b->status == STATUS_OK; i++)
        if (node->outputs[i] != NULL)
            value_replace_uses(node->outputs[i], in[2 + i]);
    return b->status;
}

static Status loop_expand(Node *node, Builder *b, Error *err)
{
    Graph *body;
    Arena *arena = &node->graph->model->arena;
    Value *trips = node_input(node, 0), *start = node_input(node, 1);
    TRY(body_of(node, "body", &body, err));
    const int states = node->input_count > 2 ? node->input_count - 2 : 0;
    const int scans = (int)body->output_count - 1 - states;
    if (!trips && start)
        return while_expand(node, b, body, err);
    if (!trips || !value_is_constant(trips) || (start && !holds(start)))
        return STATUS_OK; /* declines: how often it turns depends on data */
    const int64_t turns = tensor_i64_at(trips->constant, 0);
    const Node *mark = b->before->previous;
    if (turns > TURNS_MAX || turns < 0 || (turns == 0 && scans > 0))
        return STATUS_OK;
    Value **in = arena_array(arena, Value *, (size_t)states + 2),
          **out = arena_array(arena, Value *, body->output_count);
    Value ***items = arena_array(arena, Value **, (size_t)scans + 1);
    for (int s = 0; s < scans; s++)
        items[s] = arena_array(arena, Value *, (size_t)turns + 1);
    for (int s = 0; s < states; s++)
        in[2 + s] = node->inputs[2 + s];
    for (int64_t t = 0; t < turns; t++) {
        in[0] = build_scalar(b, DTYPE_I64, (double)t);
        in[1] = build_scalar(b, DTYPE_BOOL, 1);
        TRY(compose_body(b, body, in, out, err));
        if (start && !holds(out[0]))
            return decline(b, mark);
        for (int s = 0; s < states; s++)
            in[2 + s] = out[1 + s];
        for (int s = 0; s < scans; s++)
            items[s][t] = out[1 + states + s];
    }
    for (int i = 0; i < node->output_count && b->status == STATUS_OK; i++) {
        if (!node->outputs[i])
            continue;
        Value *result = i < states ? in[2 + i] : build_stack(b, items[i - states], turns, 0, false);
        if (result)
            value_replace_uses(node->outputs[i], result);
    }
    return b->status;
}

/* Step `t` of a scan input: Gather with a scalar index drops the axis. */
static Value *build_step(Builder *b, Value *x, int axis, int64_t t)
{
    Value *inputs[] = {x, build_scalar(b, DTYPE_I64, (double)t)};
    Node *node = build_node(b, "", "Gather", inputs, 2, 1);
    if (!node)
        return NULL;
    node_set_int(node, "axis", axis);
    return build_finish(b, node);
}

/* All turns over `values` (states, scan inputs), which gives `results` (states, scan outputs). */
static Status scan_write(const Node *node, Builder *b, const Scanning *scan, const int *axes, Value *const *values,
                         Value **results, Error *err)
{
    Arena *arena = &node->graph->model->arena;
    Value **in = arena_array(arena, Value *, (size_t)node->input_count + 1);
    Value **out = arena_array(arena, Value *, scan->body->output_count + 1);
    Value ***items = arena_array(arena, Value **, (size_t)scan->outputs + 1);
    for (int s = 0; s < scan->outputs; s++)
        items[s] = arena_array(arena, Value *, (size_t)scan->turns + 1);
    memcpy(in, values, (size_t)scan->states * sizeof *in);
    for (int64_t t = 0; t < scan->turns; t++) {
        for (int i = 0; i < scan->inputs; i++) {
            bool back = scan_int(node, "scan_input_directions", i) != 0;
            in[scan->states + i] = build_step(b, values[scan->states + i], axes[i], back ? scan->turns - 1 - t : t);
        }
        TRY(b->status);
        TRY(compose_body(b, scan->body, in, out, err));
        memcpy(in, out, (size_t)scan->states * sizeof *in);
        for (int s = 0; s < scan->outputs; s++)
            items[s][t] = out[scan->states + s];
    }
    for (int i = 0; i < node->output_count; i++) {
        int s = i - scan->states;
        if (node->outputs[i])
            results[i] = s < 0 ? in[i]
                               : build_stack(b, items[s], scan->turns, scan_int(node, "scan_output_axes", s),
                                             scan_int(node, "scan_output_directions", s) != 0);
    }
    return b->status;
}

/* Scan-8: every sample by itself. */
static Status scan_write_batched(const Node *node, Builder *b, const Scanning *scan, const int *axes, Value **results,
                                 Error *err)
{
    Arena *arena = &node->graph->model->arena;
    const int64_t batch = node->inputs[0]->type.dims[0];
    Value **values = arena_array(arena, Value *, (size_t)node->input_count + 1);
    Value **given = arena_array(arena, Value *, (size_t)node->output_count + 1);
    Value ***samples = arena_array(arena, Value **, (size_t)node->output_count + 1);
    for (int i = 0; i < node->output_count; i++)
        samples[i] = arena_array(arena, Value *, (size_t)batch + 1);
    for (int64_t n = 0; n < batch; n++) {
        for (int i = 0; i < node->input_count; i++)
            values[i] = build_step(b, node->inputs[i], 0, n);
        TRY(b->status);
        TRY(scan_write(node, b, scan, axes, values, given, err));
        for (int i = 0; i < node->output_count; i++)
            samples[i][n] = given[i];
    }
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i])
            results[i] = build_stack(b, samples[i], batch, 0, false);
    return b->status;
}

static Status scan_expand(Node *node, Builder *b, Error *err)
{
    Scanning scan = {0};
    Arena *arena = &node->graph->model->arena;
    TRY(scan_read(node, node->input_count, &scan, err));
    const int batched = node_int(node, "batched", 0) != 0;
    const int64_t batch = batched && node->inputs[0]->type.rank > 0 ? node->inputs[0]->type.dims[0] : 1;
    int *axes = arena_array(arena, int, (size_t)scan.inputs);
    for (int i = 0; i < node->input_count; i++) {
        const Type *type = &node->inputs[i]->type;
        if (batched && (type->rank < 1 || type->dims[0] != batch))
            return infer_fail(node, err, "input %d has no batch of %lld", i, (long long)batch);
        if (i >= scan.states)
            TRY(scan_turns(node, &scan, i - scan.states, type->rank - batched, type->dims + batched,
                           &axes[i - scan.states], err));
    }
    if (scan.turns < 1 || batch < 1 || scan.turns > TURNS_MAX / batch)
        return STATUS_OK;
    Value **results = arena_array(arena, Value *, (size_t)node->output_count + 1);
    if (batched)
        TRY(scan_write_batched(node, b, &scan, axes, results, err));
    else
        TRY(scan_write(node, b, &scan, axes, node->inputs, results, err));
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] && results[i])
            value_replace_uses(node->outputs[i], results[i]);
    return b->status;
}

/* clang-format off */
const OpDef ops_control[] = {
    {.name = "If", .since = 1, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1, .max_outputs = -1,
     .traits = OP_BODY | OP_ANY_DTYPE, .infer = if_infer, .eval = if_eval, .expand = if_expand,
     .no_gradient = "which branch runs depends on data and the branches give different shapes"},
    {.name = "Loop", .since = 1, .last = 28, .min_inputs = 0, .max_inputs = -1, .min_outputs = 1, .max_outputs = -1,
     .traits = OP_BODY | OP_ANY_DTYPE, .infer = unknown_infer, .eval = loop_eval, .expand = loop_expand,
     .no_gradient = "how often it turns depends on data"},
    {.name = "Scan", .since = 8, .last = 28, .min_inputs = 1, .max_inputs = -1, .min_outputs = 1, .max_outputs = -1,
     .traits = OP_BODY | OP_ANY_DTYPE, .infer = unknown_infer, .eval = scan_eval, .upgrade = scan_upgrade,
     .expand = scan_expand, .no_gradient = "it has no turns, or more than can be written out"},
    {.name = "SequenceMap", .since = 17, .last = 28, .min_inputs = 1, .max_inputs = -1, .min_outputs = 1,
     .max_outputs = -1, .traits = OP_BODY | OP_ANY_DTYPE, .infer = unknown_infer, .eval = map_eval,
     .no_gradient = "sequences carry no gradient"},
    {0},
};
/* clang-format on */
