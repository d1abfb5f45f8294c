/* Regular expressions in RE2's syntax, matched against a whole text in time linear in its length.
 *
 * The pattern becomes a tree, the tree a program of character sets, splits and jumps, and the program runs on all its
 * threads at once (Thompson, "Regular expression search algorithm", CACM 11, 1968), so no pattern of a file can make
 * matching explode. Not there: Unicode classes (\pN) and case folding beyond ASCII; they are refused, not ignored.
 * Capturing does not matter for a full match. */
#include "runtime/ops/ops.h"

#include <string.h>

enum { PROGRAM_MAX = 100000, DEPTH_MAX = 200, REPEAT_MAX = 1000 };

/* ---- UTF-8 -------------------------------------------------------------------------------------------- */

int32_t utf8_next(const char **at, const char *end)
{
    const unsigned char *s = (const unsigned char *)*at;
    const int32_t first = s[0];
    const int extra = first < 0x80 ? 0 : first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : first >= 0xc0 ? 1 : -1;
    int32_t code = extra == 3 ? first & 7 : extra == 2 ? first & 15 : extra == 1 ? first & 31 : first;
    if (extra < 0 || end - *at <= extra) {
        (*at)++;
        return 0xfffd;
    }
    for (int i = 1; i <= extra; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            (*at)++;
            return 0xfffd;
        }
        code = code << 6 | (s[i] & 63);
    }
    *at += extra + 1;
    return code;
}

/* ---- tree --------------------------------------------------------------------------------------------- */

typedef enum Kind { EMPTY, SET, JOIN, EITHER, REPEAT, BORDER } Kind;
typedef enum Place { TEXT_BEGIN, TEXT_END, LINE_BEGIN, LINE_END, WORD_BORDER, WORD_INSIDE } Place;

typedef struct Range {
    int32_t low, high;
} Range;

typedef struct Set {
    Range *ranges;
    size_t count, capacity;
    bool negated;
} Set;

typedef struct Tree {
    Kind kind;
    Set set;
    struct Tree *left, *right;
    int min, max; /* REPEAT; max -1: without end */
    Place place;
} Tree;

typedef struct Parser {
    const char *at, *end;
    Arena *arena;
    bool fold, dot_newline, many_lines; /* (?i), (?s), (?m) */
    int depth;
    const char *problem; /* the first */
} Parser;

static Tree *tree_new(Parser *p, Kind kind, Tree *left, Tree *right)
{
    Tree *tree = arena_new(p->arena, Tree);
    tree->kind = kind;
    tree->left = left;
    tree->right = right;
    return tree;
}

static Tree *trouble(Parser *p, const char *problem)
{
    if (!p->problem)
        p->problem = problem;
    p->at = p->end;
    return tree_new(p, EMPTY, NULL, NULL);
}

static bool accept(Parser *p, const char *text)
{
    size_t length = strlen(text);
    if ((size_t)(p->end - p->at) < length || memcmp(p->at, text, length) != 0)
        return false;
    p->at += length;
    return true;
}

static void set_add(Parser *p, Set *set, int32_t low, int32_t high)
{
    set->ranges = arena_grow(p->arena, set->ranges, set->count, &set->capacity, sizeof(Range));
    set->ranges[set->count++] = (Range){low, high};
}

/* A range and, under (?i), its letters in the other case. */
static void set_add_folded(Parser *p, Set *set, int32_t low, int32_t high)
{
    set_add(p, set, low, high);
    if (!p->fold)
        return;
    if (high >= 0x80)
        trouble(p, "(?i) beyond ASCII");
    for (int32_t c = low; c <= high && c < 0x80; c++)
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
            set_add(p, set, c ^ 32, c ^ 32);
}

/* Everything outside `set`, whose ranges come in ascending order. */
static void set_add_others(Parser *p, Set *set, const Range *ranges, size_t count)
{
    int32_t low = 0;
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].low > low)
            set_add(p, set, low, ranges[i].low - 1);
        low = ranges[i].high + 1;
    }
    set_add(p, set, low, 0x10ffff);
}

