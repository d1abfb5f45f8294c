/* passes/autodiff.c: to be written. */
#include "onnx/onnx.h"
