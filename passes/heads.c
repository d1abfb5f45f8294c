/* Finding the head: the linear layer that turns features into scores.
 *
 * The walk goes back from a graph output through everything that only reshapes, selects, pools or activates, and stops
 * at the first Gemm, MatMul or Conv whose weight is a constant of two dims or more. What lay between tells what the
 * head is: post-ops (Softmax), pooling (a convolution head), steps to keep behind a new head (last token, Resize). From
 * there a second, stricter walk lists linear layers further back (a BERT pooler, the hidden layers of VGG). Nothing is
 * chosen here except by heads_pick, which refuses where two answers are possible. */
#include "passes/passes.h"
#include "passes/surgery.h"

enum { ALTERNATIVES_MAX = 8 };

/* ---- what the walk passes through ---------------------------------------------------------------------- */

typedef enum Data { /* which operands carry the data, as opposed to indices and shapes */
                    DATA_FIRST,
                    DATA_SECOND,
                    DATA_ALL,
                    DATA_BRANCHES /* Where: all but the condition */
} Data;

typedef enum Tail {
    TAIL_ACTIVATION, /* element by element, or a final decision: goes with the old head */
    TAIL_SHAPE,      /* only another shape */
    TAIL_POOL,       /* fewer positions */
    TAIL_SELECT,     /* some positions, or positions elsewhere */
    TAIL_NORM        /* scales by a norm: embeddings end so */
} Tail;

typedef struct Through {
    const char *op_type;
    Data data;
    Tail tail;
    bool inside; /* may lie between two layers of one head */
} Through;

static const Through through[] = {
    {"Softmax", DATA_FIRST, TAIL_ACTIVATION, false},
    {"LogSoftmax", DATA_FIRST, TAIL_ACTIVATION, false},
    {"Sigmoid", DATA_FIRST, TAIL_ACTIVATION, true},
    {"ArgMax", DATA_FIRST, TAIL_ACTIVATION, false},
    {"ArgMin", DATA_FIRST, TAIL_ACTIVATION, false},
    {"TopK", DATA_FIRST, TAIL_ACTIVATION, false},
    {"Identity", DATA_FIRST, TAIL_SHAPE, true},
    {"Cast", DATA_FIRST, TAIL_ACTIVATION, true},
    {"Dropout", DATA_FIRST, TAIL_ACTIVATION, true},
    {"Relu", DATA_FIRST, TAIL_ACTIVATION, true},
    {"LeakyRelu", DATA_FIRST, TAIL_ACTIVATION, true},
    {"PRelu", DATA_FIRST, TAIL_ACTIVATION, true},
    {"Elu", DATA_FIRST, TAIL_ACTIVATION, true},
    {"Selu", DATA_FIRST, TAIL_ACTIVATION, true},
    {"Celu", DATA_FIRST, TAIL_ACTIVATION, true},
    {"Gelu", DATA_FIRST, TAIL_ACTIVATION, true},
    {"Mish", DATA_FIRST, TAIL_ACTIVATION, true},
    {"Swish", DATA_FIRST, TAIL_ACTIVATION, true},
    {"HardSwish", DATA_FIRST, TAIL_ACTIVATION, true},
    {"HardSigmoid", DATA_FIRST, TAIL_ACTIVATION, true},
    {"Softplus", DATA_FIRST, TAIL_ACTIVATION, true},
    {"Softsign", DATA_FIRST, TAIL_ACTIVATION, true},
    {"ThresholdedRelu", DATA_FIRST, TAIL_ACTIVATION, true},
    {"Tanh", DATA_FIRST, TAIL_ACTIVATION, true},
    {"Erf", DATA_FIRST, TAIL_ACTIVATION, true},
    {"Exp", DATA_FIRST, TAIL_ACTIVATION, false},
    {"Log", DATA_FIRST, TAIL_ACTIVATION, false},
    {"Neg", DATA_FIRST, TAIL_ACTIVATION, false},
    {"Clip", DATA_FIRST, TAIL_ACTIVATION, true},
    {"Add", DATA_ALL, TAIL_ACTIVATION, true},
    {"Sub", DATA_ALL, TAIL_ACTIVATION, false},
    {"Mul", DATA_ALL, TAIL_ACTIVATION, true},
    {"Div", DATA_ALL, TAIL_ACTIVATION, true},
    {"Pow", DATA_FIRST, TAIL_ACTIVATION, false},
    {"Where", DATA_BRANCHES, TAIL_ACTIVATION, false},
    {"Concat", DATA_ALL, TAIL_ACTIVATION, false},
    {"Split", DATA_FIRST, TAIL_ACTIVATION, false},
    {"Equal", DATA_ALL, TAIL_ACTIVATION, false},
    {"Greater", DATA_ALL, TAIL_ACTIVATION, false},
    {"GreaterOrEqual", DATA_ALL, TAIL_ACTIVATION, false},
    {"BatchNormalization", DATA_FIRST, TAIL_ACTIVATION, true},
    {"DequantizeLinear", DATA_FIRST, TAIL_ACTIVATION, true},
    {"QuantizeLinear", DATA_FIRST, TAIL_ACTIVATION, true},
    {"Flatten", DATA_FIRST, TAIL_SHAPE, true},
    {"Squeeze", DATA_FIRST, TAIL_SHAPE, true},
    {"Unsqueeze", DATA_FIRST, TAIL_SHAPE, true},
    {"Reshape", DATA_FIRST, TAIL_SHAPE, true},
    {"Expand", DATA_FIRST, TAIL_SHAPE, false},
    {"Transpose", DATA_FIRST, TAIL_SELECT, false},
    {"Gather", DATA_FIRST, TAIL_SELECT, false},
    {"GatherND", DATA_FIRST, TAIL_SELECT, false},
    {"GatherElements", DATA_FIRST, TAIL_SELECT, false},
    {"Slice", DATA_FIRST, TAIL_SELECT, false},
    {"Resize", DATA_FIRST, TAIL_SELECT, false},
    {"Upsample", DATA_FIRST, TAIL_SELECT, false},
    {"DepthToSpace", DATA_FIRST, TAIL_SELECT, false},
    {"GlobalAveragePool", DATA_FIRST, TAIL_POOL, false},
    {"GlobalMaxPool", DATA_FIRST, TAIL_POOL, false},
    {"AveragePool", DATA_FIRST, TAIL_POOL, false},
    {"MaxPool", DATA_FIRST, TAIL_POOL, false},
    {"ReduceMean", DATA_FIRST, TAIL_POOL, false},
    {"ReduceSum", DATA_FIRST, TAIL_POOL, false},
    {"ReduceMax", DATA_FIRST, TAIL_POOL, false},
    {"ReduceL2", DATA_FIRST, TAIL_NORM, false},
    {"ReduceSumSquare", DATA_FIRST, TAIL_NORM, false},
    {"LpNormalization", DATA_FIRST, TAIL_NORM, false},
    {"Sqrt", DATA_FIRST, TAIL_NORM, false},
};

