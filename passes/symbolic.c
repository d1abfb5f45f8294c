/* Shapes with symbols, for people and for the types of new outputs.
 *
 * Inference works with numbers, so it is run several times on copies of the document: once with every unknown dim at
 * some base value, then once for each unknown with that one changed. A dim that grows with one unknown alone gets the
 * line through its two values (12*batch, seq+1); one that grows with several gets their product when that fits; any
 * other stays unnamed. does: fills in types that the document leaves open. keeps: what the file says. needs: nothing.
 */
#include "passes/passes.h"
#include "passes/surgery.h"

#include <inttypes.h>

enum { UNKNOWNS_MAX = 8, LARGE = 4096 };

typedef struct Unknown {
    const char *symbol; /* NULL: unnamed */
    int64_t base, other;
} Unknown;

typedef struct Fit {
    Model *document;
    Arena *arena;
    Unknown unknowns[UNKNOWNS_MAX];
    size_t count;
    Model *samples[UNKNOWNS_MAX + 1]; /* base, then one for each unknown; NULL: inference failed there */
} Fit;

/* ---- unknowns ------------------------------------------------------------------------------------------ */

static bool is_batch(const char *symbol, int axis)
{
    return axis == 0 || (symbol != NULL && (strcmp(symbol, "batch") == 0 || strcmp(symbol, "N") == 0));
}

/* Values at which nets of the usual kind work: pictures divisible by 32, sequences not longer than small position
 * tables. */
static void add_unknown(Fit *fit, const char *symbol, int rank, int axis)
{
    for (size_t i = 0; i < fit->count; i++) {
        const char *known = fit->unknowns[i].symbol;
        if (symbol == NULL ? known == NULL : known != NULL && strcmp(known, symbol) == 0)
            return;
    }
    if (fit->count == UNKNOWNS_MAX)
        return;
    Unknown *unknown = &fit->unknowns[fit->count++];
    unknown->symbol = symbol;
    bool batch = is_batch(symbol, axis), space = rank >= 4 && axis > 1;
    unknown->base = batch ? 3 : space ? 224 : rank >= 4 ? 3 : 12;
    unknown->other = batch ? 5 : space ? 288 : rank >= 4 ? 4 : 17;
}

static void find_unknowns(Fit *fit)
{
    const Graph *graph = fit->document->graph;
    for (size_t i = 0; i < graph->input_count; i++) {
        const Type *type = &graph->inputs[i]->type;
        for (int axis = 0; value_is_fed_input(graph->inputs[i]) && type->kind == TYPE_TENSOR && axis < type->rank;
             axis++)
            if (type->dims[axis] < 0)
                add_unknown(fit, type->symbols[axis], type->rank, axis);
    }
}

static int64_t value_of(const Fit *fit, const char *symbol, size_t changed)
{
    for (size_t i = 0; i < fit->count; i++) {
        const char *known = fit->unknowns[i].symbol;
        if (symbol == NULL ? known == NULL : known != NULL && strcmp(known, symbol) == 0)
            return i + 1 == changed ? fit->unknowns[i].other : fit->unknowns[i].base;
    }
    return 1;
}

/* ---- samples ------------------------------------------------------------------------------------------- */

static size_t bind(const Fit *fit, size_t changed, Binding *bindings)
{
    const Graph *graph = fit->document->graph;
    size_t count = 0;
    for (size_t i = 0; i < graph->input_count; i++) {
        const Value *input = graph->inputs[i];
        if (!value_is_fed_input(input) || input->type.kind != TYPE_TENSOR || input->type.rank < 0)
            continue;
        Binding *binding = &bindings[count++];
        *binding = (Binding){.input = input->name, .rank = input->type.rank};
        for (int axis = 0; axis < input->type.rank; axis++) {
            int64_t dim = input->type.dims[axis];
            binding->dims[axis] = dim >= 0 ? dim : value_of(fit, input->type.symbols[axis], changed);
        }
    }
    return count;
}

