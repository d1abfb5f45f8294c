/* The functions of vector loops against the C library in double: bounds on their error, and what they do at the ends.
 */
#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

#include "runtime/ops/vector_math.h"

/* Largest error over evenly spaced x, relative to the true value and never below `floor` of it. */
static double worst(float (*mine)(float), double (*truth)(double), double low, double high, double floor)
{
    enum { POINTS = 400000 };
    double most = 0;
    for (int i = 0; i <= POINTS; i++) {
        float x = (float)(low + (high - low) * i / (double)POINTS);
        double want = truth((double)x), error = fabs((double)mine(x) - want) / fmax(fabs(want), floor);
        if (!(error <= most))
            most = error;
    }
    return most;
}

#define WRAP(name)                                                                                                     \
    static float my_##name(float x)                                                                                    \
    {                                                                                                                  \
        return vector_##name(x);                                                                                       \
    }

WRAP(exp)
WRAP(log)
WRAP(log1p)
WRAP(expm1)
WRAP(erf)
WRAP(tanh)
WRAP(sigmoid)
WRAP(softplus)
WRAP(tanh_softplus)

static float my_normal(float x)
{
    float bell;
    return vector_normal(x, &bell);
}

static float my_bell(float x)
{
    float bell;
    vector_normal(x, &bell);
    return bell;
}

static double normal(double x)
{
    return 0.5 * erfc(-x * sqrt(0.5));
}

static double bell(double x)
{
    return exp(-0.5 * x * x);
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double softplus(double x)
{
    return (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
}

static double tanh_softplus(double x)
{
    return tanh(softplus(x));
}

static void functions_are_right_to_a_few_units_in_the_last_place(void **state)
{
    (void)state;
    const double ulp = 1.2e-7;
    assert_true(worst(my_exp, exp, -87, 88, 0) < 2 * ulp);
    assert_true(worst(my_log, log, 1e-30, 1e-3, 0) < 2 * ulp);
    assert_true(worst(my_log, log, 1e-3, 30, 0) < 2 * ulp);
    assert_true(worst(my_log1p, log1p, 0, 1, 0) < 3 * ulp);
    assert_true(worst(my_expm1, expm1, -20, 1, 0) < 3 * ulp);
    assert_true(worst(my_erf, erf, -5, 5, 0) < 2 * ulp);
    assert_true(worst(my_normal, normal, 0, 20, 0) < 2 * ulp);
    assert_true(worst(my_normal, normal, -1, 0, 0) < 3 * ulp);
    assert_true(worst(my_normal, normal, -5, -1, 0) < 7 * ulp);
    assert_true(worst(my_bell, bell, -5, 5, 0) < 5 * ulp);
    assert_true(worst(my_tanh, tanh, -12, 12, 0) < 3 * ulp);
    assert_true(worst(my_sigmoid, sigmoid, -80, 80, 0) < 3 * ulp);
    assert_true(worst(my_softplus, softplus, -60, 60, 0) < 4 * ulp);
    assert_true(worst(my_tanh_softplus, tanh_softplus, -60, 60, 0) < 4 * ulp);
}

static void ends_of_the_range_are_what_they_should_be(void **state)
{
    (void)state;
    assert_true(vector_exp(-1000) == 0 && isinf(vector_exp(1000)) && isnan(vector_exp(NAN)));
    assert_true(vector_erf(100) == 1 && vector_erf(-100) == -1 && vector_erf(0) == 0 && isnan(vector_erf(NAN)));
    assert_true(my_normal(100) == 1 && my_normal(-100) == 0 && my_normal(0) == 0.5F && isnan(my_normal(NAN)));
    assert_true(my_normal(INFINITY) == 1 && my_normal(-INFINITY) == 0 && my_bell(3e38F) == 0 && my_bell(0) == 1);
    assert_true(vector_tanh(100) == 1 && vector_tanh(-100) == -1 && isnan(vector_tanh(NAN)));
    assert_true(vector_sigmoid(200) == 1 && vector_sigmoid(-200) == 0 && isnan(vector_sigmoid(NAN)));
    assert_true(vector_softplus(1000) == 1000 && vector_softplus(-1000) == 0 && isnan(vector_softplus(NAN)));
    assert_true(vector_tanh_softplus(1000) == 1 && isnan(vector_tanh_softplus(NAN)));
    assert_true(isinf(vector_log(0)) && isnan(vector_log(-1)) && isinf(vector_log(INFINITY)) && isnan(vector_log(NAN)));
}

static void the_exponential_without_ends_has_the_same_bits_between_them(void **state)
{
    (void)state;
    for (float x = -87.3F; x < 88.3F; x += 0.0137F) {
        float bounded = vector_exp_bounded(x), whole = vector_exp(x);
        assert_memory_equal(&bounded, &whole, sizeof whole);
    }
    assert_true(vector_exp_bounded(-1000) < 1.3e-38F && isinf(vector_exp_bounded(1000)));
    assert_true(isnan(vector_exp_bounded(NAN)) && isnan(vector_exp_bounded(-NAN)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(functions_are_right_to_a_few_units_in_the_last_place),
        cmocka_unit_test(ends_of_the_range_are_what_they_should_be),
        cmocka_unit_test(the_exponential_without_ends_has_the_same_bits_between_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
