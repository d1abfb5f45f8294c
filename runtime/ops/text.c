/* Operators on strings: StringConcat, StringSplit, StringNormalizer, RegexFullMatch, TfIdfVectorizer. Strings are
 * UTF-8; results point into their inputs where they can. */
#include "runtime/ops/ops.h"

#include <locale.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

static Status expect_strings(EvalContext *context, int index, Error *err)
{
    const Array *x = context->in[index];
    if (x->dtype != DTYPE_STRING)
        return eval_fail(context, err, "input %d is %s, strings expected", index, dtype_name(x->dtype));
    return STATUS_OK;
}

static bool bytes_equal(Bytes a, Bytes b)
{
    return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
}

/* ---- StringConcat ------------------------------------------------------------------------------------- */

static Bytes concat_two(Arena *arena, Bytes a, Bytes b)
{
    char *text = arena_alloc(arena, a.length + b.length + 1);
    if (a.length > 0)
        memcpy(text, a.data, a.length);
    if (b.length > 0)
        memcpy(text + a.length, b.data, b.length);
    return (Bytes){text, a.length + b.length};
}

static Status concat_eval(EvalContext *context, Error *err)
{
    int rank = 0;
    int64_t dims[RANK_MAX], strides[2][RANK_MAX] = {{0}};
    Array *out;
    TRY(expect_strings(context, 0, err));
    TRY(expect_strings(context, 1, err));
    const Array *a = context->in[0], *b = context->in[1];
    if (!dims_broadcast(a->rank, a->dims, b->rank, b->dims, &rank, dims))
        return eval_fail(context, err, "shapes %s and %s do not broadcast", dims_text(context->arena, a->rank, a->dims),
                         dims_text(context->arena, b->rank, b->dims));
    for (int side = 0; side < 2; side++) {
        const Array *x = context->in[side];
        int64_t dense[RANK_MAX];
        strides_dense(x->rank, x->dims, dense);
        for (int i = 0; i < x->rank; i++)
            strides[side][rank - x->rank + i] = x->dims[i] == 1 ? 0 : dense[i];
    }
    TRY(eval_output(context, 0, DTYPE_STRING, rank, dims, &out, err));
    for (int64_t i = 0; i < out->count; i++) {
        int64_t rest = i, at[2] = {0, 0};
        for (int d = rank - 1; d >= 0; d--) {
            at[0] += rest % dims[d] * strides[0][d];
            at[1] += rest % dims[d] * strides[1][d];
            rest /= dims[d];
        }
        ((Bytes *)out->data)[i] =
            concat_two(context->arena, ((const Bytes *)a->data)[at[0]], ((const Bytes *)b->data)[at[1]]);
    }
    return STATUS_OK;
}

/* ---- StringSplit -------------------------------------------------------------------------------------- */

typedef struct Parts {
    Bytes *items;
    size_t count, capacity;
} Parts;

static void parts_add(Arena *arena, Parts *parts, const char *begin, const char *end)
{
    parts->items = arena_grow(arena, parts->items, parts->count, &parts->capacity, sizeof *parts->items);
    parts->items[parts->count++] = (Bytes){begin, (size_t)(end - begin)};
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Runs of blanks separate, and none is left at the ends; what is left after `max` splits stays whole. */
static void split_blanks(Arena *arena, Bytes text, int64_t max, Parts *parts)
{
    const char *at = text.data, *end = text.data + text.length;
    while (at < end && is_space(*at))
        at++;
    while (at < end) {
        const char *begin = at;
        if (max >= 0 && (int64_t)parts->count == max) {
            while (is_space(end[-1]))
                end--;
            parts_add(arena, parts, begin, end);
            return;
        }
        while (at < end && !is_space(*at))
            at++;
        parts_add(arena, parts, begin, at);
        while (at < end && is_space(*at))
            at++;
    }
}

static void split_at(Arena *arena, Bytes text, const char *delimiter, int64_t max, Parts *parts)
{
    const size_t length = strlen(delimiter);
    const char *begin = text.data, *end = text.data + text.length;
    while (text.length > 0 && (max < 0 || (int64_t)parts->count < max)) {
        const char *found = memmem(begin, (size_t)(end - begin), delimiter, length);
        if (!found)
            break;
        parts_add(arena, parts, begin, found);
        begin = found + length;
    }
    parts_add(arena, parts, begin, end);
}

static Status split_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    const char *delimiter = node_string(context->node, "delimiter", "");
    const int64_t max = node_int(context->node, "maxsplit", -1);
    int64_t dims[RANK_MAX], widest = 0;
    Array *out, *counts;
    TRY(expect_strings(context, 0, err));
    if (x->rank + 1 > RANK_MAX)
        return eval_fail(context, err, "result would have more than %d dims", RANK_MAX);
    Parts *parts = arena_array(context->arena, Parts, (size_t)x->count + 1);
    for (int64_t i = 0; i < x->count; i++) {
        if (delimiter[0] == '\0')
            split_blanks(context->arena, ((const Bytes *)x->data)[i], max, &parts[i]);
        else
            split_at(context->arena, ((const Bytes *)x->data)[i], delimiter, max, &parts[i]);
        if ((int64_t)parts[i].count > widest)
            widest = (int64_t)parts[i].count;
    }
    memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    dims[x->rank] = widest;
    TRY(eval_output(context, 0, DTYPE_STRING, x->rank + 1, dims, &out, err));
    TRY(eval_output(context, 1, DTYPE_I64, x->rank, x->dims, &counts, err));
    for (int64_t i = 0; i < x->count; i++) {
        ((int64_t *)counts->data)[i] = (int64_t)parts[i].count;
        for (int64_t k = 0; k < widest; k++)
            ((Bytes *)out->data)[i * widest + k] = k < (int64_t)parts[i].count ? parts[i].items[k] : (Bytes){"", 0};
    }
    return STATUS_OK;
}

