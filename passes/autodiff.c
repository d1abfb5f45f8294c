/* Reverse mode: gradient nodes in the same graph.
 * does: walks the nodes backward from the loss, asks each row on the way for the gradients of its inputs, and sums what
 * arrives at one value. Only values that lie between `wrt` and the loss take part, so nothing is computed that nobody
 * asked for. needs: inferred shapes, topological order. keeps: forward nodes (a row may add outputs to its node: saved
 * statistics). breaks: nothing. Rows without a gradient but with an expansion are expanded first. */
#include <string.h>

#include "passes/passes.h"

typedef struct Sum { /* what has arrived at one value */
    Value **parts;
    size_t count, capacity;
} Sum;

typedef struct Reverse {
    Graph *graph;
    Arena arena;
    Map sums;   /* value name -> Sum */
    Map active; /* value name: depends on some wrt */
    Error *err;
} Reverse;

static bool carries_gradient(const Value *value)
{
    return value != NULL && value->type.kind == TYPE_TENSOR && dtype_is_float(value->type.dtype);
}

/* A body (If, Loop, Scan) reads the values around it without listing them as inputs. */
static bool body_reads_active(const Reverse *r, const Graph *body)
{
    for (size_t i = 0; i < body->output_count; i++)
        if (body->outputs[i]->graph == r->graph && map_has(&r->active, body->outputs[i]->name))
            return true;
    for (const Node *node = body->first; node != NULL; node = node->next) {
        for (int i = 0; i < node->input_count; i++) {
            const Value *value = node->inputs[i];
            if (value != NULL && value->graph == r->graph && map_has(&r->active, value->name))
                return true;
        }
        for (size_t i = 0; i < node->attr_count; i++)
            if (node->attrs[i]->g != NULL && body_reads_active(r, node->attrs[i]->g))
                return true;
    }
    return false;
}

static bool captures_active(const Reverse *r, const Node *node)
{
    for (size_t i = 0; i < node->attr_count; i++)
        if (node->attrs[i]->g != NULL && body_reads_active(r, node->attrs[i]->g))
            return true;
    return false;
}

/* Forward: what depends on wrt by more than a shape (RandomNormalLike, EyeLike). */
static void mark_active(Reverse *r, Value *const *wrt, size_t count)
{
    map_release(&r->active);
    for (size_t i = 0; i < count; i++)
        map_set(&r->active, wrt[i]->name, wrt[i]);
    for (Node *node = r->graph->first; node != NULL; node = node->next) {
        bool depends = captures_active(r, node), shape_only = node->op && (node->op->traits & OP_SHAPE_ONLY) != 0;
        for (int i = 0; i < node->input_count && !shape_only; i++)
            depends |= node->inputs[i] != NULL && map_has(&r->active, node->inputs[i]->name);
        for (int i = 0; i < node->output_count && depends; i++)
            if (carries_gradient(node->outputs[i]))
                map_set(&r->active, node->outputs[i]->name, node->outputs[i]);
    }
}

/* Backward: nodes whose results reach the loss. */
static void mark_reaching(Graph *graph, const Value *loss)
{
    for (Node *node = graph->first; node != NULL; node = node->next)
        node->mark = 0;
    if (loss->producer != NULL)
        loss->producer->mark = 1;
    for (Node *node = graph->last; node != NULL; node = node->previous)
        for (int i = 0; i < node->input_count && node->mark; i++)
            if (node->inputs[i] != NULL && node->inputs[i]->producer != NULL)
                node->inputs[i]->producer->mark = 1;
}

static bool is_on_path(const Reverse *r, const Node *node)
{
    bool from = false;
    for (int i = 0; i < node->output_count && node->mark; i++)
        from |= node->outputs[i] != NULL && map_has(&r->active, node->outputs[i]->name);
    return from;
}

/* Composites on the path become operators that have gradients. An expansion may contain composites again. */
static Status expand_composites(Reverse *r, const Value *loss, Value *const *wrt, size_t count)
{
    for (int rounds = 0; rounds < 8; rounds++) {
        bool changed = false;
        mark_active(r, wrt, count);
        mark_reaching(r->graph, loss);
        for (Node *node = r->graph->first, *next; node != NULL; node = next) {
            next = node->next;
            if (!is_on_path(r, node) || node->op == NULL || node->op->grad != NULL || node->op->expand == NULL)
                continue;
            Node *behind = next;
            TRY(node_expand(node, &next, r->err));
            if (next == behind) /* declined: differentiate() says why there is no gradient */
                continue;
            changed = true;
        }
        if (!changed)
            return STATUS_OK;
    }
    return STATUS_OK;
}

static void arrive(Reverse *r, const Value *at, Value *gradient)
{
    Sum *sum = map_get(&r->sums, at->name);
    if (sum == NULL) {
        sum = arena_new(&r->arena, Sum);
        map_set(&r->sums, at->name, sum);
    }
    sum->parts = arena_grow(&r->arena, sum->parts, sum->count, &sum->capacity, sizeof sum->parts[0]);
    sum->parts[sum->count++] = gradient;
}

