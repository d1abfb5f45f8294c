/* runtime/optim.c: to be written. */
#include "onnx/onnx.h"
