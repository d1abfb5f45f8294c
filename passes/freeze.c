/* Choosing parameters by pattern, keeping the choice in the model, and telling in which form BatchNorm is there.
 *
 * Patterns speak of parameters as params_find lists them. Where a parameter sits in the graph (in the head, before a
 * tensor) is asked of the document: the first nodes on the data's path that read it. */
#include "passes/passes.h"
#include "passes/surgery.h"

#include <stdlib.h>

typedef struct Selector {
    Model *document;
    const ParamList *list;
    bool *selected;
    bool *hit; /* by the pattern at hand */
    Arena scratch;
    Value **values; /* of each parameter: initializer or Constant output; NULL: none in the main graph */
} Selector;

/* ---- where a parameter is read ----------------------------------------------------------------------------------- */

static void map_origin(Map *map, Arena *scratch, const Tensor *tensor, Value *value)
{
    map_set(map, arena_printf(scratch, "%p", (const void *)tensor), value);
}

/* The value of each parameter's tensor, by address of the tensor. */
static void find_values(Selector *selector)
{
    const Graph *graph = selector->document->graph;
    Map map;
    map_init(&map);
    for (size_t i = 0; i < graph->initializer_count; i++)
        map_origin(&map, &selector->scratch, graph->initializers[i]->constant, graph->initializers[i]);
    for (const Node *node = graph->first; node != NULL; node = node->next)
        if (node_is(node, "Constant") && node_tensor(node, "value") != NULL)
            map_origin(&map, &selector->scratch, node_tensor(node, "value"), node_output(node, 0));
    selector->values = arena_array(&selector->scratch, Value *, selector->list->count + 1);
    for (size_t i = 0; i < selector->list->count; i++)
        selector->values[i] =
            map_get(&map, arena_printf(&selector->scratch, "%p", (const void *)selector->list->items[i].origin));
    map_release(&map);
}

static bool read_by_marked(const Value *value, int depth);

/* The node itself, or, where no data passes (Transpose of a weight), a reader of its results. Needs graph_mark_fed. */
static bool leads_to_marked(const Node *node, int depth)
{
    if (node == NULL || node->mark)
        return node != NULL;
    for (int i = 0; i < node->output_count && depth < 16; i++)
        if (node->outputs[i] != NULL && !node->outputs[i]->mark && read_by_marked(node->outputs[i], depth + 1))
            return true;
    return false;
}

static bool read_by_marked(const Value *value, int depth)
{
    for (size_t i = 0; i < value->use_count; i++)
        if (leads_to_marked(node_within(value->graph, value->uses[i].node), depth))
            return true;
    return false;
}

static bool param_read_by_marked(const Selector *selector, size_t i)
{
    const ParamInfo *info = &selector->list->items[i];
    for (size_t k = 0; k < info->use_count; k++)
        if (leads_to_marked(node_within(selector->document->graph, info->uses[k].node), 0))
            return true;
    return info->use_count == 0 && selector->values[i] != NULL && read_by_marked(selector->values[i], 0);
}

static void hit_marked(Selector *selector)
{
    for (size_t i = 0; i < selector->list->count; i++)
        selector->hit[i] = selector->hit[i] || param_read_by_marked(selector, i);
}

/* ---- patterns ------------------------------------------------------------------------------------------ */

static bool name_in_lines(const char *lines, const char *name)
{
    size_t length = strlen(name);
    while (lines != NULL && *lines != '\0') {
        size_t line = strcspn(lines, "\n");
        if (line == length && memcmp(lines, name, length) == 0)
            return true;
        lines += line + (lines[line] == '\n');
    }
    return false;
}

