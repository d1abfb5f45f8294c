/* runtime/memory.c: to be written. */
#include "onnx/onnx.h"
