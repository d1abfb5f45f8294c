/* regraft tune: options, and the order of things. */
#include "cli/tune.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef TuneFields Fields;

static const char *const recipes[] = {"auto", "plain", "probe", NULL};
static const char *const optimizers[] = {"auto", "sgd", "adagrad", "rmsprop", "adam", "adamw", NULL};
static const char *const schedules[] = {"auto", "constant", "step", "cosine", "linear", NULL};
static const char *const inits[] = {"pretrained", "scratch", NULL};
static const char *const caches[] = {"auto", "bf16", "off", NULL};
static const char *const augments[] = {"auto", "none", "light", "strong", NULL};
static const char *const frames[] = {"auto", "crop", "squash", "pad", NULL};
static const char *const lengths[] = {"auto", "keep", "cut", NULL};
static const char *const precisions[] = {"f32", "bf16", "auto", NULL};
static const char *const convolutions[] = {"auto", "direct", NULL}; /* ConvolutionChoice */
static const char *const batchnorms[] = {"live", "running", NULL};  /* BatchNormChoice */
static const char *const filters[] = {"bilinear", "bicubic", "nearest", NULL};

static const Option options[] = {
    {OPTION("--data", 'd', TEXT, data, "PATH", "folder of pictures, .npz, .csv or IDX file"), .group = "Data"},
    {OPTION("--task", 0, LIST, tasks, "OUTPUT=PATH",
            "instead of --data: one of several tasks, an output of the model with data of its own; repeat it")},
    {OPTION("--val", 0, TEXT, val, "PATH", "validation data; else val/ or valid/ of --data, else a part held out")},
    {OPTION("--test", 0, TEXT, test, "PATH", "test data, read once at the end; else test/ of --data")},
    {OPTION("--held-out", 0, REAL, held_out, "PART", "part of the training data held out for validation")},
    {OPTION("--only", 0, LIST, only, "CLASS", "train on these classes alone"), .commas = true},
    {OPTION("--per-class", 0, INT, per_class, "N", "at most N training samples of each class"), .positive = true},
    {OPTION("--skip-broken", 0, FLAG, skip_broken, NULL, "leave unreadable pictures out instead of stopping")},
    {OPTION("--lengths", 0, CHOICE, lengths, "HOW",
            "sequences with a mask: keep them as the data pads them, or cut each batch to its longest and put alike "
            "lengths "
            "together; auto: cut, but keep with --recipe plain"),
     .choices = lengths},
    {OPTION("--preset", 0, TEXT, preset, "NAME",
            "preprocessing: imagenet, 0..1, -1..1, 0..255, each also with -bgr, caffe; found by default"),
     .group = "Pictures"},
    {OPTION("--frame", 0, CHOICE, frame, "HOW", "how a picture becomes the model's size"), .choices = frames},
    {OPTION("--resize", 0, CHOICE, filter, "FILTER", "resampling, always anti-aliased"), .choices = filters},
    {OPTION("--crop", 0, REAL, crop, "PART", "part of the resized picture that the centre crop keeps")},
    {OPTION("--augment", 0, CHOICE, augment, "HOW", "random changes while fine-tuning"), .choices = augments},
    {OPTION(
         "--views", 0, INT, views, "N",
         "augment each picture in N ways instead of anew in every epoch, and run what is frozen on those beforehand"),
     .positive = true},
    {OPTION("--recipe", 0, CHOICE, recipe, "NAME",
            "auto: a probe on cached features, then fine-tuning from it, the better is kept; probe: the first alone; "
            "plain: keep "
            "graph, head and order, train as told"),
     .choices = recipes, .group = "Training"},
    {OPTION("--train", 't', LIST, train, "WHAT", "head, all, last:N or a pattern on names; all by default")},
    {OPTION("--freeze", 0, LIST, freeze, "WHAT", "patterns that are not trained")},
    {OPTION("--head", 0, TEXT, head, "NAME", "which head to replace, as `heads` prints them")},
    {OPTION("--keep-head", 0, FLAG, keep_head, NULL, "train the head that is there instead of a new one")},
    {OPTION("--hidden", 0, INT, hidden, "N", "put an MLP with N hidden units on instead of a linear head"),
     .positive = true},
    {OPTION("--init", 0, CHOICE, init, "HOW", "scratch: forget the trained weights, for comparison"), .choices = inits},
    {OPTION("--loss", 0, LIST, losses, "KIND", "softmax_ce, lm, bce, mse, l1, huber, dice, multi; one for each output"),
     .commas = true},
    {OPTION("--loss-weight", 0, LIST, loss_weights, "X", "weights of the losses in their sum, one for each"),
     .commas = true},
    {OPTION("--ignore-index", 0, INT, ignore_index, "N", "class index that does not count in a loss")},
    {OPTION("--epochs", 'e', INT, epochs, "N", "at most so many passes"), .positive = true},
    {OPTION("--batch", 'b', INT, batch, "N", "samples a step"), .positive = true},
    {OPTION("--accumulate", 0, INT, accumulate, "N", "steps an update"), .positive = true},
    {OPTION("--cache", 0, CHOICE, cache, "HOW",
            "fine-tuning a part: what the frozen one gives is kept from epoch to epoch. auto: in f32, where nothing "
            "changes it; bf16: in half the room; off: computed in every epoch"),
     .choices = caches},
    {OPTION("--memory", 0, SIZE, memory, "SIZE",
            "most that the process may take, as 900M or 2G: activations are computed again instead of kept, batches "
            "run in "
            "parts, features go to a file; refused before the first step when it cannot be"),
     .positive = true},
    {OPTION("--optimizer", 0, CHOICE, optimizer, "NAME", "rules and defaults of torch.optim"), .choices = optimizers},
    {OPTION("--lr", 0, REAL, lr, "RATE", "learning rate of fine-tuning"), .positive = true},
    {OPTION("--momentum", 0, REAL, momentum, "X", "of sgd and rmsprop")},
    {OPTION("--nesterov", 0, FLAG, nesterov, NULL, "Nesterov's momentum")},
    {OPTION("--weight-decay", 0, REAL, weight_decay, "X", "coupled, but for adamw")},
    {OPTION("--beta1", 0, REAL, beta1, "X", "of adam and adamw")},
    {OPTION("--beta2", 0, REAL, beta2, "X", "of adam and adamw")},
    {OPTION("--eps", 0, REAL, epsilon, "X", "of adagrad, rmsprop, adam and adamw")},
    {OPTION("--alpha", 0, REAL, alpha, "X", "of rmsprop")},
    {OPTION("--schedule", 0, CHOICE, schedule, "NAME", "of the learning rate"), .choices = schedules},
    {OPTION("--warmup", 0, INT, warmup, "N", "updates of linear warm-up")},
    {OPTION("--clip-norm", 0, REAL, clip_norm, "X", "largest norm of the whole gradient")},
    {OPTION("--clip-value", 0, REAL, clip_value, "X", "largest size of a gradient's element")},
    {OPTION("--label-smoothing", 0, REAL, label_smoothing, "X", "part of the target spread over all classes")},
    {OPTION("--balance", 0, FLAG, balance, NULL, "weigh classes so that each counts alike")},
    {OPTION("--patience", 0, INT, patience, "N",
            "stop after N epochs without a better validation: 6; 0, never, with --recipe plain")},
    {OPTION("--seed", 's', INT, seed, "N", "of order, augmentation, split and new weights")},
    {OPTION("--shuffle", 0, FLAG, shuffle, NULL, "mix samples anew every epoch; with --recipe plain only when asked")},
    {OPTION("--no-shuffle", 0, FLAG, no_shuffle, NULL, "take samples in the file's order")},
    {OPTION("--no-tie", 0, FLAG, no_tie, NULL, "train exact copies of a parameter apart")},
    {OPTION("--example-input", 0, TEXT, example, "NPZ",
            "what the model was traced with: a training-mode export has its running statistics moved once by it; takes "
            "that back")},
    {OPTION("--output", 'o', TEXT, output, "FILE", "where the tuned model goes; never the input"), .required = true,
     .group = "Result"},
    {OPTION("--run", 0, TEXT, run_folder, "DIR",
            "keep arguments, environment, metrics, confusion matrix and checkpoint here")},
    {OPTION("--resume", 0, TEXT, resume, "DIR", "go on from the checkpoint of an interrupted run's folder")},
    {OPTION("--strip-doc", 0, FLAG, strip_doc, NULL, "drop doc strings and stack traces")},
    {OPTION("--no-verify", 0, FLAG, no_verify, NULL, "do not read the result back and compare")},
    {OPTION("--threads", 0, INT, threads, "N", "threads of computation (under mpirun: of each process)"),
     .positive = true},
    {OPTION("--mpi", 0, FLAG, mpi, NULL,
            "train on the processes that mpirun has started; found by itself under mpirun")},
    {OPTION("--precision", 0, CHOICE, precision, "TYPE",
            "what training computes in; parameters stay f32. auto: bf16 where the processor multiplies such numbers"),
     .choices = precisions},
    {OPTION("--convolution", 0, CHOICE, convolution, "NAME",
            "algorithm of training's convolutions. auto: Winograd's for 3x3 kernels where the library has it"),
     .choices = convolutions},
    {OPTION("--batchnorm", 0, CHOICE, batchnorm, "HOW",
            "what a BatchNorm in training form takes where its scale is trained: the batch's statistics (live), which "
            "move the running ones, or the running ones, which stay; one that is not trained always takes those"),
     .choices = batchnorms},
    {OPTION("--profile", 0, FLAG, profile, NULL,
            "afterwards, where the time of training steps went, by operator and by step")},
    {OPTION("--trace", 0, TEXT, trace, "FILE", "the last training step in Chrome's trace format, for Perfetto")},
    {OPTION("--plain-kernels", 0, FLAG, plain_kernels, NULL,
            "no channel layouts and fast paths: for finding out what a fault is due to")},
    {OPTION("--json", 0, FLAG, json, NULL, "events as JSON lines on stdout")},
    {OPTION("--quiet", 'q', FLAG, quiet, NULL, "print nothing but warnings, errors and the result")},
    {0}};

