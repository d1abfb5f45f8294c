/* runtime/params.c: to be written. */
#include "onnx/onnx.h"
