# make -f scene.mk: the program `scene`, which names the scenes of PCM (SCENE_SAMPLE_RATE in scene.h).
CFLAGS = -std=c99 -O2 -fno-strict-aliasing -ffp-contract=off -Wall -Wextra -Wno-unused-parameter -Wno-unused-function -Werror

scene: scene.c scene_main.c scene.h
	$(CC) $(CFLAGS) scene.c scene_main.c -lm -o $@
