/* passes/loss.c: to be written. */
#include "onnx/onnx.h"
