/* Walking broadcast operands for elementwise rows: in strips of double or int64 for eval, in cache-sized chunks of
 * float for planned kernels. See elementwise.h.
 *
 * A kernel sees only dense runs. Physical shapes (blocked tensors have one dim more) are merged to few dims; operands
 * that repeat are laid out in a chunk-sized buffer once per row of the output, so one loop a formula serves every kind
 * of broadcasting at the speed of the dense one. bf16 operands are widened into such buffers, a bf16 result is
 * narrowed from one: kernels see floats only. */
#include "runtime/ops/elementwise.h"

#include <string.h>

#include "runtime/ops/bf16.h"

/* ---- eval ------------------------------------------------------------------------------------------------ */

enum { STRIP = 512 };

void broadcast_offsets(int out_rank, const int64_t *out_dims, int rank, const int64_t *dims, int64_t begin, int64_t n,
                       int64_t *offsets)
{
    int64_t strides[RANK_MAX], at[RANK_MAX], stride = 1, offset = 0, rest = begin;
    for (int i = out_rank - 1; i >= 0; i--) {
        int from = i - (out_rank - rank);
        int64_t dim = from < 0 ? 1 : dims[from];
        strides[i] = dim == 1 ? 0 : stride;
        stride *= dim;
        at[i] = rest % out_dims[i];
        rest /= out_dims[i];
        offset += at[i] * strides[i];
    }
    for (int64_t k = 0; k < n; k++) {
        offsets[k] = offset;
        for (int i = out_rank - 1; i >= 0; i--) {
            offset += strides[i];
            if (++at[i] < out_dims[i])
                break;
            offset -= strides[i] * out_dims[i];
            at[i] = 0;
        }
    }
}

static bool same_shape(const Array *a, const Array *b)
{
    return a->rank == b->rank && memcmp(a->dims, b->dims, (size_t)a->rank * sizeof a->dims[0]) == 0;
}

static void load_doubles(const Array *from, const int64_t *offsets, int64_t n, double *to)
{
    const float *floats = from->data;
    const double *doubles = from->data;
    for (int64_t i = 0; i < n; i++) {
        if (from->dtype == DTYPE_F32)
            to[i] = (double)floats[offsets[i]];
        else
            to[i] = from->dtype == DTYPE_F64 ? doubles[offsets[i]] : array_f64_at(from, offsets[i]);
    }
}

static void load_ints(const Array *from, const int64_t *offsets, int64_t n, int64_t *to)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = array_i64_at(from, offsets[i]);
}

/* `n` results from `begin` on, converted as array_convert does. */
static Status store(EvalContext *context, Array *to, int64_t begin, int64_t n, DType computed, void *results,
                    Error *err)
{
    Array from = {.dtype = computed, .rank = 1, .dims = {n}, .count = n, .data = results}, *converted = NULL;
    size_t size = dtype_size(to->dtype);
    if (to->dtype == computed) {
        memcpy((char *)to->data + (size_t)begin * size, results, (size_t)n * size);
        return STATUS_OK;
    }
    if (to->dtype == DTYPE_F32 && computed == DTYPE_F64) {
        for (int64_t i = 0; i < n; i++)
            ((float *)to->data)[begin + i] = (float)((const double *)results)[i];
        return STATUS_OK;
    }
    TRY(array_convert(context->arena, &from, to->dtype, &converted, err));
    memcpy((char *)to->data + (size_t)begin * size, converted->data, (size_t)n * size);
    return STATUS_OK;
}

typedef struct Operands {
    const Array *arrays[64];
    int count;
    int rank;
    int64_t dims[RANK_MAX]; /* of the output */
    bool any_float, any_u64;
} Operands;

static Status find_operands(EvalContext *context, Operands *o, Error *err)
{
    enum { MOST = sizeof o->arrays / sizeof o->arrays[0] };
    *o = (Operands){0};
    for (int i = 0; i < context->in_count; i++) {
        const Array *in = context->in[i];
        if (in == NULL)
            continue;
        if (o->count == MOST)
            return fail(err, STATUS_UNSUPPORTED, "%s: more than %d inputs", node_text(context->node), MOST);
        if (!dims_broadcast(o->rank, o->dims, in->rank, in->dims, &o->rank, o->dims))
            return eval_fail(context, err, "shapes %s and %s do not broadcast",
                             dims_text(context->arena, o->rank, o->dims),
                             dims_text(context->arena, in->rank, in->dims));
        o->any_float = o->any_float || dtype_is_float(in->dtype);
        o->any_u64 = o->any_u64 || in->dtype == DTYPE_U64;
        o->arrays[o->count++] = in;
    }
    return STATUS_OK;
}

