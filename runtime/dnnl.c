/* What the rest of runtime/ needs of oneDNN besides the library's own calls: opening it, descriptors from our types,
 * and primitives with their arguments bound to slots.
 *
 * The layout family is asked of the library, never assumed: it depends on the processor, the element type and the
 * version. Every primitive uses the caller's scratchpad, so one buffer serves them all and running allocates nothing.
 */
#include "runtime/dnnl.h"
#include "runtime/runtime.h"

#include <string.h>

#include "runtime/kernel.h"

/* ---- errors, types --------------------------------------------------------------------------------------- */

static const char *status_text(dnnl_status_t status)
{
    switch (status) {
    case dnnl_success:
        return "success";
    case dnnl_out_of_memory:
        return "out of memory";
    case dnnl_invalid_arguments:
        return "invalid arguments";
    case dnnl_unimplemented:
        return "not implemented";
    case dnnl_runtime_error:
        return "runtime error";
    default:
        return "unknown status";
    }
}

Status dnnl_fail(Error *err, dnnl_status_t status, const char *what)
{
    if (status == dnnl_success)
        return STATUS_OK;
    Status ours =
        status == dnnl_out_of_memory || status == dnnl_runtime_error ? STATUS_ENVIRONMENT : STATUS_UNSUPPORTED;
    return fail(err, ours, "oneDNN %d.%d: %s (%d) from %.300s", DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR,
                status_text(status), (int)status, what);
}

dnnl_data_type_t dnnl_dtype(DType dtype)
{
    switch (dtype) {
    case DTYPE_F32:
        return dnnl_f32;
    case DTYPE_BF16:
        return dnnl_bf16;
    case DTYPE_F16:
        return dnnl_f16;
    case DTYPE_I32:
        return dnnl_s32;
    case DTYPE_I8:
        return dnnl_s8;
    case DTYPE_U8:
        return dnnl_u8;
    default:
        return dnnl_data_type_undef;
    }
}

/* ---- memory descriptors ------------------------------------------------------------------------------------ */

static Status dims_take(dnnl_dims_t out, DType dtype, int *rank, const int64_t *dims, Error *err)
{
    if (dnnl_dtype(dtype) == dnnl_data_type_undef)
        return fail(err, STATUS_UNSUPPORTED, "oneDNN has no %s", dtype_name(dtype));
    if (*rank > DNNL_MAX_NDIMS)
        return fail(err, STATUS_UNSUPPORTED, "oneDNN handles rank %d, not %d", DNNL_MAX_NDIMS, *rank);
    memset(out, 0, sizeof(dnnl_dims_t));
    for (int i = 0; i < *rank; i++)
        out[i] = dims[i];
    if (*rank == 0) {
        *rank = 1;
        out[0] = 1;
    }
    return STATUS_OK;
}

Status dnnl_md_strided(dnnl_md *md, DType dtype, int rank, const int64_t *dims, const int64_t *strides, Error *err)
{
    dnnl_dims_t sizes, steps = {1};
    *md = NULL;
    for (int i = 0; i < rank && i < DNNL_MAX_NDIMS; i++)
        steps[i] = strides[i];
    TRY(dims_take(sizes, dtype, &rank, dims, err));
    DNNL_TRY(dnnl_memory_desc_create_with_strides(md, rank, sizes, dnnl_dtype(dtype), steps));
    return STATUS_OK;
}

Status dnnl_md_plain(dnnl_md *md, DType dtype, int rank, const int64_t *dims, Error *err)
{
    int64_t strides[RANK_MAX];
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        strides[i] = step;
        step *= dims[i] > 0 ? dims[i] : 1;
    }
    return dnnl_md_strided(md, dtype, rank, dims, strides, err);
}

Status dnnl_md_tag(dnnl_md *md, DType dtype, int rank, const int64_t *dims, dnnl_format_tag_t tag, Error *err)
{
    dnnl_dims_t sizes;
    *md = NULL;
    TRY(dims_take(sizes, dtype, &rank, dims, err));
    DNNL_TRY(dnnl_memory_desc_create_with_tag(md, rank, sizes, dnnl_dtype(dtype), tag));
    return STATUS_OK;
}

size_t dnnl_md_bytes(const_dnnl_md md)
{
    return md == NULL ? 0 : dnnl_memory_desc_get_size(md);
}

