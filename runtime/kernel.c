/* What an operator's prepare asks of the plan: slots in a layout, reorders between layouts, primitives, scratch. See
 * kernel.h for the contract. Calls that cannot report failure in their signature leave it in plan->err; plan_build
 * looks there after each row. */
#include "runtime/kernel.h"

#include <stdarg.h>
#include <string.h>

#include "runtime/plan.h"

/* ---- slots ------------------------------------------------------------------------------------------------ */

int64_t slot_count(const Slot *slot)
{
    int64_t n = 1;
    for (int i = 0; i < slot->rank; i++)
        n *= slot->dims[i];
    return n;
}

static dnnl_format_tag_t family_tag(Layout layout, int block, int rank)
{
    static const dnnl_format_tag_t by16[] = {dnnl_nCw16c, dnnl_nChw16c, dnnl_nCdhw16c};
    static const dnnl_format_tag_t by8[] = {dnnl_nCw8c, dnnl_nChw8c, dnnl_nCdhw8c};
    static const dnnl_format_tag_t last[] = {dnnl_nwc, dnnl_nhwc, dnnl_ndhwc};
    return layout == LAYOUT_NHWC ? last[rank - 3] : block == 8 ? by8[rank - 3] : by16[rank - 3];
}

static void note_failure(Plan *plan, Status status)
{
    if (plan->status == STATUS_OK)
        plan->status = (int)status;
}

/* Gives the slot a layout and with it a size. `md` is cloned; NULL makes the one that `layout` means. */
void slot_set_layout(Plan *plan, Slot *slot, Layout layout, const_dnnl_md md)
{
    Status status = STATUS_OK;
    Error *err = plan->err;
    slot->layout = layout;
    size_t plain = 0;
    if (layout == LAYOUT_PLAIN && md == NULL) {
        if (!size_mul((size_t)slot_count(slot), dtype_size(slot->dtype), &plain))
            status =
                fail(err, STATUS_ENVIRONMENT, "a tensor of %lld elements is too large", (long long)slot_count(slot));
        slot->bytes = plain;
    } else if (md != NULL) {
        status = dnnl_fail(err, dnnl_memory_desc_clone(&slot->md, md), "memory_desc_clone");
    } else {
        status = dnnl_md_tag(&slot->md, slot->dtype, slot->rank, slot->dims,
                             family_tag(layout, plan->dnnl.block, slot->rank), err);
    }
    if (status == STATUS_OK && slot->md != NULL)
        slot->bytes = dnnl_md_bytes(slot->md);
    if (status != STATUS_OK)
        note_failure(plan, status);
}

const_dnnl_md slot_md(Slot *slot)
{
    if (slot->md == NULL && !slot->opaque_bytes)
        (void)dnnl_md_plain(&slot->md, slot->dtype, slot->rank, slot->dims, NULL);
    return slot->md;
}

static bool lies_alike(const Slot *slot, int full_rank)
{
    int channel = 1 - (full_rank - slot->rank); /* index of the channel dim in a slot aligned to full_rank */
    return slot_count(slot) <= 1 || channel < 0 || slot->dims[channel] == 1;
}

int slot_physical(const Slot *slot, Layout layout, int block, int full_rank, int64_t dims[RANK_MAX + 1])
{
    int64_t logical[RANK_MAX] = {0};
    int shift = full_rank - slot->rank;
    for (int i = 0; i < full_rank; i++)
        logical[i] = i < shift ? 1 : slot->dims[i - shift];
    if (layout != LAYOUT_BLOCKED && layout != LAYOUT_NHWC) {
        memcpy(dims, logical, (size_t)full_rank * sizeof dims[0]);
        return full_rank;
    }
    int n = 0;
    dims[n++] = logical[0];
    if (layout == LAYOUT_BLOCKED)
        dims[n++] = slot->layout == LAYOUT_PLAIN ? logical[1] : (logical[1] + block - 1) / block;
    for (int i = 2; i < full_rank; i++)
        dims[n++] = logical[i];
    if (layout == LAYOUT_NHWC)
        dims[n++] = logical[1];
    else
        dims[n++] = slot->layout == LAYOUT_PLAIN ? 1 : block;
    return n;
}