/* \d \s \w and their opposites; false when `c` is none of them. */
static bool add_class(Parser *p, Set *set, char c)
{
    static const Range digits[] = {{'0', '9'}}, spaces[] = {{'\t', '\n'}, {'\f', '\r'}, {' ', ' '}},
                       words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    const bool others = c == 'D' || c == 'S' || c == 'W';
    const char kind = others ? (char)(c | 32) : c;
    const Range *ranges = kind == 'd' ? digits : kind == 's' ? spaces : words;
    const size_t count = kind == 'd' ? 1 : kind == 's' ? 3 : 4;
    if (kind != 'd' && kind != 's' && kind != 'w')
        return false;
    if (others)
        set_add_others(p, set, ranges, count);
    for (size_t i = 0; i < count && !others; i++)
        set_add(p, set, ranges[i].low, ranges[i].high);
    return true;
}

static int32_t hex_code(Parser *p)
{
    const bool braces = accept(p, "{");
    int32_t code = 0;
    int digits = 0;
    while (p->at < p->end && code <= 0x10ffff && (braces || digits < 2)) {
        const char c = *p->at, lower = (char)(c | 32);
        if (!((c >= '0' && c <= '9') || (lower >= 'a' && lower <= 'f')))
            break;
        code = code * 16 + (c <= '9' ? c - '0' : lower - 'a' + 10);
        digits++;
        p->at++;
    }
    if (digits == 0 || code > 0x10ffff || (braces && !accept(p, "}")))
        trouble(p, "a bad \\x escape");
    return code;
}

/* The character behind a backslash that stands for one character. */
static int32_t escaped(Parser *p)
{
    static const char names[] = "tnrfva", codes[] = "\t\n\r\f\v\a";
    const char c = *p->at++;
    const char *known = c ? strchr(names, c) : NULL;
    if (known)
        return (unsigned char)codes[known - names];
    if (c == 'x')
        return hex_code(p);
    if ((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || (unsigned char)c >= 0x80)
        trouble(p, "an escape that is not known");
    return (unsigned char)c;
}

/* [:alpha:] and the like, inside a bracket. */
static bool add_named(Parser *p, Set *set)
{
    static const struct Named {
        const char *name;
        Range ranges[4];
        size_t count;
    } named[] = {{"alnum", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}}, 3},
                 {"alpha", {{'A', 'Z'}, {'a', 'z'}}, 2},
                 {"ascii", {{0, 127}}, 1},
                 {"blank", {{'\t', '\t'}, {' ', ' '}}, 2},
                 {"cntrl", {{0, 31}, {127, 127}}, 2},
                 {"digit", {{'0', '9'}}, 1},
                 {"graph", {{'!', '~'}}, 1},
                 {"lower", {{'a', 'z'}}, 1},
                 {"print", {{' ', '~'}}, 1},
                 {"punct", {{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}}, 4},
                 {"space", {{'\t', '\r'}, {' ', ' '}}, 2},
                 {"upper", {{'A', 'Z'}}, 1},
                 {"word", {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}, 4},
                 {"xdigit", {{'0', '9'}, {'A', 'F'}, {'a', 'f'}}, 3}};
    if (!accept(p, "[:"))
        return false;
    const bool others = accept(p, "^");
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        char closed[12];
        snprintf(closed, sizeof closed, "%s:]", named[i].name);
        if (!accept(p, closed))
            continue;
        if (others)
            set_add_others(p, set, named[i].ranges, named[i].count);
        for (size_t k = 0; k < named[i].count && !others; k++)
            set_add_folded(p, set, named[i].ranges[k].low, named[i].ranges[k].high);
        return true;
    }
    trouble(p, "an unknown [: :] class");
    return true;
}

/* One end of a range in a bracket; -1 when a class was added instead. */
static int32_t bracket_item(Parser *p, Set *set)
{
    if (add_named(p, set))
        return -1;
    if (!accept(p, "\\"))
        return utf8_next(&p->at, p->end);
    if (p->at == p->end) {
        trouble(p, "a backslash at the end");
        return -1;
    }
    if (add_class(p, set, *p->at)) {
        p->at++;
        return -1;
    }
    return escaped(p);
}

static Tree *parse_bracket(Parser *p)
{
    Tree *tree = tree_new(p, SET, NULL, NULL);
    tree->set.negated = accept(p, "^");
    for (bool first = true; !p->problem; first = false) {
        if (p->at == p->end)
            return trouble(p, "a bracket that is not closed");
        if (!first && accept(p, "]"))
            break;
        int32_t low = bracket_item(p, &tree->set), high = low;
        if (low >= 0 && p->end - p->at > 1 && p->at[0] == '-' && p->at[1] != ']') {
            p->at++;
            high = bracket_item(p, &tree->set);
        }
        if (low > high)
            return trouble(p, "a range that runs backwards");
        if (low >= 0)
            set_add_folded(p, &tree->set, low, high);
    }
    return tree;
}