/* Large constants are weights: computing with them would cost time and tell nothing about shapes. */
static void keep_from_folding(Graph *graph)
{
    for (size_t i = 0; i < graph->initializer_count; i++)
        if (graph->initializers[i]->constant != NULL && tensor_count(graph->initializers[i]->constant) > LARGE)
            graph->initializers[i]->role = ROLE_PARAMETER;
}

/* The copy with the inputs bound and inferred as far as it goes. */
static Status sample(const Fit *fit, size_t changed, Model **copy, Error *err)
{
    Binding *bindings = arena_array(fit->arena, Binding, fit->document->graph->input_count + 1);
    TRY(working_copy(fit->document, copy, err));
    keep_from_folding((*copy)->graph);
    return pass_infer((*copy)->graph, bindings, bind(fit, changed, bindings), err);
}

/* Where inference stopped: the first node with known inputs and an output that is not. */
static const Node *first_unknown(const Model *copy)
{
    for (const Node *node = copy->graph->first; node != NULL; node = node->next) {
        bool known = true;
        for (int i = 0; i < node->input_count; i++)
            known =
                known && (node->inputs[i] == NULL || node->inputs[i]->constant || type_known(&node->inputs[i]->type));
        for (int i = 0; i < node->output_count && known; i++)
            if (node->outputs[i] != NULL && !type_known(&node->outputs[i]->type))
                return node->document_node;
    }
    return NULL;
}

static void set_batch(Fit *fit, int64_t value)
{
    for (size_t i = 0; i < fit->count; i++)
        if (fit->unknowns[i].base == 3 && fit->unknowns[i].other == 5)
            fit->unknowns[i].base = value;
}

/* The base sample; with a batch of 1 where no other fits, and then *baked is the node that says so. */
static Status take_base(Fit *fit, const Node **baked, Error *err)
{
    Error first = {STATUS_OK, ""};
    if (sample(fit, 0, &fit->samples[0], &first) == STATUS_OK)
        return STATUS_OK;
    const Node *stopped = fit->samples[0] != NULL ? first_unknown(fit->samples[0]) : NULL;
    model_free(fit->samples[0]);
    fit->samples[0] = NULL;
    set_batch(fit, 1);
    if (sample(fit, 0, &fit->samples[0], NULL) != STATUS_OK)
        return fail(err, first.status, "%s", first.message);
    if (baked != NULL)
        *baked = stopped;
    return STATUS_OK;
}

/* ---- fitting ------------------------------------------------------------------------------------------- */

static const char *line_text(Arena *arena, const char *symbol, int64_t slope, int64_t rest)
{
    const char *times = slope == 1 ? symbol : arena_printf(arena, "%" PRId64 "*%s", slope, symbol);
    return rest == 0 ? times : arena_printf(arena, "%s%+" PRId64, times, rest);
}

/* The dim as a line in unknown `i`: value and value at the other setting; NULL when there is none with whole numbers.
 */
static const char *fit_line(const Fit *fit, size_t i, int64_t base, int64_t other)
{
    const Unknown *unknown = &fit->unknowns[i];
    int64_t run = unknown->other - unknown->base, rise = other - base;
    if (unknown->symbol == NULL)
        return NULL;
    if (rise % run == 0)
        return line_text(fit->arena, unknown->symbol, rise / run, base - rise / run * unknown->base);
    bool part = base > 0 && unknown->base % base == 0 && unknown->other == other * (unknown->base / base);
    return part ? arena_printf(fit->arena, "%s/%" PRId64, unknown->symbol, unknown->base / base) : NULL;
}

