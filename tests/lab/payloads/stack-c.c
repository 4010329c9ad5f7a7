/* Stands on b: overrides a's function once more, calls a's and b's. */
#include "livepatch.h"

extern const char *tell(char who); /* a's */
extern char letter(void);          /* b's */

LOCAL char mark(void) /* a new function of c's */
{
    return letter();
}

#ifndef KEEP
static char c_name[] = "c?";

LOCAL const char *who(void)
{
    c_name[1] = mark();
    return c_name;
}
#endif

const char *xen_extra_version(void)
{
    return mark() ? tell('c') : 0;
}

OVERRIDES = {
    ENTRY("xen_extra_version", xen_extra_version, 12),
#ifndef KEEP
    ENTRY("x86_emulate.c#who", who, 8),
#endif
};