/* Parameters that attach made, else those behind the features of every head that heads_find is sure of. */
static Status hit_head(Selector *selector, Error *err)
{
    Model *document = selector->document;
    const char *made = model_metadata(document, "regraft.head");
    bool found = false;
    for (size_t i = 0; i < selector->list->count; i++) {
        bool is_made = name_in_lines(made, selector->list->items[i].name);
        selector->hit[i] = selector->hit[i] || is_made;
        found = found || is_made;
    }
    if (found)
        return STATUS_OK;
    HeadList heads;
    TRY(heads_find(document, &heads, err));
    for (size_t i = 0; i < heads.count; i++) {
        const Head *head = &heads.items[i];
        if (head->depth > 0 || head->confidence < 0.5)
            continue;
        found = true;
        graph_mark_fed(document->graph);
        graph_mark_behind(document->graph, head->features);
        hit_marked(selector);
    }
    if (found)
        return STATUS_OK;
    return fail(err, STATUS_AMBIGUOUS, "'head': no head to be sure of%s%s; name its parameters",
                heads.blocked != NULL ? ", " : "", heads.blocked != NULL ? heads.blocked : "");
}

static int compare_orders(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x < y) - (x > y);
}

/* The head, and the last `n` nodes with parameters before it. */
static Status hit_last(Selector *selector, const char *number, Error *err)
{
    char *end;
    long n = strtol(number, &end, 10);
    if (end == number || *end != '\0' || n < 1 || n > 1000000)
        return fail(err, STATUS_USAGE, "last:N needs a whole number above 0, found 'last:%s'", number);
    size_t count = selector->list->count, distinct = 0;
    bool *head = arena_array(&selector->scratch, bool, count + 1);
    bool *before = selector->hit;
    selector->hit = head;
    Status status = hit_head(selector, err);
    selector->hit = before;
    TRY(status);
    int *orders = arena_array(&selector->scratch, int, count + 1);
    for (size_t i = 0; i < count; i++)
        if (!head[i] && !selector->list->items[i].looks_folded)
            orders[distinct++] = selector->list->items[i].order;
    qsort(orders, distinct, sizeof *orders, compare_orders);
    size_t kept = 0;
    for (size_t i = 0; i < distinct; i++)
        if (kept == 0 || orders[kept - 1] != orders[i])
            orders[kept++] = orders[i];
    int least = kept == 0 ? 0 : orders[(size_t)n < kept ? (size_t)n - 1 : kept - 1];
    for (size_t i = 0; i < count; i++) {
        const ParamInfo *info = &selector->list->items[i];
        selector->hit[i] = selector->hit[i] || head[i] || (kept > 0 && info->order >= least && !info->looks_folded);
    }
    return STATUS_OK;
}

static Status hit_before(Selector *selector, const char *name, Error *err)
{
    Graph *graph = selector->document->graph;
    Value *value = graph_find(graph, name);
    if (value == NULL) {
        const char **names = arena_array(&selector->scratch, const char *, graph->values.live + 1);
        size_t count = 0;
        for (size_t i = 0; i < graph->values.count; i++)
            if (graph->values.entries[i].key != NULL)
                names[count++] = graph->values.entries[i].key;
        const char *near = text_nearest(name, names, count);
        return fail(err, STATUS_USAGE, "before: no tensor is called '%s'%s%s%s", name, near ? " (did you mean '" : "",
                    near ? near : "", near ? "'?)" : "");
    }
    graph_mark_fed(graph);
    graph_mark_needed(graph, &value, 1);
    hit_marked(selector);
    return STATUS_OK;
}

/* A glob on the whole path or on any of its outer parts: `layer4` means everything in it. Paths are parameter names
 * (layer4.1.conv2.weight) and scopes (/layer4/layer4.1/conv2), with or without the first slash. */
static bool path_matches(const char *pattern, const char *path)
{
    char outer[512];
    if (pattern[0] != '/' && path[0] == '/')
        path++;
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof outer)
        return false;
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '\0' && path[i] != '/' && path[i] != '.')
            continue;
        memcpy(outer, path, i);
        outer[i] = '\0';
        if (text_glob(pattern, outer))
            return true;
    }
    return false;
}

static void hit_glob(Selector *selector, const char *pattern)
{
    for (size_t i = 0; i < selector->list->count; i++) {
        const ParamInfo *info = &selector->list->items[i];
        if (path_matches(pattern, info->name) || path_matches(pattern, info->scope) ||
            (info->node[0] != '\0' && text_glob(pattern, info->node)))
            selector->hit[i] = true;
    }
}

