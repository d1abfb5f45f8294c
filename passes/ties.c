/* One parameter read several times, or several parameters with equal numbers?
 *
 * A module that is called several times (ALBERT's layer, a Siamese encoder, a cell unrolled by hand) reads one
 * parameter in several places. Exporters make the same picture of tensors that only happen to be equal, by merging
 * them: fresh scales and biases, layers that started as copies. And they take a tie apart again when they fold what a
 * reader does to a weight (axes exchanged, dims of one added, rows repeated), once for each reader. What tells them
 * apart, in this order:
 *
 *   1. names that the exporter kept: TorchScript leaves an Identity with the merged parameter's own name behind,
 *      dynamo's signature lists every parameter (a tie keeps the last, a merger the first);
 *   2. the module that reads: readers in one module are calls of it, and its parameter is one;
 *   3. the company: a layer that started as a copy equals the other in all its tensors, a tied weight has its own bias;
 *   4. the numbers: no two parameters that were ever trained are equal by chance, unless all their elements are. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "passes/params.h"

enum {
    TIE_ELEMENTS = 1024,   /* smaller moved copies of which neither name is an exporter's are coincidences */
    MERGE_ELEMENTS = 1024, /* dynamo merges equal initializers up to this size */
    TIE_WINDOW = 8
};

bool tensor_is_uniform(const Tensor *tensor)
{
    int64_t count = tensor_count(tensor);
    size_t size = tensor->bytes / (size_t)(count > 0 ? count : 1);
    return tensor->bytes <= size || memcmp(tensor->data, (const char *)tensor->data + size, tensor->bytes - size) == 0;
}

/* ---- names ----------------------------------------------------------------------------------------------- */

/* The parameter of the signature that `reader`'s module has in the place of `owner`: "l2.weight" for a reader in l2 of
 * "l1.weight". 0: the signature has none. */
static size_t place_in_module(const Records *records, const Reader *reader, const char *owner)
{
    const char *dot = strrchr(owner, '.'), *leaf = dot == NULL ? owner : dot + 1;
    const char *name = reader->module[0] == '\0' ? leaf : arena_printf(records->arena, "%s.%s", reader->module, leaf);
    return (size_t)(uintptr_t)map_get(&records->state, name);
}

/* The last parameter that the signature lists in the reader's own module, whatever it is called there. */
static size_t last_in_module(const Records *records, const Reader *reader)
{
    size_t length = strlen(reader->module), last = 0;
    for (size_t i = 0; i < records->state.count; i++) {
        const char *name = records->state.entries[i].key;
        bool inside = name != NULL && strncmp(name, reader->module, length) == 0 && name[length] == '.' &&
                      strchr(name + length + 1, '.') == NULL;
        if (inside)
            last = (size_t)(uintptr_t)records->state.entries[i].value;
    }
    return last;
}

typedef enum Verdict { APART, ONE, OPEN } Verdict;

/* Which of the parameters that were merged or tied into `owner` the reader means: 0 for owner itself. */
static size_t meant_by(const Records *records, const Reader *reader, const char *owner, bool uniform, bool *known)
{
    size_t own = (size_t)(uintptr_t)map_get(&records->state, owner);
    size_t here = place_in_module(records, reader, owner);
    if (here == 0 && uniform) /* merged with one of another name: the module's last stands for it */
        here = last_in_module(records, reader);
    *known = own > 0 && here > 0;
    return *known && here > own ? here : 0;
}

static Verdict by_signature(const Records *records, const char *name, bool uniform, const Reader *a, const Reader *b)
{
    Provenance from = provenance_of(records, name);
    bool known_a, known_b;
    if (!a->recorded || !b->recorded || from.source == NULL)
        return OPEN;
    size_t means_a = meant_by(records, a, from.source, uniform, &known_a);
    size_t means_b = meant_by(records, b, from.source, uniform, &known_b);
    if (!known_a || !known_b)
        return OPEN;
    return means_a == means_b ? ONE : APART;
}

static Verdict by_alias(const Records *records, const Reader *a, const Reader *b)
{
    if (strcmp(a->alias, b->alias) == 0 || name_is_generated(records, a->alias) || name_is_generated(records, b->alias))
        return OPEN;
    return APART;
}

/* ---- modules --------------------------------------------------------------------------------------------- */

/* The value that the reader's arithmetic meets was made in the same module: a scale or bias of the layer itself, as
 * opposed to a vector that an outer module applies to what inner ones give. */
