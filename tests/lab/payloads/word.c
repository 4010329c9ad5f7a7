/* WORD: a symbol lp_word. Else: who shows the one that Xen finds by that name. */
#include "livepatch.h"

#ifdef WORD
const char lp_word[] = WORD;

const char *xen_compile_date(void)
{
    return lp_word;
}

OVERRIDE(xen_compile_date);
#else
extern const char lp_word[];

const char *xen_extra_version(void)
{
    return lp_word;
}

OVERRIDE(xen_extra_version);
#endif