/* Label maps of scikit-learn's exporter (domain ai.onnx.ml). */
static const Through through_ml[] = {
    {"ZipMap", DATA_FIRST, TAIL_ACTIVATION, false},     {"ArrayFeatureExtractor", DATA_SECOND, TAIL_ACTIVATION, false},
    {"Normalizer", DATA_FIRST, TAIL_ACTIVATION, false}, {"LabelEncoder", DATA_FIRST, TAIL_ACTIVATION, false},
    {"Binarizer", DATA_FIRST, TAIL_ACTIVATION, false},
};

static const Through *through_find(const Node *node)
{
    bool ml = strcmp(node->domain, "ai.onnx.ml") == 0;
    const Through *rules = ml ? through_ml : through;
    size_t count = ml ? sizeof through_ml / sizeof *through_ml : sizeof through / sizeof *through;
    for (size_t i = 0; i < count; i++)
        if (ml ? strcmp(node->op_type, rules[i].op_type) == 0 : node_is(node, rules[i].op_type))
            return &rules[i];
    return NULL;
}

static bool carries_data(const Through *rule, int index)
{
    switch (rule->data) {
    case DATA_FIRST:
        return index == 0;
    case DATA_SECOND:
        return index == 1;
    case DATA_ALL:
        return true;
    case DATA_BRANCHES:
        return index > 0;
    }
    return false;
}

/* ---- linear layers ------------------------------------------------------------------------------------- */

typedef struct Linear {
    Value *features;
    Tensor *tensor;
    int64_t width, classes;
    int rank; /* of the features; -1: any */
    bool conv;
    int64_t kernel; /* largest extent; 1 for dense layers */
} Linear;