static const char *fit_product(const Fit *fit, const bool *moves, int64_t base, const int64_t *others)
{
    int64_t factor = base;
    const char *text = NULL;
    for (size_t i = 0; i < fit->count; i++) {
        const Unknown *unknown = &fit->unknowns[i];
        if (!moves[i])
            continue;
        if (unknown->symbol == NULL || factor % unknown->base != 0 ||
            others[i] * unknown->base != base * unknown->other)
            return NULL;
        factor /= unknown->base;
        text = text == NULL ? unknown->symbol : arena_printf(fit->arena, "%s*%s", text, unknown->symbol);
    }
    return factor == 1 ? text : arena_printf(fit->arena, "%" PRId64 "*%s", factor, text);
}

static void fit_dim(const Fit *fit, const Value *const *values, int axis, Type *type)
{
    int64_t base = values[0]->type.dims[axis], others[UNKNOWNS_MAX] = {0};
    bool moves[UNKNOWNS_MAX] = {false};
    size_t moving = 0, last = 0;
    for (size_t i = 0; i < fit->count; i++) {
        const Value *value = values[i + 1];
        bool comparable = value != NULL && type_known(&value->type) && value->type.rank == values[0]->type.rank;
        others[i] = comparable ? value->type.dims[axis] : base;
        moves[i] = others[i] != base;
        moving += moves[i];
        last = moves[i] ? i : last;
    }
    type->dims[axis] = moving == 0 ? base : -1;
    type->symbols[axis] = moving == 0   ? NULL
                          : moving == 1 ? fit_line(fit, last, base, others[last])
                                        : fit_product(fit, moves, base, others);
}

/* What the file says stays; what it leaves open is filled in. */
static void fill_type(Type *type, const Type *found)
{
    bool open = type->kind == TYPE_UNKNOWN || (type->kind == TYPE_TENSOR && type->rank < 0);
    if (open || (type->kind == TYPE_TENSOR && type->dtype == DTYPE_UNDEFINED)) {
        *type = *found;
        return;
    }
    for (int axis = 0; type->kind == TYPE_TENSOR && type->rank == found->rank && axis < type->rank; axis++) {
        if (type->dims[axis] >= 0 || type->symbols[axis] != NULL)
            continue;
        type->dims[axis] = found->dims[axis];
        type->symbols[axis] = found->symbols[axis];
    }
}

static void fit_value(const Fit *fit, Value *value)
{
    const Value *values[UNKNOWNS_MAX + 1];
    for (size_t i = 0; i <= fit->count; i++)
        values[i] = fit->samples[i] != NULL ? graph_find(fit->samples[i]->graph, value->name) : NULL;
    if (values[0] == NULL || !type_known(&values[0]->type))
        return;
    Type found = values[0]->type;
    for (int axis = 0; axis < found.rank; axis++)
        fit_dim(fit, values, axis, &found);
    fill_type(&value->type, &found);
}

size_t shapes_example(Model *document, int64_t batch, Binding *bindings)
{
    Fit fit = {.document = document, .arena = &document->arena};
    find_unknowns(&fit);
    set_batch(&fit, batch);
    return bind(&fit, 0, bindings);
}

Status shapes_symbolic(Model *document, const Node **baked, Error *err)
{
    Fit fit = {.document = document, .arena = &document->arena};
    if (baked != NULL)
        *baked = NULL;
    find_unknowns(&fit);
    Status status = take_base(&fit, baked, err);
    for (size_t i = 1; i <= fit.count && status == STATUS_OK; i++) {
        Error ignored = {STATUS_OK, ""};
        if (sample(&fit, i, &fit.samples[i], &ignored) != STATUS_OK) {
            model_free(fit.samples[i]);
            fit.samples[i] = NULL;
        }
    }
    const Graph *graph = document->graph;
    for (const Node *node = graph->first; node != NULL && status == STATUS_OK; node = node->next)
        for (int i = 0; i < node->output_count; i++)
            if (node->outputs[i] != NULL)
                fit_value(&fit, node->outputs[i]);
    for (size_t i = 0; i <= fit.count; i++)
        model_free(fit.samples[i]);
    return status;
}
