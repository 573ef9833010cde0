/* What the parts of the shim have in common. */

#ifndef SHIM_H
#define SHIM_H

#include <stdbool.h>

#define OURS "/.tesk"
#define CONTROL OURS "/control"
#define KEPT OURS "/files"

/* The words of `shim run`. */
struct words {
    const char *workdir, *in, *out, *err;
    int count; /* of the copies */
    char **copies, **program;
};

/* run.c: runs the program and ends with its exit code. `waits`: for its turn before. */
_Noreturn void run(const struct words *given, bool waits);

/* What the runner of the task's pod says on the pipe of a turn. FORSAKEN: it is gone. */
enum order { NONE, GO = 'G', TERMINATE = 'T', KILL = 'K', FORSAKEN };

/* turn.c: waits for this executor's turn, and ends where that never comes. The descriptor on which orders follow. */
int await_turn(int control, int signals);

/* turn.c: the order that has come. */
enum order next_order(int turn);

/* program.c: becomes the program, with a file for its stdin; ends with the code that a shell gives where it cannot. */
_Noreturn void become(char **words, int in);

/* copies.c: copies inputs, and outputs of earlier executors, into the container. False when one could not be copied, or
   when an output has no folder there. */
bool copy_in(const struct words *given);

/* copies.c: copies outputs out, and makes them readable. False when one could not be copied. */
bool copy_out(const struct words *given);

#endif
