/* Status and Error: how every function of the library reports what went wrong.
 *
 * A function that can fail returns a Status. What a person should read goes into the Error that the
 * caller handed in; the first cause is kept, later calls of fail() on the same Error change nothing.
 * The numbers of Status are the tool's exit codes, so that nothing has to be translated on the way out. */
#ifndef REGRAFT_BASE_ERROR_H
#define REGRAFT_BASE_ERROR_H

typedef enum Status {
    STATUS_OK = 0,
    STATUS_DIFFERS = 1,      /* a comparison found a difference */
    STATUS_USAGE = 2,        /* flags or arguments make no sense */
    STATUS_REJECTED = 3,     /* a file or data set is unreadable, malformed or beyond a limit */
    STATUS_UNSUPPORTED = 4,  /* an operator, type, opset or batch that this build cannot run or train */
    STATUS_AMBIGUOUS = 5,    /* more than one answer; the user has to choose */
    STATUS_UNVERIFIED = 6,   /* what was written does not compute what was in memory */
    STATUS_ENVIRONMENT = 7,  /* disk, memory, permission */
    STATUS_DIVERGED = 8,     /* training produced NaN or ran away */
    STATUS_INTERRUPTED = 130 /* the user pressed Ctrl-C */
} Status;

typedef struct Error {
    Status status;
    char message[1000]; /* one line, no newline at its end; "" while status is STATUS_OK */
} Error;

/* Records the first cause and returns `status`, so that `return fail(err, ...)` reads as one step.
 * `err` may be NULL: then only the status survives. */
Status fail(Error *err, Status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts `prefix: ` before a message already recorded (a file or node name that an inner function could
 * not know). Does nothing while there is no message. */
void error_prefix(Error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Forgets what was recorded: for a caller that has handled a failure and goes on. */
void error_clear(Error *err);

/* Leaves the function with the callee's status. Use it where nothing is held. */
#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        Status try_status_ = (call);                                                                                   \
        if (try_status_ != STATUS_OK)                                                                                  \
            return try_status_;                                                                                        \
    } while (0)

/* The same for a function with a release ladder: needs `Status status` and a label `done`. */
#define TRY_DONE(call)                                                                                                 \
    do {                                                                                                               \
        status = (call);                                                                                               \
        if (status != STATUS_OK)                                                                                       \
            goto done;                                                                                                 \
    } while (0)

#endif
