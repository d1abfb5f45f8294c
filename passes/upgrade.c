/* passes/upgrade.c: to be written. */
#include "onnx/onnx.h"
