/* Gradient nodes (ai.onnx.preview.training) become the nodes that compute them.
 * does: a Gradient names values of its own graph: y as a function of xs and zs, to be differentiated by xs at the
 * values that are its inputs. Where these are the named values themselves the forward nodes are used as they are, else
 * what lies between is written a second time. y of several elements means their sum. needs: inferred shapes, dead code
 * still there (nothing else may read y). keeps: names of graph outputs. breaks: nothing; a Gradient in a body stays and
 * is refused when it runs. A gradient of a gradient is taken in turn, as far as the rows of the first one have
 * gradients. */
#include <string.h>

#include "passes/passes.h"

typedef struct Request {
    Node *node;
    Graph *graph;
    Arena *arena;
    Value **symbols; /* xs, then zs */
    size_t x_count, count;
    Value *y;
    Map active; /* name -> value: computed from a symbol */
    Error *err;
} Request;

static bool is_gradient(const Node *node)
{
    return strcmp(node->op_type, "Gradient") == 0 && strcmp(node->domain, "ai.onnx.preview.training") == 0 &&
           node->op != NULL;
}

/* ---- what is asked for ------------------------------------------------------------------------------------------ */

static Status find_symbol(Request *r, const char *what, const char *name, Value **value)
{
    *value = graph_find(r->graph, name);
    if (*value != NULL && (*value)->producer != r->node)
        return STATUS_OK;
    return fail(r->err, STATUS_REJECTED, "%s: attribute %s names '%s', which its graph does not hold",
                node_text(r->node), what, name);
}

static Status read_names(Request *r, const char *what, size_t *count)
{
    const Attr *attr = node_attr(r->node, what);
    size_t n = attr == NULL || attr->type != ATTR_STRINGS ? 0 : attr->count;
    for (size_t i = 0; i < n; i++) {
        if (r->count >= (size_t)r->node->input_count)
            return fail(r->err, STATUS_REJECTED, "%s: names more values than its %d inputs", node_text(r->node),
                        r->node->input_count);
        TRY(find_symbol(r, what, attr->strings[i].data, &r->symbols[r->count++]));
    }
    *count = n;
    return STATUS_OK;
}

static Status read_request(Request *r)
{
    size_t zs;
    const Node *node = r->node;
    r->arena = &r->graph->model->arena;
    r->symbols = arena_array(r->arena, Value *, (size_t)node->input_count + 1);
    TRY(read_names(r, "xs", &r->x_count));
    TRY(read_names(r, "zs", &zs));
    TRY(find_symbol(r, "y", node_string(node, "y", ""), &r->y));
    if (r->count != (size_t)node->input_count || (size_t)node->output_count > r->x_count)
        return fail(r->err, STATUS_REJECTED, "%s: %zu names and %d inputs, %zu xs and %d outputs", node_text(node),
                    r->count, node->input_count, r->x_count, node->output_count);
    for (size_t i = 0; i < r->count; i++) {
        const Value *input = node->inputs[i];
        if (input == NULL)
            return fail(r->err, STATUS_REJECTED, "%s: input %zu is missing", node_text(node), i);
        const Type *named = &r->symbols[i]->type;
        bool same = input->type.rank == named->rank && input->type.dtype == named->dtype &&
                    memcmp(input->type.dims, named->dims, (size_t)named->rank * sizeof named->dims[0]) == 0;
        if (!same)
            return fail(r->err, STATUS_REJECTED, "%s: input %zu is %s, '%s' is %s", node_text(node), i,
                        type_text(r->arena, &input->type), r->symbols[i]->name, type_text(r->arena, named));
    }
    return STATUS_OK;
}

/* Everything it names has a shape: what other Gradients must compute first has none yet. */
static bool is_ready(const Node *node)
{
    static const char *const lists[] = {"xs", "zs"};
    const Value *y = graph_find(node->graph, node_string(node, "y", ""));
    bool ready = y == NULL || type_known(&y->type);
    for (int i = 0; i < node->input_count; i++)
        ready = ready && (node->inputs[i] == NULL || type_known(&node->inputs[i]->type));
    for (int l = 0; l < 2; l++) {
        const Attr *attr = node_attr(node, lists[l]);
        for (size_t i = 0; attr != NULL && attr->type == ATTR_STRINGS && i < attr->count; i++) {
            const Value *value = graph_find(node->graph, attr->strings[i].data);
            ready = ready && (value == NULL || type_known(&value->type));
        }
    }
    return ready;
}

/* ---- the function y(xs, zs) -------------------------------------------------------------------------------------- */

static bool is_symbol(const Request *r, const Value *value)
{
    for (size_t i = 0; i < r->count; i++)
        if (r->symbols[i] == value)
            return true;
    return false;
}

/* Follows the symbols forward; false when one of them depends on another. */
static bool mark_active(Request *r)
{
    bool independent = true;
    for (size_t i = 0; i < r->count; i++)
        map_set(&r->active, r->symbols[i]->name, r->symbols[i]);
    for (Node *node = r->graph->first; node != NULL; node = node->next) {
        bool depends = false;
        for (int i = 0; i < node->input_count; i++)
            depends |= node->inputs[i] != NULL && map_has(&r->active, node->inputs[i]->name);
        for (int i = 0; i < node->output_count && depends; i++) {
            if (node->outputs[i] == NULL)
                continue;
            independent = independent && !is_symbol(r, node->outputs[i]);
            if (!is_symbol(r, node->outputs[i]))
                map_set(&r->active, node->outputs[i]->name, node->outputs[i]);
        }
    }
    return independent;
}

