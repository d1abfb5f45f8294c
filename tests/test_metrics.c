/* runtime/metrics.c and probe.c against numbers worked out by hand and by scikit-learn; base/sha256.c against FIPS
 * 180-4's examples. */
#include "tests/test.h"

#include <math.h>

#include "onnx/base/sha256.h"
#include "runtime/train.h"

static void auc_counts_ties_half(void **state)
{
    (void)state;
    const double scores[] = {0.1, 0.4, 0.35, 0.8, 0.35};
    const int64_t labels[] = {0, 0, 1, 1, 0};
    assert_true(fabs(metrics_auc(scores, labels, 5) - 4.5 / 6) < 1e-12); /* sklearn.metrics.roc_auc_score: 0.75 */
    const int64_t one[] = {1, 1, 1, 1, 1};
    assert_true(isnan(metrics_auc(scores, one, 5)));
}

static void confusion_gives_precision_and_recall(void **state)
{
    (void)state;
    const float logits[] = {2, 0, 0, 0, 3, 0, 0, 1, 0, 1, 0, 0};
    const int64_t labels[] = {0, 1, 2, 0};
    Metrics m;
    Error err = {0};
    assert_ok(metrics_classes(logits, labels, 4, 3, &m, &err), &err);
    assert_true(fabs(m.accuracy - 0.75) < 1e-12);
    assert_int_equal(m.confusion[2 * 3 + 1], 1);
    assert_true(fabs(m.precision[1] - 0.5) < 1e-12 && fabs(m.recall[1] - 1) < 1e-12 && m.recall[2] == 0);
    metrics_release(&m);
}

static void samples_without_a_label_count_nowhere(void **state)
{
    (void)state;
    const float logits[] = {2, 1, 0, 0, 1, 3, 0, 9, 5, 0};
    const int64_t labels[] = {0, -1, 1, -1, 0};
    Error err = {0};
    Metrics m;
    assert_ok(metrics_classes(logits, labels, 5, 2, &m, &err), &err);
    assert_int_equal(m.count, 3);
    assert_true(m.accuracy > 0.999 && m.auc > 0.999); /* with -1 taken for a negative, the AUC would be 3/4 */
    metrics_release(&m);
}

static void labels_and_numbers_are_measured_column_by_column(void **state)
{
    (void)state;
    Error err = {0};
    const float scores[] = {2, -1, 0.5f, -2, -3, 1, 4, -1, 2, 1}, labels[] = {1, 0, 0, 0, 0, 1, 1, 0, 1, 0};
    ColumnMetrics columns[2], mean;
    assert_ok(metrics_columns(scores, labels, 5, 2, true, 0, columns, &mean, &err), &err);
    /* label 0: scores 2, .5, -3, 4, 2 of 1, 0, 0, 1, 1; label 1: -1, -2, 1, -1, 1 of 0, 0, 1, 0, 0 */
    assert_int_equal(columns[0].positives, 3);
    assert_true(fabs(columns[0].accuracy - 0.8) < 1e-12 && fabs(columns[0].precision - 0.75) < 1e-12);
    assert_true(fabs(columns[0].recall - 1) < 1e-12 && fabs(columns[0].f1 - 6.0 / 7) < 1e-12);
    assert_true(fabs(columns[0].auc - 1) < 1e-12 && fabs(columns[1].auc - 0.875) < 1e-12);
    assert_true(fabs(mean.auc - 0.9375) < 1e-12 && fabs(mean.f1 - (6.0 / 7 + 2.0 / 3) / 2) < 1e-12);
    const float found[] = {1, 2, 4}, wanted[] = {1, 3, 2};
    assert_ok(metrics_columns(found, wanted, 3, 1, false, 0, columns, &mean, &err), &err);
    assert_true(fabs(columns[0].rmse - sqrt(5.0 / 3)) < 1e-12 && fabs(columns[0].mae - 1) < 1e-12);
    assert_true(fabs(columns[0].r2 - (1 - 5.0 / 2)) < 1e-12);
}

