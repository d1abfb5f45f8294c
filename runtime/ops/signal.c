/* Signal processing: DFT (complex, one-sided, inverse), STFT, the three windows, MelWeightMatrix.
 *
 * The transform runs in double whatever the type: mixed radix, so lengths with small factors cost n log n and a prime
 * length costs n^2. STFT expands into Gather, Mul and DFT where it has to be differentiated. */
#include "runtime/ops/ops.h"

#include <math.h>
#include <string.h>

static const double PI = 3.14159265358979323846;

/* ---- the transform ------------------------------------------------------------------------------------ */

typedef struct Complex {
    double re, im;
} Complex;

typedef struct Fourier {
    int64_t n;
    Complex *roots;   /* e^(-+ 2 pi i k / n), [n] */
    Complex *scratch; /* [n] */
} Fourier;

static void fourier_init(Fourier *f, Arena *arena, int64_t n, bool inverse)
{
    f->n = n;
    f->roots = arena_array(arena, Complex, (size_t)n + 1);
    f->scratch = arena_array(arena, Complex, (size_t)n + 1);
    for (int64_t k = 0; k < n; k++) {
        double angle = 2 * PI * (double)k / (double)n;
        f->roots[k] = (Complex){cos(angle), inverse ? sin(angle) : -sin(angle)};
    }
}

static int64_t smallest_factor(int64_t n)
{
    for (int64_t p = 2; p * p <= n; p++)
        if (n % p == 0)
            return p;
    return n;
}

/* Cooley-Tukey: y[k] = sum over r < p of w^(r k) * (transform of x[r], x[r + p], ..)[k mod n/p] for the smallest factor
 * p. x lies `stride` apart, y is dense; root w = e^(-+2 pi i / n) is f->roots[f->n / n]. */
static void fourier_run(const Fourier *f, const Complex *x, int64_t stride, Complex *y, Complex *scratch, int64_t n)
{
    if (n == 1) {
        y[0] = x[0];
        return;
    }
    const int64_t p = smallest_factor(n), part = n / p;
    for (int64_t r = 0; r < p; r++)
        fourier_run(f, x + r * stride, stride * p, scratch + r * part, y + r * part, part);
    const int64_t root = f->n / n;
    for (int64_t k = 0; k < n; k++) {
        Complex sum = {0, 0};
        for (int64_t r = 0; r < p; r++) {
            const Complex w = f->roots[r * k % n * root], v = scratch[r * part + k % part];
            sum.re += w.re * v.re - w.im * v.im;
            sum.im += w.re * v.im + w.im * v.re;
        }
        y[k] = sum;
    }
}

/* ---- DFT ---------------------------------------------------------------------------------------------- */

typedef struct Transform {
    int64_t outer, inner; /* input [outer, in_dim, inner, in_width], output [outer, out_dim, inner, out_width] */
    int64_t in_dim, out_dim, n;
    int in_width, out_width; /* 1 real, 2 complex */
    bool inverse, onesided;
} Transform;

static Status transform_read(const Node *node, int rank, const int64_t *dims, int64_t axis_wanted, int64_t length,
                             Transform *t, int *axis, Error *err)
{
    TRY(axis_normalize(node, axis_wanted, rank, axis, err));
    if (rank < 2 || *axis == rank - 1 || (dims[rank - 1] != 1 && dims[rank - 1] != 2))
        return infer_fail(node, err, "axis %lld of an input of rank %d whose last dim is %lld", (long long)axis_wanted,
                          rank, (long long)(rank > 0 ? dims[rank - 1] : 0));
    t->inverse = node_int(node, "inverse", 0) != 0;
    t->onesided = node_int(node, "onesided", 0) != 0;
    t->outer = dims_count(*axis, dims);
    t->in_dim = dims[*axis];
    t->inner = dims_count(rank - *axis - 2, dims + *axis + 1);
    t->in_width = (int)dims[rank - 1];
    bool half_to_real = t->inverse && t->onesided;
    t->n = length >= 0 ? length : half_to_real ? 2 * (t->in_dim - 1) : t->in_dim;
    t->out_width = half_to_real ? 1 : 2;
    t->out_dim = t->onesided && !t->inverse ? t->n / 2 + 1 : t->n;
    if (t->n < 1)
        return infer_fail(node, err, "dft_length %lld", (long long)t->n);
    if (t->onesided && t->in_width != (t->inverse ? 2 : 1))
        return infer_fail(node, err, "a one-sided transform of %s input", t->in_width == 1 ? "real" : "complex");
    return STATUS_OK;
}

