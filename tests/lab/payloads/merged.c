/* LOWER: a symbol in a section of merged strings. Else: who uses it. */
#include "livepatch.h"

#ifdef LOWER
asm(".section .rodata.str1.1, \"aMS\", %progbits, 1\n"
    "merged: .asciz \"-merged\"\n"
    ".text\n");

const char *xen_compile_date(void)
{
    return "today";
}

OVERRIDE(xen_compile_date);
#else
extern const char merged[];

const char *xen_extra_version(void)
{
    return merged;
}

OVERRIDE(xen_extra_version);
#endif
