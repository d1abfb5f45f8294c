/* passes/clean.c: to be written. */
#include "onnx/onnx.h"
