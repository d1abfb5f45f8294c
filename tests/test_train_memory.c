/* runtime/train_memory.c: what a training run takes is settled before it begins, and kept. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "data/data.h"
#include "runtime/train.h"

enum { SAMPLES = 32, STEPS_MAX = 4 };

static size_t batch_size = 8;

typedef struct Case {
    Model *document;
    ParamList params;
    Npz data;
    ArraySource source;
    LossSpec loss;
    TrainOptions options;
    Trainer *trainer;
    double losses[STEPS_MAX];
    size_t seen;
    Error err;
} Case;

static void on_event(const TrainEvent *event, void *context)
{
    Case *c = context;
    if (event->kind == EVENT_STEP && c->seen < STEPS_MAX)
        c->losses[c->seen++] = event->loss;
}

static void take(const Npz *npz, const char *name, Type *type, const void **data)
{
    const Array *array = npz_find(npz, name);
    assert_non_null(array);
    type_set(type, array->dtype, array->rank, array->dims);
    *data = array->data;
}

static void open_case(Case *c, const char *name, LossKind kind, size_t memory)
{
    char path[512];
    *c = (Case){0};
    snprintf(path, sizeof path, TESTS_FOLDER "/parity_cases/%s/model.onnx", name);
    assert_ok(model_import(path, &builtin_ops, &c->document, &c->err), &c->err);
    snprintf(path, sizeof path, TESTS_FOLDER "/parity_cases/%s/train.npz", name);
    assert_ok(npz_open(&c->data, path, &c->err), &c->err);
    assert_ok(params_find(c->document, false, &c->params, &c->err), &c->err);
    assert_ok(array_source_init(&c->source, SAMPLES, &c->err), &c->err);
    for (size_t i = 0; i < c->document->graph->input_count; i++) {
        int at = c->source.input_count++;
        take(&c->data, c->document->graph->inputs[i]->name, &c->source.input_types[at], &c->source.inputs[at]);
    }
    take(&c->data, "y", &c->source.target_types[0], &c->source.targets[0]);
    c->source.target_count = 1;
    c->source.keep_order = true;
    c->loss = (LossSpec){.kind = kind, .weight = 1, .ignore_index = -100, .target_name = "y"};
    c->options = (TrainOptions){.losses = &c->loss,
                                .loss_count = 1,
                                .optimizer = optimizer_default(OPTIMIZER_ADAMW),
                                .epochs = 1,
                                .batch = batch_size,
                                .accumulate = 1,
                                .memory = memory,
                                .on_event = on_event,
                                .context = c};
    c->options.optimizer.lr = 1e-3;
    assert_ok(trainer_new(c->document, &c->params, NULL, &c->options, &c->trainer, &c->err), &c->err);
}

static void close_case(Case *c)
{
    trainer_free(c->trainer);
    array_source_release(&c->source);
    npz_release(&c->data);
    model_free(c->document);
}

static size_t total_without_limit(const char *name, LossKind kind)
{
    Case c;
    open_case(&c, name, kind, 0);
    assert_ok(trainer_prepare(c.trainer, &c.source.source, NULL, &c.err), &c.err);
    TrainBill bill = trainer_bill(c.trainer);
    assert_true(bill.parameters > 0 && bill.activations > 0 && bill.gradients >= bill.parameters);
    assert_int_equal(bill.optimizer, 2 * bill.parameters);
    close_case(&c);
    return train_bill_total(&bill);
}

/* From the message: "the smallest that would do is 3M". */
static size_t smallest(const char *name, LossKind kind)
{
    Case c;
    open_case(&c, name, kind, 1);
    assert_int_equal(trainer_run(c.trainer, &c.source.source, NULL, &c.err), STATUS_ENVIRONMENT);
    assert_int_equal(c.seen, 0);
    const char *at = strstr(c.err.message, "would do is ");
    assert_non_null(at);
    char unit;
    size_t bytes;
    assert_int_equal(sscanf(at, "would do is %zu%c", &bytes, &unit), 2);
    bytes <<= unit == 'K' ? 10 : 20;
    close_case(&c);
    return bytes;
}

static void train_case(Case *c, const char *name, LossKind kind, size_t memory)
{
    open_case(c, name, kind, memory);
    assert_ok(trainer_run(c->trainer, &c->source.source, NULL, &c->err), &c->err);
    assert_int_equal(c->seen, SAMPLES / batch_size);
}

static void a_batch_in_parts_trains_like_the_whole(void **state)
{
    (void)state;
    Case whole, parts;
    batch_size = 16;
    size_t least = smallest("lenet", LOSS_SOFTMAX_CE), all = total_without_limit("lenet", LOSS_SOFTMAX_CE);
    train_case(&whole, "lenet", LOSS_SOFTMAX_CE, 0);
    assert_true(least < all - all / 4);
    train_case(&parts, "lenet", LOSS_SOFTMAX_CE, all - all / 4);
    TrainBill bill = trainer_bill(parts.trainer);
    assert_true(bill.part_rows > 0 && bill.part_rows < batch_size);
    assert_true(train_bill_total(&bill) <= parts.options.memory);
    for (size_t i = 0; i < whole.seen; i++)
        assert_true(fabs(whole.losses[i] - parts.losses[i]) <= 1e-6 * fabs(whole.losses[i]));
    close_case(&whole);
    close_case(&parts);
    batch_size = 8;
}

static void the_smallest_that_is_named_will_do(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        LossKind loss;
    } nets[] = {{"bert", LOSS_SOFTMAX_CE}, {"multilabel", LOSS_BCE}};
    for (size_t i = 0; i < sizeof nets / sizeof nets[0]; i++) {
        Case whole, c;
        train_case(&whole, nets[i].name, nets[i].loss, 0);
        train_case(&c, nets[i].name, nets[i].loss, smallest(nets[i].name, nets[i].loss));
        for (size_t k = 0; k < whole.seen; k++)
            assert_true(fabs(whole.losses[k] - c.losses[k]) <= 2e-6 * fabs(whole.losses[k]));
        close_case(&whole);
        close_case(&c);
    }
}

static void samples_that_meet_in_batchnorm_stay_together(void **state)
{
    (void)state;
    Case whole, c;
    size_t all = total_without_limit("unet", LOSS_SOFTMAX_CE);
    train_case(&whole, "unet", LOSS_SOFTMAX_CE, 0);
    train_case(&c, "unet", LOSS_SOFTMAX_CE, all - all / 4);
    TrainBill bill = trainer_bill(c.trainer);
    assert_int_equal(bill.part_rows, 0);
    assert_true(bill.again > 0);
    assert_memory_equal(whole.losses, c.losses, sizeof c.losses);
    close_case(&whole);
    close_case(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_batch_in_parts_trains_like_the_whole),
                                       cmocka_unit_test(the_smallest_that_is_named_will_do),
                                       cmocka_unit_test(samples_that_meet_in_batchnorm_stay_together)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