static Tree *parse_either(Parser *p);

static Tree *place_tree(Parser *p, Place place)
{
    Tree *tree = tree_new(p, BORDER, NULL, NULL);
    tree->place = place;
    return tree;
}

static Tree *literal(Parser *p, int32_t c)
{
    Tree *tree = tree_new(p, SET, NULL, NULL);
    set_add_folded(p, &tree->set, c, c);
    return tree;
}

/* Flags between (? and : or ): letters that switch on, behind a minus off. True when a group follows. */
static bool parse_flags(Parser *p)
{
    bool on = true;
    while (p->at < p->end) {
        const char c = *p->at++;
        if (c == ':' || c == ')')
            return c == ':';
        if (c == '-')
            on = false;
        else if (c == 'i')
            p->fold = on;
        else if (c == 's')
            p->dot_newline = on;
        else if (c == 'm')
            p->many_lines = on;
        else if (c != 'U')
            break;
    }
    trouble(p, "unknown flags");
    return false;
}

/* Behind an opening parenthesis. Flags set inside hold to its end; (?i) alone holds to the end of the group around. */
static Tree *parse_group(Parser *p)
{
    const Parser outer = *p;
    if (accept(p, "?P<") || accept(p, "?<")) {
        if (p->at < p->end && (*p->at == '=' || *p->at == '!'))
            return trouble(p, "looking behind");
        while (p->at < p->end && *p->at != '>')
            p->at++;
        if (!accept(p, ">"))
            return trouble(p, "a group's name that is not closed");
    } else if (accept(p, "?")) {
        if (p->at < p->end && (*p->at == '=' || *p->at == '!'))
            return trouble(p, "looking ahead");
        if (!parse_flags(p))
            return tree_new(p, EMPTY, NULL, NULL);
    }
    if (++p->depth > DEPTH_MAX)
        return trouble(p, "groups nested too deeply");
    Tree *tree = parse_either(p);
    p->depth--;
    p->fold = outer.fold;
    p->dot_newline = outer.dot_newline;
    p->many_lines = outer.many_lines;
    return accept(p, ")") ? tree : trouble(p, "a group that is not closed");
}

static Tree *parse_escape(Parser *p)
{
    static const struct {
        char letter;
        Place place;
    } places[] = {{'A', TEXT_BEGIN}, {'z', TEXT_END}, {'b', WORD_BORDER}, {'B', WORD_INSIDE}};
    if (p->at == p->end)
        return trouble(p, "a backslash at the end");
    for (size_t i = 0; i < 4; i++)
        if (*p->at == places[i].letter) {
            p->at++;
            return place_tree(p, places[i].place);
        }
    if (accept(p, "Q")) {
        Tree *tree = tree_new(p, EMPTY, NULL, NULL);
        while (p->at < p->end && !accept(p, "\\E"))
            tree = tree_new(p, JOIN, tree, literal(p, utf8_next(&p->at, p->end)));
        return tree;
    }
    Tree *tree = tree_new(p, SET, NULL, NULL);
    if (add_class(p, &tree->set, *p->at)) {
        p->at++;
        return tree;
    }
    return literal(p, escaped(p));
}

static Tree *parse_atom(Parser *p)
{
    Tree *tree;
    if (accept(p, "("))
        return parse_group(p);
    if (accept(p, "["))
        return parse_bracket(p);
    if (accept(p, "\\"))
        return parse_escape(p);
    if (accept(p, "^"))
        return place_tree(p, p->many_lines ? LINE_BEGIN : TEXT_BEGIN);
    if (accept(p, "$"))
        return place_tree(p, p->many_lines ? LINE_END : TEXT_END);
    if (accept(p, ".")) {
        tree = tree_new(p, SET, NULL, NULL);
        tree->set.negated = true;
        if (!p->dot_newline)
            set_add(p, &tree->set, '\n', '\n');
        return tree;
    }
    if (*p->at == '*' || *p->at == '+' || *p->at == '?')
        return trouble(p, "a repetition of nothing");
    return literal(p, utf8_next(&p->at, p->end));
}