static bool inside_layer(const Records *records, const Reader *reader)
{
    const Value *other = node_input(reader->final.node, reader->final.index == 0 ? 1 : 0);
    bool recorded;
    return other != NULL && other->producer != NULL &&
           strcmp(module_of(records, other->producer, &recorded), reader->module) == 0;
}

static bool same_call_place(const Records *records, bool uniform, const Reader *a, const Reader *b)
{
    if (!uniform || records->torchscript)
        return true;
    if (a->kind != b->kind || a->final.index != b->final.index ||
        strcmp(a->final.node->op_type, b->final.node->op_type) != 0)
        return false;
    return a->kind != USE_ARITHMETIC || (inside_layer(records, a) && inside_layer(records, b));
}

/* ---- company --------------------------------------------------------------------------------------------- */

/* The layer's other tensor: a weight's bias, a bias's weight. NULL: there is none. */
static const Tensor *companion(const Use *use)
{
    const Node *node = use->node;
    Weight found;
    if (node_is(node, "Conv") || node_is(node, "Gemm") || node_is(node, "ConvTranspose") ||
        text_ends(node->op_type, "Normalization")) {
        const Value *other = node_input(node, use->index == 1 ? 2 : 1);
        return other != NULL && weight_resolve(other, &found) ? found.tensor : NULL;
    }
    const Value *out = node_output(node, 0);
    const Use *next = out != NULL && out->use_count == 1 ? &out->uses[0] : NULL;
    if (!node_is(node, "MatMul") || next == NULL || !node_is(next->node, "Add"))
        return NULL;
    const Value *bias = node_input(next->node, 1 - next->index);
    return bias != NULL && weight_resolve(bias, &found) ? found.tensor : NULL;
}

/* ONE: another tensor of the two layers differs, so they are no copies. */
static Verdict by_company(const Reader *a, const Reader *b)
{
    const Tensor *x = companion(&a->final), *y = companion(&b->final);
    if (x == NULL || y == NULL)
        return OPEN;
    return x != y && !tensor_equal(x, y) ? ONE : APART;
}

/* A bias follows its weight. */
static bool same_weight(const Reader *a, const Reader *b)
{
    const Value *x = node_input(a->final.node, 1), *y = node_input(b->final.node, 1);
    return a->final.index != 1 && x != NULL && x == y && x->constant != NULL && !tensor_is_uniform(x->constant);
}

/* ---- readers of one tensor --------------------------------------------------------------------------------- */

static bool same_use(const Use *a, const Use *b)
{
    return a->node == b->node && a->index == b->index;
}

static Verdict by_modules(const Records *records, const Tensor *tensor, const Reader *a, const Reader *b)
{
    bool uniform = tensor_is_uniform(tensor);
    if (a->module[0] == '\0' && b->module[0] == '\0' && !a->recorded && !records->torchscript)
        return OPEN;
    if (strcmp(a->module, b->module) == 0)
        return same_call_place(records, uniform, a, b) ? ONE : APART;
    if (uniform)
        return same_weight(a, b) ? ONE : APART;
    bool aliased = strcmp(a->alias, b->alias) != 0;
    if (!aliased && (tensor_count(tensor) > MERGE_ELEMENTS || records->torchscript))
        return ONE; /* too large to be merged, or TorchScript's */
    Verdict company = by_company(a, b);
    return company == OPEN ? APART : company;
}

bool readers_share(const Records *records, const Tensor *tensor, const char *name, const Reader *a, const Reader *b)
{
    bool uniform = tensor_is_uniform(tensor);
    if (same_use(&a->final, &b->final) || same_use(&a->direct, &b->direct))
        return true;
    Verdict verdict = by_alias(records, a, b);
    if (verdict == OPEN && strcmp(a->module, b->module) != 0)
        verdict = by_signature(records, name, uniform, a, b);
    if (verdict == OPEN)
        verdict = by_modules(records, tensor, a, b);
    if (verdict == OPEN && strcmp(a->alias, b->alias) != 0)
        verdict = APART; /* an Identity without any record: merged */
    if (verdict == OPEN)
        verdict = !uniform || same_weight(a, b) ? ONE : APART;
    return verdict == ONE;
}