void slot_clear_padding(Slot *slot, int block)
{
    if (slot->layout != LAYOUT_BLOCKED || slot->dims[1] % block == 0)
        return;
    int64_t blocks = (slot->dims[1] + block - 1) / block, spatial = 1, used = slot->dims[1] % block;
    size_t size = dtype_size(slot->dtype);
    for (int i = 2; i < slot->rank; i++)
        spatial *= slot->dims[i];
    for (int64_t n = 0; n < slot->dims[0]; n++) {
        char *last = (char *)slot->data + (size_t)(((n * blocks + blocks - 1) * spatial) * block) * size;
        for (int64_t s = 0; s < spatial; s++)
            memset(last + (size_t)(s * block + used) * size, 0, (size_t)(block - used) * size);
    }
}

/* ---- reorders --------------------------------------------------------------------------------------------- */

/* A copy that is skipped while the parameter it was made from has not changed. */
typedef struct ReorderState {
    const uint64_t *version;
    uint64_t seen;
    bool done;
} ReorderState;

static Status run_reorder(Step *step, Error *err)
{
    ReorderState *state = step->state;
    if (state->version != NULL) {
        if (state->done && state->seen == *state->version)
            return STATUS_OK;
        state->seen = *state->version;
        state->done = true;
    }
    return dnnl_call_run(&step->plan->dnnl, step->call, err);
}

/* From plain to the channel family for a slot of lower rank than its partners (a [C,1,1] scale beside [N,C,H,W]): the
 * same bytes, with channels padded to a whole block. */
static Status run_pad_copy(Step *step, Error *err)
{
    (void)err;
    const Slot *from = step->in[0], *to = step->out[0];
    memset(to->data, 0, to->bytes);
    memcpy(to->data, from->data, from->bytes);
    return STATUS_OK;
}

static Slot *reorder_target(Plan *plan, Slot *from, Layout layout, const_dnnl_md md, DType dtype, const Value *value)
{
    if (md != NULL)
        dtype = dnnl_md_dtype(md);
    Slot *to = plan_slot(plan, value, dtype == DTYPE_UNDEFINED ? from->dtype : dtype, from->rank, from->dims);
    slot_set_layout(plan, to, layout, md);
    return to;
}

/* Constants are reordered once, while planning; the plan keeps the block. */
static Status reorder_now(Plan *plan, Step *step, Slot *to, Error *err)
{
    void *block = NULL;
    plan->bill.constants += to->bytes;
    to->persistent = true;
    to->data = step->in[0]->data; /* what a plan that only measures is left with */
    if (plan->options.measure)
        return STATUS_OK;
    TRY(block_alloc(&block, to->bytes, "constants in kernel layout", err));
    plan->constants = arena_grow(&plan->arena, plan->constants, plan->constant_count, &plan->constant_capacity,
                                 sizeof plan->constants[0]);
    plan->constants[plan->constant_count++] = block;
    to->data = block;
    if (step->call == NULL)
        return step->run(step, err);
    void *scratch = NULL;
    TRY(block_alloc(&scratch, step->call->scratchpad, "scratch of a reorder", err));
    dnnl_call_bind(step->call, scratch);
    Status status = dnnl_call_run(&plan->dnnl, step->call, err);
    block_free(scratch);
    return status;
}

/* Grouped weights have one dim more in the library ([g, o/g, i/g, ...]) than in the model ([o, i/g, ...]); the plain
 * side has the same bytes either way and is described with the other's dims. */