static Status refuse_dtype(const EvalContext *context, DType dtype, Error *err)
{
    return fail(err, STATUS_UNSUPPORTED, "%s: not defined for %s", node_text(context->node), dtype_name(dtype));
}

/* One strip: loads the operands, computes, stores. The buffers hold doubles or 64-bit integers. */
static Status run_strip(EvalContext *context, const Formula *formula, const Operands *o, const double *p,
                        void **buffers, Array *out, int64_t begin, int64_t n, Error *err)
{
    int64_t offsets[STRIP];
    void *results = buffers[o->count];
    for (int k = 0; k < o->count; k++) {
        const Array *in = o->arrays[k];
        if (same_shape(in, out))
            for (int64_t i = 0; i < n; i++)
                offsets[i] = begin + i;
        else
            broadcast_offsets(o->rank, o->dims, in->rank, in->dims, begin, n, offsets);
        if (o->any_float)
            load_doubles(in, offsets, n, buffers[k]);
        else
            load_ints(in, offsets, n, buffers[k]);
    }
    if (o->any_float) {
        formula->f64((const double *const *)buffers, o->count, results, n, p);
        return store(context, out, begin, n, DTYPE_F64, results, err);
    }
    if (o->any_u64 && formula->u64 != NULL) {
        formula->u64((const uint64_t *const *)buffers, o->count, results, n, p);
        return store(context, out, begin, n, DTYPE_U64, results, err);
    }
    formula->i64((const int64_t *const *)buffers, o->count, results, n, p);
    return store(context, out, begin, n, DTYPE_I64, results, err);
}

Status elementwise_eval(EvalContext *context, const Formula *formula, DType out_dtype, ParamsOf params, Error *err)
{
    Operands o;
    double p[ELEMENTWISE_PARAMS] = {0};
    TRY(find_operands(context, &o, err));
    DType first = o.arrays[0]->dtype;
    bool numbers = dtype_is_float(first) || dtype_is_integer(first) || first == DTYPE_BOOL;
    if (!numbers || (o.any_float ? formula->f64 == NULL : formula->i64 == NULL))
        return refuse_dtype(context, first, err);
    if (params != NULL)
        params(context->node, p);
    Array *out;
    TRY(eval_output(context, 0, out_dtype == DTYPE_UNDEFINED ? first : out_dtype, o.rank, o.dims, &out, err));
    void **buffers = arena_array(context->arena, void *, (size_t)o.count + 1);
    for (int k = 0; k <= o.count; k++)
        buffers[k] = arena_array(context->arena, double, STRIP);
    for (int64_t begin = 0; begin < out->count; begin += STRIP) {
        int64_t n = out->count - begin < STRIP ? out->count - begin : STRIP;
        TRY(run_strip(context, formula, &o, p, buffers, out, begin, n, err));
    }
    return STATUS_OK;
}

/* ---- planned kernels: shapes -------------------------------------------------------------------------------- */

enum {
    FUSED_PARTS = 8,
    CHUNK = 1024,    /* floats a kernel sees at once: operands and result stay in the first-level cache */
    SHORT_ROW = 256, /* a last dim shorter than this is taken together with the one before it */
    DIMS_MAX = RANK_MAX + 1
};

typedef enum Walk {
    WALK_DENSE,  /* lies like the output */
    WALK_SCALAR, /* one element a row */
    WALK_TILE,   /* the last dim, again and again */
    WALK_REPEAT  /* each element as often as the last dim is long */
} Walk;

typedef enum Kind {
    KIND_F32,
    KIND_BOOL, /* bytes to be read as 0 and 1 */
    KIND_BF16
} Kind;

typedef struct Operand {
    int input; /* index into step->in; -1: `value` itself */
    float value;
    Kind kind;
    Walk walk;
    int64_t strides[DIMS_MAX]; /* of the outer dims */
} Operand;

