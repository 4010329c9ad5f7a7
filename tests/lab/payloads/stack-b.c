/* Stands on a. The name of a's function is a literal that others use too, or (STRINGS) in a section of its own.
   KEEP: it overrides no function of a's. */
#include "livepatch.h"

#ifdef STRINGS
static const char __attribute__((section(".livepatch.strings"))) livepatch_entry_names[] = "tell\0x86_emulate.c#who";
#define WHO (livepatch_entry_names + 5)
#else
#define WHO "x86_emulate.c#who"
#endif

extern const char *tell(char who); /* a's, LOCAL there */
extern int lp_level(void);         /* a's, GLOBAL there */

LOCAL char letter(void) /* a new function of b's */
{
    return 'b';
}

#ifndef KEEP
static char b_name[] = "b?";

LOCAL const char *who(void)
{
    b_name[1] = '0' + lp_level();
    return b_name;
}
#endif

const char *xen_extra_version(void)
{
    return lp_level() ? tell(letter()) : 0;
}

const char *xen_compiler(void)
{
    return WHO;
}

const char *xen_compile_date(void)
{
    return &WHO[14];
}

OVERRIDES = {
    ENTRY("xen_extra_version", xen_extra_version, 12),
    ENTRY("xen_compiler", xen_compiler, 12),
    ENTRY("xen_compile_date", xen_compile_date, 12),
#ifndef KEEP
    ENTRY(WHO, who, 8),
#endif
};
