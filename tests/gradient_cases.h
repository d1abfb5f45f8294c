/* Gradient cases: one table a family (cases_<family>.c), walked by suite_gradients.c and suite_abuse.c.
 *
 * A case is a small graph in ONNX's textual syntax. In `inputs`, `constants` and `nodes` the letter T stands for the
 * float type: the suite builds the graph with T = double, appends loss = sum over outputs of sum(y * dy) with fixed
 * random dy, runs pass_autodiff, evaluates it with interp_run and compares with central differences of the forward
 * graph; then it builds it with T = float and compares plan_build/plan_run (plain_only on and off) with the f64
 * numbers. A last plan computes in bf16, all its inputs lying so; it is compared with the f64 numbers for inputs
 * that bf16 holds exactly. A row that has `grad` or `prepare` and occurs in no case fails the suite.
 *
 *     {.name = "Gather: repeated indices, negative axis",
 *      .inputs = "T[2,3,4] x, int64[2,2] i", .nodes = "y = Gather<axis=-2>(x, i)", .wrt = "x", .values = "i=0..2"}
 *
 * Write graphs so that every shape can be inferred; inputs that inference must know (axes, shapes) go into
 * `constants` ("int64[2] axes = {0, 1}"). Constants may be T too: "T[2] scale = {0.5, 2}". */
#ifndef REGRAFT_TESTS_GRADIENT_CASES_H
#define REGRAFT_TESTS_GRADIENT_CASES_H

typedef struct GradientCase {
    const char *name;      /* "Conv: groups and dilation"; unique in its table */
    const char *inputs;    /* "T[2,3] x, int64[4] i" */
    const char *nodes;     /* one a line or separated by blanks: "h = Relu(x) y = Neg(h)" */
    const char *outputs;   /* float values that go into the loss: "y z"; NULL: "y" */
    const char *wrt;       /* inputs to differentiate: "x w"; "" or NULL: only forward is compared */
    const char *constants; /* initializers; NULL: none */
    /* Input values, "x=0.5..2 i=0..3 m=0..1 k={0,0,2}". Floats are uniform in [low, high], default -1..1; integers and
     * bools uniform and inclusive, default 0..1; braces list every element. */
    const char *values;
    const char
        *opsets; /* further opsets or another one: "\"\" : 11" or "\"\" : 28, \"com.microsoft\" : 1"; NULL: newest */
    double tolerance;        /* of differences, relative to the largest gradient; 0: 1e-6 */
    double plan_tolerance;   /* of the f32 plan, relative to the largest value; 0: 2e-5 */
    double narrow_tolerance; /* of the bf16 plan, relative to the norm of all values; 0: 2e-2 */
    const char *reason;      /* why a tolerance is not the default */
    int no_plan;             /* 1: only the interpreter can run it (bodies, data-dependent shapes) */
} GradientCase;

/* Each ends with a case whose name is NULL. */
extern const GradientCase cases_activation[], cases_arith[], cases_attention[], cases_cast[], cases_control[],
    cases_conv[], cases_generate[], cases_index[], cases_join[], cases_logic[], cases_math[], cases_matmul[],
    cases_norm[], cases_ort[], cases_pool[], cases_recurrent[], cases_reduce[], cases_resize[], cases_sequence[],
    cases_shape[], cases_signal[], cases_softmax[];

typedef struct CaseFamily {
    const char *name;
    const GradientCase *cases;
} CaseFamily;

extern const CaseFamily case_families[]; /* all of these; ends with one whose name is NULL */

#endif