static bool dense_match(const Node *node, const Weight *weight, bool transposed, Linear *linear)
{
    for (int i = 0; i + 2 < weight->rank; i++)
        if (weight->dims[i] != 1)
            return false;
    int64_t rows = weight->dims[weight->rank - 2], columns = weight->dims[weight->rank - 1];
    linear->width = transposed ? columns : rows;
    linear->classes = transposed ? rows : columns;
    linear->rank = node_is(node, "Gemm") || strcmp(node->op_type, "QGemm") == 0 ? 2 : linear->features->type.rank;
    linear->kernel = 1;
    return true;
}

static bool conv_match(const Node *node, const Weight *weight, Linear *linear)
{
    if (weight->rank < 3 || node_int(node, "group", 1) != 1)
        return false;
    linear->conv = true;
    linear->classes = weight->dims[0];
    linear->width = weight->dims[1];
    linear->rank = weight->rank;
    linear->kernel = 1;
    for (int i = 2; i < weight->rank; i++)
        if (weight->dims[i] > linear->kernel)
            linear->kernel = weight->dims[i];
    return true;
}

/* Products of quantised numbers: the operator whose place they take. Data, scale and zero point come before the weight.
 */
static const char *product_of_quanta(const Node *node)
{
    if (strcmp(node->domain, "com.microsoft") == 0 && strcmp(node->op_type, "QGemm") == 0)
        return "Gemm";
    return node_is(node, "QLinearMatMul") ? "MatMul" : node_is(node, "QLinearConv") ? "Conv" : NULL;
}

/* Of the data: that of its zero point. */
static DType quanta_dtype(const Node *node)
{
    const Value *zero = node_input(node, 2);
    return zero != NULL && zero->constant != NULL ? zero->constant->dtype : DTYPE_U8;
}

/* Needs graph_mark_fed: data comes from an input, weights do not. */
static bool linear_match(const Node *node, Linear *linear)
{
    Weight weight;
    const char *like = product_of_quanta(node);
    Value *x = node_input(node, 0), *w = node_input(node, like != NULL ? 3 : 1);
    if (x == NULL || w == NULL || !x->mark || w->mark || !weight_resolve(w, &weight) || weight.rank < 2)
        return false;
    *linear = (Linear){.features = x, .tensor = weight.tensor};
    bool microsoft = strcmp(node->domain, "com.microsoft") == 0;
    if (node_is(node, "Gemm") || (like != NULL && strcmp(like, "Gemm") == 0))
        return node_int(node, "transA", 0) == 0 && weight.rank == 2 &&
               dense_match(node, &weight, node_int(node, "transB", 0) != 0, linear);
    if (node_is(node, "MatMul") || (like != NULL && strcmp(like, "MatMul") == 0))
        return dense_match(node, &weight, false, linear);
    if (microsoft && strcmp(node->op_type, "FusedMatMul") == 0)
        return node_int(node, "transA", 0) == 0 && dense_match(node, &weight, node_int(node, "transB", 0) != 0, linear);
    if (node_is(node, "Conv") || (like != NULL && strcmp(like, "Conv") == 0) ||
        (microsoft && strcmp(node->op_type, "FusedConv") == 0))
        return conv_match(node, &weight, linear);
    return false;
}

/* The layer's result with its bias: the output, or that of an Add of a constant with one element a class. */
static Value *linear_scores(const Node *node, int64_t classes)
{
    Value *result = node_output(node, 0);
    if (result->use_count != 1 || result->is_output)
        return result;
    Node *add = result->uses[0].node;
    if (!node_is(add, "Add") || add->graph != node->graph)
        return result;
    Weight bias;
    Value *other = node_input(add, 1 - result->uses[0].index);
    if (other == NULL || other->mark || !weight_resolve(other, &bias))
        return result;
    return tensor_count(bias.tensor) == classes || tensor_count(bias.tensor) == 1 ? node_output(add, 0) : result;
}

/* ---- the walk ------------------------------------------------------------------------------------------ */

typedef struct Walk {
    Graph *graph;
    Node **seen; /* in the order of the walk; Node.note leads one step towards the output */
    size_t count;
    Node *linear[4]; /* the first of them */
    size_t linear_count;
    const Node *stopper; /* where a branch ended without a linear layer; NULL: none */
    bool reached_input, norm;
} Walk;