static const Usage usage = {
    .verb = "tune",
    .arguments = "MODEL",
    .summary = "Fine-tunes a model on your data. With no other flag: the old head is found and "
               "replaced, the preprocessing is found, a new head "
               "is fitted on cached features, everything is then fine-tuned from there, and "
               "what did better on the validation data is written.",
    .examples = {"regraft tune model.onnx --data photos/ -o tuned.onnx",
                 "regraft tune net.onnx --data train.npz --recipe plain --loss mse --optimizer "
                 "sgd --lr 0.01 --epochs 5 -o out.onnx",
                 "regraft tune two.onnx --task colour=colours/ --task shape=shapes.npz -o both.onnx"},
    .options = options,
    .minimum = 1,
    .maximum = 1};

static atomic_bool interrupted;

static void signals_that_stop(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);  /* Ctrl-C */
    sigaddset(set, SIGTERM); /* what job schedulers, containers and MPI's launchers send before they kill */
}

static void *wait_for_signal(void *context)
{
    (void)context;
    sigset_t set;
    int number;
    signals_that_stop(&set);
    if (sigwait(&set, &number) == 0)
        atomic_store(&interrupted, true);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL); /* a second Ctrl-C ends at once */
    for (;;)
        pause();
    return NULL;
}

/* Signals go to a thread of their own, and all others, which begin later, have them blocked: oneDNN's generated code
 * keeps numbers below the stack's end, where the system would put the frame of a handler (after a handler had run, a
 * product wrote beyond its memory). */
