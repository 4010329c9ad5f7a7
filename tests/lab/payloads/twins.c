/* FIRST, SECOND: two LOCAL symbols called twin, the first the signature of a section group. Else: who shows the one that
   Xen finds by that name. */
#include "livepatch.h"

#ifdef FIRST
asm(".section .rodata.twin, \"aG\", %progbits, twin, comdat\n"
    ".type twin, %object\n"
    "twin: .asciz \"-first\"\n"
    ".size twin, 7\n"
    ".text\n");

const char *xen_compile_date(void)
{
    return "today";
}

OVERRIDE(xen_compile_date);
#elif defined SECOND
static const char __attribute__((used)) twin[] = "-second";
#else
extern const char twin[];

const char *xen_extra_version(void)
{
    return twin;
}

OVERRIDE(xen_extra_version);
#endif