static void walk_value(Walk *walk, const Value *value, Node *from)
{
    if (value == NULL || !value->mark)
        return;
    Node *node = value->producer;
    if (node == NULL) {
        walk->reached_input = true;
        return;
    }
    if (node->mark)
        return;
    node->mark = 1;
    node->note = from;
    walk->seen[walk->count++] = node;
}

static void walk_node(Walk *walk, Node *node, bool inside)
{
    Linear linear;
    if (linear_match(node, &linear)) {
        if (walk->linear_count < sizeof walk->linear / sizeof *walk->linear)
            walk->linear[walk->linear_count] = node;
        walk->linear_count++;
        return;
    }
    const Through *rule = through_find(node);
    if (rule == NULL || (inside && !rule->inside)) {
        if (walk->stopper == NULL)
            walk->stopper = node;
        return;
    }
    walk->norm = walk->norm || rule->tail == TAIL_NORM;
    for (int i = 0; i < node->input_count; i++)
        if (carries_data(rule, i))
            walk_value(walk, node->inputs[i], node);
}

/* Back from `value`. `inside`: only through what may lie between two layers of one head. */
static void walk_back(Walk *walk, const Value *value, bool inside)
{
    walk->linear_count = walk->count = 0;
    walk->stopper = NULL;
    walk->reached_input = walk->norm = false;
    walk_value(walk, value, NULL);
    for (size_t i = 0; i < walk->count; i++)
        walk_node(walk, walk->seen[i], inside);
    for (size_t i = 0; i < walk->count; i++)
        walk->seen[i]->mark = 0;
}

/* ---- what lies between the layer and the output -------------------------------------------------------- */

typedef struct TailInfo {
    bool pool, select, rank_change;
    Value *end; /* behind the last step to keep; NULL: none */
    Str post;
} TailInfo;

static bool reshape_keeps_rank(const Node *node, Arena *arena)
{
    int64_t *shape;
    size_t count;
    return !operand_ints(node_input(node, 1), arena, &shape, &count) || count == 2;
}

static bool is_post_op(const Node *node)
{
    static const char *const names[] = {"Softmax", "LogSoftmax", "Sigmoid", "ArgMax", "ArgMin", "TopK",
                                        "Tanh",    "Relu",       "Clip",    "ZipMap", "Split"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(node->op_type, names[i]) == 0)
            return true;
    return false;
}

static void tail_read(const Head *head, TailInfo *info, Arena *arena)
{
    *info = (TailInfo){0};
    str_init(&info->post);
    const Node *start = head->scores->producer == head->node ? head->node->note : head->scores->producer->note;
    for (const Node *node = start; node != NULL; node = node->note) {
        const Through *rule = through_find(node);
        info->pool = info->pool || rule->tail == TAIL_POOL;
        bool reshapes = node_is(node, "Reshape") && !reshape_keeps_rank(node, arena);
        info->rank_change = info->rank_change || (rule->tail == TAIL_SHAPE && !node_is(node, "Identity"));
        if (rule->tail == TAIL_SELECT || rule->tail == TAIL_POOL || reshapes) {
            info->select = info->select || rule->tail == TAIL_SELECT;
            info->end = node_output(node, 0);
            str_clear(&info->post);
        }
        if (is_post_op(node))
            str_printf(&info->post, "%s%s", info->post.length > 0 ? ", " : "", node->op_type);
    }
}

/* Whether a convolution reads features that are pooled already, [N,F,1,1]. */
static bool is_pooled(const Value *value)
{
    const Type *type = &value->type;
    if (type->kind == TYPE_TENSOR && type->rank >= 3) {
        int ones = 0;
        for (int i = 2; i < type->rank; i++)
            ones += type->dims[i] == 1;
        if (ones == type->rank - 2)
            return true;
    }
    const Node *node = value->producer;
    for (int steps = 0; node != NULL && steps < 16; steps++) {
        const Through *rule = through_find(node);
        if (rule == NULL)
            return false;
        if (rule->tail == TAIL_POOL)
            return !node_is(node, "MaxPool");
        if (!rule->inside)
            return false;
        node = node_input(node, 0) == NULL ? NULL : node_input(node, 0)->producer;
    }
    return false;
}

/* ---- confidence -------------------------------------------------------------------------------------------------- */

/* Widths of feature maps are multiples of 8; the counts of the usual data sets are named. */
static bool looks_like_classes(int64_t count)
{
    static const int64_t known[] = {200, 400, 600, 1000, 10000};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (count == known[i])
            return true;
    return count % 8 != 0;
}

