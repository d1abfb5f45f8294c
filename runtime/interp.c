/* The interpreter: runs any graph, node by node, through the rows' `eval`. It is the reference that kernels, gradients
 * and exports are compared with, and what runs graphs whose shapes depend on data. Slow on purpose: names are looked up
 * in maps.
 *
 * Each node's results and scratch live in an arena of their own (Owner) that ends after the last node that reads them,
 * so a large net needs the memory of its live values only. A result that shares bytes with an input pins that input's
 * owner to the end of the run. Bodies (If, Loop, Scan) run in a Scope inside that of their node and see its values. */
#include "runtime/runtime.h"

typedef struct Owner {
    Arena arena;
    int live;    /* values still to be read */
    bool pinned; /* somebody else points into it */
    struct Owner *next;
} Owner;

/* A value while it lives. */
typedef struct Cell {
    const Array *array;
    Owner *owner;             /* NULL: the caller's, or a constant */
    struct Cell *dies_beside; /* list of cells whose last reader is the same node */
} Cell;

typedef struct Scope {
    const Graph *graph;
    struct Scope *outer;
    Map cells;    /* name -> Cell */
    Cell **dying; /* by Node.index */
    Owner *owners;
    Arena arena; /* cells, and constants that could not be borrowed */
    uint64_t seed;
} Scope;

/* ---- owners ------------------------------------------------------------------------------------------ */

static Owner *owner_new(Scope *scope)
{
    Owner *owner = calloc(1, sizeof *owner);
    if (owner == NULL)
        abort();
    arena_init(&owner->arena);
    owner->next = scope->owners;
    scope->owners = owner;
    return owner;
}

static void owner_drop(Owner *owner)
{
    if (owner != NULL && --owner->live <= 0 && !owner->pinned)
        arena_release(&owner->arena);
}

static void scope_release(Scope *scope)
{
    for (Owner *owner = scope->owners; owner != NULL;) {
        Owner *next = owner->next;
        arena_release(&owner->arena);
        free(owner);
        owner = next;
    }
    map_release(&scope->cells);
    arena_release(&scope->arena);
}

/* ---- values ------------------------------------------------------------------------------------------ */

static Cell *cell_new(Scope *scope, const Value *value, const Array *array, Owner *owner)
{
    Cell *cell = arena_new(&scope->arena, Cell);
    cell->array = array;
    cell->owner = owner;
    map_set(&scope->cells, value->name, cell);
    return cell;
}

/* The cell of a value that `reader` needs, in its scope or one around it; constants are made on first use. */
static Status scope_read(Scope *scope, const Value *value, const Node *reader, Cell **cell, Error *err)
{
    while (scope != NULL && scope->graph != value->graph)
        scope = scope->outer;
    *cell = scope == NULL ? NULL : map_get(&scope->cells, value->name);
    if (*cell != NULL)
        return STATUS_OK;
    const char *who = reader == NULL ? "the graph's output" : node_text(reader);
    if (scope == NULL || value->constant == NULL)
        return fail(err, STATUS_REJECTED, "%s: nothing computes '%s'", who, value->name);
    Array *array;
    Status status = array_from_tensor(&scope->arena, value->constant, &array, err);
    if (status != STATUS_OK) {
        error_prefix(err, "%s", value->name);
        return status;
    }
    *cell = cell_new(scope, value, array, NULL);
    return STATUS_OK;
}

static size_t array_bytes(const Array *array)
{
    return (size_t)array->count * dtype_size(array->dtype);
}

static bool shares_bytes(const Array *a, const Array *b)
{
    uintptr_t x = (uintptr_t)a->data, y = (uintptr_t)b->data;
    return a->data != NULL && b->data != NULL && x < y + array_bytes(b) && y < x + array_bytes(a);
}

/* Whether results may point into inputs' memory: sequences hold their items by pointer, strings point at text. */
static bool may_share(const Array *out, const Array *in)
{
    if (out->kind != ARRAY_TENSOR || in->kind != ARRAY_TENSOR)
        return true;
    return out == in || (out->dtype == DTYPE_STRING && in->dtype == DTYPE_STRING) || shares_bytes(out, in);
}

/* A copy that points nowhere else. */
static Status array_copy_deep(Arena *arena, const Array *from, Array **to, Error *err)
{
    if (from->kind == ARRAY_TENSOR) {
        TRY(array_new(arena, from->dtype, from->rank, from->dims, to, err));
        Bytes *strings = (*to)->data;
        if (array_bytes(from) > 0)
            memcpy((*to)->data, from->data, array_bytes(from));
        for (int64_t i = 0; from->dtype == DTYPE_STRING && i < from->count; i++)
            strings[i].data = arena_strndup(arena, strings[i].data, strings[i].length);
        return STATUS_OK;
    }
    *to = arena_copy(arena, from, sizeof *from);
    (*to)->items = arena_array(arena, Array *, from->item_count + 1);
    for (size_t i = 0; i < from->item_count; i++)
        TRY(array_copy_deep(arena, from->items[i], &(*to)->items[i], err));
    return STATUS_OK;
}

/* ---- nodes ------------------------------------------------------------------------------------------- */

/* Position, in the value's own graph, of the last node that reads it, itself or in a body; -1: nobody does. */
static int last_reader(const Value *value)
{
    int last = -1;
    for (size_t i = 0; i < value->use_count; i++) {
        const Node *node = value->uses[i].node;
        while (node != NULL && node->graph != value->graph)
            node = node->graph->parent_node;
        if (node != NULL && node->index > last)
            last = node->index;
    }
    return last;
}