/* Numbers that no two parameters have by chance: at least as many different ones among the first. */
static bool is_distinctive(const Tensor *tensor)
{
    enum { LOOK_AT = 64, ENOUGH = 8 };
    size_t size = dtype_size(tensor->dtype), different = 0;
    int64_t count = tensor_count(tensor);
    const char *data = tensor->data;
    for (int64_t i = 0; i < count && i < LOOK_AT && different < ENOUGH; i++) {
        bool seen = false;
        for (int64_t k = 0; k < i && !seen; k++)
            seen = memcmp(data + (size_t)k * size, data + (size_t)i * size, size) == 0;
        different += !seen;
    }
    return different >= ENOUGH;
}

static bool same_source(const Records *records, const char *a, const char *b, bool *known)
{
    Provenance from_a = provenance_of(records, a), from_b = provenance_of(records, b);
    *known = from_a.source != NULL && from_b.source != NULL;
    return *known && !from_a.repeated && !from_b.repeated && strcmp(from_a.source, from_b.source) == 0;
}

/* Equal tensors under two names. Two kept names are two parameters; a copy that the exporter made belongs to the module
 * that reads it. */
static bool copy_is_tied(const Records *records, const ParamInfo *a, const ParamInfo *b, const Reader *reader_a,
                         const Reader *reader_b)
{
    bool known, same = same_source(records, a->name, b->name, &known);
    if (known)
        return same;
    if (!name_is_generated(records, a->name) && !name_is_generated(records, b->name))
        return false;
    if (reader_a->module[0] != '\0' && strcmp(reader_a->module, reader_b->module) == 0)
        return true;
    return by_company(reader_a, reader_b) == ONE;
}

/* Exporters compute a copy with other dims or axes under a name of their own. Without one, and without any record, only
 * large ones are no coincidence. */
static bool moved_is_tied(const Records *records, const ParamInfo *a, const ParamInfo *b)
{
    bool known, same = same_source(records, a->name, b->name, &known);
    if (known)
        return same;
    bool computed = name_is_generated(records, a->name) || name_is_generated(records, b->name);
    return is_distinctive(a->origin) && (computed || tensor_count(a->origin) >= TIE_ELEMENTS);
}

static bool is_tied(const Records *records, const ParamInfo *a, const ParamInfo *b, const Reader *reader_a,
                    const Reader *reader_b, CopyLayout *layout)
{
    const Tensor *x = a->origin, *y = b->origin;
    *layout = (CopyLayout){0};
    if (x == y || x->bytes != y->bytes || tensor_count(x) < 2 || tensor_is_uniform(x))
        return false;
    if (tensor_equal(x, y))
        return copy_is_tied(records, a, b, reader_a, reader_b);
    return is_moved_copy(x, y, layout) && moved_is_tied(records, a, b);
}

/* ---- parts of a parameter, repeated ------------------------------------------------------------------------- */

/* The parameter that `source` is, or the one that it is tied to in the same order; -1: it is not in the list. */
static int find_owner(const ParamList *list, const char *source)
{
    for (size_t i = 0; i < list->count; i++) {
        const ParamInfo *info = &list->items[i];
        if (strcmp(info->name, source) == 0)
            return info->tied_to < 0 ? (int)i : info->layout.rank == 0 ? info->tied_to : -1;
    }
    return -1;
}

static void tie_repeated(const Records *records, ParamList *list, ParamInfo *info)
{
    Provenance from = provenance_of(records, info->name);
    if (!from.repeated)
        return;
    int owner = find_owner(list, from.source);
    info->looks_folded = owner < 0;
    info->trainable = owner >= 0;
    if (owner < 0)
        return;
    int64_t length = info->origin->dims[info->origin->rank - 1];
    info->tied_to = owner;
    info->layout = (CopyLayout){.start = repeated_row(list->items[owner].origin, info->origin), .length = length};
    info->trainable = list->items[owner].trainable;
    info->looks_folded = list->items[owner].looks_folded;
}

/* ---- lengths that an exporter computed ----------------------------------------------------------------------- */

/* The parameter whose length over some axes `copy` is, or whose squares; -1: none. */
static int find_measured(Arena *scratch, const ParamList *list, const Tensor *copy, CopyLayout *layout)
{
    for (size_t i = 0; i < list->count && tensor_count(copy) > 1 && !tensor_is_uniform(copy); i++) {
        const ParamInfo *owner = &list->items[i];
        if (owner->tied_to < 0 && owner->origin != copy && is_distinctive(owner->origin) &&
            (is_length(owner->origin, copy, layout) || is_square(scratch, owner->origin, copy, layout)))
            return (int)i;
    }
    return -1;
}