static Status take_signals(Error *err)
{
    sigset_t set;
    pthread_t thread;
    signals_that_stop(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGINT, SIG_DFL); /* a shell ignores it for what runs in the background */
    signal(SIGTERM, SIG_DFL);
    if (pthread_create(&thread, NULL, wait_for_signal, NULL) != 0)
        return fail(err, STATUS_ENVIRONMENT, "no thread could be started to wait for signals");
    pthread_detach(thread);
    return STATUS_OK;
}

bool tune_interrupted(void *context)
{
    (void)context;
    return atomic_load(&interrupted);
}

static void write_arguments(Tune *tune, int argc, char **argv)
{
    Str text;
    str_init(&text);
    str_append(&text, "regraft");
    for (int i = 0; i < argc; i++)
        str_printf(&text, " %s", argv[i]);
    str_append(&text, "\n");
    Error ignored = {0};
    progress_file(&tune->progress, "arguments.txt", text.text, &ignored);
    str_release(&text);
}

static Status choose_precision(Tune *tune, Error *err)
{
    const char *name = precisions[tune->fields->precision];
    precision_parse(name, &tune->precision);
    if (tune->fields->plain_kernels && tune->precision == PRECISION_BF16)
        return fail(err, STATUS_USAGE, "--plain-kernels computes in f32; --precision %s asks for another", name);
    TRY(precision_check(tune->precision, err));
    if (tune->fields->precision != 0)
        progress_note(&tune->progress, "precision", "training computes in %s",
                      tune->precision == PRECISION_BF16 ? "bf16, parameters in f32" : "f32");
    return STATUS_OK;
}