static Status hit_pattern(Selector *selector, const char *pattern, Error *err)
{
    if (strcmp(pattern, "head") == 0)
        return hit_head(selector, err);
    if (text_starts(pattern, "last:"))
        return hit_last(selector, pattern + 5, err);
    if (text_starts(pattern, "before:"))
        return hit_before(selector, pattern + 7, err);
    bool all = strcmp(pattern, "all") == 0, norm = strcmp(pattern, "norm") == 0;
    for (size_t i = 0; i < selector->list->count && (all || norm); i++) {
        const ParamInfo *info = &selector->list->items[i];
        selector->hit[i] = all ? !info->looks_folded : info->is_norm;
    }
    if (!all && !norm)
        hit_glob(selector, pattern);
    return STATUS_OK;
}

static bool is_constant_name(const ParamList *list, const char *name)
{
    for (size_t i = 0; i < list->constant_count; i++)
        if (strcmp(list->constant_names[i], name) == 0)
            return true;
    return false;
}

static Status matched_nothing(const Selector *selector, const char *pattern, Error *err)
{
    size_t count = selector->list->count;
    const char **names = arena_array((Arena *)&selector->scratch, const char *, 3 * count + 1);
    for (size_t i = 0; i < count; i++) {
        names[3 * i] = selector->list->items[i].name;
        names[3 * i + 1] = selector->list->items[i].node;
        names[3 * i + 2] = selector->list->items[i].scope;
    }
    const char *near = text_nearest(pattern, names, 3 * count);
    if (is_constant_name(selector->list, pattern))
        return fail(err, STATUS_USAGE, "'%s' is a constant of the model, not a parameter", pattern);
    if (near != NULL)
        return fail(err, STATUS_USAGE, "pattern '%s' matches no parameter (did you mean '%s'?)", pattern, near);
    return fail(err, STATUS_USAGE, "pattern '%s' matches none of %zu parameters%s%s", pattern, count,
                count > 0 ? ", e.g. " : "", count > 0 ? selector->list->items[0].name : "");
}

/* What is computed from a parameter goes with it, whatever is said of it alone. */
static bool follows_owner(const ParamInfo *info)
{
    return info->tied_to >= 0 && copy_is_computed(&info->layout);
}

static void spread_ties(const ParamList *list, bool *selected)
{
    for (size_t i = 0; i < list->count; i++) {
        int tied = list->items[i].tied_to;
        if (tied < 0 || (size_t)tied >= list->count)
            continue;
        selected[i] = selected[tied] || (selected[i] && !follows_owner(&list->items[i]));
        selected[tied] = selected[i];
    }
}

static Status select_matching(const Model *document, const ParamList *list, const char *const *patterns, size_t count,
                              bool constants_too, bool *selected, Error *err)
{
    Selector selector = {.document = (Model *)document, .list = list, .selected = selected};
    arena_init(&selector.scratch);
    find_values(&selector);
    memset(selected, 0, list->count * sizeof *selected);
    Status status = STATUS_OK;
    for (size_t p = 0; p < count && status == STATUS_OK; p++) {
        selector.hit = arena_array(&selector.scratch, bool, list->count + 1);
        status = hit_pattern(&selector, patterns[p], err);
        bool any = false;
        for (size_t i = 0; i < list->count && status == STATUS_OK; i++) {
            any = any || (selector.hit[i] && (constants_too || !follows_owner(&list->items[i])));
            selected[i] = selected[i] || selector.hit[i];
        }
        if (status == STATUS_OK && !any && !(constants_too && is_constant_name(list, patterns[p])))
            status = matched_nothing(&selector, patterns[p], err);
    }
    spread_ties(list, selected);
    arena_release(&selector.scratch);
    return status;
}

Status params_select(const Model *document, const ParamList *list, const char *const *patterns, size_t count,
                     bool *selected, Error *err)
{
    return select_matching(document, list, patterns, count, false, selected, err);
}

Status params_select_frozen(const Model *document, const ParamList *list, const char *const *patterns, size_t count,
                            bool *selected, Error *err)
{
    return select_matching(document, list, patterns, count, true, selected, err);
}

/* ---- marks --------------------------------------------------------------------------------------------- */

