/* Sequences cut to the longest of their batch: what is found, what is refused, and that cutting loses nothing. */
#include "tests/graph_test.h"

#include <stdlib.h>
#include <unistd.h>

#include "runtime/train.h"

enum { SAMPLES = 40, LENGTH = 48, BATCH = 6, IGNORED = -100 };

/* A masked mean of embeddings, and scores for every position. */
static Model *make_model(const char *length)
{
    Str text;
    str_init(&text);
    str_printf(&text,
               NEWEST "g (int64[batch,%s] ids, int64[batch,%s] attention_mask) => (pooled, tags) <float[50,3] table={",
               length, length);
    for (int i = 0; i < 150; i++)
        str_printf(&text, "%s%.3f", i == 0 ? "" : ",", sin(i));
    str_append(&text, "}, int64[1] last={2}, int64[1] one={1}> { h = Gather(table, ids) m = Cast<to=1>(attention_mask)"
                      " m3 = Unsqueeze(m, last) tags = Mul(h, m3) sum = ReduceSum<keepdims=0>(tags, one)"
                      " n = ReduceSum<keepdims=1>(m, one) pooled = Div(sum, n) }");
    Model *model = parse_model(text.text);
    str_release(&text);
    return model;
}

typedef struct Fixture {
    char path[64];
    Arena arena;
    DataParts parts;
} Fixture;

static int64_t length_at(size_t sample)
{
    return 3 + (int64_t)(sample * 7 % 31);
}

static int64_t *filled(Fixture *f, const Array **array, int rank)
{
    Array *made;
    Error err = {STATUS_OK, ""};
    assert_ok(array_new(&f->arena, DTYPE_I64, rank, (const int64_t[]){SAMPLES, LENGTH}, &made, &err), &err);
    *array = made;
    return made->data;
}

/* `noise`: ids that are no padding behind the mask; `hole`: a mask with a zero between ones; `tags`: targets by
 * position, `counted`: with a class where the mask has ended. */
typedef struct Kind {
    bool noise, hole, tags, counted;
} Kind;

static void make(Fixture *f, const Kind *kind)
{
    Error err = {STATUS_OK, ""};
    const Array *arrays[3];
    snprintf(f->path, sizeof f->path, "/tmp/regraft-lengths-%d.npz", (int)getpid());
    arena_init(&f->arena);
    int64_t *ids = filled(f, &arrays[0], 2), *mask = filled(f, &arrays[1], 2),
            *y = filled(f, &arrays[2], kind->tags ? 2 : 1);
    for (size_t i = 0; i < SAMPLES; i++)
        for (int64_t t = 0; t < LENGTH; t++) {
            bool inside = t < length_at(i);
            size_t at = i * LENGTH + (size_t)t;
            ids[at] = inside || kind->noise ? (int64_t)(at * 11 % 50) : 0;
            mask[at] = inside && !(kind->hole && t == 1);
            if (kind->tags)
                y[at] = inside ? (int64_t)(at % 3) : kind->counted ? 0 : IGNORED;
        }
    for (size_t i = 0; i < SAMPLES && !kind->tags; i++)
        y[i] = (int64_t)(i % 3);
    const char *names[] = {"ids", "attention_mask", "y"}, *inputs[] = {"ids", "attention_mask", NULL};
    assert_ok(npz_write(f->path, names, arrays, 3, &err), &err);
    assert_ok(data_open(&(DataOptions){.path = f->path, .inputs = inputs, .whole = true}, &f->parts, &err), &err);
}

static void release(Fixture *f)
{
    data_close(&f->parts);
    arena_release(&f->arena);
    unlink(f->path);
}

static LossSpec loss_of(bool tags)
{
    return (LossSpec){.kind = tags ? LOSS_LM : LOSS_SOFTMAX_CE, .output = tags, .weight = 1, .ignore_index = IGNORED};
}

