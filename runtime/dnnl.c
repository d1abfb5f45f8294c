/* runtime/dnnl.c: to be written. */
#include "onnx/onnx.h"
