/* passes/inline.c: to be written. */
#include "onnx/onnx.h"
