/* Lifetimes -> offsets. Every storage root lives from the first step that touches it to the last; one pass over the
 * steps hands out places in one block, best fit first, and takes them back (so gradients reuse what activations leave).
 * What must survive a run (inputs, reordered parameters) gets a block of its own. */
#include "runtime/plan.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { PLACE_ALIGNMENT = 64 };

typedef struct Hole {
    size_t offset, size;
} Hole;

typedef struct Holes { /* sorted by offset, never adjacent */
    Hole *items;
    size_t count, capacity, top;
} Holes;

static size_t rounded(size_t bytes)
{
    return (bytes + PLACE_ALIGNMENT - 1) / PLACE_ALIGNMENT * PLACE_ALIGNMENT;
}

static size_t take(Holes *holes, size_t size)
{
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < holes->count && (best == SIZE_MAX || holes->items[best].size > size); i++)
        if (holes->items[i].size >= size && (best == SIZE_MAX || holes->items[i].size < holes->items[best].size))
            best = i;
    if (best == SIZE_MAX) {
        size_t last = holes->count - 1;
        if (holes->count > 0 && holes->items[last].offset + holes->items[last].size == holes->top) {
            size_t offset = holes->items[last].offset; /* grow into the hole at the top */
            holes->count--;
            holes->top = offset + size;
            return offset;
        }
        holes->top += size;
        return holes->top - size;
    }
    size_t offset = holes->items[best].offset;
    holes->items[best].offset += size;
    holes->items[best].size -= size;
    if (holes->items[best].size == 0) {
        memmove(&holes->items[best], &holes->items[best + 1], (holes->count - best - 1) * sizeof holes->items[0]);
        holes->count--;
    }
    return offset;
}

static void give_back(Holes *holes, size_t offset, size_t size)
{
    size_t at = 0, end = holes->count;
    while (at < end) { /* first hole beyond */
        size_t middle = (at + end) / 2;
        if (holes->items[middle].offset < offset)
            at = middle + 1;
        else
            end = middle;
    }
    bool joins_before = at > 0 && holes->items[at - 1].offset + holes->items[at - 1].size == offset;
    bool joins_after = at < holes->count && offset + size == holes->items[at].offset;
    if (joins_before && joins_after) {
        holes->items[at - 1].size += size + holes->items[at].size;
        memmove(&holes->items[at], &holes->items[at + 1], (holes->count - at - 1) * sizeof holes->items[0]);
        holes->count--;
    } else if (joins_before) {
        holes->items[at - 1].size += size;
    } else if (joins_after) {
        holes->items[at].offset = offset;
        holes->items[at].size += size;
    } else {
        memmove(&holes->items[at + 1], &holes->items[at], (holes->count - at) * sizeof holes->items[0]);
        holes->items[at] = (Hole){offset, size};
        holes->count++;
    }
}

static void touch(Slot *slot, int step)
{
    if (slot == NULL || step < 0)
        return;
    Slot *root = slot_root(slot);
    if (root->last < 0 || step < root->first)
        root->first = step;
    if (step > root->last)
        root->last = step;
}

static void find_lifetimes(Plan *plan)
{
    for (size_t i = 0; i < plan->slot_count; i++)
        plan->slots[i]->first = plan->slots[i]->last = -1;
    for (size_t s = 0; s < plan->step_count; s++) {
        Step *step = plan->steps[s];
        step->position = (int)s;
        for (int i = 0; i < step->in_count; i++)
            touch(step->in[i], (int)s);
        for (int i = 0; i < step->out_count; i++)
            touch(step->out[i], (int)s);
    }
    for (size_t c = 0; c < plan->call_count; c++)
        for (int i = 0; i < plan->calls[c].call->count; i++)
            touch(plan->calls[c].call->slots[i], plan->calls[c].step->position);
    for (size_t i = 0; i < plan->graph->output_count; i++)
        touch(plan->outputs[i], INT_MAX);
}

static bool is_transient(const Slot *slot)
{
    return slot->base == NULL && !slot->persistent && slot->last >= 0;
}

static int by_first(const void *a, const void *b)
{
    const Slot *x = *(Slot *const *)a, *y = *(Slot *const *)b;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return x->bytes != y->bytes ? (x->bytes > y->bytes ? -1 : 1) : 0;
}

static int by_last(const void *a, const void *b)
{
    const Slot *x = *(Slot *const *)a, *y = *(Slot *const *)b;
    return x->last != y->last ? (x->last < y->last ? -1 : 1) : 0;
}

/* The step at which most bytes live; slots sorted by their first and by their last step. */
static int busiest_step(Slot *const *begins, Slot *const *ends, size_t n)
{
    size_t now = 0, most = 0, ended = 0;
    int at = 0;
    for (size_t i = 0; i < n; i++) {
        for (; ended < n && ends[ended]->last < begins[i]->first; ended++)
            now -= ends[ended]->bytes;
        now += begins[i]->bytes;
        if (now > most) {
            most = now;
            at = begins[i]->first;
        }
    }
    return at;
}