static Status match_ranks(Slot *from, Slot *to, Error *err)
{
    int from_rank = 0, to_rank = 0;
    const dnnl_dims_t *dims = NULL;
    dnnl_memory_desc_query(slot_md(from), dnnl_query_ndims_s32, &from_rank);
    dnnl_memory_desc_query(slot_md(to), dnnl_query_ndims_s32, &to_rank);
    if (from_rank == to_rank)
        return STATUS_OK;
    Slot *plain = from->layout == LAYOUT_PLAIN ? from : to, *other = plain == from ? to : from;
    dnnl_memory_desc_query(other->md, dnnl_query_dims, &dims);
    dnnl_memory_desc_destroy(plain->md);
    plain->md = NULL;
    return dnnl_md_plain(&plain->md, plain->dtype, plain == from ? to_rank : from_rank, *dims, err);
}

static Status reorder_step(Plan *plan, Slot *from, Slot *to, Step **out, Error *err)
{
    Step *step = plan_add_step(plan, NULL);
    step->in = arena_array(&plan->arena, Slot *, 1);
    step->out = arena_array(&plan->arena, Slot *, 1);
    step->in[0] = from;
    step->out[0] = to;
    step->in_count = step->out_count = 1;
    *out = step;
    if (to->layout != LAYOUT_PLAIN && to->md == NULL) { /* lower rank: see run_pad_copy */
        step->run = run_pad_copy;
        step->kernel = "own:pad";
        return STATUS_OK;
    }
    dnnl_primitive_desc_t descriptor = NULL;
    TRY(match_ranks(from, to, err));
    DNNL_TRY(dnnl_reorder_primitive_desc_create(&descriptor, slot_md(from), plan->dnnl.engine, slot_md(to),
                                                plan->dnnl.engine, plan->dnnl.user_scratchpad));
    DnnlArg args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    TRY(dnnl_call_new(&plan->dnnl, &plan->arena, descriptor, args, 2, &step->call, err));
    plan->calls = arena_grow(&plan->arena, plan->calls, plan->call_count, &plan->call_capacity, sizeof plan->calls[0]);
    plan->calls[plan->call_count++] = (Placed){step->call, step};
    step->scratch_bytes = step->call->scratchpad;
    step->state = arena_new(&plan->arena, ReorderState);
    step->run = run_reorder;
    step->kernel = step->call->implementation;
    return STATUS_OK;
}

Slot *plan_reorder(Plan *plan, Slot *from, Layout layout, const_dnnl_md md, DType dtype, const Value *value)
{
    Slot *to = NULL;
    if (from->rank < 3 && md == NULL && layout != LAYOUT_PLAIN) { /* unreachable for tensors with channels */
        note_failure(plan, fail(plan->err, STATUS_UNSUPPORTED, "no %d-D tensor has a channel layout", from->rank));
        return from;
    }
    to = reorder_target(plan, from, layout, md, dtype, value);
    Step *step = NULL;
    Status status = plan->status != STATUS_OK ? (Status)plan->status : reorder_step(plan, from, to, &step, plan->err);
    if (status == STATUS_OK && from->persistent && from->parameter == NULL && from->data != NULL && value != NULL &&
        value->constant != NULL) {
        status = reorder_now(plan, step, to, plan->err);
    } else if (status == STATUS_OK) {
        if (from->parameter != NULL && from->parameter->parameter >= 0 && !plan->options.training) {
            to->persistent = true; /* placed beside the transient block; refreshed when the parameter changes */
            ((ReorderState *)step->state)->version = &plan->store->items[from->parameter->parameter].version;
        }
        plan_push_step(plan, step);
    }
    if (status != STATUS_OK)
        note_failure(plan, status);
    return to;
}

static bool slot_fits(Slot *slot, Layout layout, const_dnnl_md md, DType dtype)
{
    if (md != NULL)
        return slot_md(slot) != NULL && dnnl_md_same(slot_md(slot), md);
    return slot->layout == layout && (dtype == DTYPE_UNDEFINED || slot->dtype == dtype);
}

/* Grouped weights have a dim more in the library. match_ranks describes plain bytes so; what lies otherwise goes
 * through plain ones. */
