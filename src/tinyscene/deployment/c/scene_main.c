/* Names the scenes of 16-bit PCM, mono, at SCENE_SAMPLE_RATE, from the standard input: one line a clip, or a step.
   Where the front end is outside, of float32 features. */
#include <stdio.h>

#include "scene.h"

static uint64_t arena[SCENE_ARENA_WORDS];
static float input[SCENE_INPUTS], output[SCENE_CLASSES];
#ifdef SCENE_STATE_FLOATS
static float state[SCENE_STATE_FLOATS];
#endif

static int next_input(void)
{
#ifdef SCENE_TAKES_SAMPLES
    for (int i = 0; i < SCENE_INPUTS; ++i) {
        const int low = getchar(), high = getchar();
        const int value = high * 256 + low;
        if (high == EOF) return 0;
        input[i] = (float)(value < 32768 ? value : value - 65536) / 32768;
    }
    return 1;
#else
    return fread(input, sizeof *input, SCENE_INPUTS, stdin) == SCENE_INPUTS;
#endif
}

int main(void)
{
    int named = 0;
    while (next_input()) {
        int best = 0;
        named = 1;
#ifdef SCENE_STATE_FLOATS
        scene_step(input, state, output, arena);
#else
        scene_classify(input, output, arena);
#endif
        for (int i = 1; i < SCENE_CLASSES; ++i)
            if (output[i] > output[best]) best = i;
        printf("%-20s", scene_labels[best]);
        for (int i = 0; i < SCENE_CLASSES; ++i) printf(" %s %.3f", scene_labels[i], (double)output[i]);
        putchar('\n');
        fflush(stdout);
    }
    if (!named) fprintf(stderr, "fewer than %d values in; accepted: at least so many, for one decision\n", SCENE_INPUTS);
    return !named;
}