static void a_probe_of_labels_learns_each_by_itself(void **state)
{
    (void)state;
    enum { N = 120, WIDTH = 6, LABELS = 3 };
    static float features[N * WIDTH], targets[N * LABELS], logits[N * LABELS];
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < WIDTH; k++)
            features[i * WIDTH + k] = (float)sin(i * 7 + 3 * k * k);
        targets[i * LABELS] = features[i * WIDTH] > 0;
        targets[i * LABELS + 1] = features[i * WIDTH + 1] + features[i * WIDTH + 2] > 0;
    } /* the third label is nowhere */
    Probe probe;
    Error err = {0};
    ColumnMetrics columns[LABELS], mean;
    assert_ok(probe_fit_labels(features, targets, N, WIDTH, LABELS, 1, &probe, &err), &err);
    probe_predict(&probe, features, N, logits);
    assert_ok(metrics_columns(logits, targets, N, LABELS, true, 0, columns, &mean, &err), &err);
    assert_true(columns[0].accuracy > 0.97 && columns[1].accuracy > 0.97 && columns[2].accuracy > 0.99);
    assert_true(isnan(columns[2].auc) && mean.auc > 0.99);
    probe_release(&probe);
}

static void a_probe_separates_what_can_be_separated(void **state)
{
    (void)state;
    enum { N = 60, WIDTH = 4 };
    float features[N * WIDTH], logits[N * 3];
    int64_t labels[N];
    for (int i = 0; i < N; i++) {
        labels[i] = i % 3;
        for (int k = 0; k < WIDTH; k++)
            features[i * WIDTH + k] = (float)(1000 + 10 * (k == i % 3) + sin(i * 7 + k)); /* far from standardised */
    }
    Probe probe;
    Error err = {0};
    assert_ok(probe_fit(features, labels, N, WIDTH, 3, -1, NULL, 1, &probe, &err), &err);
    assert_true(probe.accuracy > 0.99);
    probe_predict(&probe, features, N, logits);
    Metrics m;
    assert_ok(metrics_classes(logits, labels, N, 3, &m, &err), &err);
    assert_true(m.accuracy > 0.999);
    metrics_release(&m);
    probe_release(&probe);
    labels[5] = 3;
    assert_int_equal(probe_fit(features, labels, N, WIDTH, 3, -1, NULL, 1, &probe, &err), STATUS_REJECTED);
}

/* The second feature is 3 but for its last bits; those agree with the labels, by chance. */
static void a_probe_does_not_read_the_last_bits_of_a_feature(void **state)
{
    (void)state;
    enum { N = 60, WIDTH = 2 };
    float features[N * WIDTH];
    int64_t labels[N];
    for (int i = 0; i < N; i++) {
        labels[i] = i % 2;
        features[i * WIDTH] = (float)sin(i * 7 + 1);
        features[i * WIDTH + 1] = 3 + (float)labels[i] * 0x1p-20f;
    }
    Probe probe;
    Error err = {0};
    assert_ok(probe_fit(features, labels, N, WIDTH, 2, 1e-3, NULL, 1, &probe, &err), &err);
    for (size_t c = 0; c < 2; c++) /* one bit more or less moves no output by a hundredth */
        assert_true(fabs((double)probe.weight[c * WIDTH + 1]) * 0x1p-22 < 1e-2);
    probe_release(&probe);
}

static void sha256_gives_the_published_digests(void **state)
{
    (void)state;
    char hex[65];
    sha256_hex("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const char *two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    sha256_hex(two_blocks, 56, hex);
    assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    enum { MANY = 1000000 };
    char *text = malloc(MANY), plain[65];
    memset(text, 'a', MANY);
    sha256_hex(text, MANY, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    for (size_t i = 0; i < 200; i++) { /* both ways, at every length of the tail */
        text[i] = (char)(i * 37);
        sha256_hex(text, i, hex);
        sha256_hex_plain(text, i, plain);
        assert_string_equal(hex, plain);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(auc_counts_ties_half),
        cmocka_unit_test(confusion_gives_precision_and_recall),
        cmocka_unit_test(samples_without_a_label_count_nowhere),
        cmocka_unit_test(labels_and_numbers_are_measured_column_by_column),
        cmocka_unit_test(a_probe_of_labels_learns_each_by_itself),
        cmocka_unit_test(a_probe_separates_what_can_be_separated),
        cmocka_unit_test(a_probe_does_not_read_the_last_bits_of_a_feature),
        cmocka_unit_test(sha256_gives_the_published_digests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
