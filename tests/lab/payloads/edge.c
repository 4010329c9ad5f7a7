/* A label at the end of one section, an empty section that is aligned, then the replacement: whether label and
   replacement have one address depends on whether Xen places the empty section. */
#include "livepatch.h"

asm(".section .text.a_first, \"ax\", %progbits\n"
    ".balign 16\n"
    "edge_first: .zero 16\n"
    "edge_end:\n"
    ".section .text.b_empty, \"ax\", %progbits\n"
    ".balign 64\n"
    "edge_empty:\n"
    ".section .text.c_replacement, \"ax\", %progbits\n"
    ".balign 16\n"
    ".text\n");

__attribute__((section(".text.c_replacement"), aligned(16))) const char *xen_extra_version(void)
{
    return VERSION;
}

OVERRIDE(xen_extra_version);
