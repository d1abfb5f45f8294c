/* Which activations are worth recomputing: from a few generous choices that fit, take back as much as the target
 * allows.
 *
 * A generous choice is either everything that is cheap (cost of making a byte again below a limit), or everything but
 * checkpoints: narrow places of the graph, one for every so many bytes. Taking back goes from what is dearest for each
 * byte it saves. Every step asks recompute_schedule what really happens; nothing here knows operators. */
#include "passes/recompute.h"

#include <stdint.h>
#include <string.h>

enum { TRIES_MAX = 300, WORK_MAX = 20000000 };

typedef struct Order { /* places by density, the dearest first */
    int place;
    double density;
} Order;

static int by_density(const void *a, const void *b)
{
    const Order *x = a, *y = b;
    if (x->density > y->density || x->density < y->density)
        return x->density > y->density ? -1 : 1;
    return x->place - y->place;
}

static double density(const Place *place)
{
    return place->chain / (double)(place->bytes + 1);
}

/* ---- generous choices ------------------------------------------------------------------------------------------ */

static void drop_cheap(Study *s, double limit)
{
    for (size_t i = 1; i < s->place_count; i++) {
        Place *place = &s->places[i];
        place->dropped = place->can && (!place->saved || density(place) <= limit);
    }
}

/* Bytes of the forward pass alive behind each node. */
static void crossing_bytes(const Study *s, size_t *crossing)
{
    memset(crossing, 0, (s->node_count + 1) * sizeof crossing[0]);
    for (size_t i = 1; i < s->place_count; i++) {
        const Place *place = &s->places[i];
        if (place->forward_last <= place->maker)
            continue;
        crossing[place->maker] += place->bytes;
        crossing[place->forward_last] -= place->bytes;
    }
    for (size_t i = 1; i <= s->node_count; i++)
        crossing[i] += crossing[i - 1];
}

static void keep_across(Study *s, int node)
{
    for (size_t i = 1; i < s->place_count; i++)
        if (s->places[i].maker <= node && s->places[i].forward_last > node)
            s->places[i].dropped = false;
}

/* Everything but what crosses a cut; about `segment` bytes lie between two cuts, each at the narrowest node near. */
static void drop_segments(Study *s, size_t segment)
{
    size_t *crossing = arena_array(&s->arena, size_t, s->node_count + 1);
    size_t *made = arena_array(&s->arena, size_t, s->node_count + 1);
    crossing_bytes(s, crossing);
    for (size_t i = 1; i < s->place_count; i++) {
        s->places[i].dropped = s->places[i].can;
        made[s->places[i].maker] += s->places[i].can ? s->places[i].bytes : 0;
    }
    size_t filled = 0, since_best = 0;
    int best = -1;
    for (size_t i = 0; i < s->node_count && s->forward[i]; i++) {
        filled += made[i];
        since_best += made[i];
        if (filled >= segment / 2 && (best < 0 || crossing[i] <= crossing[best])) {
            best = (int)i;
            since_best = 0;
        }
        if (filled >= segment && best >= 0) {
            keep_across(s, best);
            filled = since_best;
            best = -1;
        }
    }
}

/* ---- taking back ------------------------------------------------------------------------------------------------ */

static bool fits(Study *s, size_t target)
{
    return recompute_schedule(s).peak <= target;
}

static void set_first(Study *s, const Order *order, size_t count, bool dropped)
{
    for (size_t i = 0; i < count; i++)
        s->places[order[i].place].dropped = dropped;
}

/* From a choice that fits: keeps the dearest again, as many at once as can be, then one by one. */
static void take_back(Study *s, size_t target)
{
    Order *order = arena_array(&s->arena, Order, s->place_count);
    size_t count = 0;
    for (size_t i = 1; i < s->place_count; i++)
        if (s->places[i].dropped)
            order[count++] = (Order){(int)i, density(&s->places[i])};
    qsort(order, count, sizeof order[0], by_density);
    size_t low = 0, high = count;
    while (low < high) { /* the longest head that may be kept */
        size_t middle = low + (high - low + 1) / 2;
        set_first(s, order, middle, false);
        bool good = fits(s, target);
        set_first(s, order, middle, true);
        low = good ? middle : low;
        high = good ? high : middle - 1;
    }
    set_first(s, order, low, false);
    size_t tries = WORK_MAX / (s->node_count + 1);
    tries = tries > TRIES_MAX ? TRIES_MAX : tries;
    for (size_t i = low + 1; i < count && tries > 0; i++, tries--) {
        s->places[order[i].place].dropped = false;
        if (!fits(s, target))
            s->places[order[i].place].dropped = true;
    }
}

/* ---- the choice -------------------------------------------------------------------------------------------------- */

typedef struct Best {
    bool *dropped;
    bool fits;
    Schedule schedule;
} Best;

static void consider(Study *s, size_t target, Best *best)
{
    Schedule now = recompute_schedule(s);
    if (now.peak <= target) {
        take_back(s, target);
        now = recompute_schedule(s);
    }
    bool good = now.peak <= target;
    bool better = best->dropped == NULL || (good && !best->fits) || (good && now.cost < best->schedule.cost) ||
                  (!best->fits && now.peak < best->schedule.peak);
    if (!better)
        return;
    if (best->dropped == NULL)
        best->dropped = arena_array(&s->arena, bool, s->place_count);
    for (size_t i = 0; i < s->place_count; i++)
        best->dropped[i] = s->places[i].dropped;
    best->fits = good;
    best->schedule = now;
}

bool recompute_choose(Study *s, size_t target)
{
    static const double limits[] = {-1, 6, 12, 30};
    Best best = {0};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0] && !best.fits; i++) {
        drop_cheap(s, limits[i]);
        consider(s, target, &best);
    }
    size_t total = 0;
    for (size_t i = 1; i < s->place_count; i++)
        total += s->places[i].can ? s->places[i].bytes : 0;
    bool cheap = best.fits;
    for (size_t segment = total; segment > total / 64 && !cheap; segment = segment / 10 * 7) {
        drop_segments(s, segment);
        consider(s, target, &best);
    }
    for (size_t i = 1; i < s->place_count; i++)
        s->places[i].dropped = best.dropped[i];
    return best.fits;
}