/* One kernel and where it reads: operands first, then results of earlier parts. */
typedef struct Part {
    Kernel kernel;
    float p[ELEMENTWISE_PARAMS];
    int count;
    int from[ELEMENTWISE_INPUTS];
} Part;

typedef struct Job {
    Part parts[FUSED_PARTS]; /* the last one writes the output */
    int part_count;
    int count;
    Operand operands[ELEMENTWISE_INPUTS];
    Kind out;
    int outer_rank;
    int64_t outer[DIMS_MAX]; /* dims that are walked row by row */
    int64_t inner;           /* last dim */
    int64_t row;             /* elements of a row: `inner`, or inner times the dim before */
    int64_t chunk;           /* elements at once; a multiple of `inner` when a row is two dims */
    int64_t chunks, rows;
    bool clear_padding;
    int block;
    Step *step;
} Job;

typedef struct Dims {
    int rank;
    int64_t dims[DIMS_MAX];
    int64_t strides[ELEMENTWISE_INPUTS][DIMS_MAX]; /* 0 where an operand repeats */
} Dims;

static void set_strides(Dims *d, int operand, int rank, const int64_t *dims)
{
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        d->strides[operand][i] = dims[i] == 1 ? 0 : stride;
        stride *= dims[i];
    }
}

/* Joins neighbouring dims that every operand walks alike, and drops those of one element. */
static void merge_dims(Dims *d, int count)
{
    int rank = 0;
    for (int i = 0; i < d->rank; i++) {
        if (d->dims[i] == 1)
            continue;
        bool joins = rank > 0;
        for (int k = 0; k < count && joins; k++)
            joins = d->strides[k][rank - 1] == d->strides[k][i] * d->dims[i];
        int to = joins ? rank - 1 : rank++;
        d->dims[to] = joins ? d->dims[to] * d->dims[i] : d->dims[i];
        for (int k = 0; k < count; k++)
            d->strides[k][to] = d->strides[k][i];
    }
    if (rank == 0) {
        d->dims[rank++] = 1;
        for (int k = 0; k < count; k++)
            d->strides[k][0] = 0;
    }
    d->rank = rank;
}

static Walk walk_of(int64_t inner, int64_t middle, int64_t inner_dim, bool two_dims)
{
    if (inner == 1)
        return two_dims && middle != inner_dim ? WALK_TILE : WALK_DENSE;
    return two_dims && middle != 0 ? WALK_REPEAT : WALK_SCALAR;
}

static void plan_walk(Job *job, const Dims *d)
{
    int last = d->rank - 1;
    bool two_dims = last > 0 && d->dims[last] < SHORT_ROW;
    job->inner = d->dims[last];
    job->row = two_dims ? job->inner * d->dims[last - 1] : job->inner;
    job->chunk = two_dims ? CHUNK / job->inner * job->inner : CHUNK;
    job->chunks = (job->row + job->chunk - 1) / job->chunk;
    job->outer_rank = two_dims ? last - 1 : last;
    job->rows = 1;
    for (int i = 0; i < job->outer_rank; i++) {
        job->outer[i] = d->dims[i];
        job->rows *= d->dims[i];
    }
    for (int k = 0; k < job->count; k++) {
        const int64_t *strides = d->strides[k];
        int64_t inner = job->row == 1 ? 1 : strides[last];
        job->operands[k].walk = walk_of(inner, two_dims ? strides[last - 1] : 0, job->inner, two_dims);
        memcpy(job->operands[k].strides, strides, (size_t)job->outer_rank * sizeof *strides);
    }
}

/* ---- planned kernels: running --------------------------------------------------------------------------------- */

typedef struct Buffers {
    _Alignas(64) float operand[ELEMENTWISE_INPUTS][CHUNK];
    _Alignas(64) float result[FUSED_PARTS][CHUNK];
} Buffers;

static float element(const void *data, Kind kind, int64_t i)
{
    if (kind == KIND_BOOL)
        return (float)(((const uint8_t *)data)[i] != 0);
    return bf16_at(data, i, kind == KIND_BF16);
}