/* The whole gradient of `at`, NULL when nothing arrived. Called when every consumer has been passed. */
static Status total(Reverse *r, const Value *at, Value **out)
{
    Sum *sum = map_get(&r->sums, at->name);
    *out = NULL;
    if (sum == NULL || sum->count == 0)
        return STATUS_OK;
    Builder b = builder_at(r->graph, NULL, arena_printf(&r->arena, "grad/%s", at->name), r->err);
    Value *all = sum->parts[0];
    for (size_t i = 1; i < sum->count; i++)
        all = build2(&b, "Add", all, sum->parts[i]);
    sum->parts[0] = all;
    sum->count = 1;
    *out = all;
    return b.status;
}

static Status no_gradient(const Node *node, Error *err)
{
    const char *why = node->op == NULL ? "the operator is unknown" : node->op->no_gradient;
    int opset = node->document_node != NULL ? node->document_node->opset : node->opset; /* the file's own */
    return fail(err, STATUS_UNSUPPORTED, "%s: no gradient of %s at opset %d%s%s; freeze what lies before it",
                node_text(node), node->op_type, opset, why == NULL ? "" : ": ", why == NULL ? "" : why);
}

static Status check_gradient(const Node *node, int index, const Value *dx, Error *err)
{
    const Type *want = &node->inputs[index]->type, *have = &dx->type;
    bool same = want->rank == have->rank && want->dtype == have->dtype;
    for (int i = 0; i < want->rank && same; i++)
        same = want->dims[i] == have->dims[i];
    if (same)
        return STATUS_OK;
    Arena scratch;
    arena_init(&scratch);
    fail(err, STATUS_UNSUPPORTED, "%s: the gradient rule of %s gives %s for input %d, %s expected", node_text(node),
         node->op_type, type_text(&scratch, have), index, type_text(&scratch, want));
    arena_release(&scratch);
    return STATUS_UNSUPPORTED;
}

static Status differentiate(Reverse *r, Node *node)
{
    int inputs = node->input_count, outputs = node->output_count;
    Value **dy = arena_array(&r->arena, Value *, (size_t)outputs + 1);
    Value **dx = arena_array(&r->arena, Value *, (size_t)inputs + 1);
    bool *wants = arena_array(&r->arena, bool, (size_t)inputs + 1);
    bool arrived = false, wanted = captures_active(r, node);
    for (int i = 0; i < outputs; i++) {
        if (node->outputs[i] != NULL)
            TRY(total(r, node->outputs[i], &dy[i]));
        arrived |= dy[i] != NULL;
    }
    for (int i = 0; i < inputs; i++) {
        wants[i] = carries_gradient(node->inputs[i]) && map_has(&r->active, node->inputs[i]->name);
        wanted |= wants[i];
    }
    if (!arrived || !wanted)
        return STATUS_OK;
    if (node->op == NULL || node->op->grad == NULL)
        return no_gradient(node, r->err);
    GradContext context = {.node = node, .dy = dy, .dx = dx, .wants = wants};
    context.b = builder_at(r->graph, NULL,
                           arena_printf(&r->arena, "grad/%s", node->name[0] ? node->name : node->op_type), r->err);
    Status status = node->op->grad(&context, r->err);
    if (status == STATUS_OK)
        status = context.b.status;
    if (status != STATUS_OK) {
        error_prefix(r->err, "gradient of %s", node_text(node));
        return status;
    }
    for (int i = 0; i < inputs; i++) {
        if (!wants[i] || dx[i] == NULL)
            continue;
        TRY(check_gradient(node, i, dx[i], r->err));
        arrive(r, node->inputs[i], dx[i]);
    }
    return STATUS_OK;
}

static Status run(Reverse *r, Value *loss, Value *const *wrt, size_t count)
{
    TRY(expand_composites(r, loss, wrt, count));
    Node *last = r->graph->last; /* what is appended from here on is gradient */
    Builder b = builder_at(r->graph, NULL, "grad/loss", r->err);
    Tensor *one = tensor_new_scalar(&r->graph->model->arena, NULL, loss->type.dtype, 1);
    if (loss->type.rank == 1) {
        one->rank = 1;
        one->dims = arena_array(&r->graph->model->arena, int64_t, 1);
        one->dims[0] = 1;
    }
    arrive(r, loss, build_constant(&b, one));
    TRY(b.status);
    for (Node *node = last; node != NULL; node = node->previous)
        if (is_on_path(r, node))
            TRY(differentiate(r, node));
    for (size_t i = 0; i < count; i++)
        TRY(total(r, wrt[i], &wrt[i]->gradient));
    return STATUS_OK;
}

Status pass_autodiff(Graph *graph, Value *loss, Value *const *wrt, size_t count, Error *err)
{
    if (!type_known(&loss->type) || type_count(&loss->type) != 1)
        return fail(err, STATUS_UNSUPPORTED, "the loss '%s' is not one number", loss->name);
    Reverse r = {.graph = graph, .err = err};
    arena_init(&r.arena);
    map_init(&r.sums);
    map_init(&r.active);
    Status status = run(&r, loss, wrt, count);
    map_release(&r.sums);
    map_release(&r.active);
    arena_release(&r.arena);
    return status;
}
