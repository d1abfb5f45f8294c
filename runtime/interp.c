/* runtime/interp.c: to be written. */
#include "onnx/onnx.h"
