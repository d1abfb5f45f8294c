/* The loops of runtime/ops/batchnorm_train.c on every layout, whichever of them this processor's library prefers:
 * against the formulas in double, in f32 and bf16, with as many channels as make each way through them (one channel,
 * half a row of lanes, whole rows, several side by side and a rest), written past the caches too. */
#include <math.h>
#include <string.h>

#include "onnx/base/rng.h"
#include "runtime/ops/batchnorm.h"
#include "runtime/ops/bf16.h"
#include "runtime/plan.h"
#include "tests/test.h"

static const BatchNormActivation kinds[] = {BATCHNORM_LINEAR, BATCHNORM_RELU, BATCHNORM_CLIP, BATCHNORM_SWISH,
                                            BATCHNORM_HARD_SWISH};

enum { KINDS = sizeof kinds / sizeof kinds[0] };
static const double low = -0.5, high = 1, epsilon = 1e-3;

/* One layer with its results, [N, C, S] in the view's layout. */
typedef struct Layer {
    ChannelView view;
    int64_t count; /* numbers of a tensor, the padding of blocks included */
    void *x, *dy, *y, *dx, *scratch;
    float *scale, *bias, *mean, *var, *dscale, *dbias; /* [C] */
    BatchNormLoop loop;
} Layer;

static void *fresh(size_t bytes)
{
    void *block = NULL;
    Error err = {0};
    assert_ok(block_alloc(&block, bytes, "a test", &err), &err);
    return block;
}

/* `block` channels in one; 0: channels last; 1: plain. */
static ChannelView view_of(int block, bool narrow, int64_t batch, int64_t channels, int64_t spatial)
{
    ChannelView view = {.narrow = narrow, .batch = batch, .channels = channels, .spatial = spatial};
    view.layout = block == 0 ? LAYOUT_NHWC : block == 1 ? LAYOUT_PLAIN : LAYOUT_BLOCKED;
    view.block = block > 1 ? block : 1;
    view.blocks = (channels + view.block - 1) / view.block;
    return view;
}

static int64_t place(const ChannelView *v, int64_t n, int64_t c, int64_t s)
{
    return v->layout == LAYOUT_NHWC ? (n * v->spatial + s) * v->channels + c
                                    : ((n * v->blocks + c / v->block) * v->spatial + s) * v->block + c % v->block;
}

static void scatter(const ChannelView *v, void *to, uint64_t stream, float middle)
{
    Rng rng = rng_at(5, stream);
    for (int64_t n = 0; n < v->batch; n++)
        for (int64_t c = 0; c < v->channels; c++)
            for (int64_t s = 0; s < v->spatial; s++)
                bf16_put(to, place(v, n, c, s), middle + (float)(c % 3) + (float)(rng_uniform(&rng) * 4 - 2),
                         v->narrow);
}

static void layer_open(Layer *l, const ChannelView *view)
{
    memset(l, 0, sizeof *l);
    l->view = *view;
    l->count = view->layout == LAYOUT_NHWC ? view->batch * view->channels * view->spatial
                                           : view->batch * view->blocks * view->block * view->spatial;
    size_t bytes = (size_t)l->count * (view->narrow ? 2 : 4), channels = (size_t)view->channels * sizeof(float);
    l->x = fresh(bytes), l->dy = fresh(bytes), l->y = fresh(bytes), l->dx = fresh(bytes);
    l->scratch = fresh(batchnorm_scratch(view));
    float **rows[] = {&l->scale, &l->bias, &l->mean, &l->var, &l->dscale, &l->dbias};
    for (int i = 0; i < 6; i++)
        *rows[i] = fresh(channels);
    scatter(view, l->x, 1, 3);
    scatter(view, l->dy, 2, -1);
    for (int64_t c = 0; c < view->channels; c++) {
        l->scale[c] = 0.5F + (float)(c % 5) / 4;
        l->bias[c] = (float)(c % 7) / 7 - 0.4F;
    }
    l->loop = (BatchNormLoop){.view = &l->view,
                              .low = (float)low,
                              .high = (float)high,
                              .epsilon = (float)epsilon,
                              .scale = l->scale,
                              .bias = l->bias,
                              .x = l->x,
                              .mean = l->mean,
                              .var = l->var,
                              .dscale = l->dscale,
                              .dbias = l->dbias};
}

