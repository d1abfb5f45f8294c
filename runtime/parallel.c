/* runtime/parallel.c: to be written. */
#include "onnx/onnx.h"
