/* passes/heads.c: to be written. */
#include "onnx/onnx.h"
