/* What exporters write down of where a tensor comes from.
 *
 * PyTorch's dynamo exporter says it outright, in metadata: the exported program's signature lists every parameter and
 * buffer by name and in order, the value_info of an initializer says which it is, and what the optimizer folded says
 * from which tensors. Where that is missing, names are what is left: exporters keep the framework's names for state and
 * make up others, after the operator, for what they compute. */
#include <ctype.h>
#include <string.h>

#include "passes/params.h"

/* ---- names ----------------------------------------------------------------------------------------------- */

/* What torch's operators are called where ONNX has no operator of that name. */
/* clang-format off */
static const char *const torch_stems[] = {
    "val", "embedding", "cat", "view", "_unsafe_view", "permute", "select", "index", "arange", "full", "ones",
    "zeros", "tensor", "clone", "t", "stack", "getitem", "outer", "repeat", "const", "full_like", "zeros_like",
    "ones_like", "masked_fill", "_to_copy", "lift_fresh_copy", "to", "tril", "triu", "rsqrt", "clamp", "clamp_min",
    "clamp_max", "expand_as", "linear", "mm", "bmm", "addmm", "roll", "flip", "index_select", "slice_scatter",
    "meshgrid", "linspace", "chunk", "unbind", "detach", "alias", "contiguous", "type_as", "view_as", "unflatten",
    "movedim", "scalar_tensor", "convolution", "select_scatter", "broadcast_in_dim"};
/* clang-format on */

/* Those that only move elements. */
static const char *const moving_stems[] = {"val",
                                           "view",
                                           "_unsafe_view",
                                           "permute",
                                           "t",
                                           "transpose",
                                           "reshape",
                                           "unsqueeze",
                                           "squeeze",
                                           "flatten",
                                           "unflatten",
                                           "expand",
                                           "expand_as",
                                           "clone",
                                           "detach",
                                           "alias",
                                           "contiguous",
                                           "to",
                                           "_to_copy",
                                           "identity",
                                           "movedim",
                                           "lift_fresh_copy",
                                           "type_as",
                                           "view_as",
                                           "repeat",
                                           "broadcast_in_dim"};

static bool in_list(const char *const *list, size_t count, const char *text, size_t length)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(list[i]) == length && strncmp(list[i], text, length) == 0)
            return true;
    return false;
}

/* "ReduceMean" is called reduce_mean. */
static bool same_but_case(const char *op_name, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '_')
            continue;
        if (tolower((unsigned char)*op_name) != text[i])
            return false;
        op_name++;
    }
    return *op_name == '\0';
}

static bool is_operator_name(const OpSet *ops, const char *text, size_t length)
{
    for (size_t family = 0; ops != NULL && family < ops->count; family++)
        for (const OpDef *row = ops->families[family]; row->name != NULL; row++)
            if (row->domain == NULL && same_but_case(row->name, text, length))
                return true;
    return false;
}

/* The length of "view" in "view_12" and in "view"; that of the whole in "layer1". */
static size_t stem_length(const char *name)
{
    size_t length = strlen(name), end = length;
    while (end > 0 && isdigit((unsigned char)name[end - 1]))
        end--;
    return end < length && end > 1 && name[end - 1] == '_' ? end - 1 : length;
}

bool name_is_generated(const Records *records, const char *name)
{
    size_t length = strlen(name), stem = stem_length(name);
    if (length == 0 || strspn(name, "0123456789") == length) /* TorchScript of old numbers its values */
        return true;
    if (text_starts(name, "onnx::") || strstr(name, "Constant") != NULL || strstr(name, "const_fold") != NULL)
        return true;
    if (records->torchscript) /* calls what it computes in no other way */
        return false;
    if (in_list(torch_stems, sizeof torch_stems / sizeof torch_stems[0], name, stem))
        return true;
    return is_operator_name(records->document->ops, name, stem);
}

static bool only_moves(const char *name)
{
    return in_list(moving_stems, sizeof moving_stems / sizeof moving_stems[0], name, stem_length(name));
}

/* ---- the signature --------------------------------------------------------------------------------------- */

static void add_modules(Records *records, const char *name)
{
    for (const char *dot = strchr(name, '.'); dot != NULL; dot = strchr(dot + 1, '.')) {
        const char *module = arena_strndup(records->arena, name, (size_t)(dot - name));
        map_set(&records->modules, module, records);
    }
}