static bool ranks_differ(Slot *from, Layout layout, const_dnnl_md md)
{
    int from_rank = 0, to_rank = from->rank;
    if (from->layout == LAYOUT_PLAIN || (md == NULL && layout == LAYOUT_PLAIN) || slot_md(from) == NULL)
        return false;
    dnnl_memory_desc_query(slot_md(from), dnnl_query_ndims_s32, &from_rank);
    if (md != NULL)
        dnnl_memory_desc_query(md, dnnl_query_ndims_s32, &to_rank);
    return from_rank != to_rank;
}

/* The value in the wanted layout and precision (DTYPE_UNDEFINED: any): as it lies, from an earlier reorder, or through
 * a new one. */
static Slot *value_in(Plan *plan, const Value *value, Layout layout, const_dnnl_md md, DType dtype)
{
    Slot *primary = plan_primary(plan, value);
    if (primary == NULL)
        return NULL;
    Home *home = plan_home(plan, value);
    for (int i = 0; i < home->count; i++)
        if (slot_fits(home->slots[i], layout, md, dtype))
            return home->slots[i];
    Slot *from = primary;
    if (ranks_differ(primary, layout, md))
        from = value_in(plan, value, LAYOUT_PLAIN, NULL, DTYPE_UNDEFINED);
    Slot *made = plan_reorder(plan, from, layout, md, dtype, value);
    bool for_one_step = plan->options.training && primary->parameter != NULL && md != NULL;
    made->pending = home->uses;
    if (home->count < HOME_VARIANTS && !for_one_step)
        home->slots[home->count++] = made;
    return made;
}

/* ---- inputs ----------------------------------------------------------------------------------------------- */

static Slot *set_input(PlanContext *context, int index, Slot *slot)
{
    if (index < context->step->in_count)
        context->step->in[index] = slot;
    return slot;
}

Slot *kernel_input_any(PlanContext *context, int index)
{
    const Value *value = node_input(context->node, index);
    Slot *slot = value == NULL ? NULL : plan_primary(context->plan, value);
    if (slot != NULL && slot->dtype != value->type.dtype && slot->layout != LAYOUT_OPAQUE)
        slot = value_in(context->plan, value, slot->layout, NULL, value->type.dtype);
    return slot == NULL ? NULL : set_input(context, index, slot);
}

/* Only float values have a precision; others lie in their own type. */
static DType wanted_dtype(const Value *value, DType dtype)
{
    return value->type.dtype == DTYPE_F32 ? dtype : value->type.dtype;
}

/* A [C,1,1] or [1,C,1,1] operand beside [N,C,H,W]: its full-rank twin, made once. */
static Slot *padded_operand(PlanContext *context, int index, Slot *plain, Layout layout, int full_rank)
{
    Plan *plan = context->plan;
    int64_t dims[RANK_MAX];
    int shift = full_rank - plain->rank;
    for (int i = 0; i < full_rank; i++)
        dims[i] = i < shift ? 1 : plain->dims[i - shift];
    const Value *value = node_input(context->node, index);
    Slot *view = plan_slot(plan, value, plain->dtype, full_rank, dims);
    slot_set_layout(plan, view, LAYOUT_PLAIN, NULL);
    view->base = slot_root(plain);
    view->data = plain->data;
    view->persistent = plain->persistent;
    view->parameter = plain->parameter;
    return plan_reorder(plan, view, layout, NULL, DTYPE_UNDEFINED, value);
}

/* The rank to which a row aligns its operands: elementwise rows that of their outputs, others none but the operand's.
 */
static int aligned_rank(const PlanContext *context, const Slot *slot)
{
    int rank = slot->rank;
    for (int i = 0; (context->node->op->traits & OP_ELEMENTWISE) != 0 && i < context->node->output_count; i++)
        if (context->node->outputs[i] != NULL && context->node->outputs[i]->type.rank > rank)
            rank = context->node->outputs[i]->type.rank;
    return rank;
}

/* An operand of one channel lies alike in all layouts, so it is taken plain; also where it lies in blocks but its
 * partners have more channels, which would read its padding. */
