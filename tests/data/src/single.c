/* A whole payload in one object: what `cc -c` writes is uploaded as it is. */
#include "notes.c"

NOTE(".note.gnu.build-id", 0xb1);

static int table[4] NAME("single.c#table") = {1, 2, 3, 4};
static int lookup(int) NAME("single.c#lookup");
static int single_old(int) NAME("single.c#single_old");

static NOIPA int lookup(int x) { return table[x & 3] + hv_print("lookup", ++table[0]); }

static NOIPA int single_old(int x) { return lookup(hv_domain(x)); }

int single_new(int x);
NOIPA int single_new(int x) { return lookup(x) * 2; }

int single_entry(int x);
NOIPA int single_entry(int x) { return single_new(x) + 1; }

static FUNCS struct livepatch_func livepatch_single[] = {
    FUNC("single.c#single_old", single_old),
    FUNC("single_entry", single_entry),
};
