/* Model -> file: what may be overwritten, which file the numbers go to, and the order in which files appear.
 *
 * The messages are made by export_proto.c and streamed, so that weights go from the mapped source to the new file
 * without a second copy in memory. Both files are written beside their targets and renamed when both are whole, the
 * numbers first: a model never points to numbers that are not there. */
#include "onnx/gate.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

/* protobuf ends at 2 GB; readers want room of their own. */
#define MODEL_BYTES_MAX ((size_t)1800 * 1000 * 1000)

/* ---- what must stay ------------------------------------------------------------------------------------------ */

static Status check_target(const Model *model, const char *path, const ExportOptions *options, Error *err)
{
    if (model->path != NULL && file_same(model->path, path))
        return fail(err, STATUS_USAGE, "%s: is the model that was read; write to another name", path);
    for (size_t i = 0; i < model->side_count; i++)
        if (file_same(model->side_paths[i], path))
            return fail(err, STATUS_USAGE, "%s: holds external data of the model that was read; write to another name",
                        path);
    for (size_t i = 0;
         options != NULL && options->inputs_not_to_touch != NULL && options->inputs_not_to_touch[i] != NULL; i++)
        if (file_same(options->inputs_not_to_touch[i], path))
            return fail(err, STATUS_USAGE, "%s: is also an input; write to another name", path);
    return STATUS_OK;
}

/* The side file may be replaced together with the model that it belongs to, and with that alone. */
static Status check_side_target(const Model *model, const char *path, const char *side, const ExportOptions *options,
                                Error *err)
{
    TRY(check_target(model, side, options, err));
    if (access(side, F_OK) == 0 && access(path, F_OK) != 0)
        return fail(err, STATUS_USAGE,
                    "%s: exists and may hold the data of another model; remove it or choose another name", side);
    return STATUS_OK;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

typedef struct FileBuffer {
    ProtobufCBuffer base;
    AtomicFile *file;
    Status status;
    Error *err;
} FileBuffer;

static void file_append(ProtobufCBuffer *base, size_t size, const uint8_t *bytes)
{
    FileBuffer *buffer = (FileBuffer *)base;
    if (buffer->status == STATUS_OK)
        buffer->status = atomic_write(buffer->file, bytes, size, buffer->err);
}

static Status write_proto(AtomicFile *file, const Onnx__ModelProto *proto, Error *err)
{
    FileBuffer buffer = {{file_append}, file, STATUS_OK, err};
    wire_write(&proto->base, &buffer.base);
    return buffer.status;
}

/* What has been written need not stay in memory: a model may be larger than that. */
static Status write_side(AtomicFile *file, const Exporter *e, const Model *model)
{
    static const char zeros[4096];
    size_t at = 0, rested = 0;
    for (size_t i = 0; i < e->moved_count; i++) {
        const Moved *moved = &e->moved[i];
        TRY(atomic_write(file, zeros, moved->offset - at, e->err)); /* less than a page */
        TRY(atomic_write(file, moved->data, moved->bytes, e->err));
        at = moved->offset + moved->bytes;
        if (at - rested >= MODEL_REST_BYTES) {
            model_rest(model);
            rested = at;
        }
    }
    return STATUS_OK;
}

/* Nothing that was read after a file shrank under us may become a model. */
static Status check_sources(const Exporter *e, const char *path)
{
    if (mapping_was_cut())
        return fail(e->err, STATUS_REJECTED, "%s: not written: a file that was being read became shorter", path);
    return STATUS_OK;
}

static Status write_files(const Exporter *e, const Model *model_read, const Onnx__ModelProto *proto, const char *path,
                          const char *side_path)
{
    AtomicFile model = {0}, side = {0};
    Status status = STATUS_OK;
    if (e->moved_count > 0) {
        TRY_DONE(atomic_open(&side, side_path, e->err));
        TRY_DONE(write_side(&side, e, model_read));
        TRY_DONE(atomic_sync(&side, e->err));
    }
    TRY_DONE(atomic_open(&model, path, e->err));
    TRY_DONE(write_proto(&model, proto, e->err));
    TRY_DONE(atomic_sync(&model, e->err));
    TRY_DONE(check_sources(e, path));
    if (e->moved_count > 0)
        TRY_DONE(atomic_commit(&side, e->err));
    TRY_DONE(atomic_commit(&model, e->err));
done:
    atomic_release(&model);
    atomic_release(&side);
    return status;
}

/* ---- deciding ---------------------------------------------------------------------------------------------------- */

static void exporter_init(Exporter *e, const ExportOptions *options, const char *side_name, bool move_all, Error *err)
{
    *e = (Exporter){
        .strip_doc = options != NULL && options->strip_doc, .move_all = move_all, .side_name = side_name, .err = err};
    arena_init(&e->arena);
    map_init(&e->places);
}

static void exporter_release(Exporter *e)
{
    arena_release(&e->arena);
    map_release(&e->places);
}

/* Builds the messages; once more with everything large moved out when they do not fit into one file. */
static Status build(Exporter *e, const Model *model, const ExportOptions *options, const char *side_name,
                    Onnx__ModelProto **proto, Error *err)
{
    bool asked = options != NULL && options->external;
    exporter_init(e, options, side_name, asked, err);
    TRY(export_model(e, model, proto));
    if (asked || protobuf_c_message_get_packed_size(&(*proto)->base) <= MODEL_BYTES_MAX)
        return STATUS_OK;
    exporter_release(e);
    exporter_init(e, options, side_name, true, err);
    return export_model(e, model, proto);
}

Status model_export(const Model *model, const char *path, const ExportOptions *options, Error *err)
{
    TRY(check_target(model, path, options, err));
    Str side_path;
    str_init(&side_path);
    str_printf(&side_path, "%s.data", path);
    const char *slash = strrchr(side_path.text, '/');
    Exporter e;
    Onnx__ModelProto *proto;
    Status status;
    TRY_DONE(build(&e, model, options, slash == NULL ? side_path.text : slash + 1, &proto, err));
    size_t size = protobuf_c_message_get_packed_size(&proto->base);
    if (size > INT32_MAX) {
        status =
            fail(err, STATUS_UNSUPPORTED, "%s: %zu bytes besides external data; a model file ends at 2 GB", path, size);
        goto done;
    }
    if (e.moved_count > 0)
        TRY_DONE(check_side_target(model, path, side_path.text, options, err));
    status = write_files(&e, model, proto, path, side_path.text);
done:
    exporter_release(&e);
    str_release(&side_path);
    return status;
}
