/* All tables of gradient cases, by the family they belong to. */
#include "tests/gradient_cases.h"

const CaseFamily case_families[] = {
    {"activation", cases_activation},
    {"arith", cases_arith},
    {"attention", cases_attention},
    {"cast", cases_cast},
    {"control", cases_control},
    {"conv", cases_conv},
    {"generate", cases_generate},
    {"index", cases_index},
    {"join", cases_join},
    {"logic", cases_logic},
    {"math", cases_math},
    {"matmul", cases_matmul},
    {"norm", cases_norm},
    {"ort", cases_ort},
    {"pool", cases_pool},
    {"recurrent", cases_recurrent},
    {"reduce", cases_reduce},
    {"resize", cases_resize},
    {"sequence", cases_sequence},
    {"shape", cases_shape},
    {"signal", cases_signal},
    {"softmax", cases_softmax},
    {0},
};