static ParamInfo measured(const ParamList *list, const char *name, Tensor *copy, int owner, const CopyLayout *layout)
{
    ParamInfo info = list->items[owner];
    info.name = name;
    info.origin = copy;
    info.tied_to = owner;
    info.layout = *layout;
    info.untied = false;
    info.uses = NULL;
    info.use_count = 0;
    return info;
}

/* Behind its owner, so that the list stays sorted. */
static void insert_measured(Arena *arena, ParamList *list, const ParamInfo *info)
{
    size_t place = (size_t)info->tied_to + 1;
    ParamInfo *items = arena_array(arena, ParamInfo, list->count + 1);
    for (size_t i = 0; i < list->count; i++) {
        ParamInfo *item = &items[i < place ? i : i + 1];
        *item = list->items[i];
        item->tied_to += item->tied_to >= (int)place;
    }
    items[place] = *info;
    list->items = items;
    list->count++;
}

void find_computed_copies(const Records *records, Arena *arena, ParamList *list)
{
    CopyLayout layout;
    for (size_t i = 0; i < list->count; i++) {
        ParamInfo *info = &list->items[i];
        bool open = info->tied_to < 0 && !info->untied && name_is_generated(records, info->name);
        int owner = open ? find_measured(records->arena, list, info->origin, &layout) : -1;
        if (owner >= 0)
            *info = measured(list, info->name, info->origin, owner, &layout);
    }
    size_t kept = 0;
    for (size_t i = 0; i < list->constant_count; i++) {
        Tensor *tensor = list->constants[i];
        const char *name = list->constant_names[i];
        int owner = name_is_generated(records, name) ? find_measured(records->arena, list, tensor, &layout) : -1;
        if (owner >= 0) {
            ParamInfo info = measured(list, name, tensor, owner, &layout);
            insert_measured(arena, list, &info);
            continue;
        }
        list->constants[kept] = tensor;
        list->constant_names[kept++] = name;
    }
    list->constant_count = kept;
}

/* ---- the search ------------------------------------------------------------------------------------------------ */

/* What a tensor has in common with its copies, whatever their dims and axes, and with few others: type, size, first and
 * last number. Cheap, so that gigabytes of weights are not read for it. */
static uint64_t tie_hash(const Tensor *tensor)
{
    int64_t count = tensor_count(tensor);
    size_t size = count > 0 ? tensor->bytes / (size_t)count : 0, bytes = size < 8 ? size : 8;
    uint64_t hash = (uint64_t)tensor->bytes * 31 + (uint64_t)tensor->dtype;
    for (int end = 0; end < 2 && size > 0; end++) {
        uint64_t bits = 0;
        memcpy(&bits, (const char *)tensor->data + (end == 0 ? 0 : (size_t)(count - 1) * size), bytes);
        hash = (hash ^ bits) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    return hash;
}

typedef struct Candidate {
    uint64_t hash;
    bool folded; /* looks like what the exporter computed: the copy rather than the parameter */
    size_t index;
} Candidate;

static int compare_candidates(const void *a, const void *b)
{
    const Candidate *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    if (x->folded != y->folded)
        return x->folded ? 1 : -1;
    return (x->index > y->index) - (x->index < y->index);
}

/* Parameters of one hash are compared, each with the TIE_WINDOW before it: what exporters take apart has a few copies,
 * and models of many parameters cost no more than their number. */
void find_ties(const Records *records, ParamList *list, const Reader *readers)
{
    Candidate *candidates = arena_array(records->arena, Candidate, list->count + 1);
    for (size_t i = 0; i < list->count; i++)
        candidates[i] = (Candidate){tie_hash(list->items[i].origin), list->items[i].looks_folded, i};
    qsort(candidates, list->count, sizeof *candidates, compare_candidates);
    for (size_t first = 0, i = 0; i < list->count; i++) {
        if (candidates[i].hash != candidates[first].hash)
            first = i;
        ParamInfo *info = &list->items[candidates[i].index];
        for (size_t k = i - first > TIE_WINDOW ? i - TIE_WINDOW : first; k < i && info->tied_to < 0; k++) {
            size_t earlier = candidates[k].index;
            if (list->items[earlier].tied_to < 0 && is_tied(records, &list->items[earlier], info, &readers[earlier],
                                                            &readers[candidates[i].index], &info->layout)) {
                info->tied_to = (int)earlier;
                info->trainable = list->items[earlier].trainable;
                info->looks_folded = list->items[earlier].looks_folded;
            }
        }
    }
    for (size_t i = 0; i < list->count; i++)
        tie_repeated(records, list, &list->items[i]);
}
