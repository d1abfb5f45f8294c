/* What is a parameter, decided by role: how a float tensor of the file enters the computation, not what it is called
 * (names do not survive exporters). Names only break ties: a constant that an exporter folded (a position table, a
 * mask) is called after the operator that made it, and is listed apart (hazard 39).
 *
 * The analysis reads a working copy (functions inlined, newest forms) and reports in terms of the document. */
#include <math.h>
#include <string.h>

#include "passes/passes.h"
#include "passes/surgery.h"

enum {
    TIE_ELEMENTS = 1024,  /* smaller transposed copies are coincidences */
    MERGE_ELEMENTS = 1024 /* exporters merge equal initializers up to this size (onnxscript) */
};

typedef enum UseKind {
    USE_NOT,        /* shapes, statistics, limits: never a parameter */
    USE_WEIGHT,     /* of a linear map or a recurrent cell */
    USE_NORM,       /* scale or bias of a normalisation */
    USE_SLOPE,      /* PRelu */
    USE_TABLE,      /* read by Gather */
    USE_ARITHMETIC, /* operand of Add, Mul, Sub, Div */
    USE_DATA,       /* enters a data operator: Concat, Where, Max ... */
    USE_PASSES      /* the same numbers in another shape: look at the readers */
} UseKind;

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
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        if (strcmp(node->op_type, rules[i].op_type) == 0)
            return (rules[i].inputs >> index & 1) != 0 ? rules[i].kind : USE_NOT;
    return index == 0 ? USE_DATA : USE_NOT;
}

/* ---- names --------------------------------------------------------------------------------------------------------
 */

/* Called after the operator that made it, perhaps with a number: "val_12", "embedding_2", "unsqueeze", "onnx::Add_7".
 */
static bool looks_generated(const char *name)
{
    static const char *const stems[] = {"val",        "embedding", "unsqueeze",   "squeeze",  "slice",
                                        "add",        "mul",       "sub",         "div",      "cat",
                                        "expand",     "view",      "reshape",     "permute",  "select",
                                        "index",      "gather",    "cos",         "sin",      "cumsum",
                                        "arange",     "where",     "full",        "ones",     "zeros",
                                        "tensor",     "clone",     "transpose",   "t",        "stack",
                                        "exp",        "log",       "neg",         "getitem",  "outer",
                                        "einsum",     "repeat",    "constant",    "const",    "full_like",
                                        "zeros_like", "ones_like", "masked_fill", "_to_copy", "lift_fresh_copy",
                                        "to",         "tril",      "triu",        "pow",      "rsqrt"};
    if (strncmp(name, "onnx::", 6) == 0 || strstr(name, "Constant") != NULL)
        return true;
    size_t length = strlen(name), end = length;
    while (end > 0 && name[end - 1] >= '0' && name[end - 1] <= '9')
        end--;
    if (end < length && end > 0 && name[end - 1] == '_')
        end--;
    else if (end < length)
        return false;
    for (size_t i = 0; i < sizeof stems / sizeof stems[0]; i++)
        if (strlen(stems[i]) == end && strncmp(name, stems[i], end) == 0)
            return true;
    return false;
}

static const char *scope_from_metadata(Arena *arena, const Node *node)
{
    const char *list =
        extra_metadata(&node->extra, "pkg.torch.onnx.name_scopes"); /* "['', 'layer', 'layer.0', 'conv']" */
    const char *end = list == NULL ? NULL : strrchr(list, '\'');
    const char *last = NULL;
    for (const char *p = list; p != NULL && p < end; p = strchr(p + 1, '\''))
        if (*p == '\'')
            last = p;
    if (last == NULL || end <= last + 1)
        return NULL;
    return arena_strndup(arena, last + 1, (size_t)(end - last - 1));
}

static const char *scope_of(Arena *arena, const Node *node)
{
    const char *scope = scope_from_metadata(arena, node), *name = node->name;
    if (scope != NULL)
        return scope;
    while (*name == '/')
        name++;
    const char *slash = strrchr(name, '/');
    return slash == NULL ? "" : arena_strndup(arena, name, (size_t)(slash - name));
}

/* ---- values -------------------------------------------------------------------------------------------------------
 */

static double element(const Tensor *tensor, int64_t i)
{
    return tensor_f64_at(tensor, i);
}

