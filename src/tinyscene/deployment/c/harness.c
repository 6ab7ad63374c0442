/* Takes inputs as float32 from one stream and writes outputs to another, clip by clip or step by step. */
#include <stdio.h>
#include <stdlib.h>

#include "scene.h"

#ifdef SCENE_STATE_FLOATS
static float state[SCENE_STATE_FLOATS];
#endif
static float input[SCENE_INPUTS], output[SCENE_CLASSES];

int main(void)
{
    /* Of the heap, so that the sanitizer sees its end. */
    uint64_t *const arena = malloc(SCENE_ARENA_WORDS * sizeof *arena);
    if (!arena) return 1;
    while (fread(input, sizeof *input, SCENE_INPUTS, stdin) == SCENE_INPUTS) {
#ifdef SCENE_STATE_FLOATS
        if (fread(state, sizeof *state, SCENE_STATE_FLOATS, stdin) != SCENE_STATE_FLOATS) return 1;
        scene_step(input, state, output, arena);
#else
        scene_classify(input, output, arena);
#endif
        fwrite(output, sizeof *output, SCENE_CLASSES, stdout);
#ifdef SCENE_STATE_FLOATS
        fwrite(state, sizeof *state, SCENE_STATE_FLOATS, stdout);
#endif
        fflush(stdout);
    }
    free(arena);
    return 0;
}