static void layer_run(Layer *l, BatchNormActivation activation)
{
    l->loop.activation = activation;
    l->loop.dy = NULL;
    l->loop.y = l->y;
    batchnorm_forward(&l->loop, l->scratch);
    l->loop.dy = l->dy;
    l->loop.y = l->dx;
    batchnorm_backward(&l->loop, l->scratch);
}

static void layer_close(Layer *l)
{
    void *blocks[] = {l->x, l->dy, l->y, l->dx, l->scratch, l->scale, l->bias, l->mean, l->var, l->dscale, l->dbias};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        block_free(blocks[i]);
}

/* ---- the formulas of batchnorm_train.c, one number at a time ----------------------------------------------------- */

static double activated(BatchNormActivation kind, double z)
{
    switch (kind) {
    case BATCHNORM_RELU:
        return z > 0 ? z : 0;
    case BATCHNORM_CLIP:
        return z < low ? low : z > high ? high : z;
    case BATCHNORM_SWISH:
        return z / (1 + exp(-z));
    case BATCHNORM_HARD_SWISH:
        return z <= -3 ? 0 : z >= 3 ? z : z * (z / 6 + 0.5);
    case BATCHNORM_LINEAR:
        break;
    }
    return z;
}

static double slope(BatchNormActivation kind, double z)
{
    const double s = 1 / (1 + exp(-z));
    switch (kind) {
    case BATCHNORM_RELU:
        return z > 0;
    case BATCHNORM_CLIP:
        return z > low && z < high;
    case BATCHNORM_SWISH:
        return s + z * s * (1 - s);
    case BATCHNORM_HARD_SWISH:
        return z <= -3 ? 0 : z >= 3 ? 1 : z / 3 + 0.5;
    case BATCHNORM_LINEAR:
        break;
    }
    return 1;
}

/* How far results are from what they should be, and how large that is. */
typedef struct Distance {
    double error, norm;
} Distance;

static void add(Distance *d, double found, double expected)
{
    d->error += (found - expected) * (found - expected);
    d->norm += expected * expected;
}

static void compare_channel(const Layer *l, BatchNormActivation kind, int64_t c, Distance d[4])
{
    const ChannelView *v = &l->view;
    const double count = (double)(v->batch * v->spatial);
    double sum = 0, squares = 0, dscale = 0, dbias = 0;
    for (int64_t i = 0; i < v->batch * v->spatial; i++)
        sum += (double)bf16_at(l->x, place(v, i / v->spatial, c, i % v->spatial), v->narrow);
    const double mean = sum / count;
    for (int64_t i = 0; i < v->batch * v->spatial; i++) {
        double distance = (double)bf16_at(l->x, place(v, i / v->spatial, c, i % v->spatial), v->narrow) - mean;
        squares += distance * distance;
    }
    const double inverse = 1 / sqrt(squares / count + epsilon), k = (double)l->scale[c] * inverse;
    for (int64_t i = 0; i < v->batch * v->spatial; i++) {
        int64_t at = place(v, i / v->spatial, c, i % v->spatial);
        double hat = ((double)bf16_at(l->x, at, v->narrow) - mean) * inverse;
        double z = (double)l->scale[c] * hat + (double)l->bias[c];
        double dz = (double)bf16_at(l->dy, at, v->narrow) * slope(kind, z);
        add(&d[0], (double)bf16_at(l->y, at, v->narrow), activated(kind, z));
        dbias += dz;
        dscale += dz * hat;
    }
    for (int64_t i = 0; i < v->batch * v->spatial; i++) {
        int64_t at = place(v, i / v->spatial, c, i % v->spatial);
        double hat = ((double)bf16_at(l->x, at, v->narrow) - mean) * inverse;
        double z = (double)l->scale[c] * hat + (double)l->bias[c];
        double dz = (double)bf16_at(l->dy, at, v->narrow) * slope(kind, z);
        add(&d[1], (double)bf16_at(l->dx, at, v->narrow), k * (dz - dbias / count - hat * dscale / count));
    }
    add(&d[2], (double)l->dscale[c], dscale);
    add(&d[3], (double)l->dbias[c], dbias);
}

