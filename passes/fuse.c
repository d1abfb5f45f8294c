/* passes/fuse.c: to be written. */
#include "onnx/onnx.h"
