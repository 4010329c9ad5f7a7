/* Stands on c: calls a's and c's functions, overrides a's and b's. */
#include "livepatch.h"

extern const char *tell(char who); /* a's */
extern char mark(void);            /* c's; it calls b's letter */

#ifndef KEEP
static char d_name[] = "d?";

LOCAL char letter(void)
{
    return 'D';
}

LOCAL const char *who(void)
{
    d_name[1] = mark();
    return d_name;
}
#endif

const char *xen_extra_version(void)
{
    return mark() ? tell('d') : 0;
}

OVERRIDES = {
    ENTRY("xen_extra_version", xen_extra_version, 12),
#ifndef KEEP
    ENTRY("x86_emulate.c#who", who, 8),
    ENTRY("x86_emulate.c#letter", letter, 6),
#endif
};