/* Node.mark: between the symbols and y. */
static void mark_between(const Request *r)
{
    for (Node *node = r->graph->first; node != NULL; node = node->next)
        node->mark = 0;
    if (r->y->producer != NULL && !is_symbol(r, r->y))
        r->y->producer->mark = 1;
    for (Node *node = r->graph->last; node != NULL; node = node->previous)
        for (int i = 0; i < node->input_count && node->mark == 1; i++) {
            Value *input = node->inputs[i];
            if (input != NULL && input->producer != NULL && map_has(&r->active, input->name) && !is_symbol(r, input))
                input->producer->mark = 1;
        }
}

static Status copy_between(Request *r, Node *from, Map *copies)
{
    Value **inputs = arena_array(r->arena, Value *, (size_t)from->input_count + 1);
    for (size_t i = 0; i < from->attr_count; i++)
        if (from->attrs[i]->g != NULL)
            return fail(r->err, STATUS_UNSUPPORTED, "%s: %s has a body and lies on the way to '%s'", node_text(r->node),
                        node_text(from), r->y->name);
    for (int i = 0; i < from->input_count; i++) {
        Value *copy = from->inputs[i] == NULL ? NULL : map_get(copies, from->inputs[i]->name);
        inputs[i] = copy != NULL ? copy : from->inputs[i];
    }
    Node *node = graph_add_node(r->graph, NULL, from->domain, from->op_type, from->opset, from->name, inputs,
                                from->input_count, from->output_count);
    node_copy_attrs(node, from);
    node->document_node = from->document_node;
    for (int i = 0; i < from->output_count; i++) {
        if (from->outputs[i] == NULL)
            node_set_output(node, i, NULL);
        else
            map_set(copies, from->outputs[i]->name, node->outputs[i]);
    }
    return node_infer(node, r->err);
}

/* Writes y(inputs) a second time; symbols and y become those of the copy. */
static Status write_again(Request *r, Builder *b)
{
    Map copies;
    Status status = STATUS_OK;
    Node *last = r->graph->last;
    map_init(&copies);
    mark_between(r);
    for (size_t i = 0; i < r->count; i++) { /* a value of its own: the same input may stand for two symbols */
        Value *own = build1(b, "Identity", r->node->inputs[i]);
        map_set(&copies, r->symbols[i]->name, own);
        r->symbols[i] = own;
    }
    status = b->status;
    for (Node *node = r->graph->first; status == STATUS_OK; node = node->next) {
        if (node->mark == 1)
            status = copy_between(r, node, &copies);
        if (node == last)
            break;
    }
    Value *y = map_get(&copies, r->y->name);
    r->y = y != NULL ? y : r->y; /* else it depends on no symbol */
    map_release(&copies);
    return status;
}

/* ---- its gradient ------------------------------------------------------------------------------------------------ */

/* One number that pass_autodiff may start from, with a producer of its own. */
static Value *as_loss(Builder *b, Value *y)
{
    if (type_count(&y->type) == 1 && y->type.rank <= 1)
        return build1(b, "Identity", y);
    Value *inputs[] = {y};
    Node *sum = build_node(b, "", "ReduceSum", inputs, 1, 1);
    if (sum == NULL)
        return NULL;
    node_set_int(sum, "keepdims", 0);
    return build_finish(b, sum);
}

static Value *zeros_like(Builder *b, const Type *type)
{
    return build2(b, "Expand", build_scalar(b, type->dtype, 0), build_ints(b, type->dims, (size_t)type->rank));
}

/* Uses of the Gradient's outputs mean what was computed; a graph output keeps its name. */
static Status give_results(Request *r, Builder *b)
{
    for (int i = 0; i < r->node->output_count; i++) {
        Value *output = r->node->outputs[i], *x = r->symbols[i], *dx = x->gradient;
        x->gradient = NULL;
        if (output == NULL)
            continue;
        dx = dx == NULL ? zeros_like(b, &x->type) : build1(b, "Identity", dx);
        if (b->status != STATUS_OK)
            return b->status;
        const char *name = output->name;
        bool named = output->is_output;
        value_replace_uses(output, dx);
        if (!named)
            continue;
        graph_rename_value(r->graph, output, graph_unique_name(r->graph, name));
        graph_rename_value(r->graph, dx, name);
    }
    return STATUS_OK;
}

static Status write_gradient(Request *r)
{
    TRY(read_request(r));
    Builder b = builder_at(r->graph, NULL, r->node->name[0] != '\0' ? r->node->name : "Gradient", r->err);
    bool independent = mark_active(r), same = true;
    for (size_t i = 0; i < r->count; i++)
        same = same && r->symbols[i] == r->node->inputs[i];
    if (!same || !independent)
        TRY(write_again(r, &b));
    Value *loss = as_loss(&b, r->y);
    TRY(b.status);
    TRY(pass_autodiff(r->graph, loss, r->symbols, r->x_count, r->err));
    for (size_t i = (size_t)r->node->output_count; i < r->x_count; i++)
        r->symbols[i]->gradient = NULL;
    TRY(give_results(r, &b));
    node_remove(r->node);
    TRY(graph_sort(r->graph, r->err));
    return pass_infer_known(r->graph, r->err);
}

Status pass_gradient(Graph *graph, Error *err)
{
    for (Node *node = graph->first; node != NULL;) {
        if (!is_gradient(node) || !is_ready(node)) {
            node = node->next;
            continue;
        }
        Request r = {.node = node, .graph = graph, .err = err};
        map_init(&r.active);
        Status status = write_gradient(&r);
        map_release(&r.active);
        TRY(status);
        node = graph->first; /* what names its results may be ready now */
    }
    return STATUS_OK;
}