static void transform_dims(const Transform *t, int rank, const int64_t *in, int axis, int64_t *out)
{
    memcpy(out, in, (size_t)rank * sizeof *out);
    out[axis] = t->out_dim;
    out[rank - 1] = t->out_width;
}

static double read_real(const Array *x, int64_t i)
{
    return x->dtype == DTYPE_F64 ? ((const double *)x->data)[i] : (double)((const float *)x->data)[i];
}

static Status check_real(EvalContext *context, const Array *x, Error *err)
{
    return x->dtype == DTYPE_F32 || x->dtype == DTYPE_F64
               ? STATUS_OK
               : eval_fail(context, err, "a transform of %s, floats expected", dtype_name(x->dtype));
}

static void write_real(Array *y, int64_t i, double value)
{
    if (y->dtype == DTYPE_F64)
        ((double *)y->data)[i] = value;
    else
        ((float *)y->data)[i] = (float)value;
}

/* One line into `line`, cut or padded with zeros to n; the other half of a one-sided spectrum is its mirror. */
static void line_read(const Transform *t, const Array *x, int64_t outer, int64_t inner, Complex *line)
{
    const bool half = t->inverse && t->onesided;
    const int64_t given = half && t->in_dim > t->n / 2 + 1 ? t->n / 2 + 1 : t->in_dim;
    for (int64_t k = 0; k < t->n; k++) {
        const int64_t at = ((outer * t->in_dim + k) * t->inner + inner) * t->in_width;
        line[k] = (Complex){0, 0};
        if (k < given)
            line[k] = (Complex){read_real(x, at), t->in_width == 2 ? read_real(x, at + 1) : 0};
    }
    for (int64_t k = t->n / 2 + 1; half && k < t->n; k++)
        line[k] = (Complex){line[t->n - k].re, -line[t->n - k].im};
}

static void line_write(const Transform *t, const Complex *line, Array *y, int64_t outer, int64_t inner)
{
    const double scale = t->inverse ? 1 / (double)t->n : 1;
    for (int64_t k = 0; k < t->out_dim; k++) {
        const int64_t at = ((outer * t->out_dim + k) * t->inner + inner) * t->out_width;
        write_real(y, at, line[k].re * scale);
        if (t->out_width == 2)
            write_real(y, at + 1, line[k].im * scale);
    }
}

static void transform_run(const Transform *t, Arena *arena, const Array *x, Array *y)
{
    Fourier f;
    fourier_init(&f, arena, t->n, t->inverse);
    Complex *line = arena_array(arena, Complex, (size_t)t->n), *spectrum = arena_array(arena, Complex, (size_t)t->n);
    for (int64_t i = 0; i < t->outer * t->inner; i++) {
        line_read(t, x, i / t->inner, i % t->inner, line);
        fourier_run(&f, line, 1, spectrum, f.scratch, t->n);
        line_write(t, spectrum, y, i / t->inner, i % t->inner);
    }
}

/* dft_length and axis, -1 and -2 when omitted. */
static Status dft_constants(const Node *node, int64_t *length, int64_t *axis, Error *err)
{
    const int64_t *values;
    size_t count;
    TRY(infer_ints(node, 1, &values, &count, err));
    *length = values && count > 0 ? values[0] : -1;
    TRY(infer_ints(node, 2, &values, &count, err));
    *axis = values && count > 0 ? values[0] : -2;
    return STATUS_OK;
}

static Status dft_infer(Node *node, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    int64_t length, axis_wanted, dims[RANK_MAX];
    int axis = 0;
    Transform t = {0};
    if (!infer_has_ints(node, 1) || !infer_has_ints(node, 2)) {
        type_set(&node->outputs[0]->type, x->dtype, -1, NULL);
        return STATUS_OK;
    }
    TRY(dft_constants(node, &length, &axis_wanted, err));
    TRY(transform_read(node, x->rank, x->dims, axis_wanted, length, &t, &axis, err));
    transform_dims(&t, x->rank, x->dims, axis, dims);
    type_set(&node->outputs[0]->type, x->dtype, x->rank, dims);
    return STATUS_OK;
}