/* What stays the same for a whole row. `n`: elements of its first chunk. */
static void fill_row(const Job *job, const Operand *o, const void *data, int64_t base, int64_t n, float *buffer)
{
    if (o->walk == WALK_SCALAR) {
        float value = data == NULL ? o->value : element(data, o->kind, base);
        for (int64_t i = 0; i < n; i++)
            buffer[i] = value;
    } else if (o->walk == WALK_TILE) {
        for (int64_t i = 0; i < job->inner; i++)
            buffer[i] = element(data, o->kind, base + i);
        for (int64_t i = job->inner; i < n; i++)
            buffer[i] = buffer[i - job->inner];
    }
}

/* Where the kernel reads one chunk of an operand: in place, or in the buffer. */
static const float *fill_chunk(const Job *job, const Operand *o, const void *data, int64_t base, int64_t begin,
                               int64_t n, float *buffer)
{
    if (o->walk == WALK_DENSE && o->kind != KIND_BOOL)
        return bf16_read(data, o->kind == KIND_BF16, base + begin, n, buffer);
    if (o->walk == WALK_DENSE)
        for (int64_t i = 0; i < n; i++)
            buffer[i] = element(data, KIND_BOOL, base + begin + i);
    if (o->walk == WALK_REPEAT)
        for (int64_t i = 0; i < n; i += job->inner) {
            float value = element(data, o->kind, base + (begin + i) / job->inner);
            for (int64_t k = 0; k < job->inner; k++)
                buffer[i + k] = value;
        }
    return buffer;
}

static int64_t base_of(const Job *job, const Operand *o, int64_t row)
{
    int64_t base = 0;
    for (int i = job->outer_rank - 1; i >= 0; i--) {
        base += row % job->outer[i] * o->strides[i];
        row /= job->outer[i];
    }
    return base;
}

/* All parts over one chunk; `out` takes the last result. */
static void run_parts(const Job *job, const float *const *in, float *out, int64_t n, Buffers *buffers)
{
    for (int i = 0; i < job->part_count; i++) {
        const Part *part = &job->parts[i];
        const float *read[ELEMENTWISE_INPUTS];
        for (int k = 0; k < part->count; k++)
            read[k] = part->from[k] < job->count ? in[part->from[k]] : buffers->result[part->from[k] - job->count];
        part->kernel(read, part->count, i == job->part_count - 1 ? out : buffers->result[i], n, part->p);
    }
}

/* Units are chunks, numbered row by row. */
static void run_units(int64_t begin, int64_t end, void *context)
{
    const Job *job = context;
    const Step *step = job->step;
    Buffers buffers;
    int64_t bases[ELEMENTWISE_INPUTS] = {0}, filled = -1;
    const float *in[ELEMENTWISE_INPUTS];
    for (int64_t unit = begin; unit < end; unit++) {
        int64_t row = unit / job->chunks, at = unit % job->chunks * job->chunk;
        int64_t n = job->row - at < job->chunk ? job->row - at : job->chunk;
        for (int k = 0; k < job->count; k++) {
            const Operand *o = &job->operands[k];
            const void *data = o->input < 0 ? NULL : step->in[o->input]->data;
            if (row != filled) {
                bases[k] = base_of(job, o, row);
                fill_row(job, o, data, bases[k], job->row < job->chunk ? job->row : job->chunk, buffers.operand[k]);
            }
            in[k] = fill_chunk(job, o, data, bases[k], at, n, buffers.operand[k]);
        }
        filled = row;
        int64_t to = row * job->row + at;
        if (job->out == KIND_F32) {
            run_parts(job, in, (float *)step->out[0]->data + to, n, &buffers);
            continue;
        }
        float *result = buffers.result[FUSED_PARTS - 1];
        run_parts(job, in, result, n, &buffers);
        if (job->out == KIND_BF16)
            bf16_narrow(result, (uint16_t *)step->out[0]->data + to, n);
        for (int64_t i = 0; i < n && job->out == KIND_BOOL; i++)
            ((uint8_t *)step->out[0]->data)[to + i] = result[i] != 0;
    }
}

static Status run_job(Step *step, Error *err)
{
    (void)err;
    enum { GRAIN = 8 }; /* chunks: below some 10,000 elements waking threads costs more than it gives */
    Job *job = step->state;
    parallel_for(job->rows * job->chunks, GRAIN, run_units, job);
    if (job->clear_padding)
        slot_clear_padding(step->out[0], job->block);
    return STATUS_OK;
}

/* ---- planned kernels: planning -------------------------------------------------------------------------------- */

