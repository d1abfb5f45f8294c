/* Learning-rate schedules: what fraction of the rate update `step` uses. */
#include <math.h>

#include "runtime/runtime.h"

/* Progress in [0, 1] after the warm-up. */
static double progress(const ScheduleSpec *spec, uint64_t step)
{
    if (spec->total <= spec->warmup + 1)
        return 0;
    double t = (double)(step - 1 - spec->warmup) / (double)(spec->total - spec->warmup);
    return t > 1 ? 1 : t;
}

double schedule_at(const ScheduleSpec *spec, uint64_t step)
{
    if (step <= spec->warmup)
        return (double)step / (double)(spec->warmup + 1);
    switch (spec->kind) {
    case SCHEDULE_CONSTANT:
        return 1;
    case SCHEDULE_STEP:
        return spec->every == 0 ? 1 : pow(spec->factor, (double)((step - 1) / spec->every));
    case SCHEDULE_COSINE: /* floor + (1 - floor) (1 + cos(pi t)) / 2 (Loshchilov and Hutter 2017) */
        return spec->floor + (1 - spec->floor) * 0.5 * (1 + cos(3.141592653589793 * progress(spec, step)));
    case SCHEDULE_LINEAR:
        return spec->floor + (1 - spec->floor) * (1 - progress(spec, step));
    }
    return 1;
}
