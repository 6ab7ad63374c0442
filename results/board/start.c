/* What runs before `main`: vectors, memory, the floating point unit; and a clock. */
#include <stdint.h>

extern uint32_t data_start[], data_end[], data_stored[], bss_start[], bss_end[], stack_top[];
extern int main(void);
extern void _exit(int status);
extern void initialise_monitor_handles(void);

volatile uint32_t wraps;

void reset(void)
{
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the floating point unit, where there is one */
    __asm volatile("dsb\n isb");
    for (uint32_t *to = data_start, *from = data_stored; to < data_end;) *to++ = *from++;
    for (uint32_t *to = bss_start; to < bss_end;) *to++ = 0;
    initialise_monitor_handles();
    _exit(main());
}

static void fault(void)
{
    _exit(3);
}

static void tick(void)
{
    ++wraps;
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, (void *)reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault, 0, 0, 0, 0,
    (void *)fault, (void *)fault, 0, (void *)fault, (void *)tick,
};