/* The node's inputs that take part: f32 or bool, at most `inputs` of them. */
static bool collect(const Node *node, int inputs, Operand *operands, int *count)
{
    *count = 0;
    for (int i = 0; i < node->input_count && i < inputs; i++) {
        if (node->inputs[i] == NULL)
            continue;
        DType dtype = node->inputs[i]->type.dtype;
        if (*count == ELEMENTWISE_INPUTS || (dtype != DTYPE_F32 && dtype != DTYPE_BOOL))
            return false;
        operands[(*count)++] = (Operand){.input = i, .kind = dtype == DTYPE_BOOL ? KIND_BOOL : KIND_F32};
    }
    return *count > 0;
}

static bool same_type(const Type *a, const Type *b)
{
    return a->dtype == b->dtype && a->rank == b->rank && memcmp(a->dims, b->dims, sizeof a->dims) == 0;
}

/* Results follow what they are computed from, as layouts do: bf16 when every operand of the result's shape is. */
static DType result_dtype(PlanContext *context, const Job *job)
{
    const Node *node = context->node;
    const Type *type = &node->outputs[0]->type;
    bool found = false;
    if (type->dtype != DTYPE_F32 || kernel_output_dtype(context, 0) != DTYPE_BF16)
        return type->dtype;
    for (int k = 0; k < job->count; k++) {
        int input = job->operands[k].input;
        if (input < 0 || !same_type(&node->inputs[input]->type, type))
            continue;
        if (kernel_input_dtype(context, input) != DTYPE_BF16)
            return DTYPE_F32;
        found = true;
    }
    return found ? DTYPE_BF16 : DTYPE_F32;
}

/* Input whose bytes the output may take: as large as the result, and of no use to anybody later; -1: none. */
static int in_place_input(PlanContext *context, const Job *job, DType dtype)
{
    const Node *node = context->node;
    for (int k = 0; k < job->count && (node->op->traits & OP_IN_PLACE) != 0; k++) {
        int input = job->operands[k].input;
        if (input >= 0 && same_type(&node->inputs[input]->type, &node->outputs[0]->type) &&
            context->step->in[input]->dtype == dtype && kernel_input_dies(context, input))
            return input;
    }
    return -1;
}

/* Slots, layout and walk of a job whose parts and operands stand. */
static void place_job(PlanContext *context, Job *job, const char *kernel)
{
    const Node *node = context->node;
    const Type *type = &node->outputs[0]->type;
    bool bools = type->dtype == DTYPE_BOOL;
    for (int k = 0; k < job->count; k++)
        bools = bools || job->operands[k].kind == KIND_BOOL;
    Layout layout = context->plain_only || bools ? LAYOUT_PLAIN : kernel_follow(context);
    DType dtype = result_dtype(context, job);
    for (int k = 0; k < job->count; k++) {
        Operand *o = &job->operands[k];
        if (o->input >= 0 && kernel_input_as(context, o->input, layout, DTYPE_UNDEFINED)->dtype == DTYPE_BF16)
            o->kind = KIND_BF16;
    }
    int in_place = in_place_input(context, job, dtype);
    Slot *out = in_place >= 0 ? kernel_output_in_place_as(context, 0, in_place, layout, dtype)
                              : kernel_output_as(context, 0, layout, dtype);
    Dims dims;
    dims.rank = slot_physical(out, layout, context->block, type->rank, dims.dims);
    for (int k = 0; k < job->count; k++) {
        int64_t physical[DIMS_MAX];
        int rank = dims.rank, input = job->operands[k].input;
        for (int i = 0; i < rank; i++)
            physical[i] = 1;
        if (input >= 0)
            rank = slot_physical(context->step->in[input], layout, context->block, type->rank, physical);
        set_strides(&dims, k, rank, physical);
    }
    merge_dims(&dims, job->count);
    plan_walk(job, &dims);
    job->out = type->dtype == DTYPE_BOOL ? KIND_BOOL : out->dtype == DTYPE_BF16 ? KIND_BF16 : KIND_F32;
    job->clear_padding =
        layout == LAYOUT_BLOCKED && (job->count > 1 || job->part_count > 1 || (node->op->traits & OP_MOVES_ZERO) != 0);
    job->block = context->block;
    job->step = context->step;
    kernel_run(context, run_job, kernel);
}

