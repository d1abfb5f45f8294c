/* The planned kernel of matrix products: oneDNN where it has a compiled kernel for the strides, own loops for what is
 * small. */
#include "runtime/ops/product.h"

Status product_prepare(const Product *p, PlanContext *context, double alpha, double beta, Error *err)
{
    (void)p;
    (void)alpha;
    (void)beta;
    return kernel_fail(context, err, "no planned kernel yet");
}
