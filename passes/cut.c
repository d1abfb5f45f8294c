/* passes/cut.c: to be written. */
#include "onnx/onnx.h"
