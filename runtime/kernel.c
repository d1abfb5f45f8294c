/* runtime/kernel.c: to be written. */
#include "onnx/onnx.h"
