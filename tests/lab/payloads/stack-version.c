/* Stands on stack-own-version.c: calls xen_major_version and overrides xen_minor_version, its own or Xen's. */
#include "livepatch.h"

extern int xen_major_version(void);

static char text[] = "?";

LOCAL int minor_version(void)
{
    return 7;
}

const char *xen_changeset(void)
{
    text[0] = '0' + xen_major_version();
    return text;
}

OVERRIDES = {
    ENTRY("xen_changeset", xen_changeset, 12),
    ENTRY("xen_minor_version", minor_version, 10),
};
