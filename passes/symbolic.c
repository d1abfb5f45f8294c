/* passes/symbolic.c: to be written. */
#include "onnx/onnx.h"
