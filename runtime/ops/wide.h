/* Evaluating in double whatever the type: inputs are widened, outputs narrowed. References are written once this way
 * instead of once per element type; that costs time nobody has asked for in a reference. */
#ifndef REGRAFT_RUNTIME_OPS_WIDE_H
#define REGRAFT_RUNTIME_OPS_WIDE_H

#include "onnx/op.h"

/* Input `index` as doubles: borrowed when it is float64, converted otherwise. NULL when omitted. */
Status wide_input(EvalContext *context, int index, const double **data, Error *err);

/* An output being computed. `data` starts at zero. */
typedef struct WideOutput {
    Array *array;
    double *data;
} WideOutput;

Status wide_output(EvalContext *context, int index, DType dtype, int rank, const int64_t *dims, WideOutput *out,
                   Error *err);
Status wide_output_like(EvalContext *context, int index, const Array *like, WideOutput *out, Error *err);
/* Narrows into the array; integers are rounded to nearest even and saturate. */
void wide_store(const WideOutput *out);
/* `count` zeroed doubles of scratch. */
Status wide_scratch(EvalContext *context, int64_t count, double **data, Error *err);

#endif