/* ---- StringNormalizer: drops stop words, then changes case -------------------------------------------- */

static size_t utf8_put(int32_t c, char *to)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    const int extra = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char leads[] = {0, 0xc0, 0xe0, 0xf0};
    to[0] = (char)(leads[extra] | (c >> (6 * extra)));
    for (int i = 1; i <= extra; i++)
        to[i] = (char)(0x80 | ((c >> (6 * (extra - i))) & 63));
    return (size_t)extra + 1;
}

/* Letter by letter, by the C library's table for Unicode. */
static Bytes change_case(Arena *arena, Bytes text, bool upper, locale_t locale)
{
    char *out = arena_alloc(arena, 4 * text.length + 4);
    size_t length = 0;
    for (const char *at = text.data, *end = text.data + text.length; at < end;) {
        int32_t c = utf8_next(&at, end);
        c = (int32_t)(upper ? towupper_l((wint_t)c, locale) : towlower_l((wint_t)c, locale));
        length += utf8_put(c, out + length);
    }
    return (Bytes){out, length};
}

typedef struct Normalizer {
    const Attr *stops;
    bool sensitive, change, upper;
    locale_t locale;
} Normalizer;

static Bytes folded(Arena *arena, const Normalizer *n, Bytes text)
{
    return n->sensitive ? text : change_case(arena, text, false, n->locale);
}

static bool is_stop(Arena *arena, const Normalizer *n, Bytes text)
{
    const Bytes key = folded(arena, n, text);
    for (size_t i = 0; n->stops && i < n->stops->count; i++)
        if (bytes_equal(key, folded(arena, n, n->stops->strings[i])))
            return true;
    return false;
}

static Status normalize(EvalContext *context, const Normalizer *n, Error *err)
{
    const Array *x = context->in[0];
    Bytes *kept = arena_array(context->arena, Bytes, (size_t)x->count + 1);
    int64_t count = 0;
    Array *out;
    if (x->rank < 1 || x->rank > 2 || (x->rank == 2 && x->dims[0] != 1))
        return eval_fail(context, err, "shape %s, [C] or [1,C] expected", dims_text(context->arena, x->rank, x->dims));
    for (int64_t i = 0; i < x->count; i++) {
        const Bytes text = ((const Bytes *)x->data)[i];
        if (!is_stop(context->arena, n, text))
            kept[count++] = n->change ? change_case(context->arena, text, n->upper, n->locale) : text;
    }
    if (count == 0)
        kept[count++] = (Bytes){"", 0};
    TRY(eval_output(context, 0, DTYPE_STRING, x->rank, x->rank == 1 ? &count : (int64_t[]){1, count}, &out, err));
    memcpy(out->data, kept, (size_t)count * sizeof *kept);
    return STATUS_OK;
}