static Status dft_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0];
    int axis = 0;
    int64_t dims[RANK_MAX];
    Transform t = {0};
    Array *y;
    TRY(check_real(context, x, err));
    TRY(transform_read(context->node, x->rank, x->dims, eval_int_or(context, 2, -2), eval_int_or(context, 1, -1), &t,
                       &axis, err));
    transform_dims(&t, x->rank, x->dims, axis, dims);
    TRY(eval_output(context, 0, x->dtype, x->rank, dims, &y, err));
    transform_run(&t, context->arena, x, y);
    return STATUS_OK;
}

/* Up to 17 the axis was an attribute, 1 by default. */
static Status dft_upgrade(Node *node, Error *err)
{
    (void)err;
    if (node->opset >= 20)
        return STATUS_OK;
    const int64_t axis = node_int(node, "axis", 1);
    node_set_input(node, 2, node_ints_value(node, "axis", &axis, 1));
    node_remove_attr(node, "axis");
    return STATUS_OK;
}

/* ---- DFT's gradient ----------------------------------------------------------------------------------- */

static Value *build_dft(Builder *b, Value *x, int64_t length, int64_t axis, bool inverse, bool onesided)
{
    Value *inputs[] = {x, build_scalar(b, DTYPE_I64, (double)length), build_scalar(b, DTYPE_I64, (double)axis)};
    Node *node = build_node(b, "", "DFT", inputs, 3, 1);
    if (!node)
        return NULL;
    node_set_int(node, "inverse", inverse);
    node_set_int(node, "onesided", onesided);
    return build_finish(b, node);
}

/* Cuts or pads with zeros along one axis to `dim`. */
static Value *build_fit(Builder *b, Value *x, int axis, int64_t dim)
{
    if (!x || x->type.dims[axis] == dim)
        return x;
    int64_t pads[2 * RANK_MAX] = {0};
    pads[x->type.rank + axis] = dim - x->type.dims[axis];
    return build2(b, "Pad", x, build_ints(b, pads, 2 * (size_t)x->type.rank));
}

/* With F the n-point transform (no factor), its adjoint is n F^-1 and that of F^-1 is F / n. What was cut is padded and
 * the other way round; the imaginary part of a real input is dropped. A half spectrum counts twice what has a mirror:
 * irfft x = (1/n) Re sum c[k] X[k] e^(..), c = 1 for k = 0 and n/2, else 2. */
static Status dft_grad(GradContext *context, Error *err)
{
    const Node *node = context->node;
    const Type *x = &node->inputs[0]->type;
    Builder *b = &context->b;
    Value *dy = context->dy[0];
    int64_t length, axis_wanted;
    int axis = 0;
    Transform t = {0};
    TRY(dft_constants(node, &length, &axis_wanted, err));
    TRY(transform_read(node, x->rank, x->dims, axis_wanted, length, &t, &axis, err));
    if (t.inverse && t.onesided) {
        const int64_t bins = t.n / 2 + 1;
        int64_t dims[RANK_MAX];
        for (int i = 0; i < x->rank; i++)
            dims[i] = i == axis ? bins : 1;
        void *data;
        Tensor *weights = tensor_new(&node->graph->model->arena, NULL, DTYPE_F64, x->rank, dims, &data);
        for (int64_t k = 0; k < bins; k++)
            ((double *)data)[k] = (k == 0 || 2 * k == t.n ? 1.0 : 2.0) / (double)t.n;
        Value *cast_in = build_constant(b, weights);
        Node *cast = build_node(b, "", "Cast", &cast_in, 1, 1);
        if (!cast)
            return b->status;
        node_set_int(cast, "to", x->dtype);
        dy = build2(b, "Mul", build_dft(b, dy, t.n, axis, false, true), build_finish(b, cast));
    } else {
        dy = build_dft(b, build_fit(b, dy, axis, t.n), t.n, axis, !t.inverse, false);
        double scale = t.inverse ? 1 / (double)t.n : (double)t.n;
        dy = build2(b, "Mul", dy, build_scalar(b, x->dtype, scale));
    }
    dy = build_fit(b, dy, axis, t.in_dim);
    context->dx[0] = build_fit(b, dy, x->rank - 1, t.in_width);
    return b->status;
}