/* What the numbers may depend on besides the arguments. */
static void write_environment(Tune *tune)
{
    Str text;
    Error ignored = {0};
    str_init(&text);
    str_printf(&text, "regraft %s\n", REGRAFT_VERSION);
    runtime_describe(&text);
    progress_file(&tune->progress, "environment.txt", text.text, &ignored);
    str_release(&text);
}

static bool is_dropped(const char *argument, bool *with_value)
{
    static const char *const names[] = {"--run", "--resume"};
    for (size_t i = 0; i < 2; i++) {
        size_t length = strlen(names[i]);
        if (strncmp(argument, names[i], length) != 0 || (argument[length] != '\0' && argument[length] != '='))
            continue;
        *with_value = argument[length] == '\0';
        return true;
    }
    return false;
}

static void append_quoted(Str *text, const char *argument)
{
    bool plain = argument[0] != '\0' && strcspn(argument, " \t\n\"'$&|;<>()*?[]#~=%\\`!{}") == strlen(argument);
    str_append(text, plain ? " " : " '");
    for (const char *p = argument; *p != '\0'; p++)
        if (*p == '\'')
            str_append(text, "'\\''");
        else
            str_append_bytes(text, p, 1);
    if (!plain)
        str_append(text, "'");
}

/* The same command, with --resume. */
static void append_resuming(Str *text, const Tune *tune, int argc, char **argv)
{
    bool with_value;
    if (comm_size(tune->comm) > 1)
        str_printf(text, "mpirun -n %d ", comm_size(tune->comm));
    str_append(text, "regraft tune");
    for (int i = 1; i < argc; i++)
        if (is_dropped(argv[i], &with_value))
            i += with_value;
        else
            append_quoted(text, argv[i]);
    str_append(text, " --resume");
    append_quoted(text, tune->folder);
}

static void say_how_to_resume(const Tune *tune, int argc, char **argv, Status status)
{
    Str text;
    str_init(&text);
    append_resuming(&text, tune, argc, argv);
    fprintf(stderr, "%s: %s\n",
            status == STATUS_INTERRUPTED
                ? "stopped; go on with"
                : "the state after the last good epoch is kept; go on from it with a smaller --lr",
            text.text);
    str_release(&text);
}

/* Beside other processes this is said before the training, for a launcher that is stopped may not pass on what its
 * processes still say: Open MPI 4 kills them a second after Ctrl-C. */
