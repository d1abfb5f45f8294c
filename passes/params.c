/* What is a parameter, decided by role: how a float tensor of the file enters the computation, not what it is called
 * (names do not survive exporters). Names only break ties: a constant that an exporter folded (a position table, a
 * mask) is called after the operator that made it, and is listed apart (hazard 39).
 *
 * The analysis reads a working copy (functions inlined, newest forms) and reports in terms of the document. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "passes/params.h"

/* ---- roles of inputs ----------------------------------------------------------------------------------- */

typedef struct UseRule {
    const char *op_type;
    unsigned inputs; /* bit i: input i has this kind; all others are USE_NOT */
    UseKind kind;
} UseRule;

static const UseRule rules[] = {
    {"Conv", 06, USE_WEIGHT},
    {"ConvTranspose", 06, USE_WEIGHT},
    {"DeformConv", 012, USE_WEIGHT},
    {"FusedConv", 06, USE_WEIGHT},
    {"Gemm", 07, USE_WEIGHT},
    {"FusedGemm", 07, USE_WEIGHT},
    {"MatMul", 03, USE_WEIGHT},
    {"FusedMatMul", 03, USE_WEIGHT},
    {"Einsum", 07, USE_WEIGHT},
    {"LSTM", 0216, USE_WEIGHT},
    {"GRU", 016, USE_WEIGHT},
    {"RNN", 016, USE_WEIGHT},
    {"Attention", 06, USE_WEIGHT},
    {"BatchNormalization", 06, USE_NORM},
    {"InstanceNormalization", 06, USE_NORM},
    {"LayerNormalization", 06, USE_NORM},
    {"GroupNormalization", 06, USE_NORM},
    {"RMSNormalization", 02, USE_NORM},
    {"SimplifiedLayerNormalization", 02, USE_NORM},
    {"SkipLayerNormalization", 034, USE_NORM},
    {"EmbedLayerNormalization", 0174, USE_TABLE},
    {"BiasGelu", 02, USE_ARITHMETIC},
    {"PRelu", 02, USE_SLOPE},
    {"Gather", 01, USE_TABLE},
    {"Add", 03, USE_ARITHMETIC},
    {"Mul", 03, USE_ARITHMETIC},
    {"Sub", 03, USE_ARITHMETIC},
    {"Div", 03, USE_ARITHMETIC},
    {"Concat", 0377, USE_DATA},
    {"Expand", 01, USE_DATA},
    {"Tile", 01, USE_DATA},
    {"Where", 06, USE_DATA},
    {"Max", 0377, USE_DATA},
    {"Min", 0377, USE_DATA},
    {"Sum", 0377, USE_ARITHMETIC},
    {"Pow", 02, USE_EXPONENT},
    {"ScatterND", 05, USE_DATA},
    {"ScatterElements", 05, USE_DATA},
    {"GatherND", 01, USE_DATA},
    {"GatherElements", 01, USE_DATA},
    {"Split", 01, USE_DATA},
    {"Slice", 01, USE_DATA},
    {"Identity", 01, USE_PASSES},
    {"Transpose", 01, USE_PASSES},
    {"Reshape", 01, USE_PASSES},
    {"Flatten", 01, USE_PASSES},
    {"Squeeze", 01, USE_PASSES},
    {"Unsqueeze", 01, USE_PASSES},
    {"Cast", 01, USE_PASSES},
};

static UseKind use_kind(const Node *node, int index)
{
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (strcmp(node->op_type, rules[i].op_type) != 0)
            continue;
        if ((rules[i].inputs >> index & 1) != 0)
            return rules[i].kind;
        /* learned positions or queries that are normalised, a learned width that is squared */
        return index == 0 && (rules[i].kind == USE_NORM || rules[i].kind == USE_EXPONENT) ? USE_DATA : USE_NOT;
    }
    if (node->op != NULL && (node->op->traits & OP_SHAPE_ONLY) != 0)
        return USE_NOT;
    return index == 0 ? USE_DATA : USE_NOT;
}

