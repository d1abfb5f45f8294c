/* passes/working.c: to be written. */
#include "onnx/onnx.h"
