/* passes/attach.c: to be written. */
#include "onnx/onnx.h"