/* One line: p_fc_weight: PARAMETER target='fc.weight' */
static void read_line(Records *records, const char *line, size_t length, size_t place)
{
    char *text = arena_strndup(records->arena, line, length);
    char *kind = strstr(text, ": "), *target = strstr(text, " target='");
    if (kind == NULL || target == NULL || target < kind)
        return;
    char *name = target + strlen(" target='"), *end = strchr(name, '\'');
    if (end == NULL)
        return;
    *target = *end = '\0';
    map_set(&records->state, name, (void *)(uintptr_t)place);
    map_set(&records->kinds, name, kind + 2);
    add_modules(records, name);
}

static void read_signature(Records *records, const char *text)
{
    size_t place = 1;
    while (text != NULL && *text != '\0') {
        size_t length = strcspn(text, "\n");
        read_line(records, text, length, place++);
        text += length + (text[length] == '\n');
    }
}

/* PyTorch's older exporter: names of nodes are folders, and nothing is said in metadata. */
static bool is_torchscript(const Model *document)
{
    bool folders = false;
    if (document->producer_name == NULL || strcmp(document->producer_name, "pytorch") != 0)
        return false;
    for (const Node *node = document->graph->first; node != NULL; node = node->next) {
        for (size_t i = 0; i < node->extra.metadata_count; i++)
            if (text_starts(node->extra.metadata[i].key, "pkg.torch."))
                return false;
        folders = folders || node->name[0] == '/';
    }
    return folders;
}

void records_init(Records *records, const Model *document, Arena *arena)
{
    const Graph *graph = document->graph;
    *records = (Records){.document = document, .arena = arena};
    map_init(&records->state);
    map_init(&records->kinds);
    map_init(&records->modules);
    records->torchscript = is_torchscript(document);
    read_signature(records, extra_metadata(&graph->extra, "pkg.torch.export.ExportedProgram.graph_signature"));
    for (size_t i = 0; i < graph->values.count; i++) {
        const Value *value = graph->values.entries[i].key == NULL ? NULL : graph->values.entries[i].value;
        bool alias = value != NULL && value->producer != NULL && node_is(value->producer, "Identity");
        if (value != NULL && (value->is_initializer || alias) && !name_is_generated(records, value->name))
            add_modules(records, value->name);
    }
}

void records_release(Records *records)
{
    map_release(&records->state);
    map_release(&records->kinds);
    map_release(&records->modules);
}

/* ---- one tensor ------------------------------------------------------------------------------------------ */

static Origin origin_of_kind(const char *kind)
{
    return strcmp(kind, "PARAMETER") == 0 ? ORIGIN_PARAMETER : ORIGIN_BUFFER;
}

static const char *kind_of(const Records *records, const char *name)
{
    const Value *value = graph_find(records->document->graph, name);
    const char *kind = value == NULL ? NULL : value_metadata(value, "pkg.torch.export.graph_signature.InputSpec.kind");
    return kind != NULL ? kind : map_get(&records->kinds, name);
}

/* A file without a signature: what no node makes and no exporter would call so. */
static bool is_unlisted_state(const Records *records, const char *name)
{
    const Value *value = graph_find(records->document->graph, name);
    return records->state.live == 0 && (value == NULL || value->producer == NULL) && !name_is_generated(records, name);
}

/* The list reads "['fc.weight', 'val_3']": everything on the way from what the program keeps. One parameter that was
 * only moved about is that parameter still; with a second tensor, or after arithmetic, it is something else. */
static Provenance provenance_of_list(const Records *records, const char *name, const char *list)
{
    Provenance copy = {.origin = ORIGIN_COPY, .recorded = true};
    bool moved = only_moves(name);
    for (const char *quote = strchr(list, '\''); quote != NULL;) {
        const char *end = strchr(quote + 1, '\'');
        if (end == NULL)
            break;
        const char *item = arena_strndup(records->arena, quote + 1, (size_t)(end - quote - 1));
        const char *kind = kind_of(records, item);
        bool parameter = kind != NULL ? origin_of_kind(kind) == ORIGIN_PARAMETER : is_unlisted_state(records, item);
        moved = moved && (parameter ? copy.source == NULL : kind == NULL && only_moves(item));
        copy.source = parameter ? item : copy.source;
        quote = strchr(end + 1, '\'');
    }
    if (moved && copy.source != NULL)
        return copy;
    bool untrained = copy.source == NULL && records->state.live > 0;
    return (Provenance){.origin = ORIGIN_COMPUTED, .recorded = true, .untrained = untrained};
}