static bool looks_like_embedding(const char *name)
{
    static const char *const patterns[] = {"*embed*", "*Embed*", "*feat*", "*Feat*", "*descriptor*"};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        if (text_glob(patterns[i], name))
            return true;
    return false;
}

static void rate(Head *head, double confidence, const char *why)
{
    if (confidence < head->confidence) {
        head->confidence = confidence;
        head->why = why;
    }
}

static void rate_conv(Head *head, const Linear *linear, Arena *arena)
{
    if (!head->spatial) {
        rate(head, 0.9, "1x1 convolution on pooled features");
        return;
    }
    if (head->pooled && looks_like_classes(head->class_count))
        rate(head, 0.7, "convolution before pooling, with a class count for channels");
    else if (head->pooled)
        rate(head, 0.45,
             arena_printf(arena, "convolution before pooling with %lld channels: might be the last feature layer",
                          (long long)linear->classes));
    else if (linear->kernel == 1)
        rate(head, 0.85, "1x1 convolution that scores every position");
    else
        rate(head, linear->classes == linear->width ? 0.3 : 0.6, "convolution that scores every position");
}

static void rate_class_count(Head *head, const TailInfo *tail, Arena *arena)
{
    const Type *type = &head->output->type;
    if (type->kind != TYPE_TENSOR || type->rank < 2 || tail->post.length > 0)
        return;
    int axis = head->spatial && !head->pooled && !tail->select ? 1 : type->rank - 1;
    int64_t found = type->dims[axis];
    if (found > 1 && found != head->class_count && !tail->select && !tail->rank_change)
        rate(head, 0.4,
             arena_printf(arena, "output has %lld where the layer has %lld", (long long)found,
                          (long long)head->class_count));
}

static void head_rate(Head *head, const Walk *walk, const Linear *linear, const TailInfo *tail, Arena *arena)
{
    head->confidence = 1.0;
    rate(head, 0.95, arena_printf(arena, "last linear layer before '%s'", head->output->name));
    if (linear->conv)
        rate_conv(head, linear, arena);
    rate_class_count(head, tail, arena);
    if (text_ends(head->post_ops, "Tanh"))
        rate(head, 0.45, "its result goes through Tanh: a pooler rather than class scores?");
    if (walk->norm)
        rate(head, 0.45, "its result is normalised: an embedding rather than class scores?");
    else if (looks_like_embedding(head->output->name))
        rate(head, 0.45, arena_printf(arena, "output '%s' is named like features, not scores", head->output->name));
    if (walk->linear_count > 1)
        rate(head, 0.3,
             arena_printf(arena, "one of %zu layers that meet in '%s'", walk->linear_count, head->output->name));
    if (walk->stopper != NULL)
        rate(head, 0.3, arena_printf(arena, "'%s' also depends on %s", head->output->name, node_text(walk->stopper)));
    else if (walk->reached_input)
        rate(head, 0.4, arena_printf(arena, "'%s' also reads an input directly", head->output->name));
}

/* ---- candidates -------------------------------------------------------------------------------------------------- */

typedef struct Finder {
    Graph *graph;
    Arena *arena; /* of the model */
    Arena scratch;
    Walk walk;
    HeadList *list;
    size_t capacity;
} Finder;

static Head *finder_add(Finder *finder)
{
    HeadList *list = finder->list;
    list->items = arena_grow(finder->arena, list->items, list->count, &finder->capacity, sizeof(Head));
    Head *head = &list->items[list->count++];
    *head = (Head){0};
    return head;
}

/* What the layer and the output tell about the type of the features, where the file does not. */
static void learn_type(const Head *head, const Linear *linear, const TailInfo *tail)
{
    Type *type = &head->features->type;
    const Type *out = &head->output->type;
    DType dtype = dtype_is_float(linear->tensor->dtype) ? linear->tensor->dtype : DTYPE_F32;
    if (product_of_quanta(head->node) != NULL)
        dtype = quanta_dtype(head->node);
    if (type->kind == TYPE_UNKNOWN || (type->kind == TYPE_TENSOR && type->dtype == DTYPE_UNDEFINED)) {
        type->kind = TYPE_TENSOR;
        type->dtype = dtype;
    }
    bool like_output = !tail->select && !tail->pool && !tail->rank_change && out->kind == TYPE_TENSOR;
    bool maps = node_is_zipmap(head->output->producer); /* of rows */
    int rank = head->rank >= 0 ? head->rank : maps ? 2 : like_output ? out->rank : -1;
    if (type->kind != TYPE_TENSOR || type->rank >= 0 || rank < 2)
        return;
    type->rank = rank;
    for (int i = 0; i < rank; i++) {
        bool same = like_output && out->rank == rank && !linear->conv;
        type->dims[i] = same || (i == 0 && out->rank > 0) ? out->dims[i] : -1;
        type->symbols[i] = same || (i == 0 && out->rank > 0) ? out->symbols[i] : NULL;
    }
    int axis = linear->conv ? 1 : rank - 1;
    type->dims[axis] = linear->width;
    type->symbols[axis] = NULL;
}

