/* What a plan computes in, and whether this processor can. bf16 without instructions for it would be emulated by the
 * library and slower than f32: that is refused rather than done silently. */
#include <string.h>

#include "runtime/dnnl.h"
#include "runtime/runtime.h"

bool precision_parse(const char *name, Precision *precision)
{
    if (strcmp(name, "f32") == 0 || strcmp(name, "float32") == 0)
        *precision = PRECISION_F32;
    else if (strcmp(name, "bf16") == 0 || strcmp(name, "bfloat16") == 0)
        *precision = PRECISION_BF16;
    else if (strcmp(name, "auto") == 0)
        *precision = dnnl_has_bf16() ? PRECISION_BF16 : PRECISION_F32;
    else
        return false;
    return true;
}

Status precision_check(Precision precision, Error *err)
{
    if (precision == PRECISION_F32 || dnnl_has_bf16())
        return STATUS_OK;
    return fail(err, STATUS_ENVIRONMENT,
                "precision bf16: this processor (%s) has no bfloat16 arithmetic (avx512_core_bf16 or later); use "
                "precision f32",
                dnnl_isa_name());
}
