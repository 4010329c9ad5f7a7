/* Asks the hypervisor for what xen-livepatch asks it for, step by step, in one process: under emulation each process
 * costs more than the hypercall that it makes. Reads its script from standard input, one step a line:
 *     job NAME                                the steps below are in the folder /jobs/NAME.d
 *     ask upload NAME FILE, or ask apply|replace|revert|unload NAME
 *     tidy COMMAND NAME, COMMAND NAME, ...    does that unasked; fails, and unloads it, if a payload is left then
 * Each prints the marker lines that boot.py reads. Usage: uploader [FIRST], the name of the job to begin with.
 * Structures and numbers: Xen's public headers, sysctl.h and xen.h; the ioctl: Linux's <xen/privcmd.h>.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HYPERVISOR_SYSCTL 35
#define SYSCTL_LIVEPATCH_OP 27
enum { UPLOAD, GET, LIST, ACTION };
enum { UNLOAD = 1, REVERT, APPLY, REPLACE };
static const char *const ACTIONS[] = { [UNLOAD] = "unload", [REVERT] = "revert", [APPLY] = "apply",
                                       [REPLACE] = "replace" };

struct hypercall {
    uint64_t number, arguments[5];
};
#define IOCTL_HYPERCALL _IOC(_IOC_NONE, 'P', 0, sizeof(struct hypercall))

struct name {
    uint64_t address;
    uint16_t size, pad[3]; /* with the NUL */
};

struct sysctl {
    uint32_t command, interface_version;
    uint32_t operation, flags;
    union {
        struct {
            struct name name;
            uint64_t size, address;
        } upload;
        struct {
            struct name name;
            uint32_t state;
            int32_t result;
        } get;
        struct {
            uint32_t version, number;
        } list; /* with no room for any, `number` comes back as how many there are */
        struct {
            struct name name;
            uint32_t command, timeout, flags, pad;
        } action;
        uint8_t size[112];
    };
};

enum { ROOM = 4 << 20 };
static struct {
    struct sysctl sysctl;
    char name[256];
    char payload[ROOM];
} *memory; /* the hypervisor reads and writes it while we wait, so it is locked */
static int privcmd;

static int call(uint32_t operation)
{
    static uint32_t interface = 1;
    struct hypercall hypercall = { HYPERVISOR_SYSCTL, { (uintptr_t)&memory->sysctl } };

    memory->sysctl.command = SYSCTL_LIVEPATCH_OP;
    memory->sysctl.operation = operation;
    /* A hypervisor takes its own version only, and says EACCES to all others before it looks at anything. */
    for (;;) {
        int result;

        memory->sysctl.interface_version = interface;
        result = ioctl(privcmd, IOCTL_HYPERCALL, &hypercall) < 0 ? errno : 0;
        if (result != EACCES || interface == 64)
            return result;
        interface++;
    }
}

static struct name named(const char *text)
{
    strncpy(memory->name, text, sizeof(memory->name) - 1);
    return (struct name){ .address = (uintptr_t)memory->name, .size = strlen(text) + 1 };
}

static void start(void)
{
    memset(&memory->sysctl, 0, sizeof(memory->sysctl));
}

static int upload(const char *name, const char *path)
{
    struct stat status;
    int file = open(path, O_RDONLY);

    if (file < 0 || fstat(file, &status) || status.st_size > ROOM ||
        read(file, memory->payload, status.st_size) != status.st_size) {
        perror(path);
        exit(2);
    }
    close(file);
    start();
    memory->sysctl.upload.name = named(name);
    memory->sysctl.upload.size = status.st_size;
    memory->sysctl.upload.address = (uintptr_t)memory->payload;
    return call(UPLOAD);
}

/* All but UNLOAD go on after the hypercall; what became of it is in the payload's state. */
static int act(uint32_t command, const char *name)
{
    int result;

    start();
    memory->sysctl.action.name = named(name);
    memory->sysctl.action.command = command;
    result = call(ACTION);
    if (result || command == UNLOAD)
        return result;
    for (;;) {
        start();
        memory->sysctl.get.name = named(name);
        result = call(GET);
        if (result || memory->sysctl.get.result != -EAGAIN)
            return result ? result : -memory->sysctl.get.result;
        usleep(1000);
    }
}

static int perform(const char *command, const char *name, const char *path)
{
    if (!strcmp(command, "upload"))
        return upload(name, path);
    for (uint32_t action = UNLOAD; action <= REPLACE; action++)
        if (!strcmp(command, ACTIONS[action]))
            return act(action, name);
    fprintf(stderr, "%s: no such command\n", command);
    exit(2);
}

static void perform_all(char *steps)
{
    char command[16], name[256];

    for (char *step = strtok(steps, ","); step; step = strtok(NULL, ","))
        if (sscanf(step, "%15s %255s", command, name) == 2)
            perform(command, name, NULL);
}

static int unload_what_is_left(void)
{
    int result;

    start();
    result = call(LIST);
    if (!result && !memory->sysctl.list.number)
        return 0;
    printf("%u payloads are left, error %d\n", memory->sysctl.list.number, result);
    return system("xen-livepatch list; unload-all >/dev/null") | 1;
}

static void enter(const char *job)
{
    char folder[300];

    snprintf(folder, sizeof(folder), "/jobs/%s.d", job);
    if (chdir(folder)) {
        perror(folder);
        exit(2);
    }
    printf("@@ job %s\n", job);
}

int main(int argc, char **argv)
{
    const char *first = argc > 1 ? argv[1] : NULL;
    char command[16], name[256], path[256];
    static char line[1 << 16];

    setvbuf(stdout, NULL, _IONBF, 0);
    privcmd = open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC);
    memory = mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED | MAP_POPULATE,
                  -1, 0);
    if (privcmd < 0 || memory == MAP_FAILED) {
        perror("/dev/xen/privcmd");
        return 2;
    }
    while (fgets(line, sizeof(line), stdin)) {
        int error = 0, tidy = !strncmp(line, "tidy ", 5), job = sscanf(line, "job %255s", name) == 1;

        if (job && first && !strcmp(first, name))
            first = NULL;
        if (job && !first)
            enter(name);
        if (job || first)
            continue;
        printf("@@ begin\n");
        if (tidy)
            perform_all(line + 5);
        else if (sscanf(line, "ask %15s %255s %255s", command, name, path) >= 2)
            error = perform(command, name, path);
        else {
            fprintf(stderr, "no step: %s", line);
            return 2;
        }
        printf("@@ output\n");
        if (tidy)
            error = unload_what_is_left();
        else if (error)
            printf("Error %d: %s\n", error, strerror(error));
        printf("@@ end %d\n", error ? 1 : 0);
    }
    return 0;
}