static Head *add_head(Finder *finder, Node *node, Value *output)
{
    Linear linear;
    bool found = linear_match(node, &linear);
    Head *head = finder_add(finder);
    *head = (Head){.node = node,
                   .output = output,
                   .features = linear.features,
                   .feature_width = linear.width,
                   .class_count = linear.classes,
                   .rank = linear.rank,
                   .inner = output->use_count > 0,
                   .scores = linear_scores(node, linear.classes)};
    TailInfo tail;
    tail_read(head, &tail, &finder->scratch);
    head->spatial = linear.conv && !is_pooled(linear.features);
    head->pooled = head->spatial && tail.pool;
    bool vector = linear.conv && (head->pooled || !head->spatial);
    head->tail_end = found && !vector ? tail.end : NULL;
    head->post_ops = arena_strdup(finder->arena, tail.post.text);
    head_rate(head, &finder->walk, &linear, &tail, finder->arena);
    learn_type(head, &linear, &tail);
    if (head->rank < 0)
        head->rank = head->features->type.rank;
    str_release(&tail.post);
    return head;
}

/* Linear layers further back, one behind the other, until something that is no part of a head. */
static void add_alternatives(Finder *finder, size_t first)
{
    for (int depth = 1; depth <= ALTERNATIVES_MAX; depth++) {
        Head last = finder->list->items[finder->list->count - 1];
        Walk *walk = &finder->walk;
        walk_back(walk, last.features, true);
        Linear linear;
        if (walk->linear_count != 1 || walk->stopper != NULL || walk->reached_input ||
            !linear_match(walk->linear[0], &linear) || (linear.conv && !is_pooled(linear.features)))
            return;
        Head *head = finder_add(finder);
        *head = finder->list->items[first];
        head->node = walk->linear[0];
        head->features = linear.features;
        head->feature_width = linear.width;
        head->rank = linear.rank;
        head->depth = depth;
        head->scores = linear_scores(head->node, linear.classes);
        head->confidence = finder->list->items[first].confidence * 0.5;
        head->why = arena_printf(finder->arena, "linear layer %d further back", depth);
        TailInfo none = {0};
        learn_type(head, &linear, &none);
    }
}

static void find_for_output(Finder *finder, Value *output)
{
    Walk *walk = &finder->walk;
    walk_back(walk, output, false);
    HeadList *list = finder->list;
    if (walk->linear_count == 0 && list->blocked == NULL)
        list->blocked =
            walk->stopper != NULL
                ? arena_printf(finder->arena, "behind '%s' the walk ends at %s", output->name, node_text(walk->stopper))
                : arena_printf(finder->arena, "no layer with weights leads to '%s'", output->name);
    size_t first = list->count;
    size_t kept = sizeof walk->linear / sizeof *walk->linear;
    for (size_t i = 0; i < walk->linear_count && i < kept; i++)
        add_head(finder, walk->linear[i], output);
    if (walk->linear_count == 1 && !list->items[first].spatial)
        add_alternatives(finder, first);
}

Status heads_find(Model *document, HeadList *list, Error *err)
{
    Graph *graph = document->graph;
    *list = (HeadList){0};
    if (graph->output_count == 0)
        return fail(err, STATUS_REJECTED, "the graph has no output");
    graph_mark_fed(graph);
    for (Node *node = graph->first; node != NULL; node = node->next) {
        node->mark = 0;
        node->note = NULL;
    }
    Finder finder = {.graph = graph, .arena = &document->arena, .list = list};
    arena_init(&finder.scratch);
    finder.walk.graph = graph;
    finder.walk.seen = arena_array(&finder.scratch, Node *, graph->node_count + 1);
    for (size_t i = 0; i < graph->output_count; i++)
        find_for_output(&finder, graph->outputs[i]);
    arena_release(&finder.scratch);
    return STATUS_OK;
}

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

