/* Writes to standard output what the host has put into this machine's inbox: the memory of QEMU's device ivshmem-plain,
 * which is a file there. It begins with the number of bytes that follow, in 64 bits. Usage: inbox FILE (the device's
 * memory in sysfs).
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

int main(int argc, char **argv)
{
    struct stat status;
    const volatile uint32_t *inbox; /* on Arm, memory of a device can only be read word by word */
    uint64_t left;
    int file = argc == 2 ? open(argv[1], O_RDWR) : -1;

    if (file < 0 || fstat(file, &status))
        return 2;
    inbox = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (inbox == MAP_FAILED) {
        perror(argv[1]);
        return 2;
    }
    left = inbox[0] | (uint64_t)inbox[1] << 32;
    inbox += 2;
    while (left) {
        static uint32_t words[1 << 14];
        size_t size = left < sizeof(words) ? left : sizeof(words);

        for (size_t word = 0; word * sizeof(*words) < size; word++)
            words[word] = *inbox++;
        if (fwrite(words, 1, size, stdout) != size)
            return 1;
        left -= size;
    }
    return fflush(stdout) ? 1 : 0;
}
