/* runtime/exec.c: to be written. */
#include "onnx/onnx.h"