static bool is_uniform(const Tensor *tensor)
{
    size_t size = tensor->bytes / (size_t)(tensor_count(tensor) > 0 ? tensor_count(tensor) : 1);
    const char *bytes = tensor->data;
    for (int64_t i = 1; i < tensor_count(tensor); i++)
        if (memcmp(bytes, bytes + (size_t)i * size, size) != 0)
            return false;
    return true;
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

/* ---- one tensor -----------------------------------------------------------------------------------------------------
 */

typedef struct Finder {
    Model *document, *copy;
    Arena *arena; /* the document's: what the list points to lives there */
    ParamList *list;
    size_t capacity, constant_capacity;
    Error *err;
} Finder;

/* The readers of one tensor, through reshapes. */
typedef struct Readers {
    Use parameter[64]; /* in the working copy: the direct uses of the initializer */
    Use final[64];     /* where that use ends after reshapes */
    UseKind kinds[64];
    size_t count;
    bool statistic; /* some reader takes it as running statistics */
} Readers;

static bool counts(const Tensor *tensor, const char *name, UseKind kind, const Use *use)
{
    const Node *node = use->node;
    bool one = tensor_count(tensor) == 1, generated = looks_generated(name);
    switch (kind) {
    case USE_NOT:
    case USE_PASSES:
        return false;
    case USE_WEIGHT:
    case USE_SLOPE:
        return true;
    case USE_NORM: /* a decomposed GroupNorm normalises with folded ones and zeros */
        return !(generated && is_uniform(tensor) && strcmp(node->op_type, "InstanceNormalization") == 0);
    case USE_TABLE:
        return tensor->rank >= 2 && !generated;
    case USE_ARITHMETIC: {
        const Value *other = node_input(node, use->index == 0 ? 1 : 0);
        bool after_weight = other != NULL && other->mark == 1;
        return !one && !is_mask(tensor) && after_weight;
    }
    case USE_DATA:
        return !one && !generated && !is_mask(tensor);
    }
    return false;
}

static void follow(Readers *readers, const Value *value, const Use *first)
{
    for (size_t i = 0; i < value->use_count && readers->count < 64; i++) {
        const Use *use = &value->uses[i];
        const Use *direct = first == NULL ? use : first;
        UseKind kind = use_kind(use->node, use->index);
        if (kind == USE_PASSES && use->node->output_count > 0 && use->node->outputs[0] != NULL) {
            follow(readers, use->node->outputs[0], direct);
            continue;
        }
        if (strcmp(use->node->op_type, "BatchNormalization") == 0 && use->index >= 3)
            readers->statistic = true;
        readers->parameter[readers->count] = *direct;
        readers->final[readers->count] = *use;
        readers->kinds[readers->count++] = kind;
    }
}

static ParamInfo *add_info(Finder *f, const char *name, Tensor *origin, const Use *use, UseKind kind)
{
    ParamList *list = f->list;
    list->items = arena_grow(f->arena, list->items, list->count, &f->capacity, sizeof list->items[0]);
    ParamInfo *info = &list->items[list->count++];
    const Node *node = use->node;
    *info = (ParamInfo){.name = name, .origin = origin, .tied_to = -1, .trainable = true, .order = node->index};
    info->node = arena_strdup(f->arena, node->name);
    info->scope = scope_of(f->arena, node);
    info->op_type = arena_strdup(f->arena, node->op_type);
    info->is_norm = kind == USE_NORM;
    info->looks_folded = kind == USE_ARITHMETIC && looks_generated(name) && wide_dims(origin) >= 2;
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
    Use *uses = arena_array(f->arena, Use, info->use_count + 1);
    if (info->use_count > 0)
        memcpy(uses, info->uses, info->use_count * sizeof *uses);
    uses[info->use_count++] = (Use){document_node, direct->index};
    info->uses = uses;
}

/* Layers that started as copies of each other (hazard 41): small equal initializers were merged, but the same operator
 * reads them in two places that the exporter names differently. */
static bool is_merged_copy(Arena *arena, const Tensor *tensor, const Use *a, const Use *b)
{
    if (tensor_count(tensor) > MERGE_ELEMENTS || a->index != b->index ||
        strcmp(a->node->op_type, b->node->op_type) != 0)
        return false;
    const char *scope_a = scope_of(arena, a->node), *scope_b = scope_of(arena, b->node);
    return scope_a[0] != '\0' && scope_b[0] != '\0' && strcmp(scope_a, scope_b) != 0;
}

/* Is reader `b` the same parameter as reader `a`? Identity aliases and uniform values come from deduplication; anything
 * else that two nodes share is shared by the model, and so is a bias whose weight is shared too. */
static bool same_parameter(Arena *arena, const Tensor *tensor, const Use *direct_a, const Use *a, const Use *direct_b,
                           const Use *b)
{
    bool alias = direct_a->node != direct_b->node &&
                 (node_is(direct_a->node, "Identity") || node_is(direct_b->node, "Identity"));
    if (direct_a->node == direct_b->node && direct_a->index == direct_b->index)
        return true;
    if (!alias && !is_uniform(tensor))
        return !is_merged_copy(arena, tensor, a, b);
    const Value *weight_a = node_input(a->node, 1), *weight_b = node_input(b->node, 1);
    return !alias && a->index != 1 && weight_a != NULL && weight_a == weight_b;
}

static bool in_document(const Use *use)
{
    return use->node->document_node != NULL && strcmp(use->node->document_node->op_type, use->node->op_type) == 0;
}

static void classify(Finder *f, const char *name, Tensor *origin, const Value *value)
{
    Readers readers = {.count = 0};
    follow(&readers, value, NULL);
    size_t first_info = f->list->count;
    for (size_t i = 0; i < readers.count; i++) {
        if (!counts(origin, name, readers.kinds[i], &readers.final[i]))
            continue;
        bool known = false;
        for (size_t k = 0; k < i && !known; k++) {
            size_t owner = first_info + (size_t)readers.final[k].node->mark;
            if (!counts(origin, name, readers.kinds[k], &readers.final[k]) || owner >= f->list->count)
                continue;
            known = !in_document(&readers.parameter[i]) ||
                    same_parameter(f->arena, origin, &readers.parameter[k], &readers.final[k], &readers.parameter[i],
                                   &readers.final[i]);
            if (known) {
                readers.final[i].node->mark = (int)(owner - first_info);
                add_use(f, &f->list->items[owner], &readers.parameter[i]);
            }
        }
        if (known)
            continue;
        ParamInfo *info = add_info(f, name, origin, &readers.final[i], readers.kinds[i]);
        readers.final[i].node->mark = (int)(f->list->count - 1 - first_info);
        add_use(f, info, &readers.parameter[i]);
    }
    size_t made = f->list->count - first_info;
    for (size_t i = first_info; i < f->list->count; i++) {
        ParamInfo *info = &f->list->items[i];
        info->untied = i > first_info || (readers.statistic && made > 0);
        if (i > first_info)
            info->name = arena_printf(f->arena, "%s#%zu", name, i - first_info + 1);
    }
    if (made == 0 && readers.count > 0 && tensor_count(origin) > 1)
        add_constant(f, name, origin);
}

/* ---- transposed copies --------------------------------------------------------------------------------- */

static bool is_transposed_copy(const Tensor *a, const Tensor *b)
{
    if (a->rank != 2 || b->rank != 2 || a->dtype != b->dtype || a->dims[0] != b->dims[1] || a->dims[1] != b->dims[0] ||
        tensor_count(a) < TIE_ELEMENTS || is_uniform(a))
        return false;
    size_t size = dtype_size(a->dtype);
    const char *x = a->data, *y = b->data;
    for (int64_t i = 0; i < a->dims[0]; i++)
        for (int64_t j = 0; j < a->dims[1]; j++)
            if (memcmp(x + (size_t)(i * a->dims[1] + j) * size, y + (size_t)(j * a->dims[0] + i) * size, size) != 0)
                return false;
    return true;
}

static void find_ties(ParamList *list)
{
    for (size_t i = 0; i < list->count; i++) {
        for (size_t k = 0; k < i && list->items[i].tied_to < 0; k++)
            if (list->items[k].tied_to < 0 && is_transposed_copy(list->items[k].origin, list->items[i].origin))
                list->items[i].tied_to = (int)k;
    }
}

/* ---- the walk ------------------------------------------------------------------------------------------ */

/* Value.mark: 1 behind some weight, so that a mean and deviation applied to the raw input are not taken for parameters.
 */
static void mark_behind_weights(Graph *graph)
{
    for (size_t i = 0; i < graph->values.count; i++)
        if (graph->values.entries[i].key != NULL)
            ((Value *)graph->values.entries[i].value)->mark = 0;
    for (Node *node = graph->first; node != NULL; node = node->next) {
        bool behind = false;
        for (int i = 0; i < node->input_count; i++) {
            const Value *value = node->inputs[i];
            UseKind kind = use_kind(node, i);
            bool weight = kind == USE_WEIGHT || kind == USE_NORM || kind == USE_TABLE;
            Weight resolved;
            if (value != NULL)
                behind |= value->mark == 1 || (weight && weight_resolve(value, &resolved));
        }
        for (int i = 0; i < node->output_count; i++)
            if (node->outputs[i] != NULL)
                node->outputs[i]->mark = behind;
    }
}

static void by_order(ParamList *list)
{
    for (size_t i = 1; i < list->count; i++) { /* nearly sorted already */
        ParamInfo item = list->items[i];
        size_t k = i;
        for (; k > 0 && list->items[k - 1].order > item.order; k--)
            list->items[k] = list->items[k - 1];
        list->items[k] = item;
    }
}

static Status find(Finder *f)
{
    Graph *graph = f->copy->graph;
    graph_number(graph);
    mark_behind_weights(graph);
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
    by_order(f->list);
    return STATUS_OK;
}

Status params_find(Model *document, bool no_tie, ParamList *list, Error *err)
{
    Finder f = {.document = document, .arena = &document->arena, .list = list, .err = err};
    memset(list, 0, sizeof *list);
    TRY(working_copy(document, &f.copy, err));
    Status status = find(&f);
    if (status == STATUS_OK && !no_tie)
        find_ties(list);
    model_free(f.copy);
    return status;
}
