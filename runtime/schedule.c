/* runtime/schedule.c: to be written. */
#include "onnx/onnx.h"