static void describe_processes(Tune *tune, int argc, char **argv)
{
    Str text;
    str_init(&text);
    append_resuming(&text, tune, argc, argv);
    processes_describe(tune, text.text);
    str_release(&text);
}

/* A folder that nobody asked for stays only when there is something to go on from. */
static void end_run(const Tune *tune, int argc, char **argv, Status status)
{
    Str path;
    if (tune->folder == NULL)
        return;
    str_init(&path);
    str_printf(&path, "%s/checkpoint", tune->folder);
    if (access(path.text, F_OK) == 0 && (status == STATUS_INTERRUPTED || status == STATUS_DIVERGED)) {
        say_how_to_resume(tune, argc, argv, status);
    } else if (tune->fields->resume == NULL && tune->fields->run_folder == NULL) {
        unlink(path.text);
        rmdir(tune->folder);
    }
    str_release(&path);
}

/* A batch that is baked in and cannot be rewritten is no harm when the run has the same. */
static Status free_batch(Tune *tune, Error *err)
{
    const char *path = tune->args->items[0];
    Error own = {STATUS_OK, ""};
    int64_t batch = tune->fields->batch > 0 ? (int64_t)tune->fields->batch : -1, baked;
    Status status = document_free_batch(tune->document, &baked, &own);
    if (status == STATUS_OK)
        return STATUS_OK;
    model_free(tune->document);
    tune->document = NULL;
    TRY(document_open(path, &tune->document, err));
    if (status == STATUS_UNSUPPORTED && baked == batch) {
        tune->only_batch = (size_t)batch;
        return STATUS_OK;
    }
    return fail(err, status, "%s: %s", path, own.message);
}

static Status run(Tune *tune, int argc, char **argv, Error *err)
{
    const TuneFields *fields = tune->fields;
    const char *folder = fields->resume != NULL ? fields->resume : fields->run_folder;
    if (fields->resume != NULL && access(fields->resume, F_OK) != 0)
        return fail(err, STATUS_REJECTED, "--resume: %s: %s", fields->resume, strerror(errno));
    TRY(document_open(tune->args->items[0], &tune->document, err));
    TRY(document_check_output(tune->document, fields->output, err));
    bool writes = comm_rank(tune->comm) == 0;
    TRY(free_batch(tune, err));
    AtomicFile probe; /* a folder that cannot be written is better known before the training */
    if (writes) {
        TRY(atomic_open(&probe, fields->output, err));
        atomic_release(&probe);
    }
    TRY(progress_open(&tune->progress, writes ? folder : NULL, fields->json, fields->quiet, fields->resume != NULL,
                      err));
    tune->progress.silent = !writes;
    if (fields->resume == NULL)
        write_arguments(tune, argc, argv);
    write_environment(tune);
    tune->folder = folder != NULL ? folder : arena_printf(&tune->document->arena, "%s.run", fields->output);
    TRY(choose_precision(tune, err));
    TRY(tune_setup(tune, err));
    describe_processes(tune, argc, argv);
    TRY(tune_train(tune, err));
    return writes ? tune_save(tune, err) : STATUS_OK;
}

Status cmd_tune(int argc, char **argv, Error *err)
{
    TuneFields fields = {.momentum = NAN,
                         .weight_decay = NAN,
                         .beta1 = NAN,
                         .beta2 = NAN,
                         .epsilon = NAN,
                         .alpha = NAN,
                         .lr = NAN,
                         .ignore_index = -100,
                         .held_out = 0.2,
                         .crop = NAN,
                         .patience = -1,
                         .accumulate = 1};
    Args args;
    TRY(args_parse(&usage, argc, argv, &fields, &args, err));
    if (args.help)
        return STATUS_OK;
    TRY(take_signals(err));
    Tune tune = {.fields = &fields, .args = &args};
    Status status = processes_open(&tune, err);
    if (status == STATUS_OK)
        status = run(&tune, argc, argv, err);
    if (comm_rank(tune.comm) == 0)
        end_run(&tune, argc, argv, status);
    processes_close(&tune, status, err);
    tune_release(&tune);
    return status;
}