/* In bf16 a number at a corner of the activation may fall to either side of it. */
static void layer_check(const Layer *l, BatchNormActivation kind)
{
    static const char *const names[] = {"y", "dx", "dscale", "dbias"};
    const double tolerance = l->view.narrow ? 6e-3 : 3e-6;
    Distance d[4] = {{0, 0}};
    for (int64_t c = 0; c < l->view.channels; c++)
        compare_channel(l, kind, c, d);
    for (int i = 0; i < 4; i++)
        if (!(sqrt(d[i].error / d[i].norm) < tolerance))
            fail_msg("layout %d, %s, %d channels, activation %d: %s is %g of its norm away", (int)l->view.layout,
                     l->view.narrow ? "bf16" : "f32", (int)l->view.channels, (int)kind, names[i],
                     sqrt(d[i].error / d[i].norm));
}

/* ---- tests ------------------------------------------------------------------------------------------------------ */

static const int64_t widths[] = {1, 5, 8, 16, 24, 64, 67, 88, 144};

enum { WIDTHS = sizeof widths / sizeof widths[0] };

static void each_layout_follows_the_formulas(void **state)
{
    (void)state;
    static const int blocks[] = {0, 1, 8, 16};
    for (int b = 0; b < 4; b++)
        for (int narrow = 0; narrow < 2; narrow++)
            for (int w = 0; w < WIDTHS; w++) {
                Layer layer;
                ChannelView view = view_of(blocks[b], narrow == 1, 3, widths[w], 23);
                layer_open(&layer, &view);
                for (int i = 0; i < KINDS; i++) {
                    layer_run(&layer, kinds[i]);
                    layer_check(&layer, kinds[i]);
                }
                layer_close(&layer);
            }
}

/* How threads cut the work decides which groups of channels are taken side by side. */
static void channels_last_have_the_same_bits_at_any_number_of_threads(void **state)
{
    (void)state;
    const int before = parallel_threads();
    for (int narrow = 0; narrow < 2; narrow++)
        for (int w = 0; w < WIDTHS; w++)
            for (int i = 0; i < KINDS; i++) {
                Layer one, several;
                ChannelView view = view_of(0, narrow == 1, 3, widths[w], 23);
                layer_open(&one, &view);
                layer_open(&several, &view);
                runtime_set_threads(1);
                layer_run(&one, kinds[i]);
                runtime_set_threads(5);
                layer_run(&several, kinds[i]);
                size_t bytes = (size_t)one.count * (narrow ? 2 : 4), row = (size_t)widths[w] * sizeof(float);
                assert_memory_equal(one.y, several.y, bytes);
                assert_memory_equal(one.dx, several.dx, bytes);
                assert_memory_equal(one.dscale, several.dscale, row);
                assert_memory_equal(one.dbias, several.dbias, row);
                layer_close(&one);
                layer_close(&several);
            }
    runtime_set_threads(before);
}

/* batchnorm_again writes past them only in bf16, and to whole cache lines. */
static void results_written_past_the_caches_have_the_same_bits(void **state)
{
    (void)state;
    static const int blocks[] = {8, 16, 16}; /* the last one in bf16 */
    for (int b = 0; b < 3; b++)
        for (int i = 0; i < KINDS; i++) {
            Layer layer;
            ChannelView view = view_of(blocks[b], b == 2, 2, 40, (b == 2 ? 2 : 1) * 60000);
            layer_open(&layer, &view);
            size_t bytes = (size_t)layer.count * (b == 2 ? 2 : 4);
            assert_true(bytes >= 16 << 20);
            char *again = fresh(bytes + 32);
            layer.loop.activation = kinds[i];
            layer.loop.y = layer.y;
            batchnorm_forward(&layer.loop, layer.scratch);
            layer.loop.y = again + 32;
            batchnorm_again(&layer.loop, layer.scratch);
            assert_memory_equal(layer.y, again + 32, bytes);
            block_free(again);
            layer_close(&layer);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_layout_follows_the_formulas),
        cmocka_unit_test(channels_last_have_the_same_bits_at_any_number_of_threads),
        cmocka_unit_test(results_written_past_the_caches_have_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