static void split_bill(Plan *plan, Slot *const *begins, Slot *const *ends, size_t n)
{
    int at = busiest_step(begins, ends, n);
    PlanBill *bill = &plan->bill;
    for (size_t i = 0; i < n; i++) {
        const Slot *slot = begins[i];
        if (slot->first > at || slot->last < at || slot->value == NULL || slot->value->producer == NULL)
            continue;
        const Node *maker = slot->value->producer;
        if (maker->mark != 0 || maker->again)
            bill->activations += slot->bytes;
        else
            bill->gradients += slot->bytes;
    }
    bill->workspace += plan->block_bytes - bill->activations - bill->gradients;
}

/* One sweep over time: what ended before a slot begins is free again. Offsets are multiples of PLACE_ALIGNMENT. */
static void place_transient(Plan *plan)
{
    size_t n = 0;
    Slot **begins = arena_array(&plan->arena, Slot *, plan->slot_count);
    for (size_t i = 0; i < plan->slot_count; i++)
        if (is_transient(plan->slots[i]))
            begins[n++] = plan->slots[i];
    if (n == 0)
        return;
    Slot **ends = arena_copy(&plan->arena, begins, n * sizeof begins[0]);
    qsort(begins, n, sizeof begins[0], by_first);
    qsort(ends, n, sizeof ends[0], by_last);
    Holes holes = {.items = arena_array(&plan->arena, Hole, n + 1)};
    size_t ended = 0;
    for (size_t i = 0; i < n; i++) {
        for (; ended < n && ends[ended]->last < begins[i]->first; ended++)
            give_back(&holes, ends[ended]->offset, rounded(ends[ended]->bytes == 0 ? 1 : ends[ended]->bytes));
        begins[i]->offset = take(&holes, rounded(begins[i]->bytes == 0 ? 1 : begins[i]->bytes));
    }
    plan->block_bytes = holes.top;
    split_bill(plan, begins, ends, n);
}

/* Inputs and reordered parameters keep their place from run to run. */
static Status place_kept(Plan *plan, Error *err)
{
    for (size_t i = 0; i < plan->slot_count; i++) {
        Slot *slot = plan->slots[i];
        if (slot->base != NULL || !slot->persistent || slot->data != NULL || slot->parameter != NULL)
            continue;
        plan->bill.inputs += slot->bytes;
        if (plan->options.measure)
            continue;
        TRY(block_alloc(&slot->data, slot->bytes, "inputs", err));
        plan->constants = arena_grow(&plan->arena, plan->constants, plan->constant_count, &plan->constant_capacity,
                                     sizeof plan->constants[0]);
        plan->constants[plan->constant_count++] = slot->data;
    }
    return STATUS_OK;
}

static void *place_in_store(const ParamStore *store, const ParamUse *use)
{
    if (use->parameter >= 0)
        return store->data + store->items[use->parameter].offset;
    if (use->gradient >= 0)
        return store->gradient + store->items[use->gradient].offset;
    return store->state_data[use->state];
}

void plan_bind(Plan *plan)
{
    char *block = plan->space->block, *scratch = block + plan->block_bytes;
    plan->moved = plan->space->moved;
    for (size_t i = 0; i < plan->slot_count; i++) {
        Slot *slot = plan->slots[i];
        if (slot->base == NULL && slot->parameter != NULL)
            slot->data = place_in_store(plan->store, slot->parameter);
        else if (is_transient(slot))
            slot->data = block + slot->offset;
    }
    for (size_t i = 0; i < plan->slot_count; i++)
        if (plan->slots[i]->base != NULL)
            plan->slots[i]->data = slot_root(plan->slots[i])->data;
    for (size_t s = 0; s < plan->step_count; s++)
        plan->steps[s]->scratch = scratch;
    for (size_t c = 0; c < plan->call_count; c++)
        if (plan->calls[c].step->position >= 0)
            dnnl_call_bind(plan->calls[c].call, scratch);
}

void workspace_release(Workspace *workspace)
{
    block_free(workspace->block);
    *workspace = (Workspace){.moved = workspace->moved};
}

static Status workspace_grow(Workspace *workspace, size_t bytes, Error *err)
{
    if (workspace->block != NULL && workspace->bytes >= bytes)
        return STATUS_OK;
    workspace_release(workspace);
    TRY(block_alloc(&workspace->block, bytes, "activations and gradients", err));
    workspace->bytes = bytes;
    workspace->moved++;
    return STATUS_OK;
}

Status plan_place(Plan *plan, Error *err)
{
    find_lifetimes(plan);
    for (size_t s = 0; s < plan->step_count; s++)
        if (plan->steps[s]->scratch_bytes > plan->scratch_bytes)
            plan->scratch_bytes = plan->steps[s]->scratch_bytes;
    plan->bill.workspace = plan->scratch_bytes;
    place_transient(plan);
    TRY(place_kept(plan, err));
    if (plan->options.measure)
        return STATUS_OK;
    TRY(workspace_grow(plan->space, plan->block_bytes + plan->scratch_bytes, err));
    plan_bind(plan);
    plan->placed = true;
    return STATUS_OK;
}