static Status normalizer_eval(EvalContext *context, Error *err)
{
    const char *action = node_string(context->node, "case_change_action", "NONE");
    Normalizer n = {.stops = node_attr(context->node, "stopwords"),
                    .sensitive = node_int(context->node, "is_case_sensitive", 0) != 0,
                    .change = strcmp(action, "NONE") != 0,
                    .upper = strcmp(action, "UPPER") == 0};
    TRY(expect_strings(context, 0, err));
    if (n.change && !n.upper && strcmp(action, "LOWER") != 0)
        return eval_fail(context, err, "case_change_action '%s'", action);
    n.locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    if (n.locale == (locale_t)0)
        return fail(err, STATUS_ENVIRONMENT, "%s: the C library has no C.UTF-8 locale", node_text(context->node));
    Status status = normalize(context, &n, err);
    freelocale(n.locale);
    return status;
}

/* ---- RegexFullMatch ----------------------------------------------------------------------------------- */

static Status match_infer(Node *node, Error *err)
{
    (void)err;
    const Type *x = &node->inputs[0]->type;
    type_set(&node->outputs[0]->type, DTYPE_BOOL, x->rank, x->dims);
    return STATUS_OK;
}

static Status match_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    const Attr *pattern = node_attr(context->node, "pattern");
    Regex *regex;
    Array *out;
    TRY(expect_strings(context, 0, err));
    if (!pattern)
        return eval_fail(context, err, "no pattern");
    Status status = regex_new(context->arena, pattern->s, &regex, err);
    if (status != STATUS_OK) {
        error_prefix(err, "%s", node_text(context->node));
        return status;
    }
    TRY(eval_output(context, 0, DTYPE_BOOL, x->rank, x->dims, &out, err));
    Arena scratch;
    for (int64_t i = 0; i < x->count; i++) {
        arena_init(&scratch);
        ((uint8_t *)out->data)[i] = regex_matches(regex, &scratch, ((const Bytes *)x->data)[i]);
        arena_release(&scratch);
    }
    return STATUS_OK;
}

/* ---- TfIdfVectorizer: counts of known n-grams, with skips, a row at a time ---------------------------- */

typedef struct Grams {
    const int64_t *ints;   /* pool_int64s, or */
    const Bytes *strings;  /* pool_strings */
    const int64_t *starts; /* ngram_counts: where the 1-grams, 2-grams .. begin in the pool */
    const int64_t *places; /* ngram_indexes: by n-gram */
    size_t pool, lengths, count;
    int64_t width;
} Grams;

static Status grams_read(const Node *node, Grams *g, Error *err)
{
    const Attr *strings = node_attr(node, "pool_strings");
    size_t ints;
    g->ints = node_ints(node, "pool_int64s", &ints);
    g->strings = strings ? strings->strings : NULL;
    g->pool = strings ? strings->count : ints;
    g->starts = node_ints(node, "ngram_counts", &g->lengths);
    g->places = node_ints(node, "ngram_indexes", &g->count);
    size_t total = 0;
    for (size_t n = 0; n < g->lengths; n++) {
        int64_t end = n + 1 < g->lengths ? g->starts[n + 1] : (int64_t)g->pool;
        if (g->starts[n] < 0 || end < g->starts[n] || end > (int64_t)g->pool || (end - g->starts[n]) % (int64_t)(n + 1))
            return infer_fail(node, err, "the pool's %zu-grams are from %lld to %lld of %zu", n + 1,
                              (long long)g->starts[n], (long long)end, g->pool);
        total += (size_t)(end - g->starts[n]) / (n + 1);
    }
    if ((!g->ints && !g->strings) || total != g->count)
        return infer_fail(node, err, "the pool has %zu n-grams, ngram_indexes %zu", total, g->count);
    for (size_t i = 0; i < g->count; i++) {
        if (g->places[i] < 0 || g->places[i] > 1 << 30)
            return infer_fail(node, err, "ngram_indexes has %lld", (long long)g->places[i]);
        g->width = g->places[i] + 1 > g->width ? g->places[i] + 1 : g->width;
    }
    return STATUS_OK;
}

static Status tfidf_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    Grams g = {0};
    TRY(grams_read(node, &g, err));
    if (x->rank == 2)
        type_set(&node->outputs[0]->type, DTYPE_F32, 2, (int64_t[]){x->dims[0], g.width});
    else
        type_set(&node->outputs[0]->type, DTYPE_F32, 1, &g.width);
    return STATUS_OK;
}

static bool gram_is(const Grams *g, const Array *x, int64_t first, int64_t step, size_t pool, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = first + i * step;
        const size_t in_pool = pool + (size_t)i;
        bool same = g->strings ? bytes_equal(((const Bytes *)x->data)[at], g->strings[in_pool])
                               : array_i64_at(x, at) == g->ints[in_pool];
        if (!same)
            return false;
    }
    return true;
}