/* ---- STFT: frames of the signal, weighted by the window, transformed ---------------------------------- */

typedef struct Frames {
    int64_t batch, length, width; /* signal [batch, length, width] */
    int64_t step, n, count, bins;
    bool onesided;
} Frames;

static Status frames_read(const Node *node, int rank, const int64_t *dims, int64_t step, int64_t window, int64_t length,
                          Frames *f, Error *err)
{
    if (rank != 3 || (dims[2] != 1 && dims[2] != 2))
        return infer_fail(node, err, "signal of rank %d, [batch, length, 1 or 2] expected", rank);
    *f = (Frames){.batch = dims[0], .length = dims[1], .width = dims[2], .step = step};
    f->n = length >= 0 ? length : window >= 0 ? window : dims[1];
    f->onesided = node_int(node, "onesided", 1) != 0 && dims[2] == 1;
    if (step < 1 || f->n < 1 || f->n > dims[1] || (window >= 0 && window != f->n))
        return infer_fail(node, err, "frames of %lld every %lld in a signal of %lld, window of %lld", (long long)f->n,
                          (long long)step, (long long)dims[1], (long long)window);
    f->count = (dims[1] - f->n) / step + 1;
    f->bins = f->onesided ? f->n / 2 + 1 : f->n;
    return STATUS_OK;
}

static Status stft_constants(const Node *node, Frames *f, Error *err)
{
    const Type *x = &node->inputs[0]->type;
    const Value *window = node_input(node, 2);
    const int64_t *step, *length;
    size_t step_count, length_count;
    TRY(infer_ints(node, 1, &step, &step_count, err));
    TRY(infer_ints(node, 3, &length, &length_count, err));
    return frames_read(node, x->rank, x->dims, step && step_count > 0 ? step[0] : 0, window ? window->type.dims[0] : -1,
                       length && length_count > 0 ? length[0] : -1, f, err);
}

static Status stft_infer(Node *node, Error *err)
{
    Frames f = {0};
    if (!infer_has_ints(node, 1) || !infer_has_ints(node, 3)) {
        type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, -1, NULL);
        return STATUS_OK;
    }
    TRY(stft_constants(node, &f, err));
    type_set(&node->outputs[0]->type, node->inputs[0]->type.dtype, 4, (int64_t[]){f.batch, f.count, f.bins, 2});
    return STATUS_OK;
}

static Status stft_eval(EvalContext *context, Error *err)
{
    const Array *x = context->in[0], *window = eval_input(context, 2);
    Frames f = {0};
    Array *framed, *y;
    if (window && window->rank != 1)
        return eval_fail(context, err, "window of rank %d", window->rank);
    TRY(check_real(context, x, err));
    if (window)
        TRY(check_real(context, window, err));
    TRY(frames_read(context->node, x->rank, x->dims, eval_int_or(context, 1, 0), window ? window->count : -1,
                    eval_int_or(context, 3, -1), &f, err));
    TRY(eval_output(context, 0, x->dtype, 4, (int64_t[]){f.batch, f.count, f.bins, 2}, &y, err));
    TRY(array_new(context->arena, x->dtype, 4, (int64_t[]){f.batch, f.count, f.n, f.width}, &framed, err));
    for (int64_t i = 0; i < framed->count; i++) {
        const int64_t part = i % f.width, k = i / f.width % f.n, frame = i / (f.width * f.n) % f.count;
        const int64_t batch = i / (f.width * f.n * f.count);
        double weight = window ? read_real(window, k) : 1;
        write_real(framed, i, weight * read_real(x, (batch * f.length + frame * f.step + k) * f.width + part));
    }
    Transform t = {.outer = f.batch * f.count,
                   .inner = 1,
                   .in_dim = f.n,
                   .out_dim = f.bins,
                   .n = f.n,
                   .in_width = (int)f.width,
                   .out_width = 2,
                   .onesided = f.onesided};
    transform_run(&t, context->arena, framed, y);
    return STATUS_OK;
}

