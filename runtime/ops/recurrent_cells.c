/* One sample's gates of one step of RNN, GRU and LSTM, forward and back: loops over the hidden numbers. What goes in
 * and comes out stands at the prototypes in recurrent_kernel.h, the formulas in recurrent_eval.c. */
#include "runtime/ops/recurrent_kernel.h"
#include "runtime/ops/vector.h"

/* ---- forward ---------------------------------------------------------------------------------------------------- */

/* Two loops: each has a chain of operations short enough for the processor to overlap several turns. */
VECTOR_CLONES void lstm_cell(int64_t n, float *g, const float *bias, const float *p, float *h, float *c)
{
    float *gi = g, *go = g + n, *gf = g + 2 * n, *gc = g + 3 * n, *saved_c = g + 4 * n;
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float i = vector_sigmoid(gi[j] + bias[j] + p[j] * c[j]);
        float f = vector_sigmoid(gf[j] + bias[2 * n + j] + p[2 * n + j] * c[j]);
        float candidate = vector_tanh(gc[j] + bias[3 * n + j]);
        float next = f * c[j] + i * candidate;
        gi[j] = i;
        gf[j] = f;
        gc[j] = candidate;
        saved_c[j] = next;
        c[j] = next;
    }
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float o = vector_sigmoid(go[j] + bias[n + j] + p[n + j] * c[j]);
        go[j] = o;
        h[j] = o * vector_tanh(c[j]);
    }
}

VECTOR_CLONES void gru_cell_linear(int64_t n, float *g, const float *rh, const float *wb, const float *rb, float *h)
{
    float *gz = g, *gr = g + n, *gh = g + 2 * n, *saved_n = g + 3 * n;
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float z = vector_sigmoid(gz[j] + rh[j] + (wb[j] + rb[j]));
        float reset = vector_sigmoid(gr[j] + rh[n + j] + (wb[n + j] + rb[n + j]));
        float linear = rh[2 * n + j] + rb[2 * n + j];
        float candidate = vector_tanh(gh[j] + wb[2 * n + j] + reset * linear);
        gz[j] = z;
        gr[j] = reset;
        gh[j] = candidate;
        saved_n[j] = linear;
        h[j] = (1.0F - z) * candidate + z * h[j];
    }
}

VECTOR_CLONES void gru_cell_gates(int64_t n, float *g, const float *wb, const float *rb, const float *h)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        g[j] = vector_sigmoid(g[j] + (wb[j] + rb[j]));
        g[n + j] = vector_sigmoid(g[n + j] + (wb[n + j] + rb[n + j]));
        g[3 * n + j] = g[n + j] * h[j];
    }
}

VECTOR_CLONES void gru_cell_candidate(int64_t n, float *g, const float *wb, const float *rb, float *h)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float z = g[j], candidate = vector_tanh(g[2 * n + j] + (wb[2 * n + j] + rb[2 * n + j]));
        g[2 * n + j] = candidate;
        h[j] = (1.0F - z) * candidate + z * h[j];
    }
}

VECTOR_CLONES void rnn_cell(int64_t n, const float *g, const float *wb, const float *rb, float *h, bool relu)
{
    if (relu)
#pragma omp simd
        for (int64_t j = 0; j < n; j++) {
            float sum = g[j] + (wb[j] + rb[j]);
            h[j] = sum > 0 ? sum : 0.0F;
        }
    else
#pragma omp simd
        for (int64_t j = 0; j < n; j++)
            h[j] = vector_tanh(g[j] + (wb[j] + rb[j]));
}

/* ---- back ------------------------------------------------------------------------------------------------------- */

VECTOR_CLONES void lstm_cell_back(int64_t n, const float *g, const float *c_prev, const float *p, const float *dh,
                                  float *dc, float *da)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float i = g[j], o = g[n + j], f = g[2 * n + j], candidate = g[3 * n + j], before = c_prev[j];
        float squashed = vector_tanh(g[4 * n + j]);
        float da_o = dh[j] * squashed * o * (1.0F - o);
        float d = dc[j] + dh[j] * o * (1.0F - squashed * squashed) + p[n + j] * da_o;
        float da_i = d * candidate * i * (1.0F - i);
        float da_f = d * before * f * (1.0F - f);
        da[j] = da_i;
        da[n + j] = da_o;
        da[2 * n + j] = da_f;
        da[3 * n + j] = d * i * (1.0F - candidate * candidate);
        dc[j] = d * f + p[j] * da_i + p[2 * n + j] * da_f;
    }
}

VECTOR_CLONES void gru_cell_back(int64_t n, const float *g, const float *h_prev, float *dh, float *da, bool linear)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float z = g[j], reset = g[n + j], candidate = g[2 * n + j];
        float da_h = dh[j] * (1.0F - z) * (1.0F - candidate * candidate);
        da[j] = dh[j] * (h_prev[j] - candidate) * z * (1.0F - z);
        da[n + j] = da_h * g[3 * n + j] * reset * (1.0F - reset);
        da[2 * n + j] = da_h;
        da[3 * n + j] = da_h * (linear ? reset : 1.0F);
        dh[j] *= z;
    }
}

VECTOR_CLONES void gru_cell_back_reset(int64_t n, const float *g, const float *h_prev, const float *through, float *dh,
                                       float *da)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
        float reset = g[n + j];
        da[n + j] = through[j] * h_prev[j] * reset * (1.0F - reset);
        dh[j] += through[j] * reset;
    }
}

VECTOR_CLONES void rnn_cell_back(int64_t n, const float *y, const float *dh, float *da, bool relu)
{
    if (relu)
#pragma omp simd
        for (int64_t j = 0; j < n; j++)
            da[j] = y[j] > 0 ? dh[j] : 0.0F;
    else
#pragma omp simd
        for (int64_t j = 0; j < n; j++)
            da[j] = dh[j] * (1.0F - y[j] * y[j]);
}

VECTOR_CLONES void cell_add(int64_t n, const float *x, float *y)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++)
        y[j] += x[j];
}
