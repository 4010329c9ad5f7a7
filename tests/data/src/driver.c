/* Stands in for Xen: defines what payloads use, calls every new function and load hook. */
#include <stdio.h>
#define FUNCS_VERSION 1 /* the part that both versions have */
#include "payload.h"
#pragma GCC visibility pop

extern char funcs_start[], funcs_end[];
extern void (*hooks_start[])(void), (*hooks_end[])(void);

int hv_print(const char *text, int number)
{
    printf("%s %d\n", text, number);
    return number & 0xff;
}

int hv_paused NAME("domain.c#hv_paused");

int hv_domain(int number) { return number + 1000; }

int main(void)
{
    for (void (**hook)(void) = hooks_start; hook < hooks_end; hook++)
        (*hook)();
    for (char *at = funcs_start; at < funcs_end;) {
        struct livepatch_func *func = (struct livepatch_func *)at;
        for (int x = 1; x < 4; x++)
            printf("%s(%d) = %d\n", func->name, x, ((int (*)(int))func->new_addr)(x));
        at += sizeof(*func) + (func->version == 2 ? 40 : 0);
    }
    return 0;
}
