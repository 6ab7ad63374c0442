/* A C file in steps, with its memory, for WebAssembly. */
#include "scene.h"

static uint64_t arena[SCENE_ARENA_WORDS];
static float state[SCENE_STATE_FLOATS], samples[SCENE_STEP_SAMPLES], probabilities[SCENE_CLASSES];

#define EXPORTED(name) __attribute__((export_name(#name))) name

float *EXPORTED(state_at)(void)
{
    return state;
}

float *EXPORTED(samples_at)(void)
{
    return samples;
}

float *EXPORTED(probabilities_at)(void)
{
    return probabilities;
}

void EXPORTED(step)(void)
{
    scene_step(samples, state, probabilities, arena);
}