/* Gather the frames (constant indices [count, n]), weigh, transform along axis 2. */
static Status stft_expand(Node *node, Builder *b, Error *err)
{
    Frames f = {0};
    void *data;
    if (!infer_has_ints(node, 1) || !infer_has_ints(node, 3))
        return STATUS_OK; /* declines: frames are not known before running */
    TRY(stft_constants(node, &f, err));
    Tensor *indices = tensor_new(&node->graph->model->arena, NULL, DTYPE_I64, 2, (int64_t[]){f.count, f.n}, &data);
    for (int64_t i = 0; i < f.count * f.n; i++)
        ((int64_t *)data)[i] = i / f.n * f.step + i % f.n;
    Value *inputs[] = {node->inputs[0], build_constant(b, indices)};
    Node *gather = build_node(b, "", "Gather", inputs, 2, 1);
    if (!gather)
        return b->status;
    node_set_int(gather, "axis", 1);
    Value *frames = build_finish(b, gather);
    if (node_input(node, 2))
        frames = build2(b, "Mul", frames, build_reshape(b, node->inputs[2], 2, (int64_t[]){f.n, 1}));
    Value *spectrum = build_dft(b, frames, f.n, 2, false, f.onesided);
    if (spectrum)
        value_replace_uses(node->outputs[0], spectrum);
    return b->status;
}

/* ---- windows: a0 - a1 cos(2 pi k / n) + a2 cos(4 pi k / n), n = size when periodic, else size - 1 ----- */

static Status window_infer(Node *node, Error *err)
{
    const DType dtype = (DType)node_int(node, "output_datatype", DTYPE_F32);
    const int64_t *size;
    size_t count;
    if (!infer_has_ints(node, 0)) {
        type_set(&node->outputs[0]->type, dtype, -1, NULL);
        return STATUS_OK;
    }
    TRY(infer_ints(node, 0, &size, &count, err));
    if (count != 1 || size[0] < 0)
        return infer_fail(node, err, "size of %lld", (long long)(count > 0 ? size[0] : 0));
    type_set(&node->outputs[0]->type, dtype, 1, size);
    return STATUS_OK;
}

static Status window_eval(EvalContext *context, Error *err)
{
    const Node *node = context->node;
    const int64_t size = eval_int_or(context, 0, -1);
    const bool hann = node_is(node, "HannWindow"), hamming = node_is(node, "HammingWindow");
    const double a0 = hann ? 0.5 : hamming ? 25.0 / 46 : 0.42, a1 = hamming ? 1 - a0 : 0.5;
    const double a2 = hann || hamming ? 0 : 0.08;
    Array *values, *converted;
    if (size < 0)
        return eval_fail(context, err, "size of %lld", (long long)size);
    TRY(array_new(context->arena, DTYPE_F64, 1, &size, &values, err));
    const double n = (double)(node_int(node, "periodic", 1) ? size : size - 1);
    for (int64_t k = 0; k < size; k++) {
        double angle = n > 0 ? 2 * PI * (double)k / n : PI; /* one point: the peak */
        ((double *)values->data)[k] = a0 - a1 * cos(angle) + a2 * cos(2 * angle);
    }
    DType dtype = (DType)node_int(node, "output_datatype", DTYPE_F32);
    TRY(array_convert(context->arena, values, dtype, &converted, err));
    return eval_output_same(context, 0, converted, err);
}

/* ---- MelWeightMatrix: triangles with peak 1 on the mel scale, mel(f) = 2595 log10(1 + f/700) ---------- */

static Status mel_infer(Node *node, Error *err)
{
    const DType dtype = (DType)node_int(node, "output_datatype", DTYPE_F32);
    const int64_t *bins, *length;
    size_t count, length_count;
    type_set(&node->outputs[0]->type, dtype, -1, NULL);
    if (!infer_has_ints(node, 0) || !infer_has_ints(node, 1))
        return STATUS_OK;
    TRY(infer_ints(node, 0, &bins, &count, err));
    TRY(infer_ints(node, 1, &length, &length_count, err));
    if (count != 1 || length_count != 1 || bins[0] < 0 || length[0] < 0)
        return infer_fail(node, err, "num_mel_bins or dft_length is not one number");
    type_set(&node->outputs[0]->type, dtype, 2, (int64_t[]){length[0] / 2 + 1, bins[0]});
    return STATUS_OK;
}