Status freeze_mark(Model *document, const ParamList *list, const bool *frozen, Error *err)
{
    Str lines;
    str_init(&lines);
    for (size_t i = 0; i < list->count; i++) {
        if (!frozen[i])
            continue;
        if (strchr(list->items[i].name, '\n') != NULL) {
            str_release(&lines);
            return fail(err, STATUS_UNSUPPORTED, "a parameter's name holds a line break: '%s'", list->items[i].name);
        }
        str_printf(&lines, "%s%s", lines.length > 0 ? "\n" : "", list->items[i].name);
    }
    const char *text = lines.length > 0 ? arena_strdup(&document->arena, lines.text) : NULL;
    str_release(&lines);
    model_set_metadata(document, "regraft.frozen", text);
    return STATUS_OK;
}

Status freeze_read(const Model *document, ParamList *list, Error *err)
{
    (void)err;
    const char *lines = model_metadata(document, "regraft.frozen");
    for (size_t i = 0; i < list->count; i++)
        if (name_in_lines(lines, list->items[i].name))
            list->items[i].trainable = false;
    return STATUS_OK;
}

/* ---- BatchNorm ----------------------------------------------------------------------------------------- */

/* Opset 14 has training_mode; before, outputs beyond the first meant training (7 to 13), and is_test = 0 (below 7). */
bool batchnorm_is_training(const Node *node)
{
    if (node->opset >= 14)
        return node_int(node, "training_mode", 0) != 0;
    if (node->opset < 7 && node_int(node, "is_test", 0) != 0)
        return false;
    for (int i = 1; i < node->output_count; i++)
        if (node->outputs[i] != NULL)
            return true;
    return false;
}

/* Folding leaves a bias behind, named by the exporter: onnx::Conv_193, conv1.weight_bias. */
static bool is_folded_conv(const Node *node)
{
    const Value *bias = node_input(node, 2);
    if (!node_is(node, "Conv") || bias == NULL)
        return false;
    return text_glob("onnx::Conv_*", bias->name) || text_ends(bias->name, "_bias") || text_glob("*_bn_*", bias->name) ||
           text_glob("*fused_bn*", bias->name) || text_glob("*BatchNorm*", bias->name);
}

typedef struct BatchNormCount {
    size_t training, inference, folded;
    size_t convs, biased, depthwise, norms; /* what tells when the names do not */
} BatchNormCount;

static void count_conv(const Node *node, BatchNormCount *count)
{
    const Value *weight = node_input(node, 1);
    int64_t group = node_int(node, "group", 1);
    count->convs++;
    count->biased += node_input(node, 2) != NULL;
    count->folded += is_folded_conv(node);
    count->depthwise += group > 1 && weight != NULL && weight->constant != NULL && weight->constant->rank > 1 &&
                        weight->constant->dims[1] == 1;
}

static void count_batchnorm(const Graph *graph, BatchNormCount *count)
{
    for (const Node *node = graph->first; node != NULL; node = node->next) {
        if (node_is(node, "BatchNormalization"))
            (*(batchnorm_is_training(node) ? &count->training : &count->inference))++;
        else if (node_is(node, "Conv"))
            count_conv(node, count);
        else
            count->norms += text_ends(node->op_type, "Normalization");
    }
    /* Depthwise nets are trained with BatchNorm; where none is left and every convolution has a bias, it was folded. */
    if (count->folded == 0 && count->norms == 0 && count->depthwise > 0 && count->biased == count->convs)
        count->folded = count->convs;
}

BatchNormForm batchnorm_form(const Model *document, size_t *count)
{
    BatchNormCount found = {0};
    count_batchnorm(document->graph, &found);
    for (size_t i = 0; i < document->function_count; i++)
        count_batchnorm(document->functions[i]->graph, &found);
    BatchNormForm form = found.training > 0    ? BATCHNORM_TRAINING
                         : found.inference > 0 ? BATCHNORM_INFERENCE
                         : found.folded > 0    ? BATCHNORM_FOLDED
                                               : BATCHNORM_NONE;
    if (count != NULL)
        *count = form == BATCHNORM_TRAINING    ? found.training
                 : form == BATCHNORM_INFERENCE ? found.inference
                                               : found.folded;
    return form;
}