/* Adds the n-grams of one row whose elements lie `step` apart. */
static void gram_count(const Grams *g, const Array *x, int64_t row, int64_t columns, int64_t n, int64_t step, float *y)
{
    const size_t begin = (size_t)g->starts[n - 1];
    const size_t end = (size_t)n < g->lengths ? (size_t)g->starts[n] : g->pool;
    size_t gram = 0; /* number of the first n-gram of this length */
    for (int64_t k = 1; k < n; k++)
        gram += (size_t)(g->starts[k] - g->starts[k - 1]) / (size_t)k;
    for (int64_t first = 0; first + (n - 1) * step < columns; first++)
        for (size_t at = begin; at < end; at += (size_t)n)
            if (gram_is(g, x, row * columns + first, step, at, n)) {
                y[g->places[gram + (at - begin) / (size_t)n]] += 1;
                break;
            }
}

static Status tfidf_eval(EvalContext *context, Error *err)
{
    const Node *node = context->node;
    const Array *x = context->in[0];
    const char *mode = node_string(node, "mode", "TF");
    const int64_t low = node_int(node, "min_gram_length", 1), high = node_int(node, "max_gram_length", 1);
    const int64_t skips = node_int(node, "max_skip_count", 0);
    size_t weight_count;
    const float *weights = node_floats(node, "weights", &weight_count);
    Grams g = {0};
    Array *out;
    TRY(grams_read(node, &g, err));
    if (x->rank < 1 || x->rank > 2 || (g.strings != NULL) != (x->dtype == DTYPE_STRING))
        return eval_fail(context, err, "input is %s of rank %d", dtype_name(x->dtype), x->rank);
    if (low < 1 || high < low || high > (int64_t)g.lengths || skips < 0 || (weights && weight_count != g.count))
        return eval_fail(context, err, "n-grams of %lld to %lld with %lld skips, the pool goes to %zu", (long long)low,
                         (long long)high, (long long)skips, g.lengths);
    const int64_t rows = x->rank == 2 ? x->dims[0] : 1, columns = x->dims[x->rank - 1];
    TRY(eval_output(context, 0, DTYPE_F32, x->rank, x->rank == 2 ? (int64_t[]){rows, g.width} : &g.width, &out, err));
    memset(out->data, 0, (size_t)out->count * sizeof(float));
    for (int64_t row = 0; row < rows; row++) {
        float *y = (float *)out->data + row * g.width;
        for (int64_t n = low; n <= high; n++)
            for (int64_t step = 1; step <= (n == 1 ? 1 : skips + 1); step++)
                gram_count(&g, x, row, columns, n, step, y);
    }
    for (int64_t i = 0; i < out->count && strcmp(mode, "TF") != 0; i++) {
        float *y = (float *)out->data + i;
        float weight = 1;
        for (size_t k = 0; weights && k < g.count; k++)
            weight = g.places[k] == i % g.width ? weights[k] : weight;
        *y = (strcmp(mode, "IDF") == 0 && *y > 1 ? 1 : *y) * weight;
    }
    return STATUS_OK;
}

static Status string_infer(Node *node, Error *err)
{
    (void)err;
    type_set(&node->outputs[0]->type, DTYPE_STRING, -1, NULL);
    return STATUS_OK;
}

static Status concat_infer(Node *node, Error *err)
{
    return infer_broadcast(node, err);
}

#define NO_GRADIENT "text carries no gradient"

/* clang-format off */
const OpDef ops_text[] = {
    {.name = "StringConcat", .since = 20, .last = 28, .min_inputs = 2, .max_inputs = 2, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = concat_infer, .eval = concat_eval,
     .no_gradient = NO_GRADIENT},
    {.name = "StringSplit", .since = 20, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 2, .traits = OP_ANY_DTYPE, .infer = string_infer, .eval = split_eval, .no_gradient = NO_GRADIENT},
    {.name = "StringNormalizer", .since = 10, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = string_infer, .eval = normalizer_eval,
     .no_gradient = NO_GRADIENT},
    {.name = "RegexFullMatch", .since = 20, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = match_infer, .eval = match_eval, .no_gradient = NO_GRADIENT},
    {.name = "TfIdfVectorizer", .since = 9, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = tfidf_infer, .eval = tfidf_eval, .no_gradient = NO_GRADIENT},
    {0},
};
/* clang-format on */