static bool output_fits(const Node *node)
{
    const Type *type = &node->outputs[0]->type;
    return (type->dtype == DTYPE_F32 || type->dtype == DTYPE_BOOL) && type_count(type) > 0;
}

Status elementwise_prepare_with(PlanContext *context, Kernel kernel, const double *p, int inputs, Error *err)
{
    Part part = {.kernel = kernel};
    Operand operands[ELEMENTWISE_INPUTS];
    bool fits = output_fits(context->node) && collect(context->node, inputs, operands, &part.count);
    for (int i = 0; i < ELEMENTWISE_PARAMS && p != NULL; i++)
        part.p[i] = (float)p[i];
    Recording *recording = context->recording;
    if (recording != NULL) {
        *recording = (Recording){.kernel = fits ? kernel : NULL, .count = part.count};
        memcpy(recording->p, part.p, sizeof part.p);
        for (int k = 0; k < part.count; k++)
            recording->inputs[k] = operands[k].input;
        return STATUS_OK;
    }
    if (!fits)
        return kernel_eval(context, err);
    Job *job = kernel_state(context, sizeof *job);
    job->count = part.count;
    memcpy(job->operands, operands, sizeof operands);
    for (int k = 0; k < part.count; k++)
        part.from[k] = k;
    job->parts[job->part_count++] = part;
    place_job(context, job, "own:elementwise");
    return STATUS_OK;
}

Status elementwise_prepare(PlanContext *context, Kernel kernel, ParamsOf params, Error *err)
{
    double p[ELEMENTWISE_PARAMS] = {0};
    if (params != NULL)
        params(context->node, p);
    return elementwise_prepare_with(context, kernel, p, context->node->input_count, err);
}

/* ---- fused nodes: several parts over the same chunks ------------------------------------------------------------ */

/* Number of the operand that stands for `value` of the body: an input of the fused node, or a constant of one element.
 * -1: no room, or a constant of more. */
static int operand_of(const Node *node, const Graph *body, const Value *value, Job *job)
{
    Operand operand = {.input = -1};
    for (size_t i = 0; i < body->input_count; i++)
        if (body->inputs[i] == value)
            operand.input = (int)i;
    if (operand.input < 0 && (value->constant == NULL || type_count(&value->type) != 1))
        return -1;
    if (operand.input < 0)
        operand.value = (float)tensor_f64_at(value->constant, 0);
    else
        operand.kind = node->inputs[operand.input]->type.dtype == DTYPE_BOOL ? KIND_BOOL : KIND_F32;
    for (int k = 0; k < job->count; k++) {
        const Operand *known = &job->operands[k];
        bool same = operand.input >= 0 ? known->input == operand.input
                                       : known->input < 0 && memcmp(&known->value, &operand.value, sizeof(float)) == 0;
        if (same)
            return k;
    }
    if (job->count == ELEMENTWISE_INPUTS)
        return -1;
    job->operands[job->count] = operand;
    return job->count++;
}

/* Asks each part what it would run. Results of parts are numbered from FUSED_PARTS_FIRST until the operands are
 * counted. */
enum { FUSED_PARTS_FIRST = 1000 };

static bool record_part(PlanContext *context, const Graph *body, const Node *node, Job *job, Error *err)
{
    Recording recording = {0};
    PlanContext inner = *context;
    inner.node = node;
    inner.recording = &recording;
    if (job->part_count == FUSED_PARTS || node->op == NULL || (node->op->traits & OP_FUSES) == 0 ||
        node->op->prepare(&inner, err) != STATUS_OK || recording.kernel == NULL)
        return false;
    Part *part = &job->parts[job->part_count];
    *part = (Part){.kernel = recording.kernel, .count = recording.count};
    memcpy(part->p, recording.p, sizeof part->p);
    for (int k = 0; k < part->count; k++) {
        const Value *value = node->inputs[recording.inputs[k]];
        if (value->producer != NULL && value->graph == body)
            part->from[k] = FUSED_PARTS_FIRST + value->producer->index;
        else
            part->from[k] = operand_of(context->node, body, value, job);
        if (part->from[k] < 0)
            return false;
    }
    job->part_count++;
    return true;
}

