/* Preloaded, it writes down what a process does to the files below $SKERRY_TEST_DISK, in order, so that every state that a power
   cut could have left can be made from it; and it fails calls and makes syncs slow.  Calls are counted in the file
   $SKERRY_TEST_FAULTS, which is shared and says which of them fail, how, and how many milliseconds a sync takes.  What is mapped is not seen: SQLite's -shm is rebuilt at each start.  64-bit Linux only. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { WRITE = 1, TRUNCATE, SYNC, UNLINK, RENAME, SYNC_FAILED };

struct control { int64_t count, from, to, error, sync_ms; };
struct head { uint32_t kind, path, data, reserved; int64_t offset; };

static struct control *control;
static const char *disk;
static size_t disk_length;
static int trace = -1;

__attribute__((constructor)) static void begin(void)
{
    const char *faults = getenv("SKERRY_TEST_FAULTS"), *to = getenv("SKERRY_TEST_TRACE");
    disk = getenv("SKERRY_TEST_DISK");
    if (!disk || !faults || !to)
        return;
    disk_length = strlen(disk);
    int file = open(faults, O_RDWR | O_CLOEXEC);
    void *found = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (found != MAP_FAILED)
        control = found;
    trace = open(to, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static int is_ours(const char *path)
{
    size_t length = strlen(path);
    if (!control || trace < 0 || strncmp(path, disk, disk_length) || (path[disk_length] && path[disk_length] != '/'))
        return 0;
    return length < 4 || (strcmp(path + length - 4, "-shm") && strcmp(path + length - 4, "lock"));
}

/* The file behind a descriptor, if it is one of ours. */
static int of(int file, char path[PATH_MAX])
{
    char name[64];
    if (!control || file == trace)
        return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = readlink(name, path, PATH_MAX - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return is_ours(path);
}

static int fails(void)
{
    int64_t number = __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST);
    if (number < control->from || number >= control->to)
        return 0;
    errno = (int)control->error;
    return 1;
}

static void note(uint32_t kind, const char *path, int64_t offset, const void *data, size_t size)
{
    struct head head = {kind, (uint32_t)strlen(path), (uint32_t)size, 0, offset};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)path, head.path}, {(void *)data, size}};
    int kept = errno;
    if (syscall(SYS_writev, trace, parts, 3) < 0)
        abort();
    errno = kept;
}

ssize_t pwrite64(int file, const void *data, size_t size, off_t offset)
{
    char path[PATH_MAX];
    if (!of(file, path))
        return syscall(SYS_pwrite64, file, data, size, offset);
    if (fails())
        return -1;
    ssize_t done = syscall(SYS_pwrite64, file, data, size, offset);
    if (done > 0)
        note(WRITE, path, offset, data, (size_t)done);
    return done;
}

ssize_t pwrite(int file, const void *data, size_t size, off_t offset) { return pwrite64(file, data, size, offset); }

ssize_t write(int file, const void *data, size_t size)
{
    char path[PATH_MAX];
    if (!of(file, path))
        return syscall(SYS_write, file, data, size);
    if (fails())
        return -1;
    ssize_t done = syscall(SYS_write, file, data, size);
    if (done > 0)
        note(WRITE, path, syscall(SYS_lseek, file, 0, SEEK_CUR) - done, data, (size_t)done);
    return done;
}

int ftruncate64(int file, off_t size)
{
    char path[PATH_MAX];
    if (!of(file, path))
        return (int)syscall(SYS_ftruncate, file, size);
    if (fails())
        return -1;
    int result = (int)syscall(SYS_ftruncate, file, size);
    if (!result)
        note(TRUNCATE, path, size, NULL, 0);
    return result;
}

int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

static int sync_with(long number, int file)
{
    char path[PATH_MAX];
    if (!of(file, path))
        return (int)syscall(number, file);
    if (fails()) {
        note(SYNC_FAILED, path, 0, NULL, 0);
        return -1;
    }
    /* not handed on: a real disk would only make the test slow */
    if (control->sync_ms) {
        struct timespec wait = {control->sync_ms / 1000, control->sync_ms % 1000 * 1000000};
        nanosleep(&wait, NULL);
    }
    note(SYNC, path, 0, NULL, 0);
    return 0;
}

int fsync(int file) { return sync_with(SYS_fsync, file); }
int fdatasync(int file) { return sync_with(SYS_fdatasync, file); }

int unlink(const char *path)
{
    int ours = is_ours(path);
    if (ours && fails())
        return -1;
    int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (ours && !result)
        note(UNLINK, path, 0, NULL, 0);
    return result;
}

int rename(const char *from, const char *to)
{
    int ours = is_ours(from);
    if (ours && fails())
        return -1;
    int result = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (ours && !result)
        note(RENAME, from, 0, to, strlen(to));
    return result;
}
