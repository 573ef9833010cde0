/* Files that a user's program may have arranged as it likes: copied, removed and opened to other users.

   Everything is reached by descriptors from the folder above, so that no path is too long, and what is no folder where
   one is walked is not followed. Each function says on stderr what it could not do, and to what. */

#ifndef FILES_H
#define FILES_H

#include <stdbool.h>
#include <sys/types.h>

/* One line on stderr. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The folder at an absolute path, opened; what is missing of it is made, with `shared` writable for every user.
   -1 and errno where that cannot be. */
int make_folder(const char *path, bool shared);

/* The folder that holds an absolute path, as by make_folder; *name is the path's last part. */
int make_parent(const char *path, bool shared, const char **name);

/* Copies an entry of one folder to another: with its mode, times and, where that is allowed, its owner; links, holes
   and names that share a file stay what they are. A folder is merged into the one that is there. A file that is this
   process' stdout or stderr stays as it is. */
bool copy(int from, const char *name, int to, const char *as);

/* Removes an entry of a folder, with all that it holds. */
bool remove_all(int folder, const char *name);

/* True for a folder that holds nothing. */
bool is_empty(const char *path);

/* Removes what a folder holds, however deep it is. */
bool empty(int folder);

/* Makes a file, or a folder with all that it holds, readable for every user, with `write` writable too. */
bool open_up(int folder, const char *name, bool write);

/* Makes what is open to every user of a file, or of a folder with all that it holds, this user's own, where that is
   allowed: files that no other may write, nor read where they are marked as private, by the sticky bit. */
void take(int folder, const char *name);

#endif