static bool taken_plain(const PlanContext *context, const Slot *slot, Layout layout, int rank)
{
    const Value *out = node_output(context->node, 0);
    if ((context->node->op->traits & OP_ELEMENTWISE) == 0 || !lies_alike(slot, rank))
        return false;
    return slot->layout != layout || slot->rank < rank || (out != NULL && out->type.dims[1] > 1);
}

Slot *kernel_input(PlanContext *context, int index, Layout layout)
{
    return kernel_input_as(context, index, layout, DTYPE_F32);
}

Slot *kernel_input_as(PlanContext *context, int index, Layout layout, DType dtype)
{
    const Value *value = node_input(context->node, index);
    if (value == NULL)
        return NULL;
    Slot *primary = plan_primary(context->plan, value);
    dtype = wanted_dtype(value, dtype);
    if (primary == NULL)
        return set_input(context, index, NULL);
    int rank = aligned_rank(context, primary);
    if (layout != LAYOUT_PLAIN && taken_plain(context, primary, layout, rank))
        layout = LAYOUT_PLAIN;
    if (layout == LAYOUT_PLAIN || primary->rank == rank)
        return set_input(context, index, value_in(context->plan, value, layout, NULL, dtype));
    Slot *plain = value_in(context->plan, value, LAYOUT_PLAIN, NULL, dtype);
    return set_input(context, index, padded_operand(context, index, plain, layout, rank));
}

Slot *kernel_input_md(PlanContext *context, int index, const_dnnl_md md)
{
    const Value *value = node_input(context->node, index);
    if (value == NULL)
        return NULL;
    return set_input(context, index, value_in(context->plan, value, LAYOUT_OPAQUE, md, DTYPE_UNDEFINED));
}

Layout kernel_input_layout(PlanContext *context, int index)
{
    const Value *value = node_input(context->node, index);
    Slot *slot = value == NULL ? NULL : plan_primary(context->plan, value);
    return slot == NULL ? LAYOUT_PLAIN : slot->layout;
}

DType kernel_input_dtype(PlanContext *context, int index)
{
    const Value *value = node_input(context->node, index);
    Slot *slot = value == NULL ? NULL : plan_primary(context->plan, value);
    return slot == NULL ? DTYPE_UNDEFINED : slot->dtype;
}

const_dnnl_md kernel_home_md(PlanContext *context, int index)
{
    const Value *value = node_input(context->node, index);
    Slot *slot = value == NULL ? NULL : plan_primary(context->plan, value);
    return slot != NULL && slot->parameter != NULL && slot->layout == LAYOUT_OPAQUE ? slot->md : NULL;
}

Slot *kernel_weight(PlanContext *context, int index, const_dnnl_md md)
{
    return kernel_weight_from(context, index, md, md);
}

Slot *kernel_weight_from(PlanContext *context, int index, const_dnnl_md md, const_dnnl_md home_md)
{
    Plan *plan = context->plan;
    const Value *value = node_input(context->node, index);
    Home *home = value == NULL ? NULL : plan_home(plan, value);
    bool undecided = home != NULL && home->count == 0 && value->role == ROLE_PARAMETER && plan->store != NULL &&
                     !params_sealed(plan->store) && plan->store->items[value->parameter].home == NULL;
    if (undecided && home_md != NULL) { /* first come: this is where the parameter will live */
        dnnl_md copy = NULL;
        if (dnnl_memory_desc_clone(&copy, home_md) == dnnl_success)
            plan->store->items[value->parameter].home = copy;
    }
    return kernel_input_md(context, index, md);
}

/* ---- outputs ---------------------------------------------------------------------------------------------- */

static Slot *new_output(PlanContext *context, int index, DType dtype)
{
    const Value *value = node_output(context->node, index);
    Slot *slot;
    if (value != NULL) {
        slot = plan_slot(context->plan, value, wanted_dtype(value, dtype), value->type.rank, value->type.dims);
        Home *home = plan_home(context->plan, value);
        home->slots[0] = slot;
        home->count = 1;
        slot->pending = home->uses;
    } else {
        slot = plan_slot(context->plan, NULL, DTYPE_F32, 0, NULL);
    }
    if (index < context->step->out_count)
        context->step->out[index] = slot;
    return slot;
}