Status fused_prepare(PlanContext *context, const Graph *body, Error *err)
{
    Job *job = kernel_state(context, sizeof *job);
    graph_number((Graph *)(uintptr_t)body); /* positions only */
    for (const Node *node = body->first; node != NULL; node = node->next)
        if (!record_part(context, body, node, job, err))
            return kernel_eval(context, err);
    for (int i = 0; i < job->part_count; i++)
        for (int k = 0; k < job->parts[i].count; k++)
            if (job->parts[i].from[k] >= FUSED_PARTS_FIRST)
                job->parts[i].from[k] += job->count - FUSED_PARTS_FIRST;
    place_job(context, job, "own:fused");
    return STATUS_OK;
}

/* ---- grad ---------------------------------------------------------------------------------------------------- */

static Status grad_from(GradContext *context, const char *op_type, Value *saved)
{
    if (!context->wants[0] || context->dy[0] == NULL)
        return STATUS_OK;
    Builder *b = &context->b;
    Node *node = build_node(b, DOMAIN_INTERNAL, op_type, (Value *[]){context->dy[0], saved}, 2, 1);
    if (node != NULL)
        node_copy_attrs(node, context->node);
    context->dx[0] = build_finish(b, node);
    return b->status;
}

Status grad_from_input(GradContext *context, const char *op_type)
{
    return grad_from(context, op_type, context->node->inputs[0]);
}

Status grad_from_output(GradContext *context, const char *op_type)
{
    return grad_from(context, op_type, context->node->outputs[0]);
}

Status grad_none(GradContext *context, Error *err)
{
    (void)context;
    (void)err;
    return STATUS_OK;
}

Value *build_times(Builder *b, double factor, Value *x)
{
    return x == NULL ? NULL : build2(b, "Mul", x, build_scalar(b, x->type.dtype, factor));
}

Value *build_plus(Builder *b, double term, Value *x)
{
    return x == NULL ? NULL : build2(b, "Add", x, build_scalar(b, x->type.dtype, term));
}

/* ---- upgrade --------------------------------------------------------------------------------------------------- */

static Value *upgrade_node(Node *before, const char *op_type, Value *const *inputs, int count)
{
    Node *node = graph_add_node(before->graph, before, "", op_type, OPSET_NEWEST, before->name, inputs, count, 1);
    return node->outputs[0];
}

static Value *rank_of(Node *before, Value *value) /* int64[1] */
{
    Value *shape = upgrade_node(before, "Shape", &value, 1);
    return upgrade_node(before, "Shape", &shape, 1);
}

void upgrade_axis_broadcast(Node *node, int64_t axis)
{
    if (node->input_count < 2 || node->inputs[0] == NULL || node->inputs[1] == NULL)
        return;
    Value *a = node->inputs[0], *b = node->inputs[1];
    Value *shift = node_ints_value(node, "axis", &axis, 1);
    Value *used = upgrade_node(node, "Add", (Value *[]){rank_of(node, b), shift}, 2);
    Value *missing = upgrade_node(node, "Sub", (Value *[]){rank_of(node, a), used}, 2);
    Value *none = node_ints_value(node, "none", (int64_t[]){0}, 1);
    missing = upgrade_node(node, "Max", (Value *[]){missing, none}, 2); /* a scalar needs no alignment */
    Value *ones = upgrade_node(node, "ConstantOfShape", &missing, 1);
    node_set_tensor(ones->producer, "value",
                    tensor_new_i64(&node->graph->model->arena, "value", 1, (int64_t[]){1}, (int64_t[]){1}));
    Value *shape = upgrade_node(node, "Concat", (Value *[]){upgrade_node(node, "Shape", &b, 1), ones}, 2);
    node_set_int(shape->producer, "axis", 0);
    node_set_input(node, 1, upgrade_node(node, "Reshape", (Value *[]){b, shape}, 2));
}

Status upgrade_broadcast_attrs(Node *node, Error *err)
{
    (void)err;
    if (node->opset < 7 && node_int(node, "broadcast", 0) != 0 && node_attr(node, "axis") != NULL) {
        int64_t axis = node_int(node, "axis", 0);
        if (axis < 0)
            return infer_fail(node, err, "a negative axis of broadcasting");
        upgrade_axis_broadcast(node, axis);
    }
    node_remove_attr(node, "broadcast");
    node_remove_attr(node, "axis");
    node_remove_attr(node, "consumed_inputs");
    return STATUS_OK;
}