DType dnnl_md_dtype(const_dnnl_md md)
{
    static const DType known[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_I32, DTYPE_I8, DTYPE_U8};
    dnnl_data_type_t dtype = dnnl_data_type_undef;
    if (md == NULL || dnnl_memory_desc_query(md, dnnl_query_data_type, &dtype) != dnnl_success)
        return DTYPE_UNDEFINED;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (dnnl_dtype(known[i]) == dtype)
            return known[i];
    return DTYPE_UNDEFINED;
}

bool dnnl_md_same(const_dnnl_md a, const_dnnl_md b)
{
    return a == b || (a != NULL && b != NULL && dnnl_memory_desc_equal(a, b) != 0);
}

/* ---- primitive descriptors --------------------------------------------------------------------------------- */

const char *dnnl_implementation(dnnl_primitive_desc_t descriptor)
{
    const char *text = NULL;
    if (dnnl_primitive_desc_query(descriptor, dnnl_query_impl_info_str, 0, (void *)&text) != dnnl_success ||
        text == NULL)
        return "unknown";
    return text;
}

bool dnnl_is_reference(dnnl_primitive_desc_t descriptor)
{
    const char *text = dnnl_implementation(descriptor);
    if (strstr(text, "jit") != NULL || strstr(text, "brg") != NULL)
        return false;
    return strncmp(text, "ref", 3) == 0 || strncmp(text, "simple", 6) == 0 || strstr(text, ":ref") != NULL;
}

const_dnnl_md dnnl_query_md(dnnl_primitive_desc_t descriptor, dnnl_query_t what, int index)
{
    return dnnl_primitive_desc_query_md(descriptor, what, index);
}

/* ---- engine ---------------------------------------------------------------------------------------------------- */

bool dnnl_has_bf16(void)
{
    int wanted = (int)dnnl_cpu_isa_avx512_core_bf16; /* the names are sets of bits */
    return ((int)dnnl_get_effective_cpu_isa() & wanted) == wanted;
}

const char *dnnl_isa_name(void)
{
    switch ((int)dnnl_get_effective_cpu_isa()) {
    case dnnl_cpu_isa_sse41:
        return "sse41";
    case dnnl_cpu_isa_avx:
        return "avx";
    case dnnl_cpu_isa_avx2:
        return "avx2";
    case dnnl_cpu_isa_avx2_vnni:
        return "avx2_vnni";
    case dnnl_cpu_isa_avx512_core:
        return "avx512_core";
    case dnnl_cpu_isa_avx512_core_vnni:
        return "avx512_core_vnni";
    case dnnl_cpu_isa_avx512_core_bf16:
        return "avx512_core_bf16";
    case dnnl_cpu_isa_avx512_core_amx:
        return "avx512_core_amx";
    default:
        return "other";
    }
}

/* The channel block of an everyday convolution whose layouts are left to the library; 0: it wants nhwc. */
static Status block_ask(DnnlEngine *engine, DType dtype, Error *err)
{
    const int64_t image[] = {16, 64, 28, 28}, kernel[] = {64, 64, 3, 3};
    const dnnl_dims_t one = {1, 1}, none = {0, 0};
    dnnl_md data = NULL, weights = NULL;
    dnnl_primitive_desc_t descriptor = NULL;
    const dnnl_dims_t *blocks = NULL;
    int count = 0;
    Status status = STATUS_OK;

    TRY_DONE(dnnl_md_tag(&data, dtype, 4, image, dnnl_format_tag_any, err));
    TRY_DONE(dnnl_md_tag(&weights, dtype, 4, kernel, dnnl_format_tag_any, err));
    TRY_DONE(dnnl_fail(err,
                       dnnl_convolution_forward_primitive_desc_create(
                           &descriptor, engine->engine, dnnl_forward_training, dnnl_convolution_direct, data, weights,
                           NULL, data, one, none, one, one, engine->user_scratchpad),
                       "a first convolution"));
    const_dnnl_md dst = dnnl_query_md(descriptor, dnnl_query_dst_md, 0);
    TRY_DONE(dnnl_fail(err, dnnl_memory_desc_query(dst, dnnl_query_inner_nblks_s32, &count), "the layout's blocks"));
    TRY_DONE(
        dnnl_fail(err, dnnl_memory_desc_query(dst, dnnl_query_inner_blks, (void *)&blocks), "the layout's blocks"));
    engine->block = count == 1 ? (int)(*blocks)[0] : 0;
done:
    if (descriptor != NULL)
        dnnl_primitive_desc_destroy(descriptor);
    if (data != NULL)
        dnnl_memory_desc_destroy(data);
    if (weights != NULL)
        dnnl_memory_desc_destroy(weights);
    return status;
}