static const Tensor *tensor_of(const Records *records, const char *name)
{
    const Value *value = graph_find(records->document->graph, name);
    return value == NULL ? NULL : value->constant;
}

/* The first step of a cell that begins with zeros: W * 0 + b for a batch that is fixed. Folded, it is rows that are all
 * b, or one gate's part of b. Training moves b in every step, so it must move this one too. */
static Provenance provenance_of_rows(const Records *records, const char *name, const char *list)
{
    const Tensor *copy = tensor_of(records, name);
    for (const char *quote = strchr(list, '\''); quote != NULL && copy != NULL;) {
        const char *end = strchr(quote + 1, '\'');
        if (end == NULL)
            break;
        const char *item = arena_strndup(records->arena, quote + 1, (size_t)(end - quote - 1));
        const char *kind = kind_of(records, item);
        const Tensor *owner = tensor_of(records, item);
        bool parameter = kind != NULL && origin_of_kind(kind) == ORIGIN_PARAMETER;
        if (parameter && owner != NULL && repeated_row(owner, copy) >= 0)
            return (Provenance){.origin = ORIGIN_COPY, .source = item, .recorded = true, .repeated = true};
        quote = strchr(end + 1, '\'');
    }
    return (Provenance){.origin = ORIGIN_COMPUTED, .recorded = true};
}

Provenance provenance_of(const Records *records, const char *name)
{
    const Value *value = graph_find(records->document->graph, name);
    const char *kind = kind_of(records, name);
    const char *folded = value == NULL ? NULL : value_metadata(value, "pkg.onnxscript.optimizer.folded_from");
    if (kind != NULL)
        return (Provenance){.origin = origin_of_kind(kind), .source = name, .recorded = true};
    if (folded != NULL) {
        Provenance from = provenance_of_list(records, name, folded);
        return from.origin == ORIGIN_COMPUTED && !from.untrained ? provenance_of_rows(records, name, folded) : from;
    }
    if (name_is_generated(records, name))
        return (Provenance){.origin = ORIGIN_COMPUTED};
    return (Provenance){.origin = ORIGIN_KEPT};
}

/* ---- modules --------------------------------------------------------------------------------------------- */

/* "['', 'layer', 'layer.0', 'conv2d']": modules from the outside in, then the operation. */
static const char *module_from_metadata(const Records *records, const char *list)
{
    const char *found[2] = {"", ""};
    for (const char *quote = strchr(list, '\''); quote != NULL;) {
        const char *end = strchr(quote + 1, '\'');
        if (end == NULL)
            break;
        found[0] = found[1];
        found[1] = arena_strndup(records->arena, quote + 1, (size_t)(end - quote - 1));
        quote = strchr(end + 1, '\'');
    }
    return found[0];
}

/* "conv_1" is the second call of conv, unless the file knows a module of that name. */
static void drop_call_number(const Records *records, char *path, size_t part)
{
    size_t length = strlen(path), end = length;
    while (end > part && isdigit((unsigned char)path[end - 1]))
        end--;
    if (end < length && end > part + 1 && path[end - 1] == '_' && !map_has(&records->modules, path))
        path[end - 1] = '\0';
}

/* "/enc/f/f.0_1/Conv" -> "enc.f.0": a part repeats the one before it where a list numbers its members. */
static const char *module_from_name(const Records *records, const char *name)
{
    const char *last = strrchr(name, '/'), *before = NULL;
    size_t length = 0, before_length = 0;
    char *path = arena_alloc(records->arena, strlen(name) + 1);
    path[0] = '\0';
    while (last != NULL && name < last) {
        size_t part = strcspn(name, "/"), skip = 0;
        if (before != NULL && part > before_length && strncmp(name, before, before_length) == 0 &&
            name[before_length] == '.')
            skip = before_length + 1;
        if (part > 0) {
            if (length > 0)
                path[length++] = '.';
            size_t start = length;
            memcpy(path + length, name + skip, part - skip);
            path[length + part - skip] = '\0';
            drop_call_number(records, path, start);
            length = strlen(path);
            before = name;
            before_length = part;
        }
        name += part + 1;
    }
    return path;
}

const char *module_of(const Records *records, const Node *node, bool *recorded)
{
    const char *list = extra_metadata(&node->extra, "pkg.torch.onnx.name_scopes");
    *recorded = list != NULL;
    return list != NULL ? module_from_metadata(records, list) : module_from_name(records, node->name);
}
