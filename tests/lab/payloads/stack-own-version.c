/* New functions with the names of two of Xen's: Xen takes them only when they are renamed. */
#include "livepatch.h"

/* A section of their own makes 32-bit Arm call them by their address, whatever the distance. */
#define APART __attribute__((noipa, section(".text.apart")))

APART int xen_major_version(void)
{
    return 9;
}

APART int xen_minor_version(void)
{
    return 9;
}

static char text[] = "-own ?.?";

const char *xen_extra_version(void)
{
    text[5] = '0' + xen_major_version();
    text[7] = '0' + xen_minor_version();
    return text;
}

OVERRIDES = {
    ENTRY("xen_extra_version", xen_extra_version, 12),
};