Status dnnl_engine_open(DnnlEngine *engine, DType dtype, Error *err)
{
    Status status = STATUS_OK;
    memset(engine, 0, sizeof *engine);
    TRY_DONE(dnnl_fail(err, dnnl_engine_create(&engine->engine, dnnl_cpu, 0), "opening the processor"));
    TRY_DONE(dnnl_fail(err, dnnl_stream_create(&engine->stream, engine->engine, dnnl_stream_in_order), "a stream"));
    TRY_DONE(dnnl_fail(err, dnnl_primitive_attr_create(&engine->user_scratchpad), "attributes"));
    TRY_DONE(dnnl_fail(err, dnnl_primitive_attr_set_scratchpad_mode(engine->user_scratchpad, dnnl_scratchpad_mode_user),
                       "the scratchpad mode"));
    TRY_DONE(block_ask(engine, dtype, err));
    engine->isa = dnnl_isa_name();
done:
    if (status != STATUS_OK)
        dnnl_engine_close(engine);
    return status;
}

void dnnl_engine_close(DnnlEngine *engine)
{
    if (engine->user_scratchpad != NULL)
        dnnl_primitive_attr_destroy(engine->user_scratchpad);
    if (engine->stream != NULL)
        dnnl_stream_destroy(engine->stream);
    if (engine->engine != NULL)
        dnnl_engine_destroy(engine->engine);
    memset(engine, 0, sizeof *engine);
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

static Status memory_make(DnnlEngine *engine, DnnlCall *call, int arg, const_dnnl_md md, Slot *slot, Error *err)
{
    dnnl_exec_arg_t *entry = &call->args[call->count];
    DNNL_TRY(dnnl_memory_create(&entry->memory, md, engine->engine, DNNL_MEMORY_NONE));
    entry->arg = arg;
    call->slots[call->count++] = slot;
    return STATUS_OK;
}

Status dnnl_call_new(DnnlEngine *engine, Arena *arena, dnnl_primitive_desc_t descriptor, const DnnlArg *args, int count,
                     DnnlCall **call, Error *err)
{
    DnnlCall *made = arena_new(arena, DnnlCall);
    Status status = STATUS_OK;
    made->args = arena_array(arena, dnnl_exec_arg_t, (size_t)count + 1);
    made->slots = arena_array(arena, Slot *, (size_t)count + 1);
    made->implementation = arena_strdup(arena, dnnl_implementation(descriptor));
    TRY_DONE(dnnl_fail(err, dnnl_primitive_create(&made->primitive, descriptor), made->implementation));
    for (int i = 0; i < count; i++)
        TRY_DONE(memory_make(engine, made, args[i].arg, slot_md(args[i].slot), args[i].slot, err));
    const_dnnl_md scratchpad = dnnl_query_md(descriptor, dnnl_query_scratchpad_md, 0);
    made->scratchpad = dnnl_md_bytes(scratchpad);
    if (made->scratchpad > 0)
        TRY_DONE(memory_make(engine, made, DNNL_ARG_SCRATCHPAD, scratchpad, NULL, err));
done:
    dnnl_primitive_desc_destroy(descriptor);
    if (status != STATUS_OK)
        dnnl_call_free(made);
    else
        *call = made;
    return status;
}

void dnnl_call_bind(DnnlCall *call, void *scratchpad)
{
    for (int i = 0; i < call->count; i++) {
        void *data = call->slots[i] != NULL ? call->slots[i]->data : scratchpad;
        dnnl_memory_set_data_handle(call->args[i].memory, data);
    }
}

Status dnnl_call_run(DnnlEngine *engine, DnnlCall *call, Error *err)
{
    dnnl_status_t status = dnnl_primitive_execute(call->primitive, engine->stream, call->count, call->args);
    if (status == dnnl_success)
        status = dnnl_stream_wait(engine->stream);
    return dnnl_fail(err, status, call->implementation);
}

void dnnl_call_free(DnnlCall *call)
{
    if (call == NULL)
        return;
    for (int i = 0; i < call->count; i++)
        dnnl_memory_destroy(call->args[i].memory);
    call->count = 0;
    if (call->primitive != NULL)
        dnnl_primitive_destroy(call->primitive);
    call->primitive = NULL;
}

void runtime_describe(Str *out)
{
    const dnnl_version_t *version = dnnl_version();
    str_printf(out, "oneDNN %d.%d.%d, %s\nthreads %d\ncompiler %s\n", version->major, version->minor, version->patch,
               dnnl_isa_name(), parallel_threads(), __VERSION__);
}