static bool parse_number(Parser *p, int *number)
{
    const char *begin = p->at;
    for (*number = 0; p->at < p->end && *p->at >= '0' && *p->at <= '9' && *number <= REPEAT_MAX; p->at++)
        *number = *number * 10 + (*p->at - '0');
    return p->at > begin;
}

/* {m}, {m,} or {m,n}; a brace that is none of these is a literal, as in RE2. */
static bool parse_braces(Parser *p, int *min, int *max)
{
    const char *begin = p->at;
    if (!accept(p, "{"))
        return false;
    bool good = parse_number(p, min);
    *max = *min;
    if (good && accept(p, ",") && !parse_number(p, max))
        *max = -1;
    if (good && accept(p, "}"))
        return true;
    p->at = begin;
    return false;
}

static Tree *parse_repeat(Parser *p)
{
    Tree *tree = parse_atom(p);
    for (int min, max; p->at < p->end;) {
        if (accept(p, "*"))
            min = 0, max = -1;
        else if (accept(p, "+"))
            min = 1, max = -1;
        else if (accept(p, "?"))
            min = 0, max = 1;
        else if (!parse_braces(p, &min, &max))
            break;
        accept(p, "?"); /* lazy: the same for a full match */
        if (min > REPEAT_MAX || max > REPEAT_MAX || (max >= 0 && max < min))
            return trouble(p, "a bad repetition count");
        tree = tree_new(p, REPEAT, tree, NULL);
        tree->min = min;
        tree->max = max;
    }
    return tree;
}

static Tree *parse_join(Parser *p)
{
    Tree *tree = tree_new(p, EMPTY, NULL, NULL);
    while (p->at < p->end && *p->at != '|' && *p->at != ')')
        tree = tree_new(p, JOIN, tree, parse_repeat(p));
    return tree;
}

static Tree *parse_either(Parser *p)
{
    Tree *tree = parse_join(p);
    while (accept(p, "|"))
        tree = tree_new(p, EITHER, tree, parse_join(p));
    return tree;
}

/* ---- program ------------------------------------------------------------------------------------------ */

typedef enum Code { CODE_SET, CODE_SPLIT, CODE_JUMP, CODE_BORDER, CODE_MATCH } Code;

typedef struct Instruction {
    Code code;
    const Set *set;
    Place place;
    int next, other; /* SPLIT: both */
} Instruction;

struct Regex {
    Instruction *items;
    size_t count, capacity;
    Arena *arena;
    bool too_long;
};

static int emit(Regex *r, Code code)
{
    if (r->count >= PROGRAM_MAX) {
        r->too_long = true;
        return 0;
    }
    r->items = arena_grow(r->arena, r->items, r->count, &r->capacity, sizeof *r->items);
    r->items[r->count] = (Instruction){.code = code, .next = (int)r->count + 1};
    return (int)r->count++;
}

static void emit_tree(Regex *r, const Tree *tree);

static void emit_repeat(Regex *r, const Tree *tree)
{
    for (int i = 0; i < tree->min && !r->too_long; i++)
        emit_tree(r, tree->left);
    if (tree->max < 0) {
        int split = emit(r, CODE_SPLIT);
        emit_tree(r, tree->left);
        int jump = emit(r, CODE_JUMP);
        r->items[jump].next = split;
        r->items[split].other = (int)r->count;
        return;
    }
    for (int i = tree->min; i < tree->max && !r->too_long; i++) {
        int split = emit(r, CODE_SPLIT);
        emit_tree(r, tree->left);
        r->items[split].other = (int)r->count;
    }
}

static void emit_tree(Regex *r, const Tree *tree)
{
    int at, jump;
    if (r->too_long)
        return;
    switch (tree->kind) {
    case EMPTY:
        break;
    case SET:
        at = emit(r, CODE_SET);
        r->items[at].set = &tree->set;
        break;
    case JOIN:
        emit_tree(r, tree->left);
        emit_tree(r, tree->right);
        break;
    case EITHER:
        at = emit(r, CODE_SPLIT);
        emit_tree(r, tree->left);
        jump = emit(r, CODE_JUMP);
        r->items[at].other = (int)r->count;
        emit_tree(r, tree->right);
        r->items[jump].next = (int)r->count;
        break;
    case REPEAT:
        emit_repeat(r, tree);
        break;
    case BORDER:
        at = emit(r, CODE_BORDER);
        r->items[at].place = tree->place;
        break;
    }
}