Slot *kernel_output(PlanContext *context, int index, Layout layout)
{
    return kernel_output_as(context, index, layout, DTYPE_F32);
}

DType kernel_output_dtype(PlanContext *context, int index)
{
    const Value *value = node_output(context->node, index);
    return value == NULL || plan_home(context->plan, value)->exact ? DTYPE_F32 : context->compute;
}

Slot *kernel_output_as(PlanContext *context, int index, Layout layout, DType dtype)
{
    Slot *slot = new_output(context, index, dtype);
    if (slot->value == NULL) /* omitted: nobody knows its shape here, so it cannot be written */
        return NULL;
    slot_set_layout(context->plan, slot, slot->rank < 3 || slot->rank > 5 ? LAYOUT_PLAIN : layout, NULL);
    return slot;
}

Slot *kernel_output_md(PlanContext *context, int index, const_dnnl_md md)
{
    Slot *slot = new_output(context, index, dnnl_md_dtype(md));
    slot_set_layout(context->plan, slot, LAYOUT_OPAQUE, md);
    return slot;
}

Slot *kernel_output_bytes(PlanContext *context, int index, size_t bytes)
{
    Slot *slot = new_output(context, index, DTYPE_F32);
    slot->layout = LAYOUT_OPAQUE;
    slot->opaque_bytes = true;
    slot->bytes = bytes;
    return slot;
}

static Slot *share_bytes(Slot *slot, Slot *with)
{
    Slot *root = slot_root(with);
    slot->base = root;
    root->pending += slot->pending;
    slot->persistent = root->persistent;
    slot->data = root->data;
    slot->parameter = with->parameter;
    return slot;
}

Slot *kernel_output_view(PlanContext *context, int index, int input)
{
    const Value *out = node_output(context->node, index);
    bool float_view = out != NULL && out->type.dtype == DTYPE_F32;
    Slot *from = kernel_input_as(context, input, LAYOUT_PLAIN, float_view ? DTYPE_UNDEFINED : DTYPE_F32);
    Slot *slot = new_output(context, index, from->dtype == DTYPE_BF16 ? DTYPE_BF16 : DTYPE_F32);
    slot_set_layout(context->plan, slot, LAYOUT_PLAIN, NULL);
    return share_bytes(slot, from);
}

/* The input dies here: every use of its bytes, through views too, is this one. */
static bool dies_here(PlanContext *context, int input, const Slot *slot)
{
    const Value *value = node_input(context->node, input);
    Home *home = plan_home(context->plan, value);
    int here = 0;
    for (int i = 0; i < context->node->input_count; i++)
        here += context->node->inputs[i] == value;
    const Slot *root = slot_root((Slot *)(size_t)slot);
    return here == 1 && home->slots[0] == slot && home->count == 1 && !root->persistent && root->pending <= 1 &&
           root->parameter == NULL;
}

bool kernel_input_dies(PlanContext *context, int index)
{
    const Slot *slot = context->step->in[index];
    return slot != NULL && dies_here(context, index, slot);
}

Slot *kernel_output_in_place(PlanContext *context, int index, int input, Layout layout)
{
    return kernel_output_in_place_as(context, index, input, layout, DTYPE_F32);
}

Slot *kernel_output_in_place_as(PlanContext *context, int index, int input, Layout layout, DType dtype)
{
    Slot *from = kernel_input_as(context, input, layout, dtype);
    Slot *slot = kernel_output_as(context, index, layout, dtype);
    if (from != NULL && slot != NULL && from->layout == slot->layout && from->bytes == slot->bytes &&
        dies_here(context, input, from))
        share_bytes(slot, from);
    return slot;
}

