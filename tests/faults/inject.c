/*
 * A preload that makes one call on files go wrong.
 *
 * Calls of libc that touch a file at or below one folder are counted and logged; the one whose number is asked for is
 * not made, but fails, is cut short, or kills the process. Nothing is counted before faults_arm() is called, so that
 * what Python reads to start up stays out. The log has one line for each call:
 *
 *     NUMBER <tab> CALL <tab> PATH [<tab> SECOND PATH]
 *
 * fsync and fdatasync are counted and not made: the tests read the order of calls, and no power is lost.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { KILL = -1, SHORT = -2, FULL = -3 };

static char folder[PATH_MAX];
static size_t folder_length;
static int log_descriptor = -1;
static long count, wanted;
static int fault; /* an errno, or one of the above */
static int no_links;

void faults_arm(const char *below, const char *log, long number, int what, int without_links)
{
    snprintf(folder, sizeof folder, "%s", below);
    folder_length = strlen(folder);
    log_descriptor = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    wanted = number;
    fault = what;
    no_links = without_links;
    count = 0;
}

static int below(const char *path)
{
    return !strncmp(path, folder, folder_length) && (path[folder_length] == '/' || !path[folder_length]);
}

static int path_of(int descriptor, char *path)
{
    char link[64];
    ssize_t length;

    if (descriptor == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return length > 0;
}

static const char *absolute(int at, const char *path, char *buffer)
{
    size_t length;

    if (!path || path[0] == '/')
        return path ? path : "";
    if (!path_of(at, buffer))
        return "";
    length = strlen(buffer);
    if (path[0])
        snprintf(buffer + length, PATH_MAX - length, "/%s", path);
    return buffer;
}

/* Whether a full disk stops this call. */
static int needs_space(const char *call)
{
    return !strcmp(call, "create") || !strcmp(call, "write") || !strcmp(call, "fsync") || !strcmp(call, "link") ||
           !strcmp(call, "mkdir") || !strcmp(call, "grow");
}

/* Count one call. 0: make it; else what to do instead. */
static int next_fault(const char *call, const char *path, const char *second)
{
    char line[2 * PATH_MAX + 64];
    int length;

    if (log_descriptor < 0 || !(below(path) || (second && below(second))))
        return 0;
    count++;
    length = snprintf(line, sizeof line, "%ld\t%s\t%s%s%s\n", count, call, path, second ? "\t" : "", second ? second : "");
    syscall(SYS_write, log_descriptor, line, length);
    if (fault == FULL)
        return wanted && count >= wanted && needs_space(call) ? ENOSPC : 0;
    if (count != wanted)
        return 0;
    if (fault == KILL && strcmp(call, "write"))
        kill(getpid(), SIGKILL);
    return fault;
}

static int on_descriptor(const char *call, int descriptor)
{
    char path[PATH_MAX];
    int saved = errno, what;

    if (log_descriptor < 0 || !path_of(descriptor, path)) {
        errno = saved;
        return 0;
    }
    what = next_fault(call, path, NULL);
    errno = saved;
    return what;
}

static int on_path(const char *call, int at, const char *path)
{
    char buffer[PATH_MAX];
    int saved = errno, what = next_fault(call, absolute(at, path, buffer), NULL);

    errno = saved;
    return what;
}

static int on_paths(const char *call, int at, const char *path, int second_at, const char *second)
{
    char one[PATH_MAX], two[PATH_MAX];
    int saved = errno, what = next_fault(call, absolute(at, path, one), absolute(second_at, second, two));

    errno = saved;
    return what;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL_IF(test)         \
    do {                      \
        int what_ = (test);   \
        if (what_ > 0) {      \
            errno = what_;    \
            return -1;        \
        }                     \
    } while (0)

/* --- opening and closing ------------------------------------------------------------------ */

static const char *kind_of_open(int flags)
{
    return flags & O_CREAT ? "create" : "open";
}

#define OPEN(name)                                                     \
    int name(const char *path, int flags, ...)                         \
    {                                                                  \
        va_list rest;                                                  \
        va_start(rest, flags);                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                  \
        FAIL_IF(on_path(kind_of_open(flags), AT_FDCWD, path));         \
        return REAL(name)(path, flags, mode);                          \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                   \
    int name(int at, const char *path, int flags, ...)                 \
    {                                                                  \
        va_list rest;                                                  \
        va_start(rest, flags);                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                  \
        FAIL_IF(on_path(kind_of_open(flags), at, path));               \
        return REAL(name)(at, path, flags, mode);                      \
    }
OPENAT(openat)
OPENAT(openat64)

DIR *opendir(const char *path)
{
    int what = on_path("open", AT_FDCWD, path);

    if (what > 0) {
        errno = what;
        return NULL;
    }
    return REAL(opendir)(path);
}

int close(int descriptor)
{
    int what = on_descriptor("close", descriptor);
    int result = REAL(close)(descriptor); /* Linux closes it whatever it says */

    FAIL_IF(what);
    return result;
}

/* --- reading and writing ------------------------------------------------------------------ */

ssize_t read(int descriptor, void *data, size_t size)
{
    int what = on_descriptor("read", descriptor);

    FAIL_IF(what);
    return REAL(read)(descriptor, data, what == SHORT && size > 1 ? size / 2 : size);
}

#define PREAD(name, offset_type)                                                            \
    ssize_t name(int descriptor, void *data, size_t size, offset_type offset)               \
    {                                                                                       \
        int what = on_descriptor("read", descriptor);                                       \
        FAIL_IF(what);                                                                      \
        return REAL(name)(descriptor, data, what == SHORT && size > 1 ? size / 2 : size, offset); \
    }
PREAD(pread, off_t)
PREAD(pread64, off64_t)

/* Killed, a process has written half. */
#define WRITE(name, parameters, call)                     \
    ssize_t name parameters                               \
    {                                                     \
        int what = on_descriptor("write", descriptor);    \
        ssize_t result;                                   \
        FAIL_IF(what);                                    \
        if (what && size > 1)                             \
            size /= 2;                                    \
        result = REAL(name) call;                         \
        if (what == KILL)                                 \
            kill(getpid(), SIGKILL);                      \
        return result;                                    \
    }
WRITE(write, (int descriptor, const void *data, size_t size), (descriptor, data, size))
WRITE(pwrite, (int descriptor, const void *data, size_t size, off_t offset), (descriptor, data, size, offset))
WRITE(pwrite64, (int descriptor, const void *data, size_t size, off64_t offset), (descriptor, data, size, offset))
WRITE(copy_file_range,
      (int source, off64_t *from, int descriptor, off64_t *to, size_t size, unsigned int flags),
      (source, from, descriptor, to, size, flags))
WRITE(sendfile, (int descriptor, int source, off_t *from, size_t size), (descriptor, source, from, size))
WRITE(sendfile64, (int descriptor, int source, off64_t *from, size_t size), (descriptor, source, from, size))

int fsync(int descriptor)
{
    FAIL_IF(on_descriptor("fsync", descriptor));
    return log_descriptor < 0 ? REAL(fsync)(descriptor) : 0;
}

int fdatasync(int descriptor)
{
    FAIL_IF(on_descriptor("fsync", descriptor));
    return log_descriptor < 0 ? REAL(fdatasync)(descriptor) : 0;
}

/* --- everything else ---------------------------------------------------------------------- */

#define ON_DESCRIPTOR(name, call, parameters, arguments) \
    int name parameters                                  \
    {                                                    \
        FAIL_IF(on_descriptor(call, descriptor));        \
        return REAL(name) arguments;                     \
    }
ON_DESCRIPTOR(ftruncate, "grow", (int descriptor, off_t size), (descriptor, size))
ON_DESCRIPTOR(ftruncate64, "grow", (int descriptor, off64_t size), (descriptor, size))
ON_DESCRIPTOR(fchmod, "chmod", (int descriptor, mode_t mode), (descriptor, mode))
ON_DESCRIPTOR(fchown, "chown", (int descriptor, uid_t user, gid_t group), (descriptor, user, group))
ON_DESCRIPTOR(flock, "lock", (int descriptor, int how), (descriptor, how))
ON_DESCRIPTOR(fstat, "stat", (int descriptor, struct stat *state), (descriptor, state))
ON_DESCRIPTOR(fstat64, "stat", (int descriptor, struct stat64 *state), (descriptor, state))

#define FCNTL(name)                                                                             \
    int name(int descriptor, int what, ...)                                                     \
    {                                                                                           \
        va_list rest;                                                                           \
        va_start(rest, what);                                                                   \
        void *argument = va_arg(rest, void *);                                                  \
        va_end(rest);                                                                           \
        if (what == F_SETLK || what == F_SETLKW || what == F_OFD_SETLK || what == F_OFD_SETLKW) \
            FAIL_IF(on_descriptor("lock", descriptor));                                         \
        return REAL(name)(descriptor, what, argument);                                          \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

#define ON_PATH(name, call, at, parameters, arguments) \
    int name parameters                                \
    {                                                  \
        FAIL_IF(on_path(call, at, path));              \
        return REAL(name) arguments;                   \
    }
ON_PATH(stat, "stat", AT_FDCWD, (const char *path, struct stat *state), (path, state))
ON_PATH(stat64, "stat", AT_FDCWD, (const char *path, struct stat64 *state), (path, state))
ON_PATH(lstat, "stat", AT_FDCWD, (const char *path, struct stat *state), (path, state))
ON_PATH(lstat64, "stat", AT_FDCWD, (const char *path, struct stat64 *state), (path, state))
ON_PATH(fstatat, "stat", at, (int at, const char *path, struct stat *state, int flags), (at, path, state, flags))
ON_PATH(fstatat64, "stat", at, (int at, const char *path, struct stat64 *state, int flags), (at, path, state, flags))
ON_PATH(access, "stat", AT_FDCWD, (const char *path, int mode), (path, mode))
ON_PATH(mkdir, "mkdir", AT_FDCWD, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdirat, "mkdir", at, (int at, const char *path, mode_t mode), (at, path, mode))
ON_PATH(rmdir, "unlink", AT_FDCWD, (const char *path), (path))
ON_PATH(unlink, "unlink", AT_FDCWD, (const char *path), (path))
ON_PATH(unlinkat, "unlink", at, (int at, const char *path, int flags), (at, path, flags))
ON_PATH(truncate, "grow", AT_FDCWD, (const char *path, off_t size), (path, size))
ON_PATH(chmod, "chmod", AT_FDCWD, (const char *path, mode_t mode), (path, mode))
ON_PATH(fchmodat, "chmod", at, (int at, const char *path, mode_t mode, int flags), (at, path, mode, flags))
ON_PATH(chown, "chown", AT_FDCWD, (const char *path, uid_t user, gid_t group), (path, user, group))

#define ON_PATHS(name, call, at, second_at, parameters, arguments) \
    int name parameters                                            \
    {                                                              \
        FAIL_IF(on_paths(call, at, path, second_at, second));      \
        return REAL(name) arguments;                               \
    }
ON_PATHS(rename, "rename", AT_FDCWD, AT_FDCWD, (const char *path, const char *second), (path, second))
ON_PATHS(renameat, "rename", at, to, (int at, const char *path, int to, const char *second), (at, path, to, second))
ON_PATHS(renameat2, "rename", at, to, (int at, const char *path, int to, const char *second, unsigned int flags),
         (at, path, to, second, flags))
ON_PATHS(symlink, "link", AT_FDCWD, AT_FDCWD, (const char *path, const char *second), (path, second))

int linkat(int at, const char *path, int to, const char *second, int flags)
{
    FAIL_IF(on_paths("link", at, path, to, second));
    if (no_links && log_descriptor >= 0) {
        errno = EPERM;
        return -1;
    }
    return REAL(linkat)(at, path, to, second, flags);
}

int link(const char *path, const char *second)
{
    return linkat(AT_FDCWD, path, AT_FDCWD, second, 0);
}

ssize_t readlinkat(int at, const char *path, char *target, size_t size)
{
    FAIL_IF(on_path("stat", at, path));
    return REAL(readlinkat)(at, path, target, size);
}

ssize_t readlink(const char *path, char *target, size_t size)
{
    return readlinkat(AT_FDCWD, path, target, size);
}