/* ---- names ----------------------------------------------------------------------------------------------- */

/* As people name it in patterns: the module, or the folders of the node's name. */
static const char *scope_of(const Records *records, const Node *node)
{
    bool recorded;
    const char *name = node->name, *module = module_of(records, node, &recorded);
    if (recorded)
        return module;
    while (*name == '/')
        name++;
    const char *slash = strrchr(name, '/');
    return slash == NULL ? "" : arena_strndup(records->arena, name, (size_t)(slash - name));
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static double element(const Tensor *tensor, int64_t i)
{
    return tensor_f64_at(tensor, i);
}

/* A mask adds minus infinity, or nearly so. */
static bool is_mask(const Tensor *tensor)
{
    for (int64_t i = 0; i < tensor_count(tensor); i++) {
        double x = element(tensor, i);
        if (isinf(x) || x < -1e4)
            return true;
    }
    return false;
}

static int wide_dims(const Tensor *tensor)
{
    int wide = 0;
    for (int i = 0; i < tensor->rank; i++)
        wide += tensor->dims[i] != 1;
    return wide;
}

static bool is_trainable_type(DType dtype)
{
    return dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16 || dtype == DTYPE_F64;
}

/* ---- readers ----------------------------------------------------------------------------------------------- */

typedef struct Finder {
    Model *document, *copy;
    Arena *arena; /* the document's: what the list points to lives there */
    Arena scratch;
    Records records;
    ParamList *list;
    Reader *firsts; /* the first reader of each parameter in the list */
    size_t capacity, first_capacity, constant_capacity;
    Error *err;
} Finder;

/* Everything that reads one tensor. */
typedef struct Readers {
    Reader *items;
    size_t count, capacity;
    bool statistic; /* some reader takes it as running statistics */
    const Tensor *tensor;
    const char *name;
    Provenance from;
} Readers;

enum { MARK_BEHIND = 1, MARK_FED = 2 }; /* Value.mark: behind some weight; depends on an input */

/* Arithmetic with constants alone: weight standardisation, a normalised class matrix. */
static bool is_constant_arithmetic(const Node *node, UseKind kind)
{
    const Value *out = node_output(node, 0);
    return (kind == USE_ARITHMETIC || kind == USE_DATA || kind == USE_EXPONENT) && out != NULL &&
           (out->mark & MARK_FED) == 0;
}

static bool after_weight(const Use *use)
{
    const Value *other = node_input(use->node, use->index == 0 ? 1 : 0);
    return other != NULL && (other->mark & MARK_BEHIND) != 0;
}

/* State under a name of its own: TorchScript writes literals into Constant nodes. */
static bool is_torch_state(const Finder *f, const Readers *readers)
{
    const Value *value = graph_find(f->document->graph, readers->name);
    return f->records.torchscript && readers->from.origin == ORIGIN_KEPT && value != NULL && value->is_initializer;
}

static bool is_torch_literal(const Finder *f, const Readers *readers)
{
    const Value *value = graph_find(f->document->graph, readers->name);
    return f->records.torchscript && value != NULL && value->producer != NULL && node_is(value->producer, "Constant");
}

/* The first operand of a matrix product with a constant: what a layer is given to begin with, such as a cell's first
 * state. */
static bool is_given(const Reader *reader)
{
    const Value *other = node_input(reader->final.node, 1);
    bool product = node_is(reader->final.node, "MatMul") || node_is(reader->final.node, "Gemm");
    return product && reader->final.index == 0 && other != NULL && (other->mark & MARK_FED) == 0;
}

/* A matrix under a made-up name that is repeated or joined to what the net computes: learned queries that TorchScript
 * has unsqueezed, or a table. Nothing tells which, so it is listed apart. */
static bool may_be_moved(const Finder *f, const Readers *readers, const Reader *reader)
{
    const Node *node = reader->final.node;
    return f->records.torchscript && wide_dims(readers->tensor) >= 2 && !tensor_is_uniform(readers->tensor) &&
           (node_is(node, "Expand") || node_is(node, "Tile") || node_is(node, "Concat"));
}

/* What the framework does not say is decided by the role. */
static bool counts_by_role(const Finder *f, const Readers *readers, const Reader *reader)
{
    const Tensor *tensor = readers->tensor;
    bool one = tensor_count(tensor) == 1, computed = readers->from.origin == ORIGIN_COMPUTED;
    bool state = is_torch_state(f, readers);
    if (readers->from.untrained && reader->kind != USE_ARITHMETIC) /* a table is listed apart all the same */
        return false;
    switch (reader->kind) {
    case USE_NOT:
    case USE_PASSES:
        return false;
    case USE_WEIGHT:
    case USE_SLOPE:
        return !(computed && (reader->derived || is_given(reader))) && !(reader->derived && one && !state);
    case USE_NORM: /* a decomposed GroupNorm normalises with computed ones and zeros */
        return !(computed && tensor_is_uniform(tensor) && node_is(reader->final.node, "InstanceNormalization"));
    case USE_TABLE:
        return tensor->rank >= 2 && !computed;
    case USE_ARITHMETIC:
        return (!one || state) && !is_mask(tensor) && after_weight(&reader->final);
    case USE_EXPONENT:
        return state && after_weight(&reader->final);
    case USE_DATA:
        return (!one || (state && reader->final.node->input_count == 1)) &&
               (!computed || may_be_moved(f, readers, reader)) && !is_mask(tensor);
    }
    return false;
}

static bool counts(const Finder *f, const Readers *readers, const Reader *reader)
{
    if (readers->from.origin == ORIGIN_BUFFER || is_torch_literal(f, readers))
        return false;
    if (readers->from.origin == ORIGIN_PARAMETER)
        return reader->kind != USE_NOT && reader->kind != USE_PASSES;
    return counts_by_role(f, readers, reader);
}

static void add_reader(Finder *f, Readers *readers, const Use *use, const Reader *on_the_way, UseKind kind)
{
    readers->items =
        arena_grow(&f->scratch, readers->items, readers->count, &readers->capacity, sizeof readers->items[0]);
    Reader *reader = &readers->items[readers->count++];
    *reader = *on_the_way;
    reader->final = *use;
    reader->kind = kind;
    reader->parameter = -1;
    reader->module = module_of(&f->records, use->node, &reader->recorded);
    reader->counts = counts(f, readers, reader);
    if (node_is(use->node, "BatchNormalization") && use->index >= 3)
        readers->statistic = true;
}

/* Depth first, through what leaves a constant a constant. Arithmetic is passed where a weight comes of it. */
static void follow(Finder *f, Readers *readers, const Value *value, const Reader *before)
{
    for (size_t i = 0; i < value->use_count; i++) {
        const Use *use = &value->uses[i];
        Reader reader = before != NULL ? *before : (Reader){.direct = *use, .alias = readers->name};
        Value *next = node_output(use->node, 0);
        UseKind kind = use_kind(use->node, use->index);
        if (kind == USE_PASSES && next != NULL) {
            if (node_is(use->node, "Identity"))
                reader.alias = arena_strdup(&f->scratch, next->name);
            follow(f, readers, next, &reader);
            continue;
        }
        size_t found = readers->count;
        if (is_constant_arithmetic(use->node, kind)) {
            Reader derived = reader;
            derived.derived = true;
            follow(f, readers, next, &derived);
        }
        bool weight = kind == USE_WEIGHT || kind == USE_NORM || kind == USE_SLOPE || kind == USE_TABLE;
        if (readers->count == found && (!reader.derived || weight))
            add_reader(f, readers, use, &reader, kind);
    }
}

/* ---- one tensor ------------------------------------------------------------------------------------------ */

static ParamInfo *add_info(Finder *f, const Readers *readers, Tensor *origin, const Reader *reader)
{
    ParamList *list = f->list;
    list->items = arena_grow(f->arena, list->items, list->count, &f->capacity, sizeof list->items[0]);
    f->firsts = arena_grow(&f->scratch, f->firsts, list->count, &f->first_capacity, sizeof f->firsts[0]);
    f->firsts[list->count] = *reader;
    ParamInfo *info = &list->items[list->count++];
    const Node *node = reader->final.node;
    *info =
        (ParamInfo){.name = readers->name, .origin = origin, .tied_to = -1, .trainable = true, .order = node->index};
    info->node = arena_strdup(f->arena, node->name);
    info->scope = arena_strdup(f->arena, scope_of(&f->records, node));
    info->op_type = arena_strdup(f->arena, node->op_type);
    info->is_norm = reader->kind == USE_NORM;
    bool either = reader->kind == USE_ARITHMETIC || reader->kind == USE_DATA; /* a parameter or a table */
    info->looks_folded =
        either && readers->from.origin == ORIGIN_COMPUTED && (readers->from.recorded || wide_dims(origin) >= 2);
    info->trainable = !info->looks_folded;
    return info;
}

static void add_constant(Finder *f, const char *name, Tensor *origin)
{
    ParamList *list = f->list;
    size_t names = f->constant_capacity;
    list->constants =
        arena_grow(f->arena, list->constants, list->constant_count, &f->constant_capacity, sizeof(Tensor *));
    list->constant_names = arena_grow(f->arena, list->constant_names, list->constant_count, &names, sizeof(char *));
    list->constants[list->constant_count] = origin;
    list->constant_names[list->constant_count++] = name;
}

static void add_use(Finder *f, ParamInfo *info, const Use *direct)
{
    Node *document_node = (Node *)(uintptr_t)direct->node->document_node;
    size_t count = info->use_count;
    if (count > 0 && info->uses[count - 1].node == document_node && info->uses[count - 1].index == direct->index)
        return;
    Use *uses = (Use *)(uintptr_t)info->uses;
    if ((count & (count - 1)) == 0) { /* room for twice as many whenever a power of two is full */
        uses = arena_array(f->arena, Use, count == 0 ? 1 : 2 * count);
        if (count > 0)
            memcpy(uses, info->uses, count * sizeof *uses);
    }
    uses[info->use_count++] = (Use){document_node, direct->index};
    info->uses = uses;
}

static bool in_document(const Use *use)
{
    return use->node->document_node != NULL && strcmp(use->node->document_node->op_type, use->node->op_type) == 0;
}

/* The parameter that an earlier reader means and this one too; -1: none. */
static int shared_with(const Finder *f, const Readers *readers, size_t i)
{
    const Reader *reader = &readers->items[i];
    for (size_t k = 0; k < i; k++) {
        const Reader *earlier = &readers->items[k];
        if (earlier->parameter >= 0 && (!in_document(&reader->direct) ||
                                        readers_share(&f->records, readers->tensor, readers->name, earlier, reader)))
            return earlier->parameter;
    }
    return -1;
}

static void classify(Finder *f, const char *name, Tensor *origin, const Value *value)
{
    Readers readers = {.tensor = origin, .name = name, .from = provenance_of(&f->records, name)};
    follow(f, &readers, value, NULL);
    size_t first_info = f->list->count, others = 0;
    for (size_t i = 0; i < readers.count; i++) {
        Reader *reader = &readers.items[i];
        others += !reader->counts;
        if (!reader->counts)
            continue;
        reader->parameter = shared_with(f, &readers, i);
        if (reader->parameter < 0) {
            reader->parameter = (int)f->list->count;
            add_info(f, &readers, origin, reader);
        }
        add_use(f, &f->list->items[reader->parameter], &reader->direct);
    }
    size_t made = f->list->count - first_info;
    bool strangers = readers.statistic || (others > 0 && tensor_is_uniform(origin)); /* merged with no parameter */
    for (size_t i = first_info; i < f->list->count; i++) {
        ParamInfo *info = &f->list->items[i];
        info->untied = i > first_info || strangers;
        if (i > first_info)
            info->name = arena_printf(f->arena, "%s#%zu", name, i - first_info + 1);
    }
    if (made == 0 && readers.count > 0 && tensor_count(origin) > 1)
        add_constant(f, name, origin);
}

/* ---- the walk ------------------------------------------------------------------------------------------ */

/* Behind some weight: a mean and deviation applied to the raw input are not taken for parameters. */
static void mark_values(Graph *graph)
{
    for (size_t i = 0; i < graph->values.count; i++)
        if (graph->values.entries[i].key != NULL)
            ((Value *)graph->values.entries[i].value)->mark = 0;
    for (size_t i = 0; i < graph->input_count; i++)
        graph->inputs[i]->mark = graph->inputs[i]->constant == NULL ? MARK_FED : 0;
    for (Node *node = graph->first; node != NULL; node = node->next) {
        int mark = node_has_body(node) || (node->op != NULL && (node->op->traits & OP_RANDOM) != 0) ? MARK_FED : 0;
        for (int i = 0; i < node->input_count; i++) {
            const Value *value = node->inputs[i];
            UseKind kind = use_kind(node, i);
            bool weight = kind == USE_WEIGHT || kind == USE_NORM || kind == USE_TABLE;
            Weight resolved;
            if (value != NULL)
                mark |= value->mark | (weight && weight_resolve(value, &resolved) ? MARK_BEHIND : 0);
        }
        for (int i = 0; i < node->output_count; i++)
            if (node->outputs[i] != NULL)
                node->outputs[i]->mark = mark;
    }
}

static int compare_order(const void *a, const void *b)
{
    const ParamInfo *x = *(const ParamInfo *const *)a, *y = *(const ParamInfo *const *)b;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return (x > y) - (x < y);
}

/* Sorted by first consumer; what one node reads stays in the order found. */
static void by_order(Finder *f)
{
    ParamList *list = f->list;
    const ParamInfo **order = arena_array(&f->scratch, const ParamInfo *, list->count + 1);
    ParamInfo *sorted = arena_array(f->arena, ParamInfo, list->count + 1);
    Reader *firsts = arena_array(&f->scratch, Reader, list->count + 1);
    for (size_t i = 0; i < list->count; i++)
        order[i] = &list->items[i];
    qsort(order, list->count, sizeof *order, compare_order);
    for (size_t i = 0; i < list->count; i++) {
        sorted[i] = *order[i];
        firsts[i] = f->firsts[order[i] - list->items];
    }
    list->items = sorted;
    f->firsts = firsts;
}

static Status find(Finder *f)
{
    Graph *graph = f->copy->graph;
    graph_number(graph);
    mark_values(graph);
    for (size_t i = 0; i < graph->initializer_count; i++) {
        Value *value = graph->initializers[i];
        if (value->origin != NULL && is_trainable_type(value->origin->dtype) && value->use_count > 0)
            classify(f, arena_strdup(f->arena, value->name), value->origin, value);
    }
    for (Node *node = graph->first; node != NULL; node = node->next) {
        Value *value = node_is(node, "Constant") ? node_output(node, 0) : NULL;
        if (value != NULL && value->origin != NULL && is_trainable_type(value->origin->dtype) &&
            tensor_count(value->origin) > 1)
            classify(f, arena_strdup(f->arena, value->name), value->origin, value);
    }
    by_order(f);
    return STATUS_OK;
}

Status params_find(Model *document, bool no_tie, ParamList *list, Error *err)
{
    Finder f = {.document = document, .arena = &document->arena, .list = list, .err = err};
    memset(list, 0, sizeof *list);
    TRY(working_copy(document, &f.copy, err));
    arena_init(&f.scratch);
    records_init(&f.records, document, &f.scratch);
    Status status = find(&f);
    if (status == STATUS_OK && !no_tie) {
        find_ties(&f.records, list, f.firsts);
        find_computed_copies(&f.records, f.arena, list);
    }
    records_release(&f.records);
    arena_release(&f.scratch);
    model_free(f.copy);
    return status;
}
