/* oneDNN 2.6 and 3.x behind one spelling: that of 3.x. The only files that see the library's headers are this one's
 * users in runtime/. On 2.6 the missing functions are supplied here as static inlines; nothing of that runs in a step.
 *
 * Memory descriptors are handles (dnnl_md) on both. Everything created here is released by its owner: descriptors with
 * dnnl_memory_desc_destroy, calls with dnnl_call_free. */
#ifndef REGRAFT_RUNTIME_DNNL_H
#define REGRAFT_RUNTIME_DNNL_H

#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_version.h>

#include "onnx/onnx.h"

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t dnnl_md;
typedef const_dnnl_memory_desc_t const_dnnl_md;
#else
typedef dnnl_memory_desc_t *dnnl_md;
typedef const dnnl_memory_desc_t *const_dnnl_md;
#include "runtime/dnnl_v2.h"
#endif

struct Slot;

/* Engine, stream and what was asked of the library once. */
typedef struct DnnlEngine {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_attr_t user_scratchpad; /* attribute with user scratchpad mode and nothing else */
    int block;       /* channels a block in the precision asked for: 16 or 8; 0 when the library prefers nhwc */
    const char *isa; /* "avx512_core", for people */
} DnnlEngine;

/* `dtype`: what convolutions will compute in, DTYPE_F32 or DTYPE_BF16. */
Status dnnl_engine_open(DnnlEngine *engine, DType dtype, Error *err);
/* The processor multiplies bf16 numbers itself (and the library may use it): else bf16 is emulated, slower than f32. */
bool dnnl_has_bf16(void);
const char *dnnl_isa_name(void);
void dnnl_engine_close(DnnlEngine *engine);

/* An argument of a primitive: which (DNNL_ARG_SRC ...) and the slot it is bound to after placing. */
typedef struct DnnlArg {
    int arg;
    struct Slot *slot;
} DnnlArg;

/* A primitive with its arguments, made once. */
typedef struct DnnlCall {
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t *args;
    struct Slot **slots;
    int count;
    size_t scratchpad;
    const char *implementation; /* impl_info_str */
} DnnlCall;

Status dnnl_call_new(DnnlEngine *engine, Arena *arena, dnnl_primitive_desc_t descriptor, const DnnlArg *args, int count,
                     DnnlCall **call, Error *err);
void dnnl_call_bind(DnnlCall *call, void *scratchpad); /* handles from slots; after placing, and when inputs move */
Status dnnl_call_run(DnnlEngine *engine, DnnlCall *call, Error *err);
void dnnl_call_free(DnnlCall *call);

Status dnnl_fail(Error *err, dnnl_status_t status, const char *what); /* OK when `status` is success */
#define DNNL_TRY(call) TRY(dnnl_fail(err, (call), #call))
dnnl_data_type_t dnnl_dtype(DType dtype);
/* Plain row-major descriptor; rank 0 becomes [1]. */
Status dnnl_md_plain(dnnl_md *md, DType dtype, int rank, const int64_t *dims, Error *err);
Status dnnl_md_tag(dnnl_md *md, DType dtype, int rank, const int64_t *dims, dnnl_format_tag_t tag, Error *err);
Status dnnl_md_strided(dnnl_md *md, DType dtype, int rank, const int64_t *dims, const int64_t *strides, Error *err);
size_t dnnl_md_bytes(const_dnnl_md md);
DType dnnl_md_dtype(const_dnnl_md md); /* DTYPE_UNDEFINED: none of ours */
bool dnnl_md_same(const_dnnl_md a, const_dnnl_md b);
/* True for implementations that are references: "ref:any", "simple..." without jit. Hot operators refuse them. */
bool dnnl_is_reference(dnnl_primitive_desc_t descriptor);
const char *dnnl_implementation(dnnl_primitive_desc_t descriptor);
const_dnnl_md dnnl_query_md(dnnl_primitive_desc_t descriptor, dnnl_query_t what, int index);

#endif
