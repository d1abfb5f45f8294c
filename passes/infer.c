/* passes/infer.c: to be written. */
#include "onnx/onnx.h"
