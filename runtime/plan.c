/* runtime/plan.c: to be written. */
#include "onnx/onnx.h"
