/* Nothing but the model: its size is that of the firmware's part. */
#include "scene.h"

#define BUFFER __attribute__((section(".bss.buffers")))

static uint64_t arena[SCENE_ARENA_WORDS] BUFFER;
static float output[SCENE_CLASSES] BUFFER, input[SCENE_INPUTS] BUFFER;
#ifdef SCENE_STATE_FLOATS
static float state[SCENE_STATE_FLOATS] BUFFER;
#endif

int main(void)
{
    for (;;) {
#ifdef SCENE_STATE_FLOATS
        scene_step(input, state, output, arena);
#else
        scene_classify(input, output, arena);
#endif
        *(volatile float *)input = *(volatile float *)output;
    }
}