static double mel_hertz(double mel)
{
    return 700 * (pow(10, mel / 2595) - 1);
}

static Status mel_triangle(EvalContext *context, double *matrix, int64_t rows, int64_t columns, int64_t column,
                           const int64_t *edge, Error *err)
{
    const int64_t left = edge[0], center = edge[1], right = edge[2];
    if (left < 0 || center < left || center >= rows || right < center || right > rows)
        return eval_fail(context, err, "mel bin %lld spans spectrogram bins %lld to %lld of %lld", (long long)column,
                         (long long)left, (long long)right, (long long)rows);
    if (center == left)
        matrix[center * columns + column] = 1;
    for (int64_t i = left; i <= center && center > left; i++)
        matrix[i * columns + column] = (double)(i - left) / (double)(center - left);
    for (int64_t i = center; i < right; i++)
        matrix[i * columns + column] = (double)(right - i) / (double)(right - center);
    return STATUS_OK;
}

static Status mel_eval(EvalContext *context, Error *err)
{
    for (int i = 0; i < 5; i++)
        if (context->in[i]->count != 1)
            return eval_fail(context, err, "input %d has %lld elements", i, (long long)context->in[i]->count);
    const int64_t columns = array_i64_at(context->in[0], 0), length = array_i64_at(context->in[1], 0);
    const int64_t rate = array_i64_at(context->in[2], 0), rows = length / 2 + 1;
    const double low = 2595 * log10(1 + array_f64_at(context->in[3], 0) / 700);
    const double high = 2595 * log10(1 + array_f64_at(context->in[4], 0) / 700);
    Array *values, *converted;
    if (columns < 0 || length < 0 || rate <= 0)
        return eval_fail(context, err, "%lld bins, dft_length %lld, sample_rate %lld", (long long)columns,
                         (long long)length, (long long)rate);
    TRY(array_new(context->arena, DTYPE_F64, 2, (int64_t[]){rows, columns}, &values, err));
    memset(values->data, 0, (size_t)values->count * sizeof(double));
    int64_t *edges = arena_array(context->arena, int64_t, (size_t)columns + 2);
    for (int64_t i = 0; i < columns + 2; i++) {
        double hertz = mel_hertz(low + (double)i * (high - low) / (double)(columns + 2));
        edges[i] = (int64_t)floor((double)(length + 1) * hertz / (double)rate);
    }
    for (int64_t i = 0; i < columns; i++)
        TRY(mel_triangle(context, values->data, rows, columns, i, edges + i, err));
    DType dtype = (DType)node_int(context->node, "output_datatype", DTYPE_F32);
    TRY(array_convert(context->arena, values, dtype, &converted, err));
    return eval_output_same(context, 0, converted, err);
}

/* clang-format off */
const OpDef ops_signal[] = {
    {.name = "DFT", .since = 17, .last = 28, .min_inputs = 1, .max_inputs = 3, .min_outputs = 1, .max_outputs = 1,
     .infer = dft_infer, .eval = dft_eval, .grad = dft_grad, .upgrade = dft_upgrade},
    {.name = "STFT", .since = 17, .last = 28, .min_inputs = 2, .max_inputs = 4, .min_outputs = 1, .max_outputs = 1,
     .infer = stft_infer, .eval = stft_eval, .expand = stft_expand},
    {.name = "HannWindow", .since = 17, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = window_infer, .eval = window_eval},
    {.name = "HammingWindow", .since = 17, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = window_infer, .eval = window_eval},
    {.name = "BlackmanWindow", .since = 17, .last = 28, .min_inputs = 1, .max_inputs = 1, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = window_infer, .eval = window_eval},
    {.name = "MelWeightMatrix", .since = 17, .last = 28, .min_inputs = 5, .max_inputs = 5, .min_outputs = 1,
     .max_outputs = 1, .traits = OP_ANY_DTYPE, .infer = mel_infer, .eval = mel_eval},
    {0},
};
/* clang-format on */