static void describe(const Head *head, size_t number, Str *out)
{
    str_printf(out, "%s%zu: %s '%s' [%lld -> %lld]", out->length > 0 ? "; " : "", number, head->node->op_type,
               head->node->name, (long long)head->feature_width, (long long)head->class_count);
}

static Status refuse(const HeadList *list, const char *output, const char *what, Error *err)
{
    Str all;
    str_init(&all);
    for (size_t i = 0; i < list->count && all.length < 600; i++)
        if (list->items[i].depth == 0 && (output == NULL || strcmp(list->items[i].output->name, output) == 0))
            describe(&list->items[i], i + 1, &all);
    Status status = fail(err, STATUS_AMBIGUOUS, "%s; candidates are %s", what, all.text);
    str_release(&all);
    return status;
}

static bool head_is_called(const Head *head, const char *name, size_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%zu", number);
    return strcmp(text, name) == 0 || strcmp(head->node->name, name) == 0 || strcmp(head->features->name, name) == 0 ||
           strcmp(node_output(head->node, 0)->name, name) == 0;
}

static Status pick_by_name(const HeadList *list, const char *name, const char *output, const Head **head, Error *err)
{
    const char *names[64];
    size_t count = 0;
    for (size_t i = 0; i < list->count; i++) {
        const Head *item = &list->items[i];
        if (output != NULL && strcmp(item->output->name, output) != 0)
            continue;
        if (head_is_called(item, name, i + 1)) {
            *head = item;
            return STATUS_OK;
        }
        if (count + 2 <= sizeof names / sizeof *names) {
            names[count++] = item->node->name;
            names[count++] = item->features->name;
        }
    }
    const char *near = text_nearest(name, names, count);
    if (near != NULL)
        return fail(err, STATUS_USAGE, "no head is called '%s' (did you mean '%s'?)", name, near);
    return fail(err, STATUS_USAGE, "no head is called '%s'; the verb `heads` lists them", name);
}

static Status pick_best(const HeadList *list, const char *output, const Head **head, Error *err)
{
    const Head *best = NULL;
    bool outer = false;
    for (size_t i = 0; i < list->count; i++)
        outer = outer || !list->items[i].inner;
    for (size_t i = 0; i < list->count; i++) {
        const Head *item = &list->items[i];
        bool listed = output == NULL || strcmp(item->output->name, output) == 0;
        if (!listed || item->depth > 0)
            continue;
        if ((best != NULL && best->node == item->node) || (output == NULL && item->inner && outer))
            continue; /* features beside scores, or scores beside probabilities */
        if (best != NULL)
            return refuse(list, output,
                          best->output == item->output ? best->why : "several heads, choose by name or by output", err);
        best = item;
    }
    if (best == NULL)
        return fail(err, STATUS_AMBIGUOUS, "no head found: %s; name the tensor to cut at",
                    list->blocked != NULL ? list->blocked : "no linear layer leads to an output");
    for (size_t i = 0; output == NULL && i < list->count; i++) /* of scores and probabilities, or labels, the scores */
        if ((list->items[i].inner || node_is_zipmap(list->items[i].output->producer)) &&
            list->items[i].node == best->node && list->items[i].depth == 0)
            best = &list->items[i];
    if (best->confidence < 0.5)
        return refuse(list, output, best->why, err);
    *head = best;
    return STATUS_OK;
}

Status heads_pick(const HeadList *list, const char *name, const char *output, const Head **head, Error *err)
{
    if (output != NULL) {
        const char *names[64];
        size_t count = 0;
        bool found = false;
        for (size_t i = 0; i < list->count; i++) {
            found = found || strcmp(list->items[i].output->name, output) == 0;
            if (count < sizeof names / sizeof *names)
                names[count++] = list->items[i].output->name;
        }
        const char *near = found ? NULL : text_nearest(output, names, count);
        if (!found && near != NULL)
            return fail(err, STATUS_USAGE, "no head leads to output '%s' (did you mean '%s'?)", output, near);
        if (!found)
            return fail(err, STATUS_USAGE, "no head leads to output '%s'", output);
    }
    return name != NULL ? pick_by_name(list, name, output, head, err) : pick_best(list, output, head, err);
}