Layout kernel_follow(PlanContext *context)
{
    const Value *out = node_output(context->node, 0);
    if (out == NULL || context->family == LAYOUT_PLAIN || out->type.rank < 3 || out->type.rank > 5)
        return LAYOUT_PLAIN;
    Layout found = LAYOUT_PLAIN;
    for (int i = 0; i < context->node->input_count; i++) {
        const Value *value = context->node->inputs[i];
        Slot *slot = value == NULL ? NULL : plan_primary(context->plan, value);
        if (slot == NULL)
            continue;
        bool full = slot->rank == out->type.rank;
        for (int d = 0; full && d < slot->rank; d++)
            full = slot->dims[d] == out->type.dims[d];
        if (full && slot->layout == context->family)
            found = slot->layout;
        if (value->type.dtype != DTYPE_F32 && slot_count(slot) > 1)
            return LAYOUT_PLAIN; /* masks and indices stay plain, and so does what meets them */
        bool channels =
            slot->rank >= out->type.rank - 1 && slot->rank <= out->type.rank && !lies_alike(slot, out->type.rank);
        if (channels && slot->dims[1 - (out->type.rank - slot->rank)] != out->type.dims[1])
            return LAYOUT_PLAIN;
        if (channels && slot->rank < out->type.rank && slot->rank < 3)
            return LAYOUT_PLAIN;
    }
    return found;
}

/* ---- steps ------------------------------------------------------------------------------------------------ */

void *kernel_state(PlanContext *context, size_t bytes)
{
    return context->step->state = arena_alloc(&context->plan->arena, bytes);
}

void kernel_scratch(PlanContext *context, size_t bytes)
{
    if (bytes > context->step->scratch_bytes)
        context->step->scratch_bytes = bytes;
}

void kernel_run(PlanContext *context, Status (*run)(Step *step, Error *err), const char *kernel)
{
    context->step->run = run;
    context->step->kernel = kernel;
}

Status kernel_call(PlanContext *context, dnnl_primitive_desc_t descriptor, const DnnlArg *args, int count,
                   DnnlCall **call, Error *err)
{
    Plan *plan = context->plan;
    TRY(dnnl_call_new(&plan->dnnl, &plan->arena, descriptor, args, count, call, err));
    plan->calls = arena_grow(&plan->arena, plan->calls, plan->call_count, &plan->call_capacity, sizeof plan->calls[0]);
    plan->calls[plan->call_count++] = (Placed){*call, context->step};
    kernel_scratch(context, (*call)->scratchpad);
    return STATUS_OK;
}

static Status run_primitive(Step *step, Error *err)
{
    return dnnl_call_run(&step->plan->dnnl, step->call, err);
}

Status kernel_primitive(PlanContext *context, dnnl_primitive_desc_t descriptor, const DnnlArg *args, int count,
                        Error *err)
{
    TRY(kernel_call(context, descriptor, args, count, &context->step->call, err));
    kernel_run(context, run_primitive, context->step->call->implementation);
    return STATUS_OK;
}

Slot *kernel_temporary(PlanContext *context, const_dnnl_md md)
{
    Slot *slot = plan_slot(context->plan, NULL, dnnl_md_dtype(md), 0, NULL);
    slot_set_layout(context->plan, slot, LAYOUT_OPAQUE, md);
    return slot;
}

Slot *kernel_view(PlanContext *context, Slot *slot, const_dnnl_md md)
{
    Slot *view = plan_slot(context->plan, NULL, dnnl_md_dtype(md), slot->rank, slot->dims);
    slot_set_layout(context->plan, view, LAYOUT_OPAQUE, md);
    return share_bytes(view, slot);
}

Status kernel_eval(PlanContext *context, Error *err)
{
    return plan_prepare_eval(context, err);
}

void step_clock(const Step *step, uint64_t *seed, uint64_t *count)
{
    *seed = step->plan->seed;
    *count = step->plan->step;
}

Status kernel_fail(PlanContext *context, Error *err, const char *format, ...)
{
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return fail(err, STATUS_UNSUPPORTED, "%s: %s", node_text(context->node), text);
}