static void batches_are_as_long_as_their_longest_and_no_sample_is_lost(void **state)
{
    (void)state;
    Fixture f;
    Error err = {STATUS_OK, ""};
    Lengths lengths;
    LossSpec loss = loss_of(true);
    make(&f, &(Kind){.tags = true});
    Model *model = make_model("length");
    assert_ok(lengths_find(f.parts.train, model, &loss, 1, &lengths, NULL, &err), &err);
    assert_non_null(lengths.of);
    assert_true(lengths.cut_input[0] && lengths.cut_input[1] && lengths.cut_target[0]);
    DatasetSource source;
    PictureSpec picture = picture_spec_default();
    LoaderOptions options = {.lengths = &lengths, .seed = 3};
    assert_ok(dataset_source_init(&source, f.parts.train, &picture, &options, &err), &err);
    assert_ok(source.source.start(&source.source, 1, true, BATCH, &err), &err);
    size_t seen[SAMPLES] = {0}, positions = 0, needed = 0;
    for (;;) {
        Batch batch;
        assert_ok(source.source.next(&source.source, &batch, &err), &err);
        if (batch.size == 0)
            break;
        int64_t length = batch.input_types[0].dims[1], longest = 0;
        for (size_t i = 0; i < batch.size; i++) {
            size_t id = batch.ids[i];
            seen[id]++;
            longest = length_at(id) > longest ? length_at(id) : longest;
            needed += (size_t)length_at(id);
            for (int64_t t = 0; t < length; t++) {
                size_t at = id * LENGTH + (size_t)t, row = i * (size_t)length + (size_t)t;
                assert_int_equal(((const int64_t *)batch.inputs[0])[row],
                                 t < length_at(id) ? (int64_t)(at * 11 % 50) : 0);
                assert_int_equal(((const int64_t *)batch.targets[0])[row],
                                 t < length_at(id) ? (int64_t)(at % 3) : IGNORED);
            }
        }
        assert_true(length >= longest && length < longest + (int64_t)lengths.step);
        assert_int_equal(batch.target_types[0].dims[1], length);
        positions += batch.size * (size_t)length;
    }
    for (size_t i = 0; i < SAMPLES; i++)
        assert_int_equal(seen[i], 1);
    assert_true(positions < needed * 3 / 2); /* alike lengths are together; unsorted batches take twice the need */
    dataset_source_release(&source);
    lengths_release(&lengths);
    model_free(model);
    release(&f);
}

/* One pass of plain gradient descent; the loss of every update, and how many shapes there were. */
static void train(const Fixture *f, const Lengths *lengths, bool tags, double *loss)
{
    Error err = {STATUS_OK, ""};
    Model *model = make_model("length");
    ParamList params;
    Trainer *trainer;
    DatasetSource source;
    PictureSpec picture = picture_spec_default();
    LoaderOptions loader = {.lengths = lengths, .keep_order = true};
    LossSpec spec = loss_of(tags);
    spec.target_name = "target";
    TrainOptions options = {
        .losses = &spec, .loss_count = 1, .optimizer = optimizer_default(OPTIMIZER_SGD), .epochs = 2, .batch = BATCH};
    options.optimizer.lr = 0.5;
    assert_ok(params_find(model, false, &params, &err), &err);
    assert_ok(trainer_new(model, &params, NULL, &options, &trainer, &err), &err);
    assert_ok(dataset_source_init(&source, f->parts.train, &picture, &loader, &err), &err);
    assert_ok(trainer_run(trainer, &source.source, NULL, &err), &err);
    float *rows;
    assert_ok(trainer_evaluate(trainer, &source.source, 0, &rows, NULL, NULL, &err), &err);
    *loss = 0;
    for (size_t i = 0; i < SAMPLES * 3; i++)
        *loss += fabs((double)rows[i]) * (double)(i + 1);
    free(rows);
    trainer_free(trainer);
    dataset_source_release(&source);
    model_free(model);
}

static void training_on_cut_batches_is_training_on_padded_ones(void **state)
{
    (void)state;
    for (int tags = 0; tags < 2; tags++) {
        Fixture f;
        Error err = {STATUS_OK, ""};
        Lengths lengths;
        double padded, cut;
        LossSpec loss = loss_of(tags == 1);
        make(&f, &(Kind){.tags = tags == 1});
        Model *model = make_model("length");
        assert_ok(lengths_find(f.parts.train, model, &loss, 1, &lengths, NULL, &err), &err);
        assert_non_null(lengths.of);
        assert_int_equal(lengths.cut_target[0], tags);
        train(&f, NULL, tags == 1, &padded);
        train(&f, &lengths, tags == 1, &cut);
        assert_true(padded > 0 && fabs(cut / padded - 1) < 1e-5);
        lengths_release(&lengths);
        model_free(model);
        release(&f);
    }
}

static void nothing_is_cut_that_could_count(void **state)
{
    (void)state;
    static const struct {
        Kind kind;
        const char *model, *why;
    } cases[] = {{{.hole = true}, "length", "a mask is not ones followed by zeros"},
                 {{.tags = true, .counted = true}, "length", "targets behind the mask's end count in the loss"},
                 {{.tags = false}, "48", "the model fixes the length"},
                 {{.noise = true}, "length", "the model cannot be planned for another length"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Fixture f;
        Error err = {STATUS_OK, ""};
        Lengths lengths;
        const char *why;
        LossSpec loss = loss_of(cases[i].kind.tags);
        make(&f, &cases[i].kind);
        Model *model = make_model(cases[i].model);
        assert_ok(lengths_find(f.parts.train, model, &loss, 1, &lengths, &why, &err), &err);
        assert_null(lengths.of);
        assert_non_null(why);
        assert_string_equal(why, cases[i].why);
        model_free(model);
        release(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_are_as_long_as_their_longest_and_no_sample_is_lost),
        cmocka_unit_test(training_on_cut_batches_is_training_on_padded_ones),
        cmocka_unit_test(nothing_is_cut_that_could_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
