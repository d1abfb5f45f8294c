/* More functions for vector loops, beside those of vector.h: plain float arithmetic without branches or tables, so that
 * a loop over them becomes vector instructions. Errors are relative unless said otherwise. */
#ifndef REGRAFT_RUNTIME_VECTOR_MATH_H
#define REGRAFT_RUNTIME_VECTOR_MATH_H

#include <math.h>

#include "runtime/ops/vector.h"

/* ln(1 + x) for x >= 0: what adding 1 rounded away is given back. */
VECTOR_INLINE float vector_log1p(float x)
{
    float u = 1.0F + x, lost = x - (u - 1.0F);
    return vector_log(u) + lost / u;
}

/* e^x - 1 for x <= 1 or so: from e^x, except near 0 where that cancels: there a Taylor polynomial. */
VECTOR_INLINE float vector_expm1(float x)
{
    float p = 1.0F / 5040;
    p = p * x + 1.0F / 720;
    p = p * x + 1.0F / 120;
    p = p * x + 1.0F / 24;
    p = p * x + 1.0F / 6;
    p = p * x + 0.5F;
    float near = p * x * x + x;
    return x > -0.5F && x < 0.5F ? near : vector_exp(x) - 1.0F;
}

/* erf x: x P(x^2) below 0.9, 1 - e^-Q(|x|) above; both polynomials are least-squares fits made minimax by reweighting
 * (1.2e-8 relative, 1.6e-9 absolute before rounding). */
VECTOR_INLINE float vector_erf(float x)
{
    float a = x < 0 ? -x : x, s = x * x;
    float p = -0.000609035596F;
    p = p * s + 0.005011962F;
    p = p * s - 0.0267789083F;
    p = p * s + 0.112821408F;
    p = p * s - 0.376125233F;
    p = p * s + 1.12837915F;
    float t = a < 4.0F ? a : 4.0F; /* erfc(4) is below half an ulp of 1 */
    float q = -0.000197183631F;
    q = q * t + 0.00305562488F;
    q = q * t - 0.022277151F;
    q = q * t + 0.104037482F;
    q = q * t + 0.637059624F;
    q = q * t + 1.12774963F;
    q = q * t + 0.00017747871F;
    float far = 1.0F - vector_exp(-q);
    far = x < 0 ? -far : far;
    float y = a < 0.9F ? p * x : far;
    return x != x ? x : y;
}

/* P(X <= x) of a normal X, and *bell = e^(-x^2/2): P(X <= -a) = e^(-a^2/2) M(a), where M (Mills' ratio by sqrt(2 pi))
 * is a quotient of polynomials with positive coefficients, fitted as erf's were (4.6e-9 relative before rounding).
 * Within 7 ulp down to x = -5, where 1 + erf has lost all digits. */
VECTOR_INLINE float vector_normal(float x, float *bell)
{
    const float end = 12.8F; /* P(X <= -12.8) is 8e-38 */
    float away = x < 0 ? -x : x;
    float a = away > end ? end : away;
    float e = vector_exp_inner(-0.5F * a * a);
    e = away > end ? 0 : e;
    float p = 0.00397667056F;
    p = p * a + 0.0396885127F;
    p = p * a + 0.180425107F;
    p = p * a + 0.434487909F;
    p = p * a + 0.5F;
    float q = 0.00996788032F;
    q = q * a + 0.0994921848F;
    q = q * a + 0.462053716F;
    q = q * a + 1.19080877F;
    q = q * a + 1.6668607F;
    q = q * a + 1.0F;
    float tail = p / q * e;
    *bell = e;
    return x < 0 ? tail : 1.0F - tail;
}

VECTOR_INLINE float vector_softplus(float x)
{
    float a = x < 0 ? -x : x;
    return (x > 0 ? x : 0) + vector_log1p(vector_exp(-a));
}

/* tanh(ln(1 + e^x)) = w / (w + 2) with w = e^x (e^x + 2), which cancels nowhere. */
VECTOR_INLINE float vector_tanh_softplus(float x)
{
    float n = vector_exp(x > 20.0F ? 20.0F : x), w = n * (n + 2.0F);
    return w / (w + 2.0F);
}

#endif