Status regex_new(Arena *arena, Bytes pattern, Regex **regex, Error *err)
{
    Parser parser = {.at = pattern.data, .end = pattern.data + pattern.length, .arena = arena};
    Regex *r = arena_new(arena, Regex);
    r->arena = arena;
    const Tree *tree = parse_either(&parser);
    if (!parser.problem && parser.at != parser.end)
        parser.problem = "a parenthesis too many";
    if (parser.problem)
        return fail(err, STATUS_UNSUPPORTED, "pattern '%.*s': %s", (int)pattern.length, pattern.data, parser.problem);
    emit_tree(r, tree);
    emit(r, CODE_MATCH);
    if (r->too_long)
        return fail(err, STATUS_UNSUPPORTED, "pattern '%.*s' is too long", (int)pattern.length, pattern.data);
    *regex = r;
    return STATUS_OK;
}

/* ---- matching ----------------------------------------------------------------------------------------- */

typedef struct Threads {
    int *list; /* instructions, each once */
    size_t count;
    size_t *seen; /* round in which an instruction was last added */
} Threads;

typedef struct Matcher {
    const Regex *regex;
    Threads now, next;
    int *stack;
    size_t round;
    int32_t before, after; /* characters around the position; -1: none */
} Matcher;

static bool is_word(int32_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

static bool place_holds(const Matcher *m, Place place)
{
    switch (place) {
    case TEXT_BEGIN:
        return m->before < 0;
    case TEXT_END:
        return m->after < 0;
    case LINE_BEGIN:
        return m->before < 0 || m->before == '\n';
    case LINE_END:
        return m->after < 0 || m->after == '\n';
    case WORD_BORDER:
        return is_word(m->before) != is_word(m->after);
    case WORD_INSIDE:
        return is_word(m->before) == is_word(m->after);
    }
    return false;
}

static bool set_holds(const Set *set, int32_t c)
{
    bool found = false;
    for (size_t i = 0; i < set->count && !found; i++)
        found = c >= set->ranges[i].low && c <= set->ranges[i].high;
    return found != set->negated;
}

/* `start` and everything reached from it without reading a character. */
static void follow(Matcher *m, Threads *threads, int start)
{
    size_t depth = 0;
    m->stack[depth++] = start;
    while (depth > 0) {
        const int at = m->stack[--depth];
        const Instruction *step = &m->regex->items[at];
        if (threads->seen[at] == m->round)
            continue;
        threads->seen[at] = m->round;
        if (step->code == CODE_SET || step->code == CODE_MATCH) {
            threads->list[threads->count++] = at;
        } else if (step->code != CODE_BORDER || place_holds(m, step->place)) {
            m->stack[depth++] = step->next;
            if (step->code == CODE_SPLIT)
                m->stack[depth++] = step->other;
        }
    }
}

bool regex_matches(const Regex *regex, Arena *arena, Bytes text)
{
    const size_t n = regex->count;
    Matcher m = {.regex = regex, .stack = arena_array(arena, int, 2 * n + 2), .round = 1, .before = -1};
    m.now = (Threads){arena_array(arena, int, n), 0, arena_array(arena, size_t, n)};
    m.next = (Threads){arena_array(arena, int, n), 0, arena_array(arena, size_t, n)};
    const char *at = text.data, *end = text.data + text.length, *ahead = at;
    m.after = at < end ? utf8_next(&ahead, end) : -1;
    follow(&m, &m.now, 0);
    while (m.after >= 0 && m.now.count > 0) {
        const int32_t c = m.after;
        at = ahead;
        m.before = c;
        m.after = at < end ? utf8_next(&ahead, end) : -1;
        m.round++;
        m.next.count = 0;
        for (size_t i = 0; i < m.now.count; i++) {
            const Instruction *step = &regex->items[m.now.list[i]];
            if (step->code == CODE_SET && set_holds(step->set, c))
                follow(&m, &m.next, step->next);
        }
        const Threads swap = m.now;
        m.now = m.next;
        m.next = swap;
    }
    for (size_t i = 0; i < m.now.count && m.after < 0; i++)
        if (regex->items[m.now.list[i]].code == CODE_MATCH)
            return true;
    return false;
}
