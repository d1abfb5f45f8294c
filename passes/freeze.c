/* passes/freeze.c: to be written. */
#include "onnx/onnx.h"