/* Files a node's results and says when each dies. */
static Status keep_outputs(Scope *scope, const Node *node, const EvalContext *context, Owner *owner, Error *err)
{
    owner->live = 1; /* this function's own hold */
    for (int i = 0; i < node->output_count; i++) {
        const Value *value = node->outputs[i];
        if (value == NULL)
            continue;
        if (context->out[i] == NULL)
            return fail(err, STATUS_UNSUPPORTED, "%s: output %d was not computed", node_text(node), i);
        Cell *cell = cell_new(scope, value, context->out[i], owner);
        owner->live++;
        int last = last_reader(value);
        if (value->is_output || last < 0) /* outputs live to the end; what nobody reads dies with its node */
            last = value->is_output ? -1 : node->index;
        if (last >= 0) {
            cell->dies_beside = scope->dying[last];
            scope->dying[last] = cell;
        }
    }
    owner_drop(owner);
    return STATUS_OK;
}

static void pin_shared(const EvalContext *context, Cell *const *cells, Owner *owner)
{
    for (int o = 0; o < context->out_count; o++) {
        const Array *out = context->out[o];
        if (out == NULL)
            continue;
        if (out->kind != ARRAY_TENSOR)
            owner->pinned = true;
        for (int i = 0; i < context->in_count; i++)
            if (cells[i] != NULL && cells[i]->owner != NULL && may_share(out, cells[i]->array))
                cells[i]->owner->pinned = true;
    }
}

static Status run_body(EvalContext *context, const Graph *graph, const Array **in, int in_count, Array **out,
                       int out_count, Error *err);

static Status run_node(Scope *scope, const Node *node, Error *err)
{
    Owner *owner = owner_new(scope);
    Arena *arena = &owner->arena;
    size_t in_count = (size_t)node->input_count, out_count = (size_t)node->output_count;
    Cell **cells = arena_array(arena, Cell *, in_count + 1);
    const Array **in = arena_array(arena, const Array *, in_count + 1);
    for (int i = 0; i < node->input_count; i++) {
        if (node->inputs[i] == NULL)
            continue;
        TRY(scope_read(scope, node->inputs[i], node, &cells[i], err));
        in[i] = cells[i]->array;
    }
    EvalContext context = {.node = node,
                           .in = in,
                           .in_count = node->input_count,
                           .out = arena_array(arena, Array *, out_count + 1),
                           .out_count = node->output_count,
                           .arena = arena,
                           .seed = scope->seed,
                           .run_graph = run_body,
                           .runner = scope};
    TRY(node_eval(&context, err));
    pin_shared(&context, cells, owner);
    TRY(keep_outputs(scope, node, &context, owner, err));
    for (Cell *cell = scope->dying[node->index]; cell != NULL; cell = cell->dies_beside)
        owner_drop(cell->owner);
    return STATUS_OK;
}

static bool is_folded(const Node *node)
{
    bool folded = node->output_count > 0;
    for (int i = 0; i < node->output_count; i++)
        folded = folded && (node->outputs[i] == NULL || value_is_constant(node->outputs[i]));
    return folded;
}

/* ---- graphs ------------------------------------------------------------------------------------------ */

static Status run_scope(Scope *scope, const Array *const *inputs, Array **outputs, Arena *arena, Error *err)
{
    const Graph *graph = scope->graph;
    graph_number((Graph *)(uintptr_t)graph); /* positions only */
    scope->dying = arena_array(&scope->arena, Cell *, graph->node_count + 1);
    for (size_t i = 0; i < graph->input_count; i++)
        if (inputs[i] != NULL)
            cell_new(scope, graph->inputs[i], inputs[i], NULL);
    for (const Node *node = graph->first; node != NULL; node = node->next)
        if (!is_folded(node))
            TRY(run_node(scope, node, err));
    for (size_t i = 0; i < graph->output_count; i++) {
        Cell *cell;
        TRY(scope_read(scope, graph->outputs[i], NULL, &cell, err));
        TRY(array_copy_deep(arena, cell->array, &outputs[i], err));
    }
    return STATUS_OK;
}

static Status run_graph_in(const Graph *graph, Scope *outer, const Array *const *inputs, Array **outputs, Arena *arena,
                           uint64_t seed, Error *err)
{
    Scope scope = {.graph = graph, .outer = outer, .seed = seed};
    map_init(&scope.cells);
    arena_init(&scope.arena);
    Status status = run_scope(&scope, inputs, outputs, arena, err);
    scope_release(&scope);
    return status;
}

static Status run_body(EvalContext *context, const Graph *graph, const Array **in, int in_count, Array **out,
                       int out_count, Error *err)
{
    if ((size_t)in_count != graph->input_count || (size_t)out_count != graph->output_count)
        return eval_fail(context, err, "its body '%s' takes %zu and gives %zu values, not %d and %d", graph->name,
                         graph->input_count, graph->output_count, in_count, out_count);
    Scope *outer = context->runner;
    return run_graph_in(graph, outer, in, out, context->arena, outer->seed, err);
}

Status interp_run(const Graph *graph, const Array *const *inputs, Array **outputs, Arena *arena, uint64_t seed,
                  Error *err)
{
    return run_graph_in(graph, NULL, inputs, outputs, arena, seed, err);
}
