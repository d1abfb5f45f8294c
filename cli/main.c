/* The tool. */
#include "onnx/onnx.h"

int main(void)
{
    return 0;
}
